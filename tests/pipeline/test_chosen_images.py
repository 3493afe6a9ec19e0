"""Images that are chosen: prototypes that explain the teacher, the best of several candidates."""

import itertools

import numpy as np
import pytest
import torch

from d4m.classifiers.predict import penultimate_features
from d4m.images.image_set import ImageSet
from d4m.images.pixels import to_pixels
from d4m.prototypes.clusters import fit_prototypes
from d4m.prototypes.kernel_choice import choose_images
from d4m.seeds import stream_seed
from d4m.settings import AugmentationSettings
from d4m.stages.generator import load_pipeline
from d4m.stages.prototypes import Prototypes, _draw_members, _fit
from d4m.stages.refined_prototypes import some_real
from d4m.stages.teacher import load_teacher
from d4m.stages.training_sets import real_set
from d4m.synthesis.group_selection import measure_moments, select_group
from d4m.synthesis.samplers import use_scheduler
from d4m.synthesis.synthesize import ImageRequest, synthesize_images
from tests.pipeline.laboratory import (
    CLASSES,
    RECIPES,
    TEACHER,
    TRAIN,
    recipe_text,
    teacher_of,
    unit_of,
)

NOTHING = np.zeros(0, np.int64)


def test_prototypes_that_explain_the_teacher_depend_on_it_and_on_every_class(lab):
    context = lab.context("explaining")
    latents = [f"latents/{name}" for name in CLASSES]
    for name in CLASSES:
        upstream = unit_of(context, name, "prototypes").inputs["upstream"]
        assert sorted(upstream) == sorted(latents + TRAIN + TEACHER)


def test_prototypes_that_explain_classes_ask_no_teacher(lab):
    settings = {"prototypes.representative": "explaining", "prototypes.explained": "class"}
    context = lab.edited("by_class", settings, until="prototypes")
    latents = [f"latents/{name}" for name in CLASSES]
    for name in CLASSES:
        upstream = unit_of(context, name, "prototypes").inputs["upstream"]
        assert sorted(upstream) == sorted(latents + TRAIN)


def test_each_cluster_is_represented_by_one_of_its_real_latents(lab):
    tiny, context = lab.context("tiny"), lab.context("explaining")
    medoids = list[bool]()
    for class_id, name in enumerate(CLASSES):
        latents = context.read("latents", name)["latents"]
        found, means = context.read("prototypes", name), tiny.read("prototypes", name)
        seed = stream_seed(0, "prototypes", class_id)
        fitted = fit_prototypes(latents, tiny.recipe.settings.prototypes, seed=seed)
        assert fitted.clusters[found["nearest_images"]].tolist() == [0, 1, 2]
        assert np.array_equal(found["prototypes"], latents[found["nearest_images"]])
        assert np.array_equal(found["cluster_shares"], means["cluster_shares"])
        assert found["inertia"] > means["inertia"]
        medoids += list(found["nearest_images"] == means["nearest_images"])
    assert np.mean(medoids) < 0.5


def test_refined_prototypes_are_moved_and_depend_on_the_vae_beside(lab):
    plain, context = lab.context("explaining"), lab.context("refined")
    for name in CLASSES:
        before, after = (each.read("prototypes", name) for each in (plain, context))
        moved = np.abs(after["prototypes"] - before["prototypes"].astype(np.float32))
        assert 0 < moved.mean() < moved.max() < 1
        for array in ("nearest_images", "cluster_shares", "inertia"):
            assert np.array_equal(after[array], before[array])
        reads, more = (
            set(unit_of(each, name, "prototypes").inputs["upstream"]) for each in (plain, context)
        )
        assert more - reads == {"generator/vae"}


@pytest.mark.parametrize("recipe", ["explaining", "refined"])
def test_a_prompt_does_not_reach_prototypes_that_explain_the_teacher(lab, recipe):
    lab.computed(recipe)
    lab.write("bolder", recipe_text(RECIPES[recipe] | {"prompts.per_class": {"three": "bold"}}))
    plan = lab.pipeline("bolder").plan()
    assert {unit.state for unit in plan["prototypes"]} == {"cached"}
    computed = [unit.name for unit in plan["synthetic_images"] if unit.state == "compute"]
    assert computed == ["class-00003"]


def test_more_prototypes_than_one_regression_can_hold_are_chosen_by_groups_of_classes(
    lab, monkeypatch
):
    """Classes 0 to 4 are chosen as if there were no others, and so are classes 5 to 9."""
    monkeypatch.setattr("d4m.prototypes.class_groups.MOST_TOGETHER", 15)
    recipe = RECIPES["explaining"] | {"prototypes.starts": 2}
    context = lab.edited("many", recipe, until="prototypes")
    found = [context.read("prototypes", name)["nearest_images"] for name in CLASSES]
    unit, root = Prototypes().plan(context)[0], context.seed
    fitted = [_fit(context, context.recipe.settings.prototypes, own, root) for own in range(10)]
    for classes in (range(5), range(5, 10)):
        members = [_draw_members(root, class_id, fitted[class_id]) for class_id in classes]
        rows = {own: np.concatenate(each) for own, each in zip(classes, members, strict=True)}
        images = real_set(
            context, "train", size_px=8, choose=lambda own, rows=rows: rows.get(own, NOTHING)
        )
        real = some_real(context, 4000, size_px=8)
        kept = torch.isin(real.class_ids, torch.tensor(list(classes)))
        ends = np.cumsum([0, *(len(group) for each in members for group in each)])
        chosen = choose_images(
            images,
            [np.arange(*pair) for pair in itertools.pairwise(ends)],
            ImageSet(real.pixels[torch.arange(len(real))][kept], real.class_ids[kept]),
            load_teacher(context, unit.reads("teacher")),
            augmentation=AugmentationSettings.among(unit.settings["views"]),
            seed=unit.settings["views_seed"],
        )
        assert set(images.class_ids.tolist()) == set(classes)
        expected = np.split(np.concatenate(list(rows.values()))[chosen], 5)
        for class_id, own in zip(classes, expected, strict=True):
            assert np.array_equal(found[class_id], own)


@pytest.fixture(scope="module")
def drawn(lab):
    """Seeds and images of every candidate, drawn outside of the stage: (class, prototype, ...)."""
    context = lab.context("candidates")
    settings = context.recipe.settings
    seeds = np.array(
        [
            [
                [stream_seed(seed, row), stream_seed(seed, row, 1), stream_seed(seed, row, 2)]
                for row in range(3)
            ]
            for seed in (stream_seed(0, "synthesis", class_id) for class_id in range(10))
        ]
    )
    requests = [
        ImageRequest(prototype, context.source.class_table.names[class_id], int(seed))
        for class_id, name in enumerate(CLASSES)
        for prototype, own in zip(
            context.read("prototypes", name)["prototypes"].astype(np.float32),
            seeds[class_id],
            strict=True,
        )
        for seed in own
    ]
    pipeline = load_pipeline(context)
    use_scheduler(pipeline, settings.synthesis)
    batches = synthesize_images(
        pipeline,
        requests,
        negative_prompt=settings.prompts.negative,
        settings=settings.synthesis,
        compute=context.compute,
    )
    return seeds, np.concatenate(list(batches)).reshape(10, 3, 3, 8, 8, 1)


def test_of_several_candidates_the_one_that_the_teacher_recognises_is_kept(lab, drawn):
    context, (seeds, candidates) = lab.context("candidates"), drawn
    with torch.inference_mode():
        logits = teacher_of(context)(to_pixels(candidates.reshape(90, 8, 8, 1)))
    probabilities = logits.softmax(1).reshape(10, 3, 3, 10)
    for class_id, name in enumerate(CLASSES):
        arrays = context.read("synthetic_images", name)
        best = probabilities[class_id, ..., class_id].argmax(1).numpy()
        assert arrays["seeds"].tolist() == seeds[class_id, np.arange(3), best].tolist()
        assert np.array_equal(arrays["images"], candidates[class_id, np.arange(3), best])


def test_the_first_candidate_is_the_image_of_a_prototype_with_no_other(lab, drawn):
    seeds, candidates = drawn
    tiny, context = lab.context("tiny"), lab.context("candidates")
    first = list[bool]()
    for class_id, name in enumerate(CLASSES):
        alone, chosen = (each.read("synthetic_images", name) for each in (tiny, context))
        assert alone["seeds"].tolist() == seeds[class_id, :, 0].tolist()
        assert np.array_equal(alone["images"], candidates[class_id, :, 0])
        assert np.array_equal(alone["decoded_prototypes"], chosen["decoded_prototypes"])
        first += (alone["seeds"] == chosen["seeds"]).tolist()
    assert 0 < sum(first) < 30


def test_the_first_image_of_a_class_is_chosen_by_its_probability_whatever_the_diversity(lab):
    edits = RECIPES["candidates"] | {"synthesis.diversity": 1.0}
    diverse = lab.edited("diverse", edits, until="synthetic_images")
    context = lab.context("candidates")
    seeds, others = (
        np.stack([each.read("synthetic_images", name)["seeds"] for name in CLASSES])
        for each in (context, diverse)
    )
    assert np.array_equal(seeds[:, 0], others[:, 0])
    assert not np.array_equal(seeds[:, 1:], others[:, 1:])


def test_a_group_of_candidates_is_like_the_real_images_of_its_class(lab, drawn):
    candidates = drawn[1]
    edits = RECIPES["candidates"] | {"synthesis.groups": 40}
    context = lab.edited("grouped", edits, until="synthetic_images")
    real = real_set(context, "train", size_px=8)
    teacher = teacher_of(context)
    features = penultimate_features(teacher, to_pixels(candidates.reshape(90, 8, 8, 1)))
    features = features.numpy().reshape(10, 3, 3, -1)
    chosen = list[np.ndarray]()
    for class_id, name in enumerate(CLASSES):
        own = real.pixels[torch.nonzero(real.class_ids == class_id)[:, 0]]
        rows = select_group(
            features[class_id],
            measure_moments([penultimate_features(teacher, own).numpy()]),
            groups=40,
            seed=stream_seed(0, "synthesis", class_id),
        )
        images = context.read("synthetic_images", name)["images"]
        assert np.array_equal(images, candidates[class_id, np.arange(3), rows])
        chosen.append(rows)
        reads = set(unit_of(context, name, "synthetic_images").inputs["upstream"])
        assert f"real_images/train-{class_id:05d}" in reads
    assert set(np.concatenate(chosen)) == {0, 1, 2}


def test_guided_sets_read_the_latents_of_their_own_class(lab):
    context = lab.context("chosen")
    for distillation in ("", "set-01-"):
        for class_id in (0, 7):
            unit = unit_of(context, f"{distillation}class-{class_id:05d}", "synthetic_images")
            latents = [name for name in unit.inputs["upstream"] if name.startswith("latents/")]
            assert latents == [f"latents/class-{class_id:05d}"]
            assert not any(name.startswith("teacher/") for name in unit.inputs["upstream"])
    lab.write("pulled", recipe_text(RECIPES["chosen"] | {"synthesis.set_guidance": {"ot": {}}}))
    plan = lab.pipeline("pulled").plan()
    assert {unit.state for unit in plan["prototypes"]} == {"cached"}
    assert {unit.state for unit in plan["synthetic_images"]} == {"compute"}


def test_images_follow_the_teacher_only_where_it_chooses(lab):
    lab.computed("candidates")
    for edits, state in ((RECIPES["candidates"], "follows"), ({}, "cached")):
        lab.write("tutored", recipe_text(edits | {"teacher.epochs": 11}))
        plan = lab.pipeline("tutored").plan()
        assert [unit.state for unit in plan["teacher"]] == ["compute"]
        assert {unit.state for unit in plan["synthetic_images"]} == {state}
        assert {unit.state for unit in plan["soft_labels"]} == {"follows"}
