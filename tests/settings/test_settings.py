"""Sections of the recipe: their defaults, and how they are written."""

import pytest
from pydantic import ValidationError

from d4m.settings import (
    SECTIONS,
    AugmentationSettings,
    DigitsSettings,
    EvaluationSettings,
    HardLabelSettings,
    MatchingSettings,
    OptimizerSettings,
    PrototypeSettings,
    RecipeSettings,
    SoftLabelSettings,
    SynthesisSettings,
    TeacherSettings,
)
from tests.settings.sections import sections

DIGITS = DigitsSettings(source="digits")


def test_the_papers_numbers_are_the_defaults():
    settings = RecipeSettings(dataset=DIGITS)
    papers = SynthesisSettings(
        strength=0.7, guidance_scale=8.0, num_inference_steps=50, scheduler="pndm"
    )
    assert settings.synthesis.model_dump() == papers.model_dump()
    assert settings.prompts.negative == "cartoon, anime, painting"
    assert settings.soft_labels.epochs == 300
    assert settings.soft_labels.augmentation == AugmentationSettings(
        crop_scale=(0.08, 1.0),
        flip=0.5,
        rotation_degrees=0.0,
        shift=0.0,
        zoom=1.0,
        brightness=0.0,
        contrast=0.0,
        cutout=0.0,
        cutmix=1.0,
        mixup=0.0,
    )
    assert settings.evaluation.matching == MatchingSettings(
        loss="kl", temperature=20.0, cluster_weights=False
    )
    assert settings.evaluation.optimizer == OptimizerSettings(
        name="adamw",
        batch_size=1024,
        learning_rate=1e-3,
        weight_decay=0.01,
        schedule="cosine",
        warmup=0.0,
        precision="float32",
    )


def test_what_goes_beyond_the_paper_is_off_by_default():
    settings = RecipeSettings(dataset=DIGITS)
    assert settings.prototypes == PrototypeSettings(
        method="kmeans",
        pooling=1,
        outlier_share=0.0,
        representative="mean",
        refinement_steps=0,
    )
    plain = SynthesisSettings(mode_guidance=0.0, candidates=1)
    assert settings.synthesis.model_dump() == plain.model_dump()
    assert settings.teacher == TeacherSettings(members="auto")
    assert settings.teacher.count_members(settings.prototypes.ipc) == 1
    assert settings.soft_labels == SoftLabelSettings(
        epochs=300, labelled_epochs=None, mode="stored", format="float16"
    )
    assert settings.evaluation == EvaluationSettings(
        hard=HardLabelSettings(), labels=("soft", "hard")
    )


@pytest.mark.parametrize("section", sections(RecipeSettings.__mro__[1]))
def test_every_field_is_described_and_every_section_frozen_and_closed(section):
    undescribed = [name for name, field in section.model_fields.items() if not field.description]
    assert undescribed == []
    assert section.model_config["frozen"]
    assert section.model_config["extra"] == "forbid"
    assert not section.model_config["allow_inf_nan"]


def test_the_sections_are_the_fields_of_a_recipe_but_for_what_it_hands_down():
    assert (*SECTIONS, "precision") == tuple(RecipeSettings.model_fields)
    assert {"dataset", "seed", "evaluation"} < set(SECTIONS)


def test_settings_cannot_be_changed():
    settings = RecipeSettings(dataset=DIGITS)
    with pytest.raises(ValidationError, match="frozen"):
        settings.seed = 1


def test_the_temperature_is_a_setting_of_matching_and_of_nothing_else():
    evaluation = EvaluationSettings.model_validate({"matching": {"temperature": 4}})
    assert evaluation.matching.temperature == 4.0
    with pytest.raises(ValidationError, match="temperature"):
        EvaluationSettings.model_validate({"temperature": 4})


@pytest.mark.parametrize(
    ("epochs", "labelled_epochs", "labelled"),
    [(300, None, 300), (300, 40, 40), (40, 300, 40), (1, 1, 1)],
)
def test_no_more_epochs_are_labelled_than_are_asked_for_or_trained(
    epochs, labelled_epochs, labelled
):
    settings = SoftLabelSettings(epochs=epochs, labelled_epochs=labelled_epochs)
    assert settings.labelled == labelled


def test_the_former_name_of_the_epochs_on_full_data_is_read():
    former = EvaluationSettings.model_validate({"full_data_epochs": 7})
    assert former == EvaluationSettings.model_validate({"full_data": {"epochs": 7}})
    assert former.full_data.epochs == 7
    both = {"full_data_epochs": 7, "full_data": {"epochs": 7}}
    with pytest.raises(ValidationError, match=r"is now `full_data\.epochs`; leave the former out"):
        EvaluationSettings.model_validate(both)


def test_a_student_is_a_name_or_a_name_with_options():
    options = {"architecture": "resnet18", "options": {"channels": [8, 8, 16, 16]}, "name": "thin"}
    evaluation = EvaluationSettings.model_validate({"students": ["resnet18", options]})
    assert [student.label for student in evaluation.students] == ["resnet18", "thin"]
    assert evaluation.students[1].options == {"channels": (8, 8, 16, 16)}


def test_option_values_keep_their_types():
    options = {"flag": True, "count": 2, "share": 0.5, "kind": "avg", "layers": [1, 2]}
    teacher = TeacherSettings(options=options)
    assert teacher.options == options | {"layers": (1, 2)}
    assert [type(value) for value in teacher.options.values()] == [bool, int, float, str, tuple]
