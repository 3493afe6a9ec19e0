"""Images that are refined are the images that come out."""

from contextlib import closing

import numpy as np
import torch

from d4m.images.pixels import to_images
from d4m.pipeline import STAGES
from d4m.stages.prototype_drawing import drawing
from d4m.stages.prototypes import Prototypes
from d4m.stages.run import computed_units
from tests.pipeline.laboratory import CLASSES, RECIPES, recipe_text, unit_of

STAGE_NAMES = [stage.name for stage in STAGES]


def _prototypes(context):
    return np.concatenate([context.read("prototypes", name)["prototypes"] for name in CLASSES])


def test_the_refinement_sees_the_images_that_synthesis_makes(lab):
    context = lab.context("classes")
    settings = context.recipe.settings.prototypes
    class_ids = np.repeat(context.class_ids, settings.ipc)
    used = Prototypes().plan(context)[0].settings
    draw = drawing(context, settings.refined, used, class_ids)
    latents = torch.from_numpy(_prototypes(context).astype(np.float32)).requires_grad_()
    pixels = draw(latents, np.arange(len(latents)))
    made = np.concatenate([context.read("synthetic_images", name)["images"] for name in CLASSES])
    wrong = np.abs(to_images(pixels.detach()).astype(int) - made)
    assert wrong.max() <= 1  # batches of other sizes
    assert (wrong > 0).mean() < 0.01
    pixels.square().sum().backward()
    assert torch.isfinite(latents.grad).all()
    assert (latents.grad.flatten(1).abs().sum(1) > 0).all()


def test_prototypes_depend_on_the_diffusion_that_they_are_refined_through(lab):
    reads = set(unit_of(lab.context("classes"), CLASSES[0], "prototypes").inputs["upstream"])
    assert {"generator/vae", "generator/denoiser", "generator/scheduler"} <= reads
    assert not any(each.startswith("teacher/") for each in reads)
    lab.write(
        "bold_and_refined",
        recipe_text(RECIPES["classes"] | {"prompts.per_class": {"three": "bold"}}),
    )
    plan = lab.pipeline("bold_and_refined").plan()
    assert {unit.state for unit in plan["prototypes"]} == {"compute"}
    assert {unit.state for unit in plan["latents"]} == {"cached"}


def test_without_the_diffusion_prototypes_depend_on_the_decoder_alone(lab):
    decoded = RECIPES["classes"] | {"prototypes.refinement": {"steps": 3, "through": "vae"}}
    context = lab.edited("decoded", decoded, until="prototypes")
    reads = set(unit_of(context, CLASSES[0], "prototypes").inputs["upstream"])
    assert {each for each in reads if each.startswith("generator/")} == {"generator/vae"}
    lab.write("bold_and_refined", recipe_text(decoded | {"prompts.per_class": {"three": "bold"}}))
    assert {unit.state for unit in lab.pipeline("bold_and_refined").plan()["prototypes"]} == {
        "cached"
    }


def test_prototypes_that_are_refined_towards_a_teacher_depend_on_the_views_that_it_labels(lab):
    changes = {
        "prototypes.representative": "explaining",
        "prototypes.refinement": {"steps": 2, "labels": "both", "through": "vae"},
    }
    context = lab.edited("taught", changes, until="prototypes")
    found = unit_of(context, CLASSES[0], "prototypes").inputs
    assert "teacher/teacher" in found["upstream"]
    assert found["settings"]["labelled_views"] == (
        context.recipe.settings.soft_labels.augmentation.used()
    )
    lab.write("brighter", recipe_text(changes | {"soft_labels.augmentation": {"brightness": 0.4}}))
    assert {unit.state for unit in lab.pipeline("brighter").plan()["prototypes"]} == {"compute"}
    ridge = changes["prototypes.refinement"] | {"regression": "ridge"}
    changes |= {"prototypes.refinement": ridge}
    context = lab.edited("ridge", changes, until="prototypes")
    lab.write("brighter", recipe_text(changes | {"soft_labels.augmentation": {"brightness": 0.4}}))
    assert {unit.state for unit in lab.pipeline("brighter").plan()["prototypes"]} == {"cached"}


def test_a_refinement_stopped_between_its_units_is_not_made_again(lab, monkeypatch, caplog):
    lab.context("classes")
    lab.write("stopped", recipe_text(RECIPES["classes"] | {"prototypes.refinement": {"steps": 4}}))
    for name in sorted(Prototypes.upstream, key=STAGE_NAMES.index):
        lab.pipeline("stopped").run_stage(name)
    monkeypatch.setenv("D4M_CHECKPOINT_SECONDS", "0")
    context, stage = lab.pipeline("stopped").open_context(), Prototypes()
    with closing(computed_units(stage, context, stage.plan(context))) as made:
        published = {next(made).name for _ in range(4)}
    caplog.set_level("INFO", "d4m")
    report = lab.pipeline("stopped").run_stage("prototypes")
    assert set(report.computed) == {*CLASSES} - published
    assert "goes on from its checkpoint at step 4" in caplog.text
    monkeypatch.delenv("D4M_CHECKPOINT_SECONDS")
    again = {unit.name: arrays for unit, arrays in stage.compute(context, stage.plan(context))}
    for name in CLASSES:
        stored = report.context.read("prototypes", name)["prototypes"]
        assert np.array_equal(stored, again[name]["prototypes"])
