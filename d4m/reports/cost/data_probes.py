"""Probes of reading and storing: image files, units, the packed data set, and libraries."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from d4m.errors import SourceError
from d4m.reports.cost.bench import Bench, Trial
from d4m.reports.cost.plan import nearest_folder
from d4m.settings import AugmentationSettings, SoftLabelSettings
from d4m.sources.registry import open_source
from d4m.stages.distilled_dataset import write_pngs
from d4m.store.layout import LAYOUTS, write_group_in_pieces
from d4m.store.reference import Unit
from d4m.store.store import ArtifactStore

_MOST_READ = 64
_PREFIX = ".d4m-probe-"
_OLD_S = 3600.0  # a probe takes seconds
_PACKED_AT_ONCE = 10


def _image_indexed(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    """Open the images of the smallest class, of which nothing is remembered."""
    del settings
    source = open_source(bench.context.recipe, bench.folder / "digests")
    counts = [source.count("train", class_id) for class_id in range(len(source.class_table))]
    step = min(count for count in counts if count)

    def run(count: int) -> int:
        for _ in range(count // step):
            source.forget()
            source.index("train", counts.index(step))
        return 0

    return Trial(run, step, waits=True)


def _image_read(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    source = open_source(bench.context.recipe, bench.folder / "digests")
    counts = [source.count("train", class_id) for class_id in range(len(source.class_table))]
    class_id = counts.index(min(count for count in counts if count))
    index = source.index("train", class_id)
    some = index.subset(np.arange(min(_MOST_READ, len(index.image_ids))))
    step = len(some.image_ids)
    if step == 0:
        msg = f"no image of class {source.class_table.names[class_id]} can be read"
        raise SourceError(msg)

    def run(count: int) -> int:
        for _ in range(count // step):
            for _ in source.read_images("train", class_id, some, size_px=settings["size_px"]):
                pass
        return 0

    return Trial(run, step)


def _unit_stored(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    """Publish small units on the disk of the store, where they must reach the disk itself."""
    del settings
    place = nearest_folder(bench.context.store.storage.local)
    _remove_old(place)

    def run(count: int) -> int:
        with tempfile.TemporaryDirectory(dir=place, prefix=_PREFIX) as folder:
            store = ArtifactStore(Path(folder))
            for number in range(count):
                store.publish_arrays(*_small_unit(number), {})
        return 0

    return Trial(run, waits=True)


def _remove_old(place: Path) -> None:
    """Remove the folders of probes that were killed."""
    for leftover in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _OLD_S:
                shutil.rmtree(leftover)


def _unit_read(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    """Read a unit as a stage does: by a store that has not looked at it before."""
    del settings
    folder = bench.folder / "store"
    reference = ArtifactStore(folder).publish_arrays(*_small_unit(0), {})

    def run(count: int) -> int:
        for _ in range(count):
            ArtifactStore(folder).read_arrays(reference.stage, reference.key)
        return 0

    return Trial(run)


def _small_unit(number: int) -> tuple[Unit, dict[str, np.ndarray]]:
    unit = Unit("baseline_images", "1", "probe", {"settings": {"n": number}, "upstream": {}})
    return unit, {"rows": np.full((10, 10), number)}


def _image_packed(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    images = bench.images(_PACKED_AT_ONCE, settings)

    def run(count: int) -> int:
        for _ in range(count // len(images)):
            with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
                write_pngs(Path(folder) / "images", images)
        return 0

    return Trial(run, _PACKED_AT_ONCE)


def _epoch_packed(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    """Write labels and views of some epochs as the data set holds them."""
    from d4m.training.augment import draw_views
    from d4m.training.label_formats import pack_logits

    images, labels = settings["images"], SoftLabelSettings.model_validate(settings["labels"])
    views = AugmentationSettings.among(settings["augmentation"])
    logits = np.random.default_rng(0).standard_normal((1, images, settings["classes"]), np.float32)
    drawn = {"images": images, "size_px": settings["size_px"], "seed": 0}

    def pieces(count: int) -> Iterator[dict[str, np.ndarray]]:
        for epoch in range(count):
            each = draw_views(views, epoch=epoch, **drawn)
            arrays = {name: getattr(each, name) for name in LAYOUTS["views"]}
            yield {name: array[None] for name, array in arrays.items() if array is not None}

    def run(count: int) -> int:
        with tempfile.TemporaryDirectory(dir=bench.folder) as name:
            packed = (pack_logits(logits, labels) for _ in range(count))
            for layout, rows in (("views", pieces(count)), ("soft_labels", packed)):
                write_group_in_pieces(Path(name) / layout, layout, rows, rows=count, attributes={})
            return sum(file.stat().st_size for file in Path(name).rglob("*") if file.is_file())

    return Trial(run)


def _libraries_imported(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    """Import modules that this process has not imported yet."""
    del bench

    def run(count: int) -> int:
        del count
        for module in settings["modules"]:
            import_module(module)
        return 0

    return Trial(run, once=True)


PROBES: Mapping[str, Callable[[Bench, Mapping[str, Any]], Trial]] = {
    "image indexed": _image_indexed,
    "image read": _image_read,
    "unit stored": _unit_stored,
    "unit read": _unit_read,
    "image packed": _image_packed,
    "epoch packed": _epoch_packed,
    "libraries imported": _libraries_imported,
}
