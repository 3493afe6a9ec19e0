"""The pixels that students see: how images are read, and in which numbers."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from d4m.settings.section import Resampling, Section

Channels = tuple[Annotated[float, Field(gt=0, lt=1)], ...]


class PixelSettings(Section):
    """The numbers in which students see pixels."""

    standardise: bool = Field(
        default=False,
        description=(
            "If true, students see each channel minus its `mean`, divided by its `deviation`. "
            "Otherwise black is -1 and white is 1."
        ),
    )
    mean: Channels | None = Field(
        default=None,
        description=(
            "Mean of each channel, or of all, where black is 0 and white is 1. With `null`, that "
            "of the training images. Used by `standardise` and by `hard.batch_changes`."
        ),
    )
    deviation: Channels | None = Field(
        default=None, description="Standard deviation of each channel. With `null`, as for `mean`."
    )

    @model_validator(mode="after")
    def _statistics_are_a_pair(self) -> Self:
        counts = len(self.mean or ()), len(self.deviation or ())
        if counts not in ((0, 0), (1, 1), (3, 3)):
            msg = (
                "`mean` and `deviation` must both be null, or both have a number for all channels "
                f"or one for each of 3; found {counts[0]} and {counts[1]} numbers"
            )
            raise ValueError(msg)
        return self


class CentreCropSettings(Section):
    """How an image of any shape becomes a square without being squeezed.

    The shorter side is resized, and the centre is cut out, as torchvision's `Resize` and
    `CenterCrop` do.
    """

    resize_px: int = Field(
        ge=8,
        le=4096,
        description="Length of the shorter side after resizing. The aspect ratio is kept.",
    )
    crop_px: int = Field(
        ge=8,
        le=4096,
        description="Height and width of the centre that is cut out: the students' image size.",
    )
    resampling: Resampling = Field(
        default="bilinear", description="Filter that resizes: `lanczos`, `bicubic` or `bilinear`."
    )

    @model_validator(mode="after")
    def _has_a_centre_to_cut(self) -> Self:
        if self.crop_px > self.resize_px:
            msg = (
                f"`crop_px` must be at most `resize_px`, found {self.crop_px} and {self.resize_px}"
            )
            raise ValueError(msg)
        return self
