"""The images to distil: one model per kind of source."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from d4m.settings.place import AddressOrName, Place, is_address
from d4m.settings.section import Resampling, Section, Share

Channels = Literal[1, 3]
Level = Annotated[int, Field(ge=0, le=255)]
SizePx = Annotated[int, Field(ge=8, le=4096)]
Level16 = Annotated[int, Field(ge=1, le=65535)]
InputFilter = Annotated[
    Resampling,
    Field(
        exclude_if=lambda value: value == "lanczos",
        description=(
            "Filter that resizes the images: `lanczos`, `bicubic` or `bilinear`. The published "
            "code has `bilinear`."
        ),
    ),
]


class SourceSettings(Section):
    """The keys that every data set has."""

    validation_share: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description=(
            "Share of each class's training images that is kept out of all training, to "
            "choose settings on it (`evaluation.split: validation`)."
        ),
    )
    duplicates: Literal["keep", "drop"] = Field(
        default="keep",
        exclude_if=lambda value: value == "keep",  # so the keys of earlier recipes stay
        description=(
            "`drop` leaves out images whose bytes are also another image's: one copy stays (of "
            "test, validation and training images the first), and none if their classes differ."
        ),
    )

    def watched_folder(self, locate: Callable[[str | Path], Path]) -> Path | None:
        """Return the folder whose images may change; None for a published data set or a bucket.

        Looking at a bucket often would cost its owner money.

        Args:
            locate: an absolute path for one that the recipe gives relative to its own file.
        """
        path: str | Path | None = getattr(self, "path", None)
        return None if path is None or is_address(path) else locate(path)


class DigitsSettings(SourceSettings):
    """scikit-learn's 1,797 handwritten digits of 8 x 8 grey pixels (Alpaydin & Kaynak, 1998)."""

    source: Literal["digits"] = Field(description="The source of the images.")
    test_images: int = Field(
        default=360,
        ge=10,
        le=1000,
        description="Images held out for the final scores, the same share of each class.",
    )


class MnistSettings(SourceSettings):
    """MNIST (LeCun et al., 1998) or Fashion-MNIST (Xiao et al., 2017), from their IDX files."""

    source: Literal["mnist", "fashion_mnist"] = Field(description="The source of the images.")
    path: Place | None = Field(
        default=None,
        description=(
            "Folder of the four IDX files, packed (.gz) or not, relative to the recipe file, or "
            "its address in an object store. Without it, the system's own copy is used, or else "
            "a download."
        ),
    )
    size_px: SizePx = Field(
        default=28, description="Height and width. Images are resized unless it is 28."
    )
    channels: Channels = Field(default=1, description="1: grey, 3: RGB.")
    resampling: InputFilter = "lanczos"


class CifarSettings(SourceSettings):
    """CIFAR-10 or CIFAR-100 (Krizhevsky, 2009), through torchvision."""

    source: Literal["cifar10", "cifar100"] = Field(description="The source of the images.")
    path: Place | None = Field(
        default=None,
        description=(
            "Folder of torchvision's copy, relative to the recipe file, or its address in an "
            "object store. Without it, the data set is downloaded into the user's cache folder."
        ),
    )
    size_px: SizePx = Field(
        default=32, description="Height and width. Images are resized unless it is 32."
    )
    channels: Channels = Field(default=3, description="1: grey, 3: RGB.")
    resampling: InputFilter = "lanczos"


class FileImageSettings(SourceSettings):
    """How image files of any size and format become images of one size."""

    classes: dict[str, str] | str | None = Field(
        default=None,
        min_length=1,
        description=(
            "Class table: a shipped one by name (imagenet1k, tiny_imagenet, imagenette, "
            "imagewoof), a .tsv file relative to the recipe file, or pairs `folder: class "
            "name` in class order. Without it, the data set names the classes."
        ),
    )
    size_px: SizePx = Field(
        default=512, description="Height and width. Images are resized to this square."
    )
    channels: Channels = Field(default=3, description="1: grey, 3: RGB.")
    resize: Literal["squash", "crop"] = Field(
        default="squash",
        description=(
            "`squash` squeezes the whole image into the square, as the paper does; `crop` "
            "cuts out the centre."
        ),
    )
    resampling: InputFilter = "lanczos"
    jpeg: Literal["full", "scaled"] = Field(
        default="full",
        exclude_if=lambda value: value == "full",
        description=(
            "Size at which JPEG files are decoded. `scaled`: a half, a quarter or an eighth, where "
            "that leaves at least twice the pixels per side that are asked for. Large photographs "
            "are read several times as fast, and their pixels differ a little."
        ),
    )
    background: tuple[Level, Level, Level] = Field(
        default=(255, 255, 255), description="Colour behind transparent pixels: red, green, blue."
    )
    test_share: float = Field(
        default=0.2,
        gt=0.0,
        lt=1.0,
        description="Share of the images that is held out if there is no test split.",
    )
    value_range: Literal["full", "auto"] | Level16 = Field(
        default="full",
        exclude_if=lambda value: value == "full",
        description=(
            "Level of an image of 16 bits per channel that becomes white. `full`: 65535; `auto`: "
            "the highest level of all training images, rounded up to a power of two minus one "
            "(image folders only); or a level, such as 4095 for 12 bits."
        ),
    )
    unreadable_share: Share = Field(
        default=0.01,
        description=(
            "The asset check `readable_files` fails if a larger share of the images cannot be read."
        ),
    )


class SplitFolderSettings(Section):
    """The folders of the splits, each with one sub-folder of image files per class."""

    train: str = Field(min_length=1, description="Folder of the training images; `.` is `path`.")
    test: str | None = Field(
        default=None,
        min_length=1,
        description="Folder of the test images. Without it, a share of the training images.",
    )
    validation: str | None = Field(
        default=None, min_length=1, description="Folder of the validation images."
    )


class ImageFolderSettings(FileImageSettings):
    """A folder with one sub-folder of image files per class."""

    source: Literal["image_folder"] = Field(description="The source of the images.")
    path: Place = Field(
        description=(
            "Folder of class folders, or of train/ and test/ (or val/), relative to the "
            "recipe file, or its address in an object store: s3://bucket/prefix, "
            "gs://bucket/prefix or az://container/prefix."
        )
    )
    splits: SplitFolderSettings | Literal["auto", "none"] = Field(
        default="auto",
        exclude_if=lambda value: value == "auto",
        description=(
            "Folders of the splits, relative to `path`, such as {train: Training, test: Testing}. "
            "`auto` recognises usual names; `none`: every folder is a class."
        ),
    )

    @model_validator(mode="after")
    def _has_one_validation_split(self) -> Self:
        named = isinstance(self.splits, SplitFolderSettings) and self.splits.validation is not None
        if named and self.validation_share > 0:
            msg = (
                "dataset.splits: `validation` names a folder, and `dataset.validation_share` asks "
                "for a share of the training images; remove one of them"
            )
            raise ValueError(msg)
        return self


class HuggingFaceSettings(FileImageSettings):
    """A data set of the Hugging Face hub, or one saved to a folder."""

    source: Literal["huggingface"] = Field(description="The source of the images.")
    path: AddressOrName = Field(
        min_length=1,
        description=(
            "Hub id, or a saved data set's folder, relative to the recipe file, or the folder's "
            "address in an object store."
        ),
    )
    configuration: str | None = Field(
        default=None, description="Name of the data set's configuration."
    )
    revision: str | None = Field(default=None, description="Commit, tag or branch of the hub id.")
    train_split: str = Field(default="train", description="Split of the training images.")
    test_split: str | None = Field(
        default="test",
        description=(
            "Split of the test images. With `null`, a share of the training split (`test_share`)."
        ),
    )
    validation_split: str | None = Field(
        default=None,
        min_length=1,
        exclude_if=lambda value: value is None,
        description="Split of the validation images. Without it, see `validation_share`.",
    )
    image_column: str = Field(default="image", description="Column of the images.")
    label_column: str = Field(default="label", description="Column of the class labels.")

    @model_validator(mode="after")
    def _has_a_known_range(self) -> Self:
        if self.value_range == "auto":
            msg = "dataset.value_range: `auto` needs an image folder; name the level that is white"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _has_one_validation_split(self) -> Self:
        if self.validation_split is not None and self.validation_share > 0:
            msg = (
                "dataset.validation_split: a split is named, and `dataset.validation_share` asks "
                "for a share of the training images; remove one of them"
            )
            raise ValueError(msg)
        return self

    def watched_folder(self, locate: Callable[[str | Path], Path]) -> Path | None:
        """Return the folder of a saved data set; a hub id is not watched, and no bucket."""
        folder = super().watched_folder(locate)
        return folder if folder is not None and folder.is_dir() else None


DatasetSettings = Annotated[
    DigitsSettings | MnistSettings | CifarSettings | ImageFolderSettings | HuggingFaceSettings,
    Field(discriminator="source"),
]
