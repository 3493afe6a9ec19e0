"""Units and their keys keep settings so that they are read again as the same ones."""

import pytest
from pydantic import BaseModel, ValidationError

from d4m.settings import (
    AugmentationSettings,
    CifarSettings,
    EvaluationSettings,
    ImageFolderSettings,
    MnistSettings,
    PrototypeSettings,
    RecipeSettings,
    RefinementSettings,
    SynthesisSettings,
)
from tests.settings.sections import sections


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
            refinement=RefinementSettings(labels="teacher", regression=regression, views=300),
        ).used()["refinement"]
        for regression in ("ridge", "logistic")
    )
    assert set(by_ridge) == {"steps", "labels", "through"}
    assert set(as_students) == {*by_ridge, "learning_rate", "regression", "views"}
    with pytest.raises(ValidationError, match="found explaining with class"):
        PrototypeSettings(
            representative="explaining",
            explained="class",
            refinement=RefinementSettings(labels="both"),
        )
    classes = PrototypeSettings(representative=representative, refinement=RefinementSettings())
    assert classes.refined == RefinementSettings(labels="class", through="synthesis")


@pytest.mark.parametrize("section", sections(BaseModel), ids=lambda each: each.__name__)
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
