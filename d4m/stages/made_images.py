"""Images that baselines are made of, piece by piece: mosaics, and images fitted by other methods.

A piece of `mosaic_real` or `dm` is a class. A piece of `sre2l` is a block of images of all classes,
which are fitted together.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from d4m.images.statistics import ChannelStatistics, measure_channels
from d4m.seeds import distillation_seed, stream_generator, stream_seed
from d4m.settings import Baseline, DistributionMatchingSettings, Sre2lSettings
from d4m.stages.context import Inputs, StageContext
from d4m.stages.teacher import load_teacher, teacher_inputs
from d4m.stages.training_sets import real_batches, view_size_px
from d4m.stages.unit_names import split_unit
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from torch import Tensor, nn

    from d4m.baselines.pixels import Standard

SRE2L_BLOCK = 100
"""Images that SRe2L fits together, as published."""


def plan_pieces(context: StageContext, name: Baseline, distillation: int) -> list[Inputs]:
    """Return what each piece of a set of made images depends on.

    Args:
        context: the recipe, its images and the teacher.
        name: `mosaic_real`, `dm` or `sre2l`.
        distillation: whose random streams are drawn from.
    """
    recipe = context.recipe.settings
    root = stream_seed(distillation_seed(recipe.seed, distillation), name)
    ipc, classes = recipe.prototypes.ipc, len(context.class_ids)
    shared = Inputs(
        {
            "ipc": ipc,
            "size_px": view_size_px(context),
            "decoding": dict(context.source.decoding),
        }
    )
    numbers = range(-(-ipc * classes // SRE2L_BLOCK)) if name == "sre2l" else context.class_ids
    own = [Inputs({"piece": piece, "seed": stream_seed(root, piece)}) for piece in numbers]
    if name == "mosaic_real":
        shared |= teacher_inputs(context)
        reads = [Inputs(reads=(("real_images", split_unit("train", each)),)) for each in numbers]
        return [shared | each | read for each, read in zip(own, reads, strict=True)]
    shared |= Inputs({"classes": classes}) | context.all_of("real_images", "train-")
    if name == "dm":
        fitting = recipe.evaluation.dm.model_dump(mode="json")
        shared |= Inputs(fitting | {"networks": stream_seed(root, "networks")})
    else:
        fitting = recipe.evaluation.sre2l.model_dump(mode="json")
        shared |= Inputs(fitting | {"channels": context.source.channels}) | teacher_inputs(context)
    return [shared | each for each in own]


class ImageMaker:
    """The maker of pieces, which measures the real images once for all of them.

    Args:
        context: with what the units read.
        size_px: height and width of the images.
    """

    def __init__(self, context: StageContext, size_px: int) -> None:
        """Measure nothing yet."""
        self._context = context
        self._size_px = size_px
        self._loaded: nn.Module | None = None

    def make(self, unit: Unit) -> dict[str, np.ndarray]:
        """Return the images of a piece, and the class of each."""
        from d4m.images.pixels import to_images

        makers = {"mosaic_real": self._mosaics, "dm": self._matched, "sre2l": self._recovered}
        pixels, class_ids = makers[unit.settings["made"]](unit)
        return {"images": to_images(pixels), "class_ids": class_ids}

    def _mosaics(self, unit: Unit) -> "tuple[Tensor, np.ndarray]":
        from d4m.baselines.mosaics import MOST_IMAGES, PIECES, choose_mosaics

        settings, class_id = unit.settings, unit.settings["piece"]
        images = len(self._context.image_index("train", class_id).image_ids)
        draw = stream_generator(settings["seed"], "images").permutation(images)
        return choose_mosaics(
            self._read(class_id, np.sort(draw[: max(MOST_IMAGES, PIECES * settings["ipc"])])),
            self._teacher(unit),
            class_id,
            count=settings["ipc"],
            seed=settings["seed"],
        ), _repeat(class_id, settings)

    def _matched(self, unit: Unit) -> "tuple[Tensor, np.ndarray]":
        from d4m.baselines.distribution_matching import match_distribution, random_network

        settings, class_id = unit.settings, unit.settings["piece"]
        images = len(self._context.image_index("train", class_id).image_ids)
        real = self._read(class_id, np.arange(images))

        def network(step: int) -> Any:
            seed = stream_seed(settings["networks"], step)
            return random_network(real, classes=settings["classes"], seed=seed)

        return match_distribution(
            real,
            settings["ipc"],
            self._standard,
            network,
            settings=DistributionMatchingSettings.among(settings),
            seed=settings["seed"],
        ), _repeat(class_id, settings)

    def _recovered(self, unit: Unit) -> "tuple[Tensor, np.ndarray]":
        import torch

        from d4m.baselines.statistics_matching import fit_statistics

        settings, start = unit.settings, unit.settings["piece"] * SRE2L_BLOCK
        total = settings["ipc"] * settings["classes"]
        class_ids = np.arange(start, min(start + SRE2L_BLOCK, total)) % settings["classes"]
        return fit_statistics(
            self._teacher(unit),
            torch.from_numpy(class_ids).to(self._context.device),
            (settings["channels"], settings["size_px"]),
            self._standard,
            settings=Sre2lSettings.among(settings),
            seed=settings["seed"],
        ), class_ids

    def _teacher(self, unit: Unit) -> "nn.Module":
        """Return the teacher of a unit, which is that of all units, loaded once."""
        if self._loaded is None:
            self._loaded = load_teacher(self._context, unit.reads("teacher"))
        return self._loaded

    @cached_property
    def _standard(self) -> "Standard":
        from d4m.baselines.pixels import Standard

        batches = real_batches(self._context, "train", size_px=self._size_px)
        measured: ChannelStatistics = measure_channels(batches)
        return Standard(measured)

    def _read(self, class_id: int, rows: np.ndarray) -> "Tensor":
        """Read some images of a class onto the device."""
        from d4m.images.pixels import to_pixels

        index = self._context.image_index("train", class_id).subset(rows)
        batches = self._context.read_images("train", class_id, index, size_px=self._size_px)
        return to_pixels(np.concatenate(list(batches))).to(self._context.device)


def _repeat(class_id: int, settings: Mapping[str, Any]) -> np.ndarray:
    return np.full(settings["ipc"], class_id, np.int64)
