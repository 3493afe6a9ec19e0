"""Random views of images, which teacher and students train on."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, model_validator

from d4m.settings.section import Section, Share

BatchChange = Literal["color", "crop", "cutout", "flip", "scale", "rotate"]
"""DSA's changes of whole batches."""


def _check_differ(changes: tuple[BatchChange, ...]) -> tuple[BatchChange, ...]:
    if len(set(changes)) != len(changes):
        msg = "names must not repeat"
        raise ValueError(msg)
    return changes


BatchChanges = Annotated[tuple[BatchChange, ...], AfterValidator(_check_differ)]
"""Kinds of changes, each once."""


class AugmentationSettings(Section):
    """Random views of an image, drawn again for every epoch (FKD, Shen & Xing 2022).

    Every kind of change has a strength of its own. The defaults are the paper's.
    """

    crop_scale: tuple[Share, Share] = Field(
        default=(0.08, 1.0),
        description="Smallest and largest area of a random resized crop, as shares of the image.",
    )
    flip: Share = Field(default=0.5, description="Probability of a horizontal flip.")
    rotation_degrees: float = Field(
        default=0.0, ge=0, le=180, description="Largest rotation, in both directions."
    )
    shift: Share = Field(
        default=0.0, description="Largest shift in any direction, as a share of the image."
    )
    zoom: float = Field(
        default=1.0,
        ge=1,
        le=4,
        description="Largest factor of enlargement or reduction, drawn for each axis.",
    )
    brightness: float = Field(
        default=0.0,
        ge=0,
        le=2,
        description="Width of the range of the added brightness. Black to white is 2.",
    )
    contrast: Share = Field(
        default=0.0,
        description="Largest relative change of every pixel's distance from the mean level.",
    )
    jitter: Share = Field(
        default=0.0,
        exclude_if=lambda value: value == 0,
        description=(
            "Largest relative change of brightness, contrast and saturation, in an order that is "
            "drawn too."
        ),
    )
    lighting: Share = Field(
        default=0.0,
        exclude_if=lambda value: value == 0,
        description=(
            "Deviation of shifts along the axes of natural colours, relative to their own spread."
        ),
    )
    cutout: Share = Field(
        default=0.0,
        description="Edge of a square that is set to mid-grey, as a share of the image.",
    )
    one_of: bool = Field(
        default=False,
        description=(
            "If true, each view gets one kind of change, drawn evenly from those that are "
            "on: crop, flip, rotation, shift, zoom, levels, cutout, colour (similar to DSA)."
        ),
    )
    cutmix: Share = Field(default=1.0, description="Probability of CutMix with another image.")
    mixup: Share = Field(
        default=0.0,
        description="Probability of MixUp with another image, for views without CutMix.",
    )

    @model_validator(mode="after")
    def _crop_scale_ascends(self) -> Self:
        if not 0 < self.crop_scale[0] <= self.crop_scale[1]:
            msg = "crop_scale must be [lowest, highest] with 0 < lowest <= highest"
            raise ValueError(msg)
        return self

    def used(self) -> dict[str, JsonValue]:
        """Return the settings that views depend on.

        MixUp is for views without CutMix. Views with crops bear a mark, because crops were once
        drawn differently (docs/explanation/decisions/crops-as-torchvision-draws-them.md).
        """
        unused: dict[str, JsonValue] = {"mixup": 0.0} if self.cutmix == 1 else {}
        mark: dict[str, JsonValue] = {"crops": "redrawn"} if self.crop_scale[0] < 1 else {}
        return self.model_dump(mode="json") | unused | mark
