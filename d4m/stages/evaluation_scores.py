"""Artifact `evaluation_scores`: students of each training set, scored on held-out images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from d4m.seeds import stream_seed
from d4m.stages.base import Product, Stage, StageContext
from d4m.stages.compared_sets import read_training_set
from d4m.stages.soft_labels import StoredLabels
from d4m.stages.student_runs import (
    StudentRun,
    hard_training,
    is_weighted,
    optimizer_settings,
    run_reads,
    run_settings,
    scored_reads,
    scored_settings,
    scored_split,
    soft_label_settings,
    student_runs,
    student_settings,
)
from d4m.stages.teacher import THE_TEACHER, load_teacher, teacher_reads, teachers_of
from d4m.stages.training_sets import cluster_weights, real_set, view_size_px
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from torch import nn

    from d4m.images.image_set import ImageSet
    from d4m.settings import Precision
    from d4m.training.soft_labels import EpochLabels
    from d4m.training.train import LearningCurve

_PROBE_IMAGES = 500


class EvaluationScores(Stage):
    """Unit: one student. Depends on what that student is trained on and on the scored images."""

    name: ClassVar[str] = "evaluation_scores"
    version: ClassVar[str] = "4"
    upstream: ClassVar[tuple[str, ...]] = (
        "synthetic_images",
        "soft_labels",
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
        "teacher",
        "soft_labels",
        "evaluation",
        "seed",
    )

    def plan(self, context: StageContext) -> list[Unit]:
        """One unit per student of `student_runs`, and one per teacher."""
        students = [
            context.unit(self, run.unit_name, run_settings(context, run), run_reads(context, run))
            for run in student_runs(context)
        ]
        teachers = [
            context.unit(
                self,
                teacher_score(teacher),
                {
                    "training_set": "teacher",
                    "precision": settings.optimizer.precision,
                    **scored_settings(context),
                },
                [*scored_reads(context), *teacher_reads(context, teacher)],
            )
            for teacher, settings in teachers_of(context).items()
        ]
        return [*students, *teachers]

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Train and score student after student; those with the same images share them."""
        units = {unit.name: unit for unit in missing}
        lab = _Laboratory(context)
        for run in student_runs(context):
            if run.unit_name in units:
                yield units[run.unit_name], lab.train_and_score(run)
        for teacher, settings in teachers_of(context).items():
            if teacher_score(teacher) in units:
                model = load_teacher(context, teacher)
                yield (
                    units[teacher_score(teacher)],
                    lab.score(model, settings.optimizer.precision),
                )


def teacher_score(teacher: str) -> str:
    """Name of the unit of a teacher's own score."""
    return "teacher" if teacher == THE_TEACHER else f"teacher-{teacher}"


class _Laboratory:
    """The training set at hand, kept until another one is asked for, and the scored images."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._set: tuple[Any, ImageSet] | None = None
        self._scored: ImageSet | None = None

    def train_and_score(self, run: StudentRun) -> dict[str, np.ndarray]:
        """The arrays of one student's unit."""
        from d4m.classifiers.registry import build_classifier

        context = self._context
        seed: int = run_settings(context, run)["seed"]
        model = build_classifier(
            student_settings(context, run),
            channels=context.source.channels,
            size_px=view_size_px(context),
            classes=len(context.class_ids),
            seed=stream_seed(seed, "weights"),
        ).to(context.device)
        train = self._train_softly if run.labels == "soft" else self._train_hard
        curve = train(run, model, stream_seed(seed, "training"))
        return self.score(model, optimizer_settings(context, run).precision, curve)

    def score(
        self, model: "nn.Module", precision: "Precision", curve: "LearningCurve | None" = None
    ) -> dict[str, np.ndarray]:
        """The arrays of one classifier's unit."""
        from d4m.scores.accuracy import score_classifier

        scored = self._scored_set()
        scores = score_classifier(model, scored.pixels, scored.class_ids, precision)
        return {
            "top1": np.array(scores.top1),
            "top5": np.array(scores.top5),
            "curve_epochs": np.array(curve.epochs if curve else [], np.int64),
            "curve_losses": np.array(curve.losses if curve else [], np.float64),
            "curve_top1": np.array(curve.top1 if curve else [], np.float64),
        }

    def _train_softly(self, run: StudentRun, model: "nn.Module", seed: int) -> "LearningCurve":
        from d4m.training.train import train_with_soft_labels

        images, evaluation = self._images(run), self._context.recipe.settings.evaluation
        labels = self._labels(run, images)
        optimizer = optimizer_settings(self._context, run)
        if is_weighted(self._context, run):
            images = replace(images, weights=cluster_weights(self._context))
        return train_with_soft_labels(
            model,
            images,
            labels,
            epochs=soft_label_settings(self._context, run).epochs,
            matching=evaluation.matching,
            optimizer=optimizer,
            seed=seed,
            probe=self._probe(optimizer.precision),
        )

    def _train_hard(self, run: StudentRun, model: "nn.Module", seed: int) -> "LearningCurve":
        from d4m.training.train import train_with_hard_labels

        hard = hard_training(self._context, run)
        return train_with_hard_labels(
            model,
            self._images(run),
            epochs=hard.epochs,
            augmentation=hard.augmentation,
            optimizer=hard.optimizer,
            seed=seed,
            probe=self._probe(hard.optimizer.precision),
        )

    def _images(self, run: StudentRun) -> "ImageSet":
        if self._set is None or self._set[0] != run.images_name:
            images = read_training_set(self._context, run.training_set, run.seed)
            self._set = (run.images_name, images)
        return self._set[1]

    def _labels(self, run: StudentRun, images: "ImageSet") -> "Sequence[EpochLabels]":
        from d4m.training.soft_labels import TeacherLabels

        if run.reads_stored_labels(self._context):
            return StoredLabels(self._context, images)
        return TeacherLabels(
            images,
            load_teacher(self._context, run.teacher),
            soft_label_settings(self._context, run),
            precision=teachers_of(self._context)[run.teacher].optimizer.precision,
            seed=stream_seed(self._context.recipe.settings.seed, "soft_labels", *run.images_name),
        )

    def _scored_set(self) -> "ImageSet":
        if self._scored is None:
            self._scored = real_set(self._context, scored_split(self._context))
        return self._scored

    def _probe(self, precision: "Precision") -> "Callable[[nn.Module], float]":
        """Accuracy on some of the scored images of each class, for the learning curve."""
        import torch

        from d4m.scores.accuracy import score_classifier

        scored = self._scored_set()
        count = min(_PROBE_IMAGES, len(scored))
        rows = torch.linspace(0, len(scored) - 1, count).round().long()
        class_ids = scored.class_ids[rows.to(scored.class_ids.device)]
        pixels = scored.pixels[rows]
        return lambda model: score_classifier(model, pixels, class_ids, precision).top1
