"""The units that a run would compute, and the counts that their work follows from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from d4m.reports.plan_ahead import Outlook
from d4m.settings import RecipeSettings
from d4m.sources.base import Split
from d4m.stages.context import StageContext
from d4m.stages.training_sets import pixel_settings, view_size_px
from d4m.store.reference import Unit


@dataclass(frozen=True)
class CostPlan:
    """All that the work of a recipe's stages is counted from.

    Attributes:
        outlook: the plan of every stage.
    """

    outlook: Outlook

    @property
    def context(self) -> StageContext:
        """Recipe, images and store."""
        return self.outlook.context

    @property
    def recipe(self) -> RecipeSettings:
        """The recipe's settings."""
        return self.context.recipe.settings

    @cached_property
    def disk(self) -> int:
        """The number by which the system knows the disk that the store is on, or will be."""
        return nearest_folder(self.context.store.storage.local).stat().st_dev

    def units(self, stage: str) -> Sequence[Unit]:
        """Return all units of a stage."""
        return self.outlook.planned[stage].units

    def missing(self, stage: str) -> list[Unit]:
        """Return the units of a stage that are not stored; some may turn out to be."""
        planned = self.outlook.planned[stage]
        return [unit for unit in planned.units if unit.name not in planned.stored]

    @cached_property
    def images(self) -> dict[Split, list[int]]:
        """Per split, the largest number of images of each class."""
        source = self.context.source
        return {
            split: [source.count(split, class_id) for class_id in self.context.class_ids]
            for split in source.splits
        }

    def total(self, split: Split) -> int:
        """Return the largest number of images of a split."""
        return sum(self.images[split])

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.context.class_ids)

    @property
    def stored_images(self) -> int:
        """Images of one distillation, as they are stored."""
        return self.recipe.prototypes.ipc * self.classes

    @property
    def shown_images(self) -> int:
        """Images of one distillation, as students train on them: each tile of a mosaic is one."""
        return self.stored_images * self.recipe.synthesis.tiles

    @cached_property
    def view(self) -> dict[str, Any]:
        """Images as classifiers see them."""
        return {
            "channels": self.context.source.channels,
            "size_px": view_size_px(self.context),
            "classes": self.classes,
        }

    @cached_property
    def source_pixels(self) -> dict[str, Any]:
        """Images as the generator sees them."""
        return {
            "channels": self.context.source.channels,
            "size_px": pixel_settings(self.context)["size_px"],
        }


def nearest_folder(path: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    return next(each for each in (path, *path.parents) if each.is_dir())
