"""Compare two versions of a distilled data set."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from d4m.errors import StoreError
from d4m.images.contact_sheet import draw_contact_sheet
from d4m.reports.changes import setting_changes
from d4m.scores.spread import Spread
from d4m.settings import RecipeSettings
from d4m.stages.context import StageContext
from d4m.stages.display_names import names_of
from d4m.stages.distilled_dataset import DistilledDataset
from d4m.stages.evaluation_scores import EvaluationScores
from d4m.stages.real_images import RealImages
from d4m.stages.score_table import ScoreRow
from d4m.stages.synthetic_images import SyntheticImages
from d4m.stages.unit_names import class_of
from d4m.store.manifest import ManifestVersion

_IMAGES = SyntheticImages.name
_SCORES = EvaluationScores.name
_SHEET_CLASSES = 20
_SHEET_IMAGES = 10
_GAP_PX = 24


@dataclass(frozen=True)
class DatasetVersion:
    """A version of a distilled data set, as it is stored.

    Attributes:
        settings: every setting it was made with.
        classes: name and prompt of each class.
        upstream: digest of every unit that it packs.
        scores: the rows of its score table.
        folder: its files.
    """

    settings: Mapping[str, Any]
    classes: list[dict[str, Any]]
    upstream: Mapping[str, str]
    scores: list[ScoreRow]
    folder: Path

    @classmethod
    def open(cls, context: StageContext, version: ManifestVersion) -> "DatasetVersion":
        """Read it from the store.

        Raises:
            StoreError: its files are gone.
        """
        [record] = version.manifest.units.values()
        reference = context.store.find(DistilledDataset.name, record.key)
        if reference is None:
            msg = f"version {version.name} of recipe {context.recipe.name} is no longer stored"
            raise StoreError(msg)
        folder = context.store.open_files(DistilledDataset.name, record.key)
        scores = (folder / "scores.json").read_text(encoding="utf-8")
        settings = reference.inputs["settings"]
        return cls(
            settings=settings["settings"],
            classes=settings["classes"],
            upstream=reference.inputs["upstream"],
            scores=list(map(_row, json.loads(scores))),
            folder=folder,
        )

    def scored_on(self, context: StageContext) -> frozenset[str]:
        """Return the digests of the images that students were scored on; none if they are gone."""
        scored = {held for name, held in self.upstream.items() if _asset(name) == _SCORES}
        images = f"{RealImages.name}/{self.settings['evaluation']['split']}-"
        for version in context.manifests.versions(_SCORES):
            for record in version.manifest.units.values():
                if record.digest in scored and (unit := context.store.find(_SCORES, record.key)):
                    read = unit.inputs["upstream"].items()
                    return frozenset(held for name, held in read if name.startswith(images))
        return frozenset()

    def named_scores(self, present: RecipeSettings) -> list[ScoreRow]:
        """Return the rows with the names that a recipe has for the same students and teachers."""
        names = names_of(self.settings, present)
        return [
            replace(
                row,
                student=names.get(row.student, row.student),
                teacher=names.get(row.teacher, row.teacher),
            )
            for row in self.scores
        ]


@dataclass(frozen=True)
class ScoreChange:
    """One accuracy of a row of two score tables, as a share; None where there is none."""

    before: float | None
    after: float | None

    @property
    def difference(self) -> float | None:
        """Change from before to after, where there are both."""
        if self.before is None or self.after is None:
            return None
        return self.after - self.before


@dataclass(frozen=True)
class RowChange:
    """A row of two score tables."""

    row: str
    top1: ScoreChange
    balanced: ScoreChange


@dataclass(frozen=True)
class DatasetDiff:
    """The differences between two versions.

    Attributes:
        settings: in words, each setting and each class's prompt that differs.
        units: per artifact, how many of its units are new, changed or gone, and how many there are.
        class_ids: the classes of both whose images differ.
        scores: every row, of either.
    """

    settings: list[str]
    units: dict[str, tuple[int, int]]
    class_ids: list[int]
    scores: list[RowChange]


def compare_datasets(old: DatasetVersion, new: DatasetVersion) -> DatasetDiff:
    """Return what changed from one version to another."""
    changed = [name for name, digest in new.upstream.items() if old.upstream.get(name) != digest]
    lost = [name for name in old.upstream if name not in new.upstream]
    totals = Counter(map(_asset, new.upstream))
    counts = Counter(map(_asset, [*changed, *lost]))
    images = [name for name in changed if name in old.upstream and _asset(name) == _IMAGES]
    return DatasetDiff(
        settings=setting_changes(old.settings, new.settings) + _prompt_changes(old, new),
        units={asset: (counts[asset], totals[asset]) for asset in {**totals, **counts}},
        class_ids=[c for name in images if (c := class_of(name.partition("/")[2])) is not None],
        scores=_score_changes(old, new),
    )


def draw_side_by_side(
    old: DatasetVersion, new: DatasetVersion, class_ids: list[int]
) -> Image.Image:
    """Draw a row per class, the old images left and the new ones right; at most 20 classes."""
    shown = class_ids[:_SHEET_CLASSES]
    sheets = [_sheet(version, shown) for version in (old, new)]
    size = (sum(s.width for s in sheets) + _GAP_PX, max(sheet.height for sheet in sheets))
    picture = Image.new("RGB", size, "white")
    picture.paste(sheets[0], (0, 0))
    picture.paste(sheets[1], (sheets[0].width + _GAP_PX, 0))
    return picture


def _row(stored: Mapping[str, Any]) -> ScoreRow:
    """Return a row of a score table from its JSON."""
    row: dict[str, Any] = dict(stored)
    for name in ("curve", "balanced_curve"):
        row[name] = tuple((int(epoch), float(value)) for epoch, value in stored.get(name, ()))
    for name in ("spread", "lead", "balanced_lead"):  # earlier versions of d4m lack some of them
        row[name] = Spread(**row[name]) if row.get(name) else None
    return ScoreRow(**row)


def _sheet(version: DatasetVersion, class_ids: list[int]) -> Image.Image:
    images, of_class = list[np.ndarray](), list[int]()
    for class_id in class_ids:
        files = sorted((version.folder / "images" / f"{class_id:05d}").glob("*.png"))
        for file in files[:_SHEET_IMAGES]:
            pixels = np.asarray(Image.open(file))
            images.append(pixels if pixels.ndim == 3 else pixels[..., None])
            of_class.append(class_id)
    names = [each["name"] for each in version.classes]
    return draw_contact_sheet(np.stack(images), np.array(of_class), names)


def _asset(unit: str) -> str:
    return unit.partition("/")[0]


def _prompt_changes(old: DatasetVersion, new: DatasetVersion) -> list[str]:
    was = {each["class_id"]: each for each in old.classes}
    return [
        f"prompt of class {each['class_id']} ({each['name']}) changed from "
        f"{was[each['class_id']]['prompt']!r} to {each['prompt']!r}"
        for each in new.classes
        if each["class_id"] in was and was[each["class_id"]]["prompt"] != each["prompt"]
    ]


def _score_changes(old: DatasetVersion, new: DatasetVersion) -> list[RowChange]:
    was, now = ({row.label: row for row in each.scores} for each in (old, new))
    names = [*now, *(name for name in was if name not in now)]
    return [
        RowChange(
            name,
            top1=ScoreChange(*(row and row.top1 for row in pair)),
            balanced=ScoreChange(*(row and row.balanced for row in pair)),
        )
        for name in names
        for pair in [(was.get(name), now.get(name))]
    ]
