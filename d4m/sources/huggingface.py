"""Data sets from the Hugging Face hub, or from a folder that the `datasets` library can load."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Int64, UInt8

from d4m.errors import SourceError
from d4m.seeds import stream_seed
from d4m.settings import CentreCropSettings, HuggingFaceSettings
from d4m.sources.base import SPLITS, ImageIndex, ImageSource, Split, stack_digests
from d4m.sources.class_rows import class_table, describe_lookalikes, match_rows, named
from d4m.sources.class_table import ClassRow
from d4m.sources.decode import DECODER_VERSION, decode_file, file_decoding, quiet_pillow
from d4m.sources.file_digests import check_image, thread_count
from d4m.sources.file_listing import describe
from d4m.sources.held_out_share import held_out
from d4m.sources.huggingface_columns import check_columns
from d4m.sources.huggingface_splits import load_splits, named_splits
from d4m.sources.unicode_names import Names
from d4m.sources.value_range import FULL_RANGE
from d4m.store.digest import digest_arrays, digest_json
from d4m.store.file_stamps import describe_file

if TYPE_CHECKING:
    from datasets import Dataset

_log = logging.getLogger(__name__)


class HuggingFaceSource(ImageSource):
    """The source of a data set with a column of images and a column of labels.

    Labels are ClassLabels, whose order is kept, or text or whole numbers, which are sorted. The id
    of an image is its split and row number. If the recipe names no test split, a share of the
    training rows of every class is held out; a fixed seed and the row number decide which, as
    `held_out` says.

    Args:
        settings: hub id or folder, splits, columns, class table, size and decoding.
        folder: the folder that `settings.path` names, absolute; None: `settings.path` is a hub id.
        rows: the recipe's class table; None: the labels are the classes.

    Raises:
        SourceError: the library is not installed, the data set cannot be loaded or lacks a split or
            column, or its labels do not match the recipe's classes.
    """

    in_files = True

    def __init__(
        self,
        settings: HuggingFaceSettings,
        folder: Path | None,
        *,
        rows: Sequence[ClassRow] | None = None,
    ) -> None:
        """Load the labels without reading any image."""
        self._settings = settings
        self._place = f"{settings.path} (column {settings.label_column})"
        self.size_px = settings.size_px
        self.channels = settings.channels
        self._white = settings.value_range if isinstance(settings.value_range, int) else FULL_RANGE
        self.decoding = file_decoding(settings, self._white)
        self.test_is_held_out = settings.test_split is None
        loaded = load_splits(settings, folder)
        self._splits = self._choose_splits(loaded.datasets)
        self._unused = sorted({*loaded.datasets}.difference(named_splits(settings).values()))
        self._left_out = loaded.left_out
        if self._left_out:
            _log.warning("%s: %s", settings.path, self._left_out)
        self.splits = (*SPLITS, "validation") if settings.validation_split else SPLITS
        labels: dict[Split, list[str]] = {split: self._labels(split) for split in self._splits}
        matched = self._match(rows, labels)
        self.class_table = class_table(matched)
        ids = {row.folder: class_id for class_id, row in enumerate(matched)}
        names = Names(ids)
        self._class_ids = dict[Split, Int64[np.ndarray, "row"]]()
        for split, found in labels.items():
            own = {label: ids.get(names.find(label) or "", -1) for label in set(found)}
            self._class_ids[split] = np.array([own[label] for label in found], np.int64)

    def fingerprint(self, split: Split, class_id: int) -> str:
        """Return a digest of the class's rows and of its files by name, size, times and inode.

        These are the split's tables, and the image files that rows of the class name instead of
        holding an image's bytes.
        """
        dataset = self._splits.get(split, self._splits["train"])
        files = [cast(str, file["filename"]) for file in dataset.cache_files]
        described = {name: describe_file(Path(name)) for name in files}
        rows = self._rows(split, class_id)
        content = {
            "files": described | self._describe_named_files(split, rows),
            "rows": digest_arrays({"rows": rows}),
            "column": self._settings.image_column,
            "decoder": DECODER_VERSION,
        }
        return digest_json(content)

    def index(self, split: Split, class_id: int) -> ImageIndex:
        """Read and decode every image of the class, and list the usable and the unreadable ones."""
        names = [f"{split}-{row:07d}" for row in self._rows(split, class_id)]
        readers = [partial(self._content, split, name) for name in names]
        with quiet_pillow(), ThreadPoolExecutor(thread_count()) as pool:
            checks = list(zip(names, pool.map(check_image, readers), strict=True))
        return ImageIndex(
            tuple(name for name, check in checks if check.digest),
            stack_digests([np.frombuffer(c.digest, np.uint8) for _, c in checks if c.digest]),
            {name: check.reason for name, check in checks if check.reason},
        )

    def count(self, split: Split, class_id: int) -> int:
        """Return the number of the class's rows."""
        return len(self._rows(split, class_id))

    def describe(self) -> str:
        """Return which splits are used, what is left out, and class names that look the same."""
        settings = self._settings
        held = f"{settings.test_share:.0%} of it, and at least 1 image of each class"
        text = f"train: split {settings.train_split}; test: "
        text += held if settings.test_split is None else f"split {settings.test_split}"
        validation, unused = settings.validation_split, ", ".join(self._unused)
        parts = [text, validation and f"validation: split {validation}"]
        parts += [unused and f"not used: split {unused}", self._left_out]
        return "; ".join(filter(None, [*parts, describe_lookalikes(self.class_table.names)]))

    def _describe_named_files(
        self, split: Split, rows: Int64[np.ndarray, "row"]
    ) -> dict[str, list[int | str]]:
        """Describe the image files that rows name; a table that holds all bytes names none."""
        dataset, column = (
            self._images.get(split, self._images["train"]),
            self._settings.image_column,
        )
        chunks = dataset.data.column(column).chunks
        if not any(chunk.field("bytes").null_count for chunk in chunks):
            return {}
        values = list(dataset.select(rows)[column])
        names = [value["path"] for value in values if value and value["bytes"] is None]
        described = dict[str, list[int | str]]()
        for name in filter(None, names):
            try:
                described[name] = describe_file(Path(name))
            except OSError as failure:
                described[name] = [describe(failure)]
        return described

    def _content(self, split: Split, image_id: str) -> bytes:
        dataset = self._images.get(split, self._images["train"])
        row = int(image_id.split("-")[1])
        value = dataset[row][self._settings.image_column] if row < len(dataset) else None
        content, path = (None, None) if value is None else (value["bytes"], value["path"])
        return content or (Path(path).read_bytes() if path and content is None else b"")

    def _decode(
        self, content: bytes, size: int | CentreCropSettings
    ) -> UInt8[np.ndarray, "height width channel"]:
        return decode_file(content, self._settings, size, white=self._white)

    def _rows(self, split: Split, class_id: int) -> Int64[np.ndarray, "image"]:
        rows = np.flatnonzero(self._class_ids.get(split, self._class_ids["train"]) == class_id)
        if "test" in self._splits or split == "validation":
            return rows
        return rows[self._held_out[rows] == (split == "test")]

    @cached_property
    def _held_out(self) -> np.ndarray:
        """Whether each row of the training split is held out as a test image."""
        class_ids = self._class_ids["train"]
        draws = [
            stream_seed(0, "huggingface", "split", row) / 2**63 for row in range(len(class_ids))
        ]
        chosen = np.array(draws) < self._settings.test_share
        for class_id in range(len(self.class_table)):
            rows = np.flatnonzero(class_ids == class_id)
            chosen[rows] = held_out([draws[row] for row in rows], self._settings.test_share)
        return chosen

    @cached_property
    def _images(self) -> dict[Split, "Dataset"]:
        """The image column of each split, not decoded."""
        from datasets import Image

        column = self._settings.image_column
        return {
            split: dataset.select_columns([column]).cast_column(column, Image(decode=False))
            for split, dataset in self._splits.items()
        }

    def _choose_splits(self, loaded: Mapping[str, "Dataset"]) -> dict[Split, "Dataset"]:
        settings = self._settings
        wanted = named_splits(settings)
        for split, name in wanted.items():
            if name not in loaded:
                msg = (
                    f"`dataset.{split}_split`: {settings.path} has no split '{name}'; it has "
                    f"{named(list(loaded))}; name one of them"
                ) + ("" if split == "train" else ", or write null to hold out a share")
                raise SourceError(msg)
            check_columns(settings, name, loaded[name])
            first = next(each for each in wanted if wanted[each] == name)
            if first != split:
                known = "training" if first == "train" else first
                msg = (
                    f"`dataset.{split}_split` is the {known} split, '{name}', itself; name another "
                    f"split, or write null to hold out a share"
                )
                raise SourceError(msg)
        return {split: loaded[name] for split, name in wanted.items()}

    def _labels(self, split: Split) -> list[str]:
        """Return the label of every row, as text."""
        column, dataset = self._settings.label_column, self._splits[split]
        names = self._label_names(split)
        values = cast("list[Any]", dataset.select_columns([column])[:][column])
        lost = [row for row, v in enumerate(values) if v is None or (names is not None and v < 0)]
        if lost:
            msg = (
                f"wanted a label in every row of {self._place}, found none in {len(lost)} rows of "
                f"the {split} images, the first of them row {lost[0]}; fill in these labels, "
                f"remove the rows, or choose another split"
            )
            raise SourceError(msg)
        return [names[v] for v in values] if names is not None else [str(v) for v in values]

    def _label_names(self, split: Split) -> list[str] | None:
        """Return the names of a split's ClassLabels, or None if its labels are text or numbers."""
        return getattr(self._splits[split].features[self._settings.label_column], "names", None)

    def _used(self, names: Sequence[str], labels: Sequence[str]) -> list[str]:
        """Return the names of ClassLabels that rows have; the others are no classes."""
        found = set(labels)
        if unused := [name for name in names if name not in found]:
            _log.warning(
                "%s: no training image is labelled %s; these names are no classes",
                self._place,
                named(unused),
            )
        return [name for name in names if name in found]

    def _match(
        self, rows: Sequence[ClassRow] | None, labels: Mapping[Split, Sequence[str]]
    ) -> tuple[ClassRow, ...]:
        names = self._label_names("train")
        known = names or sorted(set(labels["train"]))
        if rows is None and names is not None:
            known = self._used(names, labels["train"])
            rows = [ClassRow(name, name) for name in known]
        subset = isinstance(self._settings.classes, dict)
        matched = match_rows(rows, known, self._place, subset=subset)
        names_of_train = Names(known)
        for split in ("test", "validation"):
            unknown = sorted(n for n in {*labels.get(split, ())} if names_of_train.find(n) is None)
            if not unknown or subset:
                continue
            msg = (
                f"{self._place} has {split} images labelled {named(unknown)}, but no training "
                f"images with such a label; choose other splits, or list the classes to use in "
                f"`dataset.classes`"
            )
            raise SourceError(msg)
        return matched
