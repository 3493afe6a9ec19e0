"""Artifact `image_fidelity`: how close each compared set's images are to real ones."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float

from d4m.settings import RecipeSettings
from d4m.stages import compared_sets
from d4m.stages.base import Product, Stage
from d4m.stages.compared_sets import (
    TrainingSet,
    baselines_of,
    read_training_set,
    training_set_inputs,
)
from d4m.stages.context import Inputs, StageContext
from d4m.stages.mosaics import edge_of
from d4m.stages.student_runs import read_scored_set, scored_inputs
from d4m.stages.teacher import load_teacher, teacher_inputs
from d4m.stages.training_sets import synthetic_set
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from torch import nn

    from d4m.images.image_set import ImageSet

_MOST_REAL = 5000
_NEIGHBOURS = 3
_OF_DECODED = ("frechet", "precision")


@dataclass(frozen=True)
class FidelityRow:
    """One compared set, measured in the teacher's features against held-out real images.

    Attributes:
        training_set: the set whose images are measured.
        frechet: squared Frechet distance (FID's formula); grows as sets get smaller.
        kernel: squared maximum mean discrepancy (KID's formula), without that bias.
        precision: share of its images within the real ones' neighbourhoods; `density` counts them.
        recall: share of the real images within its images' neighbourhoods.
        coverage: share of the real images with one of its images in their neighbourhood.
        decoded_frechet: for synthetic images, `frechet` of the prototypes that they began with,
            decoded without diffusion; None for other sets, and if an earlier release measured.
        decoded_precision: likewise, `precision`.
    """

    training_set: TrainingSet
    frechet: float
    kernel: float
    precision: float
    recall: float
    density: float
    coverage: float
    decoded_frechet: float | None = None
    decoded_precision: float | None = None


class ImageFidelity(Stage):
    """How close images are to real ones. Unit: one compared set.

    All are those of the first distillation; the random real images are those of the first seed.
    """

    name: ClassVar[str] = "image_fidelity"
    upstream: ClassVar[tuple[str, ...]] = (*compared_sets.ARTIFACTS, "teacher")
    sections: ClassVar[tuple[str, ...]] = ("compared_sets",)
    divisible: ClassVar[bool] = True

    def plan(self, context: StageContext) -> list[Unit]:
        """Return one unit per compared set; the whole training data is not among them."""
        shared = scored_inputs(context) | teacher_inputs(context)
        images = {
            name: training_set_inputs(context, name) for name in _compared(context.recipe.settings)
        }
        if edge_of(images["synthetic"].settings) > 1:
            # units that lack this compared mosaics with whole decoded prototypes
            images["synthetic"] |= Inputs({"decoded": "tiles"})
        return [self.unit(context, name, own | shared) for name, own in images.items()]

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Measure set after set; the real images' features are computed once."""
        if not missing:
            return
        settings = missing[0].settings  # all sets are compared with the same images
        teacher = load_teacher(context, missing[0].reads("teacher"))
        scored = read_scored_set(context, settings)
        real = _features(teacher, scored, most=_MOST_REAL)
        for unit in missing:
            found = _features(teacher, read_training_set(context, unit.settings, seed_number=0))
            measured = measure_features(real, found)
            if unit.settings["training_set"] == "synthetic":
                prototypes = synthetic_set(
                    context, "decoded_prototypes", mosaic=edge_of(unit.settings)
                )
                decoded = _features(teacher, prototypes)
                of_decoded = measure_features(real, decoded)
                measured |= {f"decoded_{name}": of_decoded[name] for name in _OF_DECODED}
            yield unit, {key: np.array(value) for key, value in measured.items()}


def measure_features(
    real: Float[np.ndarray, "real feature"], found: Float[np.ndarray, "image feature"]
) -> dict[str, float]:
    """Return all figures of a set's features."""
    from d4m.scores.fidelity import frechet_distance, kernel_distance, precision_recall

    neighbours = min(_NEIGHBOURS, len(found) - 1, len(real) - 1)
    return {
        "frechet": frechet_distance(real, found),
        "kernel": kernel_distance(real, found),
        **asdict(precision_recall(real, found, neighbours=neighbours)),
    }


def fidelity_rows(context: StageContext, recipe: RecipeSettings) -> list[FidelityRow]:
    """Return the stored measurements, in the order of the score table."""
    rows = list[FidelityRow]()
    for name in _compared(recipe):
        arrays = context.read("image_fidelity", name)
        rows.append(FidelityRow(name, **{key: float(value) for key, value in arrays.items()}))
    return rows


def _compared(recipe: RecipeSettings) -> list[TrainingSet]:
    return ["synthetic", *(each for each in baselines_of(recipe) if each != "full_data")]


def _features(teacher: "nn.Module", images: "ImageSet", most: int | None = None) -> np.ndarray:
    """Return the teacher's features of images, or of `most` of them, some of each class."""
    import torch

    from d4m.classifiers.predict import penultimate_features

    rows = len(images)
    chosen = torch.linspace(0, rows - 1, min(most or rows, rows)).round().long()
    return penultimate_features(teacher, images.pick(chosen).pixels).float().cpu().numpy()
