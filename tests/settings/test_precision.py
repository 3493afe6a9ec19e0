"""One line of a recipe that says in which number format its networks compute."""

import pytest

from d4m.recipe.image_defaults import settle
from d4m.recipe.image_facts import ImageFacts
from d4m.settings import RecipeSettings, Section
from d4m.settings.parts import PARTS, read_part

DIGITS = {"dataset": {"source": "digits"}}
FACTS = ImageFacts(size_px=28, view_px=28, channels=1, classes=10, images=60_000)
NAMED = {  # every section that may hold a network's precision, without naming one
    "teacher": {"others": [{"name": "second", "optimizer": {"name": "sgd"}}]},
    "prototypes": {"refinement": {"steps": 10}},
    "evaluation": {
        "hard": {"optimizer": {"name": "adam"}},
        "full_data": {"optimizer": {"name": "adamw"}},
    },
}


def precisions(value, path=""):
    """Return path -> value of every `precision` in these settings."""
    if isinstance(value, tuple):
        pairs = [(f"{path}[{place}]", each) for place, each in enumerate(value)]
    elif isinstance(value, Section):
        pairs = [(f"{path}.{name}".lstrip("."), each) for name, each in value]
    else:
        return {path: value} if path.endswith(".precision") else {}
    return {key: found for name, each in pairs for key, found in precisions(each, name).items()}


@pytest.mark.parametrize("named", [{}, NAMED])
@pytest.mark.parametrize("settled", [False, True])
def test_every_network_that_is_trained_here_has_it(named, settled):
    settings = RecipeSettings.model_validate({**DIGITS, **named, "precision": "bfloat16"})
    if settled:
        settings = settle(settings, FACTS)
    found = precisions(settings)
    assert set(found.values()) == {"bfloat16"}
    assert {
        "generator.compact.autoencoder.precision",
        "teacher.optimizer.precision",
        "evaluation.optimizer.precision",
    } <= set(found)
    if named:
        assert {
            "teacher.others[0].optimizer.precision",
            "prototypes.refinement.precision",
            "evaluation.hard.optimizer.precision",
            "evaluation.full_data.optimizer.precision",
        } <= set(found)


def test_a_network_that_names_its_own_keeps_it():
    own = {"teacher": {"optimizer": {"precision": "float32"}}, "precision": "bfloat16"}
    found = precisions(RecipeSettings.model_validate({**DIGITS, **own}))
    assert found.pop("teacher.optimizer.precision") == "float32"
    assert set(found.values()) == {"bfloat16"}


def test_weights_of_a_pretrained_generator_have_their_own():
    generator = {"pretrained": {"model": "owner/name"}}
    settings = RecipeSettings.model_validate(
        {**DIGITS, "generator": generator, "precision": "bfloat16"}
    )
    assert settings.generator.pretrained.precision == "auto"


def test_it_closes_no_group_and_changes_nothing_else():
    def settled(**own):
        return settle(RecipeSettings.model_validate({**DIGITS, **own}), FACTS)

    def without(value):
        if isinstance(value, dict):
            return {key: without(each) for key, each in value.items() if key != "precision"}
        return [without(each) for each in value] if isinstance(value, list) else value

    half, plain = settled(precision="bfloat16"), settled()
    assert half != plain
    assert without(half.model_dump(mode="json")) == without(plain.model_dump(mode="json"))
    autoencoder = {"autoencoder": {"precision": "bfloat16"}}
    assert (
        settled(generator={"compact": autoencoder}).generator.compact.autoencoder
        == half.generator.compact.autoencoder
    )


def test_a_recipe_without_it_is_dumped_as_before():
    dump = RecipeSettings.model_validate(DIGITS).model_dump(mode="json")
    assert "precision" not in dump
    assert "precision" not in dump["generator"]["compact"]["autoencoder"]


def test_a_dump_is_read_as_it_was_written():
    settings = settle(
        RecipeSettings.model_validate({**DIGITS, **NAMED, "precision": "bfloat16"}), FACTS
    )
    assert RecipeSettings.from_dump(settings.model_dump(mode="json")) == settings


def test_the_graph_unsyncs_what_it_changes_and_nothing_else():
    plain, half = (
        RecipeSettings.model_validate({**DIGITS, "precision": precision})
        for precision in ("float32", "bfloat16")
    )
    changed = {part for part in PARTS if read_part(plain, part) != read_part(half, part)}
    assert changed == {
        *("generator", "teacher", "evaluation", "refinement", "labelling", "students", "whole")
    }
