"""Defaults follow the images, and a recipe's own values stay."""

from dataclasses import replace

import pytest

from d4m.recipe.image_defaults import describe_settled, settle
from d4m.recipe.image_facts import ImageFacts
from d4m.recipe.presets import PRESETS, fill_in
from d4m.settings import RecipeSettings, TeacherSettings
from d4m.settings.parts import read_part

GREY = ImageFacts(size_px=28, view_px=28, channels=1, classes=10, images=60_000)
COLOUR = ImageFacts(size_px=32, view_px=32, channels=3, classes=10, images=11_204)
DIGITS = ImageFacts(size_px=8, view_px=8, channels=1, classes=10, images=1437)
LARGE = ImageFacts(size_px=224, view_px=224, channels=3, classes=1000, images=1_281_167)
FACTS = {"grey": GREY, "colour": COLOUR, "digits": DIGITS, "large": LARGE}


def stated(*presets, source="fashion_mnist", **sections):
    dataset = {"source": source} | ({"path": "images"} if source == "image_folder" else {})
    return RecipeSettings.model_validate(fill_in({"dataset": dataset, **sections}, list(presets)))


def settled(facts, *presets, source="fashion_mnist", **sections):
    return settle(stated(*presets, source=source, **sections), facts)


def test_three_lines_on_fashion_mnist():
    own = settled(GREY, prototypes={"ipc": 10})
    assert own.generator.compact.autoencoder.channels == (24, 48)  # 28 px to 14
    assert own.generator.compact.autoencoder.steps == 1500
    assert own.prototypes.representative == "explaining"
    assert own.prototypes.refinement.labels == "both"  # as students have soft and class labels
    assert own.prototypes.refinement.learning_rate == 0.04
    assert (own.synthesis.strength, own.synthesis.guidance_scale) == (0.05, 1)
    assert int(own.synthesis.strength * own.synthesis.num_inference_steps) == 1
    assert own.teacher.epochs == 240_000 / 60_000
    assert own.teacher.augmentation.flip == 0.5
    assert own.evaluation.optimizer.name == "muon"
    assert own.soft_labels.epochs * 100 == 20_000
    assert own.evaluation.hard.epochs * 100 == 10_000
    assert own.evaluation.baselines == ("random_real",)


@pytest.mark.parametrize("facts", FACTS.values(), ids=FACTS)
@pytest.mark.parametrize("ipc", [1, 10, 50])
@pytest.mark.parametrize("presets", [[], ["hard"], ["dc", "hard"], ["rectified"], ["rded"]])
def test_settled_settings_are_valid_and_settle_to_themselves(facts, ipc, presets):
    own = settled(facts, *presets, prototypes={"ipc": ipc})
    assert settle(own, facts) == own
    assert RecipeSettings.from_dump(own.model_dump(mode="json")) == own


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_keeps_every_value_that_it_names(name):
    before = stated(name, source="image_folder", prototypes={"ipc": 10})
    after = settle(before, COLOUR).model_dump(mode="json")

    def check(preset, plain, found):
        for key, value in preset.items():
            if isinstance(value, dict):
                check(value, plain[key], found[key])
            else:
                assert found.get(key) == plain.get(key), key

    check(PRESETS[name](), before.model_dump(mode="json"), after)


def test_the_papers_preset_is_left_as_it_was_published():
    before = stated("paper", source="image_folder", prototypes={"ipc": 10})
    assert describe_settled(before, settle(before, LARGE)) == ""


def test_what_a_recipe_names_closes_its_group_and_no_other():
    own = settled(
        GREY, prototypes={"starts": 2}, teacher={"epochs": 3}, synthesis={"strength": 0.3}
    )
    plain = stated()
    assert own.prototypes == stated(prototypes={"starts": 2}).prototypes
    assert own.synthesis == stated(synthesis={"strength": 0.3}).synthesis
    assert own.synthesis.num_inference_steps == plain.synthesis.num_inference_steps
    assert own.teacher.epochs == 3
    assert own.teacher.optimizer.name == "muon"  # which is a group of its own


def test_a_size_of_the_images_is_no_choice_of_how_they_are_drawn():
    assert settled(GREY, synthesis={"size_px": 32}).synthesis.strength == 0.05


def test_refinement_follows_the_labels_that_students_learn():
    def labels(*names):
        return settled(GREY, evaluation={"labels": names}).prototypes

    assert labels("soft").refinement.labels == "teacher"
    assert labels("hard").refinement.labels == "class"
    assert labels("hard").representative == "mean"  # no teacher is needed


@pytest.mark.parametrize(
    ("ipc", "labels", "regressions", "rate", "views"),
    [
        (10, ["hard"], 3, 0.05, 100),
        (20, ["hard"], 3, 0.05, 200),
        (50, ["hard"], 3, 0.05, 500),
        (100, ["hard"], 3, 0.05, 500),
        (9, ["hard"], 1, 0.04, 100),
        (50, ["soft", "hard"], 1, 0.04, 100),
        (50, ["soft"], 1, 0.04, 100),
    ],
)
def test_many_images_have_more_regressions_and_views_towards_their_classes(
    ipc, labels, regressions, rate, views
):
    own = settled(GREY, prototypes={"ipc": ipc}, evaluation={"labels": labels})
    found = own.prototypes.refinement
    assert (found.regressions, found.learning_rate, found.views) == (regressions, rate, views)


def test_refinement_draws_the_views_that_students_see():
    kinds = ("color", "crop", "cutout", "flip", "scale", "rotate")
    assert settled(GREY, "dc", "hard").prototypes.refinement.batch_changes == kinds
    assert settled(GREY).prototypes.refinement.batch_changes == ()


def test_refinement_asks_the_networks_that_are_to_learn():
    def networks(facts, *students, labels=("hard",)):
        evaluation = {"labels": labels, "students": students} if students else {"labels": labels}
        chosen = settled(facts, evaluation=evaluation).prototypes.refinement.students
        return [each.architecture for each in chosen]

    resnet = {"name": "small", "architecture": "resnet18", "options": {"layers": [1, 1, 1, 1]}}
    assert networks(GREY) == ["convnet3"]
    asked = stated(evaluation={"labels": ["hard"], "students": ["convnet3", resnet]})
    told = "prototypes.refinement.students: ['convnet3', 'resnet18']"
    assert told in describe_settled(asked, settle(asked, GREY))
    assert networks(GREY, "convnet3", resnet) == ["convnet3", "resnet18"]
    assert networks(GREY, resnet, labels=("soft",)) == ["resnet18"]
    shrunk = replace(GREY, size_px=64, view_px=64)  # to 32 px
    assert networks(shrunk, resnet) == ["convnet3"]


@pytest.mark.parametrize(
    ("facts", "sections"),
    [
        (LARGE, {}),  # too many prototypes, and too large images
        (GREY, {"synthesis": {"strength": 0.7}}),  # too many steps of the denoiser
        (GREY, {"synthesis": {"strength": "auto"}}),
        (GREY, {"generator": {"pretrained": {"model": "some/model"}}}),
    ],
)
def test_prototypes_are_not_refined_where_that_takes_long(facts, sections):
    own = settled(facts, **sections)
    assert own.prototypes.refinement is None
    assert own.prototypes.representative == "mean"


def test_a_pretrained_generator_keeps_the_papers_synthesis():
    own = settled(COLOUR, generator={"pretrained": {"model": "some/model"}})
    assert own.synthesis == stated().synthesis
    assert (
        own.generator.model_dump()
        == stated(generator={"pretrained": {"model": "some/model"}}).generator.model_dump()
    )


def test_a_negative_prompt_of_the_recipes_own_is_read():
    assert settled(GREY, prompts={"negative": "blurred"}).synthesis.guidance_scale > 1


def test_digits_are_not_mirrored():
    own = settled(DIGITS, source="digits")
    views = [own.teacher.augmentation, own.soft_labels.augmentation]
    assert [each.flip for each in [*views, own.prototypes.refinement.augmentation]] == [0, 0, 0]


@pytest.mark.parametrize(
    ("size_px", "latents_px"),
    [(8, 4), (28, 14), (32, 16), (48, 12), (64, 16), (128, 16), (224, 14)],
)
def test_latents_stay_small_as_images_grow(size_px, latents_px):
    facts = ImageFacts(size_px, size_px, channels=3, classes=10, images=5000)
    channels = settled(facts).generator.compact.autoencoder.channels
    assert size_px / 2 ** (len(channels) - 1) == latents_px


@pytest.mark.parametrize("size_px", [30, 50, 90])
def test_levels_are_left_out_where_the_size_does_not_divide(size_px):
    facts = ImageFacts(size_px, size_px, channels=3, classes=10, images=5000)
    channels = settled(facts).generator.compact.autoencoder.channels
    assert size_px % 2 ** (len(channels) - 1) == 0


def test_a_teacher_sees_about_as_many_views_of_any_data_set():
    def views(images, px=32):
        facts = ImageFacts(px, px, channels=3, classes=10, images=images)
        return settled(facts).teacher.epochs * images

    assert views(1000) == 40 * 1000  # the most epochs
    assert all(abs(views(images) / 240_000 - 1) < 0.1 for images in (11_204, 20_000, 60_000))
    assert views(11_204, px=64) == pytest.approx(120_000, rel=0.1)


def test_full_data_is_a_baseline_where_that_takes_minutes():
    assert "full_data" in settled(DIGITS, source="digits").evaluation.baselines
    assert "full_data" not in settled(COLOUR).evaluation.baselines
    named = settled(COLOUR, evaluation={"baselines": ["full_data"]}).evaluation
    assert named.baselines == ("full_data",)
    assert named.full_data.epochs == settled(COLOUR).teacher.epochs


def test_many_synthetic_images_are_trained_on_as_the_paper_does():
    own, plain = settled(LARGE, prototypes={"ipc": 10}), stated()
    assert own.soft_labels == plain.soft_labels
    assert own.evaluation.optimizer == plain.evaluation.optimizer


@pytest.mark.parametrize(("ipc", "count"), [(1, 1), (49, 1), (50, 2)])
def test_a_teacher_has_more_members_as_images_per_class_grow(ipc, count):
    own = stated(prototypes={"ipc": ipc})
    assert own.teacher.count_members(ipc) == count
    assert settle(own, GREY).teacher.members == count
    # In Dagster, an edit of `ipc` makes the teacher stale only where it changes the teacher.
    assert read_part(own, "teacher")["members"] == count


def test_weights_from_elsewhere_have_one_member():
    timm = TeacherSettings(architecture="resnet18.tv_in1k", weights="timm")
    assert timm.count_members(200) == 1
    assert TeacherSettings(members=3).count_members(1) == 3


@pytest.mark.parametrize("value", ["many", 0, 21, 1.5])
def test_members_are_a_number_or_auto(value):
    with pytest.raises(ValueError, match="members"):
        TeacherSettings(members=value)


def test_prototypes_read_labels_and_prompts_only_where_their_refinement_is_open():
    open_, named = stated(), stated(prototypes={"representative": "medoid"})
    assert {"labels", "prompts"} <= set(read_part(open_, "refinement"))
    assert {"labels", "prompts"}.isdisjoint(read_part(named, "refinement"))
