"""Artifact `image_fidelity`: how close each compared set's images are to real ones."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from d4m.stages.base import Product, Stage, StageContext
from d4m.stages.compared_sets import (
    TrainingSet,
    read_training_set,
    training_set_reads,
    training_set_settings,
)
from d4m.stages.student_runs import scored_reads, scored_settings, scored_split
from d4m.stages.teacher import load_teacher, teacher_reads
from d4m.stages.training_sets import real_set
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from torch import nn

    from d4m.images.image_set import ImageSet

_MOST_REAL = 5000
_NEIGHBOURS = 3


@dataclass(frozen=True)
class FidelityRow:
    """One compared set; all in the teacher's features, against images it was not trained on.

    Attributes:
        training_set: whose images.
        frechet: squared Frechet distance (FID's formula); grows as sets get smaller.
        kernel: squared maximum mean discrepancy (KID's formula), without that bias.
        precision: share of its images within the real ones' neighbourhoods; `density` counts them.
        recall: share of the real images within its images' neighbourhoods.
        coverage: share of the real images with one of its images in their neighbourhood.
    """

    training_set: TrainingSet
    frechet: float
    kernel: float
    precision: float
    recall: float
    density: float
    coverage: float


class ImageFidelity(Stage):
    """Unit: one compared set; of the random real ones, the first seed's."""

    name: ClassVar[str] = "image_fidelity"
    upstream: ClassVar[tuple[str, ...]] = (
        "synthetic_images",
        "real_images",
        "generator",
        "prototypes",
        "teacher",
    )
    sections: ClassVar[tuple[str, ...]] = (
        "dataset",
        "prompts",
        "synthesis",
        "prototypes",
        "evaluation",
        "seed",
    )

    def plan(self, context: StageContext) -> list[Unit]:
        """One unit per compared set; the whole training data is not among them."""
        return [
            context.unit(
                self,
                name,
                {**training_set_settings(context, name), **scored_settings(context)},
                [
                    *training_set_reads(context, name),
                    *scored_reads(context),
                    *teacher_reads(context),
                ],
            )
            for name in _compared(context)
        ]

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Measure set after set; the real images' features are taken once."""
        from d4m.scores.fidelity import frechet_distance, kernel_distance, precision_recall

        teacher = load_teacher(context)
        real = _features(teacher, real_set(context, scored_split(context)), most=_MOST_REAL)
        units = {unit.name: unit for unit in missing}
        for name in _compared(context):
            if name not in units:
                continue
            found = _features(teacher, read_training_set(context, name, seed=0))
            neighbours = min(_NEIGHBOURS, len(found) - 1, len(real) - 1)
            measured: dict[str, Any] = {
                "frechet": frechet_distance(real, found),
                "kernel": kernel_distance(real, found),
                **asdict(precision_recall(real, found, neighbours=neighbours)),
            }
            yield units[name], {key: np.array(value) for key, value in measured.items()}


def fidelity_rows(context: StageContext) -> list[FidelityRow]:
    """The stored measurements, in the order of the score table."""
    rows = list[FidelityRow]()
    for name in _compared(context):
        arrays = context.read("image_fidelity", name)
        rows.append(FidelityRow(name, **{key: float(value) for key, value in arrays.items()}))
    return rows


def _compared(context: StageContext) -> list[TrainingSet]:
    baselines = context.recipe.settings.evaluation.baselines
    return ["synthetic", *(each for each in baselines if each != "full_data")]


def _features(teacher: "nn.Module", images: "ImageSet", most: int | None = None) -> np.ndarray:
    """The teacher's features of images, or of `most` of them, some of each class."""
    import torch

    from d4m.classifiers.predict import penultimate_features

    rows = len(images)
    chosen = torch.linspace(0, rows - 1, min(most or rows, rows)).round().long()
    return penultimate_features(teacher, images.pixels[chosen]).float().cpu().numpy()
