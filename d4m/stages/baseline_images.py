"""Artifact `baseline_images`: baselines that take time to make, made once for all students."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np

from d4m.settings import MADE
from d4m.stages.base import Product, Stage
from d4m.stages.context import Inputs, StageContext
from d4m.stages.coresets import CORESETS, RANKED, coreset_inputs, log_inputs, make_coreset, make_log
from d4m.stages.made_images import ImageMaker, plan_pieces
from d4m.stages.unit_names import TRAINING_LOG, made_unit
from d4m.store.reference import Unit


class BaselineImages(Stage):
    """The images of some baselines; no unit where the recipe has none of these.

    Unit: a coreset; a piece of a set of images that are made; or the log of a training, by which
    two of the coresets are ranked. Coresets are the same in every distillation.
    """

    name: ClassVar[str] = "baseline_images"
    upstream: ClassVar[tuple[str, ...]] = ("real_images", "teacher")
    sections: ClassVar[tuple[str, ...]] = (
        "dataset",
        "prototypes",
        "synthesis",
        "teacher",
        "made_baselines",
        "seed",
    )
    divisible: ClassVar[bool] = True

    def plan(self, context: StageContext) -> list[Unit]:
        """Return the log if a coreset needs it, then coresets, then pieces of made images."""
        evaluation = context.recipe.settings.evaluation
        wanted = evaluation.baselines
        planned = dict[str, Inputs]()
        if any(name in RANKED for name in wanted):
            planned[TRAINING_LOG] = log_inputs(context) | Inputs({"made": TRAINING_LOG})
        for name in wanted:
            if name in CORESETS:
                planned[name] = coreset_inputs(context, name) | Inputs({"made": name})
        for distillation in range(evaluation.distillations):
            for name in wanted:
                if name not in MADE or name in CORESETS:
                    continue
                for piece, inputs in enumerate(plan_pieces(context, name, distillation)):
                    unit = made_unit(name, piece, distillation)
                    planned[unit] = inputs | Inputs({"made": name})
        return [self.unit(context, name, inputs) for name, inputs in planned.items()]

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Make unit after unit; real images are measured once."""
        if not missing:
            return
        maker = ImageMaker(context, missing[0].settings["size_px"])
        for unit in missing:
            yield unit, _make(context, maker, unit)


def _make(context: StageContext, maker: ImageMaker, unit: Unit) -> Mapping[str, np.ndarray]:
    made = unit.settings["made"]
    if made == TRAINING_LOG:
        return make_log(context, unit)
    return make_coreset(context, unit) if made in CORESETS else maker.make(unit)
