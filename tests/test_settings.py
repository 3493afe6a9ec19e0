"""Defaults, ranges and refusals of the recipe's sections."""

import pytest
from pydantic import BaseModel, ValidationError

from d4m.settings import (
    SECTIONS,
    AugmentationSettings,
    CompactSettings,
    DigitsSettings,
    EvaluationSettings,
    GeneratorSettings,
    ImageFolderSettings,
    OptimizerSettings,
    PretrainedSettings,
    PromptSettings,
    PrototypeSettings,
    RecipeSettings,
    SynthesisSettings,
    TeacherSettings,
)

DIGITS = DigitsSettings(source="digits")


def _sections(model: type[BaseModel]) -> list[type[BaseModel]]:
    nested = [
        child for child in model.__subclasses__() if child.__module__.startswith("d4m.settings")
    ]
    return [model, *(found for child in nested for found in _sections(child))]


def test_the_papers_numbers_are_the_defaults():
    settings = RecipeSettings(dataset=DIGITS)
    assert settings.synthesis == SynthesisSettings(
        strength=0.7, guidance_scale=8.0, num_inference_steps=50, scheduler="pndm"
    )
    assert settings.prompts.negative == "cartoon, anime, painting"
    assert settings.soft_labels.epochs == 300
    assert settings.soft_labels.augmentation == AugmentationSettings(
        crop_scale=(0.08, 1.0), flip=0.5, rotation_degrees=0.0, cutmix=1.0
    )
    assert settings.evaluation.temperature == 20.0
    assert settings.evaluation.optimizer == OptimizerSettings(
        batch_size=1024, learning_rate=1e-3, weight_decay=0.01
    )


@pytest.mark.parametrize("section", _sections(RecipeSettings.__mro__[1]))
def test_every_field_is_described_and_every_section_frozen_and_closed(section):
    undescribed = [name for name, field in section.model_fields.items() if not field.description]
    assert undescribed == []
    assert section.model_config["frozen"]
    assert section.model_config["extra"] == "forbid"
    assert not section.model_config["allow_inf_nan"]


def test_the_sections_are_the_fields_of_a_recipe():
    assert tuple(RecipeSettings.model_fields) == SECTIONS
    assert {"dataset", "seed", "evaluation"} < set(SECTIONS)


def test_settings_cannot_be_changed():
    settings = RecipeSettings(dataset=DIGITS)
    with pytest.raises(ValidationError, match="frozen"):
        settings.seed = 1


@pytest.mark.parametrize(
    ("section", "key", "allowed", "refused"),
    [
        (DigitsSettings, "test_images", (10, 1000), (9, 1001)),
        (ImageFolderSettings, "size_px", (8, 4096), (7, 4097)),
        (ImageFolderSettings, "test_share", (0.01, 0.99), (0.0, 1.0)),
        (PrototypeSettings, "ipc", (1, 5000), (0, 5001)),
        (SynthesisSettings, "strength", (0.001, 1.0), (0.0, 1.001)),
        (SynthesisSettings, "guidance_scale", (1.0, 30.0), (0.99, float("inf"))),
        (SynthesisSettings, "num_inference_steps", (1, 1000), (0, 1001)),
        (AugmentationSettings, "rotation_degrees", (0.0, 180.0), (-0.1, 180.1)),
        (AugmentationSettings, "cutmix", (0.0, 1.0), (-0.1, float("nan"))),
        (OptimizerSettings, "learning_rate", (1e-9, 10.0), (0.0, float("nan"))),
        (EvaluationSettings, "temperature", (0.01, 100.0), (0.0, float("inf"))),
        (RecipeSettings, "seed", (0, 2**63 - 1), (-1, 2**63)),
    ],
)
def test_ranges_hold_at_both_ends(section, key, allowed, refused):
    required = {
        DigitsSettings: {"source": "digits"},
        ImageFolderSettings: {"source": "image_folder", "path": "x"},
        RecipeSettings: {"dataset": {"source": "digits"}},
    }.get(section, {})
    for value in allowed:
        assert getattr(section.model_validate(required | {key: value}), key) == value
    for value in refused:
        with pytest.raises(ValidationError, match=key):
            section.model_validate(required | {key: value})


@pytest.mark.parametrize("crop_scale", [(0.0, 1.0), (0.5, 0.4), (0.0, 0.0)])
def test_crop_scales_that_do_not_ascend_from_above_zero_are_refused(crop_scale):
    with pytest.raises(ValidationError, match=r"crop_scale must be \[lowest, highest\]"):
        AugmentationSettings(crop_scale=crop_scale)


@pytest.mark.parametrize("template", ["a photo", "{name} {colour}", "{{name}}", "{name} {", ""])
def test_templates_without_the_name_or_with_other_placeholders_are_refused(template):
    with pytest.raises(ValidationError, match=r"must contain \{name\}, \{described\} or"):
        PromptSettings(template=template)


def test_a_generator_is_compact_or_pretrained_and_not_both():
    pretrained = PretrainedSettings(model="folder")
    assert GeneratorSettings().pretrained is None
    assert GeneratorSettings(compact=CompactSettings()).pretrained is None
    assert GeneratorSettings(pretrained=pretrained).pretrained == pretrained
    with pytest.raises(ValidationError, match="`compact` or `pretrained`, not both"):
        GeneratorSettings(compact=CompactSettings(), pretrained=pretrained)


def test_repeated_students_and_baselines_are_refused():
    with pytest.raises(ValidationError, match="students must differ"):
        EvaluationSettings.model_validate({"students": ["convnet3", "convnet3"]})
    with pytest.raises(ValidationError, match="must not repeat"):
        EvaluationSettings(baselines=("full_data", "full_data"))


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


def test_a_dump_in_json_makes_the_same_settings_again():
    settings = RecipeSettings.model_validate(
        {
            "dataset": {"source": "image_folder", "path": "a/b", "classes": {"0": "x", "1": "y"}},
            "generator": {"pretrained": {"model": "folder"}},
            "evaluation": {"students": ["convnet3", "test_vit"]},
        }
    )
    dumped = settings.model_dump(mode="json", exclude_unset=True)
    assert RecipeSettings.model_validate(dumped) == settings
