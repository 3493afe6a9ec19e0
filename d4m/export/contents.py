"""Gather all that an export holds from the store: images, labels, scores, lineage."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from PIL import Image
from pydantic import ValidationError

from d4m.errors import D4MError, RecipeError
from d4m.export.label_table import LabelledEpoch, smaller_labels
from d4m.images.png import encode_png
from d4m.images.statistics import ChannelStatistics, measure_channels
from d4m.pipeline import Pipeline
from d4m.reports.conditions import describe_device
from d4m.reports.dataset_diff import DatasetVersion
from d4m.reports.lineage import ImageOrigin, Origin, image_origins, trace
from d4m.reports.versions import find_version
from d4m.settings import RecipeSettings, SoftLabelSettings
from d4m.stages.context import StageContext
from d4m.stages.display_names import with_names
from d4m.stages.distilled_dataset import DistilledDataset
from d4m.stages.provenance import conditions
from d4m.stages.score_table import ScoreRow
from d4m.stages.synthetic_images import SyntheticImages
from d4m.stages.training_sets import real_batches, view_size_px
from d4m.stages.unit_names import class_unit

_DATASET = DistilledDataset.name

LabelFormat = Literal["float16", "uint8", "top_k"]


@dataclass(frozen=True)
class ExportedImage:
    """An image of the distilled set, and what it was made of.

    Attributes:
        png: the image as a file.
        class_id: of the image.
        number: of the image within its class, which is that of its cluster.
        prompt: of its class.
        seed: of the noise that the diffusion started from.
        origin: the real image that it began with; None where that is no longer stored.
    """

    png: bytes
    class_id: int
    number: int
    prompt: str
    seed: int
    origin: ImageOrigin | None


@dataclass(frozen=True)
class Contents:
    """A distilled data set in the store, ready to be written for others.

    Attributes:
        name: of the recipe.
        key: of the packed unit.
        settings: every setting, as dumped, with the recipe's names of students and teachers.
        classes: id, name and prompt of each class.
        scores: the rows of its score table.
        folder: of the packed unit.
        context: with the packed unit in its `upstream`.
        failed: the checks that fail, in words.
        earlier: whether this is a version before the present one.
        labels: format and number of epochs to pack soft labels in; None: as they are stored.
    """

    name: str
    key: str
    settings: Mapping[str, Any]
    classes: Sequence[Mapping[str, Any]]
    scores: Sequence[ScoreRow]
    folder: Path
    context: StageContext
    failed: Sequence[str] = ()
    earlier: bool = False
    labels: SoftLabelSettings | None = None

    @cached_property
    def recipe(self) -> RecipeSettings:
        """The settings as this release of d4m reads them."""
        try:
            return RecipeSettings.from_dump(self.settings)
        except ValidationError as failure:
            msg = f"cannot export: these settings are of another version of d4m: {failure}"
            raise RecipeError(msg) from None

    @property
    def class_names(self) -> list[str]:
        """The names of the classes, in the order of their ids."""
        return [each["name"] for each in self.classes]

    def with_labels(self, label_format: LabelFormat | None, epochs: int | None) -> "Contents":
        """Return these contents with smaller soft labels.

        Args:
            label_format: to pack them in; None: as they are stored.
            epochs: how many labelled epochs to keep; None: all.

        Raises:
            D4MError: there are none, or they are stored in a smaller format.
        """
        stored = self.recipe.soft_labels
        if label_format is None and epochs is None:
            return self
        wanted = {"format": label_format or stored.format, "labelled_epochs": epochs}
        if not self.has_labels or stored.format not in ("float16", wanted["format"]):
            found = f"format {stored.format}" if self.has_labels else "none"
            msg = (
                f"cannot make soft labels of recipe {self.name} smaller: wanted labels of format "
                f"float16, found {found}; leave `--labels` and `--epochs` out"
            )
            raise D4MError(msg)
        kept = stored.model_copy(update={k: v for k, v in wanted.items() if v is not None})
        return replace(self, labels=kept)

    @property
    def has_labels(self) -> bool:
        """Whether soft labels are stored."""
        return (self.folder / "soft_labels.zarr").exists()

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Number of images, their height and width, and their channels."""
        count, size_px, _, channels = self._images["images"].shape
        return count * self.recipe.synthesis.tiles, size_px, channels

    @cached_property
    def origin(self) -> Origin:
        """The packed unit with all units that it was made of."""
        return trace(self.context, _DATASET, [_DATASET])[0]

    @property
    def made_on(self) -> str:
        """The device, processor and version of torch that the units were made with, in words."""
        made = dict[str, dict[str, list[str]]]()
        for each in self.origin.walk():
            found = conditions(each.reference.provenance) if each.reference else {}
            for name, value in found.items():
                made.setdefault(name, {}).setdefault(value, []).append(each.unit)
        return describe_device(made)

    def images(self) -> Iterator[ExportedImage]:
        """Yield every image in class order, with one class in memory at a time.

        Of a mosaic, every tile is an image, as students see it.
        """
        tiles = self.recipe.synthesis.tiles
        seeds, start = np.asarray(self._images["seeds"][...]).tolist(), 0
        units = {
            each.unit: each for each in self.origin.sources if each.asset == SyntheticImages.name
        }
        for class_id, each in enumerate(self.classes):
            files = sorted((self.folder / "images" / f"{class_id:05d}").glob("*.png"))
            unit = units.get(class_unit(class_id))
            origins = image_origins(self.context, unit) if unit else []
            for number, png in enumerate(self._pngs(files)):
                yield ExportedImage(
                    png=png,
                    class_id=class_id,
                    number=number,
                    prompt=each["prompt"],
                    seed=seeds[start + number // tiles],
                    origin=origins[number] if origins else None,
                )
            start += len(files)

    def _pngs(self, files: Sequence[Path]) -> Iterator[bytes]:
        """Yield the files' bytes; of mosaics, a file per tile."""
        if (edge := self.recipe.synthesis.mosaic) == 1:
            yield from (file.read_bytes() for file in files)
            return
        from d4m.images.mosaics import unpack_images

        for file in files:
            with Image.open(file) as opened:
                stored = np.atleast_3d(np.array(opened))
            yield from map(encode_png, unpack_images(stored[None], edge))

    def labelled_epochs(self) -> Iterator[LabelledEpoch]:
        """Yield the views and the labels of every epoch."""
        epochs = read_labelled_epochs(self.folder)
        classes = len(self.classes)
        yield from smaller_labels(epochs, self.labels, classes) if self.labels else epochs

    def statistics(self) -> ChannelStatistics | None:
        """Return the mean and deviation by which students see pixels; None where they do not.

        Raises:
            D4MError: they are those of the training images of an earlier version.
        """
        pixels = self.recipe.evaluation.pixels
        if not pixels.standardise:
            return None
        if pixels.mean is not None and pixels.deviation is not None:
            return ChannelStatistics(pixels.mean, pixels.deviation).for_channels(self.shape[2])
        if self.earlier:
            msg = (
                "students of this version see pixels standardised by its training images, which "
                "may have changed since; `d4m restore` it as a recipe, run that and export it"
            )
            raise D4MError(msg)
        size_px = view_size_px(self.context)
        return measure_channels(real_batches(self.context, "train", size_px=size_px))

    @cached_property
    def _images(self) -> dict[str, Any]:
        return dict(zarr.open_group(self.folder / "synthetic_images.zarr", mode="r").arrays())


def open_contents(pipeline: Pipeline, version: str = "") -> Contents:
    """Find the data set of the present recipe, or an earlier version of it.

    Args:
        pipeline: of the recipe.
        version: the beginning of a version's name or digest, `current` or `previous`; "": the
            present recipe's.

    Raises:
        D4MError: there is none, or it is not that of the present recipe.
    """
    name, settings = pipeline.recipe.name, pipeline.recipe.settings
    if version:
        context = pipeline.open_context()
        found = find_version(context, _DATASET, version)
        opened, units = DatasetVersion.open(context, found), found.manifest.units
        return Contents(
            name=name,
            key=units[_DATASET].key,
            settings=with_names(opened.settings, settings),
            classes=opened.classes,
            scores=opened.named_scores(settings),
            folder=opened.folder,
            context=replace(context, upstream={**context.upstream, _DATASET: units}),
            earlier=True,
        )
    shown = pipeline.shown()
    if shown.version:
        msg = (
            f"recipe {name} has changed since its last data set was made ({shown.note}); run "
            f"`d4m run {name}` first, or export that one with `--version {shown.version}`"
        )
        raise D4MError(msg)
    if shown.folder is None or shown.context is None:
        msg = f"recipe {name} has scores but no packed data set; run `d4m run {name}` first"
        raise D4MError(msg)
    record = shown.context.upstream[_DATASET][_DATASET]
    assert record is not None, "it is packed"
    stored = json.loads((shown.folder / "recipe.json").read_text(encoding="utf-8"))
    failed = [
        f"{found.severity}: {check.artifact}, {check.name}: {found.summary}"
        for artifact in shown.context.upstream
        for check, found in pipeline.check(artifact, shown.context)
        if not found.passed
    ]
    return Contents(
        name=name,
        key=record.key,
        settings=with_names(stored, settings),
        classes=json.loads((shown.folder / "classes.json").read_text(encoding="utf-8")),
        scores=shown.scores,
        folder=shown.folder,
        context=shown.context,
        failed=failed,
    )


def read_labelled_epochs(folder: Path) -> Iterator[LabelledEpoch]:
    """Yield the views and the labels of every epoch of a packed unit, as they are stored."""
    views, labels = (
        dict(zarr.open_group(folder / f"{name}.zarr", mode="r").arrays())
        for name in ("views", "soft_labels")
    )
    return map(LabelledEpoch, _by_epoch(views), _by_epoch(labels))


def _by_epoch(arrays: Mapping[str, Any]) -> Iterator[dict[str, np.ndarray]]:
    """Yield the arrays of every epoch, and read each chunk once."""
    epochs = next(iter(arrays.values())).shape[0]
    held = dict[str, tuple[int, np.ndarray]]()
    for epoch in range(epochs):
        for name, array in arrays.items():
            rows = array.chunks[0]
            if epoch % rows == 0:
                held[name] = epoch, np.asarray(array[epoch : epoch + rows])
        yield {name: values[epoch - start] for name, (start, values) in held.items()}
