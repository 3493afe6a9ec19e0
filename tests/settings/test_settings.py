"""Defaults, ranges and refusals of the recipe's sections."""

import pytest
from pydantic import BaseModel, ValidationError

from d4m.settings import (
    SECTIONS,
    AugmentationSettings,
    CentreCropSettings,
    CgsSettings,
    CifarSettings,
    CompactSettings,
    DapSettings,
    DigitsSettings,
    EvaluationSettings,
    GeneratorSettings,
    HardLabelSettings,
    ImageFolderSettings,
    MatchingSettings,
    MnistSettings,
    OptimizerSettings,
    OtSettings,
    PixelSettings,
    PretrainedSettings,
    PromptSettings,
    PrototypeSettings,
    RecipeSettings,
    RefinementSettings,
    SetGuidanceSettings,
    SoftLabelSettings,
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


@pytest.mark.parametrize("representative", ["mean", "medoid"])
def test_only_prototypes_that_explain_are_refined(representative):
    with pytest.raises(ValidationError, match=f"teacher`, found {representative}"):
        PrototypeSettings(representative=representative, refinement_steps=1)
    with pytest.raises(ValidationError, match=f"teacher`, found {representative}"):
        PrototypeSettings(
            representative=representative, refinement=RefinementSettings(labels="teacher")
        )
    refined = PrototypeSettings(representative="explaining", refinement_steps=3).refined
    assert refined == RefinementSettings(
        steps=3, labels="teacher", through="vae", regression="ridge"
    )
    with pytest.raises(ValidationError, match="wanted one of them, found both"):
        PrototypeSettings(
            representative="explaining", refinement_steps=3, refinement=RefinementSettings()
        )
    assert PrototypeSettings().refined is None
    by_ridge, as_students = (
        PrototypeSettings(
            representative="explaining",
            refinement=RefinementSettings(labels="teacher", regression=regression),
        ).used()["refinement"]
        for regression in ("ridge", "logistic")
    )
    assert set(by_ridge) == {"steps", "labels", "through"}
    assert set(as_students) == {*by_ridge, "learning_rate", "regression"}
    with pytest.raises(ValidationError, match="found explaining with class"):
        PrototypeSettings(
            representative="explaining",
            explained="class",
            refinement=RefinementSettings(labels="both"),
        )
    classes = PrototypeSettings(representative=representative, refinement=RefinementSettings())
    assert classes.refined == RefinementSettings(labels="class", through="synthesis")


@pytest.mark.parametrize("section", _sections(BaseModel), ids=lambda each: each.__name__)
def test_a_setting_that_is_left_out_of_units_has_its_default_when_it_is_read(section):
    """A unit is computed from its settings, so an absent one must mean the same there."""
    for name, field in section.model_fields.items():
        if field.exclude_if is not None:
            assert field.exclude_if(field.get_default(call_default_factory=True)), name


@pytest.mark.parametrize("labels", ["class", "teacher", "both"])
@pytest.mark.parametrize("regression", ["ridge", "logistic"])
def test_a_unit_is_refined_as_the_recipe_says(labels, regression):
    refined = RefinementSettings(labels=labels, regression=regression, steps=3)
    settings = PrototypeSettings(representative="explaining", refinement=refined)
    assert PrototypeSettings.among(settings.used()).refined == refined


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
        (PrototypeSettings, "pooling", (1, 64), (0, 65)),
        (PrototypeSettings, "outlier_share", (0.0, 0.499), (-0.001, 0.5)),
        (SynthesisSettings, "strength", (0.001, 1.0), (0.0, 1.001)),
        (SynthesisSettings, "guidance_scale", (1.0, 30.0), (0.99, float("inf"))),
        (SynthesisSettings, "num_inference_steps", (1, 1000), (0, 1001)),
        (SynthesisSettings, "mode_guidance", (0.0, 1.0), (-0.001, 1.001)),
        (SynthesisSettings, "mode_guidance_until", (0.001, 1.0), (0.0, 1.001)),
        (SynthesisSettings, "candidates", (1, 1000), (0, 1001)),
        (SynthesisSettings, "groups", (None, 2, 1_000_000), (1, 1_000_001)),
        (SynthesisSettings, "diversity", (0.0, 1.0), (-0.001, 1.001)),
        (CgsSettings, "repulsion", (0.0, 10.0), (-0.001, 10.1)),
        (DapSettings, "bandwidth", (1e-9, 1000.0), (0.0, 1001.0)),
        (OtSettings, "regularisation", (0.001, 10.0), (0.0, 10.1)),
        (SetGuidanceSettings, "references", (2, 10_000), (1, 10_001)),
        (AugmentationSettings, "rotation_degrees", (0.0, 180.0), (-0.1, 180.1)),
        (AugmentationSettings, "shift", (0.0, 1.0), (-0.1, 1.1)),
        (AugmentationSettings, "zoom", (1.0, 4.0), (0.9, 4.1)),
        (AugmentationSettings, "brightness", (0.0, 2.0), (-0.1, 2.1)),
        (AugmentationSettings, "contrast", (0.0, 1.0), (-0.1, 1.1)),
        (AugmentationSettings, "cutout", (0.0, 1.0), (-0.1, 1.1)),
        (AugmentationSettings, "cutmix", (0.0, 1.0), (-0.1, float("nan"))),
        (AugmentationSettings, "mixup", (0.0, 1.0), (-0.1, 1.1)),
        (OptimizerSettings, "learning_rate", (1e-9, 10.0), (0.0, float("nan"))),
        (OptimizerSettings, "weight_decay", (0.0, 10.0), (-0.001, float("inf"))),
        (OptimizerSettings, "momentum", (0.0, 0.999), (-0.001, 1.0)),
        (OptimizerSettings, "warmup", (0.0, 0.999), (-0.001, 1.0)),
        (OptimizerSettings, "name", ("adamw", "adam", "sgd"), ("adagrad", "")),
        (OptimizerSettings, "schedule", ("cosine", "smoothed_cosine", "step"), ("linear", None)),
        (OptimizerSettings, "precision", ("float32", "bfloat16"), ("float16", 32)),
        (TeacherSettings, "members", (1, 20), (0, 21)),
        (SoftLabelSettings, "epochs", (1, 100_000), (0, 100_001)),
        (SoftLabelSettings, "labelled_epochs", (None, 1, 100_001), (0, 0.5)),
        (SoftLabelSettings, "mode", ("stored", "online"), ("offline", None)),
        (SoftLabelSettings, "format", ("float16", "uint8", "top_k"), ("float32", None)),
        (SoftLabelSettings, "top_k", (1, 255), (0, 256)),
        (HardLabelSettings, "epochs", (1, 100_000), (0, 100_001)),
        (MatchingSettings, "loss", ("kl", "kl_t2", "mse_ce"), ("mse", None)),
        (MatchingSettings, "temperature", (0.01, 100.0), (0.0, float("inf"))),
        (MatchingSettings, "ce_weight", (0.0, 10.0), (-0.001, float("inf"))),
        (EvaluationSettings, "seeds", (1, 100), (0, 101)),
        (EvaluationSettings, "distillations", (1, 100), (0, 101)),
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


def test_a_centre_is_not_larger_than_the_image():
    assert CentreCropSettings(resize_px=224, crop_px=224).crop_px == 224
    with pytest.raises(ValidationError, match="at most `resize_px`, found 225 and 224"):
        CentreCropSettings(resize_px=224, crop_px=225)


@pytest.mark.parametrize(
    ("section", "key", "default", "other"),
    [
        (ImageFolderSettings, "resampling", "lanczos", "bilinear"),
        (MnistSettings, "resampling", "lanczos", "bilinear"),
        (CifarSettings, "resampling", "lanczos", "bicubic"),
        (SynthesisSettings, "resampling", "lanczos", "bicubic"),
        (SynthesisSettings, "guided_channels", None, 3),
        (EvaluationSettings, "test_crop", None, {"resize_px": 9, "crop_px": 8}),
    ],
)
def test_a_later_setting_is_no_part_of_keys_where_it_has_its_default(section, key, default, other):
    required = {
        ImageFolderSettings: {"source": "image_folder", "path": "x"},
        MnistSettings: {"source": "mnist"},
        CifarSettings: {"source": "cifar10"},
    }.get(section, {})
    plain = section.model_validate(required)
    assert getattr(plain, key) == default
    assert key not in plain.model_dump(mode="json")
    assert key in section.model_validate(required | {key: other}).model_dump(mode="json")


@pytest.mark.parametrize("template", ["a photo", "{name} {colour}", "{{name}}", "{name} {", ""])
def test_templates_without_the_name_or_with_other_placeholders_are_refused(template):
    with pytest.raises(
        ValidationError, match=r"must contain \{name\}, \{synonyms\}, \{described\} or"
    ):
        PromptSettings(template=template)


def test_a_generator_is_compact_or_pretrained_and_not_both():
    pretrained = PretrainedSettings(model="folder")
    assert GeneratorSettings().pretrained is None
    assert GeneratorSettings(compact=CompactSettings()).pretrained is None
    assert GeneratorSettings(pretrained=pretrained).pretrained == pretrained
    with pytest.raises(ValidationError, match="`compact` or `pretrained`, not both"):
        GeneratorSettings(compact=CompactSettings(), pretrained=pretrained)


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


def test_repeated_students_baselines_and_labels_are_refused():
    with pytest.raises(ValidationError, match="students must differ"):
        EvaluationSettings.model_validate({"students": ["convnet3", "convnet3"]})
    with pytest.raises(ValidationError, match="must not repeat"):
        EvaluationSettings(baselines=("full_data", "full_data"))
    with pytest.raises(ValidationError, match="must not repeat"):
        EvaluationSettings(labels=("soft", "soft"))
    with pytest.raises(ValidationError, match="labels"):
        EvaluationSettings(labels=())


def test_the_former_name_of_the_epochs_on_full_data_is_read():
    former = EvaluationSettings.model_validate({"full_data_epochs": 7})
    assert former == EvaluationSettings.model_validate({"full_data": {"epochs": 7}})
    assert former.full_data.epochs == 7
    both = {"full_data_epochs": 7, "full_data": {"epochs": 7}}
    with pytest.raises(ValidationError, match=r"is now `full_data\.epochs`; leave the former out"):
        EvaluationSettings.model_validate(both)


@pytest.mark.parametrize(
    "pixels",
    [{"mean": [0.5]}, {"mean": [0.5], "deviation": [0.1, 0.2, 0.3]}, {"deviation": [0.1]}],
)
def test_mean_and_deviation_of_pixels_are_a_pair(pixels):
    with pytest.raises(ValidationError, match="must both be null, or both have a number"):
        PixelSettings.model_validate(pixels)
    with pytest.raises(ValidationError, match="found 2 and 2 numbers"):
        PixelSettings(mean=(0.5, 0.5), deviation=(0.1, 0.1))


def test_repeated_changes_of_batches_are_refused():
    with pytest.raises(ValidationError, match="must not repeat"):
        HardLabelSettings(batch_changes=("flip", "flip"))


def test_views_without_crops_have_the_former_keys_and_views_with_crops_bear_a_mark():
    still = AugmentationSettings(crop_scale=(1.0, 1.0), flip=0.0, cutmix=0.0)
    assert still.used() == {
        "crop_scale": [1.0, 1.0],
        "flip": 0.0,
        "rotation_degrees": 0.0,
        "shift": 0.0,
        "zoom": 1.0,
        "brightness": 0.0,
        "contrast": 0.0,
        "cutout": 0.0,
        "one_of": False,
        "cutmix": 0.0,
        "mixup": 0.0,
    }
    cropped = still.model_copy(update={"crop_scale": (0.5, 1.0)})
    assert cropped.used().keys() - still.used().keys() == {"crops"}
    assert AugmentationSettings.among(cropped.used()) == cropped


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
