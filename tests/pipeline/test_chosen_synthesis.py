"""`strength: auto` and `guidance_scale: auto`: what is chosen, from what, and who follows it."""

import numpy as np
import pytest

from d4m.stages.chosen_settings import describe_choice, with_choice
from d4m.stages.compared_sets import training_set_inputs
from d4m.stages.synthesis_choice import SynthesisChoice, candidate_rows
from tests.cli.commands import call
from tests.pipeline.laboratory import CLASSES, RECIPES, recipe_text

OPEN = RECIPES["left_open"]
PAIRS = [(0.5, 1.0), (0.5, 4.0), (1.0, 1.0), (1.0, 4.0)]


@pytest.fixture(scope="module")
def context(lab):
    return lab.context("left_open")


@pytest.fixture(scope="module")
def chosen(context):
    read = context.read("synthesis_choice", "choice")
    return {name: float(value) for name, value in read.items()}


def test_the_lightest_of_the_best_pairs_is_chosen_and_nothing_else_is_stored(context, chosen):
    rows = candidate_rows(context)
    assert sorted((row["strength"], row["guidance_scale"]) for row in rows) == PAIRS
    assert len({row["errors"] for row in rows}) == 4
    names = [name for name in context.upstream["synthesis_choice"] if name != "choice"]
    errors = np.array([context.read("synthesis_choice", name)["errors"] for name in names])
    apart = errors - errors[errors.mean(axis=1).argmin()]
    good = apart.mean(axis=1) <= apart.std(axis=1, ddof=1) / np.sqrt(errors.shape[1])
    assert errors.shape == (4, 284)  # a fifth of each class of the 1,437 training images
    first = min(pair for pair, is_good in zip(PAIRS, good, strict=True) if is_good)
    assert chosen == {"strength": first[0], "guidance_scale": first[1]}


def test_a_recipe_that_names_the_chosen_numbers_has_the_same_prototypes_and_images(
    lab, context, chosen
):
    named = {k: v for k, v in OPEN.items() if not k.startswith("synthesis")}
    named |= {f"synthesis.{key}": value for key, value in chosen.items()}
    other = lab.edited("named", named, until="synthetic_images")
    assert other.upstream["synthesis_choice"] == {}
    for artifact in ("prototypes", "synthetic_images"):
        for name in CLASSES:
            assert context.digest(artifact, name) == other.digest(artifact, name)
            assert context.upstream[artifact][name] != other.upstream[artifact][name]  # the keys


def test_other_candidates_with_the_same_choice_compute_nothing_after_it(lab, context, chosen):
    only = {"strengths": [chosen["strength"]], "guidance_scales": [1, 4]}
    fewer = lab.edited("fewer", OPEN | {"synthesis.choose_from": only}, until="synthetic_images")
    assert len(fewer.upstream["synthesis_choice"]) == 3
    for artifact in ("prototypes", "synthetic_images"):
        assert fewer.upstream[artifact] == context.upstream[artifact]


def test_whoever_draws_reads_the_choice_and_no_candidate_sees_a_test_image(context):
    choice = ("synthesis_choice", "choice")
    units = {unit.name: unit for unit in SynthesisChoice().plan(context)}
    read = {name for unit in units.values() for name in unit.inputs["upstream"]}
    assert not any(name.startswith("real_images/test-") for name in read)
    assert "real_images/train-00003" in read
    assert choice in training_set_inputs(context, "from_noise").reads
    drawn = {"strength": "auto", "guidance_scale": 4.0, "scheduler": "ddim"}
    assert with_choice(context, drawn)["strength"] in (0.5, 1.0)
    assert with_choice(context, drawn)["guidance_scale"] == 4.0


def test_validation_images_are_predicted_where_there_are_some(lab):
    lab.write("with_validation", recipe_text(OPEN | {"dataset.validation_share": 0.1}))
    context = lab.pipeline("with_validation").open_context()
    for artifact, names in {
        "real_images": [f"{s}-{c:05d}" for s in ("train", "validation") for c in range(10)],
        "generator": ["vae", "denoiser", "scheduler"],
        "latents": CLASSES,
    }.items():
        context = context.seeing(artifact, dict.fromkeys(names))
    first = SynthesisChoice().plan(context)[0]
    assert first.settings["held_out"] == "validation"
    assert "real_images/validation-00009" in first.inputs["upstream"]


def test_the_choice_is_shown_by_every_command_and_on_the_card(lab, context, chosen):
    text = (
        f"synthesis: strength {chosen['strength']:g}, guidance scale "
        f"{chosen['guidance_scale']:g}, chosen from 4 pairs"
    )
    assert describe_choice(context) == text
    assert text in call(lab, "status", "left_open")
    assert text in call(lab, "show", "left_open")
    folder = context.open_files("distilled_dataset", "distilled_dataset")
    assert f"S{text[1:]}." in (folder / "README.md").read_text(encoding="utf-8")
