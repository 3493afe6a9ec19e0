"""Ranges of settings, and values and combinations that are refused."""

import pytest
from pydantic import ValidationError

from d4m.settings import (
    AugmentationSettings,
    CentreCropSettings,
    CgsSettings,
    CompactSettings,
    DapSettings,
    DigitsSettings,
    EvaluationSettings,
    GeneratorSettings,
    HardLabelSettings,
    ImageFolderSettings,
    MatchingSettings,
    OptimizerSettings,
    OtSettings,
    PixelSettings,
    PretrainedSettings,
    PromptSettings,
    PrototypeSettings,
    RecipeSettings,
    SetGuidanceSettings,
    SoftLabelSettings,
    SynthesisSettings,
    TeacherSettings,
)


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


def test_repeated_students_baselines_and_labels_are_refused():
    with pytest.raises(ValidationError, match="students must differ"):
        EvaluationSettings.model_validate({"students": ["convnet3", "convnet3"]})
    with pytest.raises(ValidationError, match="must not repeat"):
        EvaluationSettings(baselines=("full_data", "full_data"))
    with pytest.raises(ValidationError, match="must not repeat"):
        EvaluationSettings(labels=("soft", "soft"))
    with pytest.raises(ValidationError, match="labels"):
        EvaluationSettings(labels=())


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
