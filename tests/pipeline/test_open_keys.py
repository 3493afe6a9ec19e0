"""Keys that a recipe leaves open: units hold their settled values, and `status` prints them."""

from d4m.reports.preflight.check import check_recipe
from d4m.settings.parts import read_part
from d4m.stages.generator import Generator
from d4m.stages.teacher import Teacher
from d4m_assets.sections import settled_metadata
from tests.cli.commands import call
from tests.conftest import Workspace

THREE_LINES = """\
dataset: {source: image_folder, path: ../images, size_px: 32, test_share: 0.3}
prototypes: {ipc: 1}
"""


def _settings(workspace: Workspace, text: str):
    """The settings in the units of a recipe's teacher and autoencoder."""
    workspace.write("mine", text)
    stages = {stage.name: stage for stage in (Generator(), Teacher())}
    ahead = workspace.pipeline("mine").look_ahead()
    units = {name: ahead.planned[name].units[0] for name in stages}
    return units["teacher"].settings, units["generator"].settings


def _draw(workspace: Workspace) -> None:
    for name in ("ant", "bee"):
        for number in range(4):
            workspace.draw(name, str(number))


def test_units_hold_what_suits_their_images(workspace: Workspace):
    _draw(workspace)
    teacher, autoencoder = _settings(workspace, THREE_LINES)
    assert (teacher["epochs"], teacher["optimizer"]["name"]) == (40, "muon")
    assert autoencoder["steps"] == 400  # the fewest: there are eight images
    larger, own = _settings(workspace, THREE_LINES.replace("size_px: 32", "size_px: 64"))
    assert larger["architecture"] == "convnet4"
    assert len(own["channels"]) == len(autoencoder["channels"]) + 1


def test_a_named_value_is_in_the_units_as_it_stands(workspace: Workspace):
    _draw(workspace)
    text = f"{THREE_LINES}teacher: {{epochs: 3, optimizer: {{name: sgd}}}}\n"
    teacher, autoencoder = _settings(workspace, text)
    assert (teacher["epochs"], teacher["optimizer"]["name"]) == (3, "sgd")
    assert autoencoder == _settings(workspace, THREE_LINES)[1]


def test_status_prints_settled_values_before_anything_is_computed(workspace: Workspace):
    _draw(workspace)
    workspace.write("mine", THREE_LINES)
    [line] = [each for each in call(workspace, "status", "mine") if each.startswith("defaults")]
    assert "prototypes.refinement.labels: both" in line
    assert "synthesis.strength: 0.05" in line
    assert not workspace.store.exists()
    tiny = call(workspace, "status", "tiny")  # which names a key of every group
    assert not any(each.startswith("defaults") for each in tiny)


def test_pages_of_sections_show_settled_values(workspace: Workspace):
    _draw(workspace)
    workspace.write("mine", THREE_LINES)
    context = workspace.pipeline("mine").open_context()
    both = context.stated.settings, context.recipe.settings
    shown = settled_metadata(*both, "synthesis")["defaults for these images"].value
    assert shown["synthesis.strength"] == 0.05
    assert {key.partition(".")[0] for key in shown} == {"synthesis"}
    assert settled_metadata(*both, "dataset") == settled_metadata(*both, "whole") == {}


def test_a_recipe_without_its_images_has_plain_defaults(workspace: Workspace):
    workspace.write("mine", THREE_LINES)
    context = workspace.pipeline("mine").open_context()
    assert context.recipe == context.stated
    _draw(workspace)
    context = workspace.pipeline("mine").open_context()
    assert context.recipe.settings.prototypes.refinement is not None
    assert check_recipe(context) == []


def test_prompts_and_labels_reach_prototypes_that_are_refined_by_default(workspace: Workspace):
    """Dagster sees it: the parts that `prototypes` reads are those that its units depend on."""
    _draw(workspace)
    workspace.write("mine", THREE_LINES)
    stated = workspace.pipeline("mine").recipe.settings
    read = read_part(stated, "refinement")
    assert isinstance(read, dict)
    assert read["labels"] == ["soft", "hard"]
    assert read["prompts"] == stated.prompts.model_dump(mode="json")
