"""Artifact `evaluation_scores`: students of each training set, scored on the test images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from d4m.seeds import stream_generator, stream_seed
from d4m.settings import StudentSettings
from d4m.stages.base import Product, Stage, StageContext
from d4m.stages.real_images import class_unit
from d4m.stages.soft_labels import StoredLabels
from d4m.stages.teacher import load_teacher
from d4m.stages.training_sets import (
    spool_real_images,
    spool_synthetic_images,
    view_size_px,
)
from d4m.store.reference import Unit

if TYPE_CHECKING:
    import torch
    from torch import nn

    from d4m.soft_labels import EpochLabels
    from d4m.spool import Spool
    from d4m.student import LearningCurve

TrainingSet = Literal["synthetic", "random_real", "nearest_real", "full_data", "teacher"]
Labels = Literal["soft", "hard"]
_PROBE_IMAGES = 1000


@dataclass(frozen=True)
class StudentRun:
    """One student: a unit of the artifact and, over its seeds, a row of the score table.

    Attributes:
        training_set: what it was trained on; `teacher` is the teacher itself.
        labels: the teacher's, or the class's own.
        student: its name.
        seed: which of the seeds.
    """

    training_set: TrainingSet
    labels: Labels
    student: str
    seed: int

    @property
    def unit_name(self) -> str:
        """Name of its unit."""
        return f"{self.training_set}-{self.labels}-{self.student}-{self.seed:02d}"


class EvaluationScores(Stage):
    """Unit: one student. Depends on what that student is trained on and on the test images."""

    name: ClassVar[str] = "evaluation_scores"
    upstream: ClassVar[tuple[str, ...]] = (
        "synthetic_images",
        "soft_labels",
        "real_images",
        "prototypes",
        "teacher",
    )
    sections: ClassVar[tuple[str, ...]] = (
        "dataset",
        "synthesis",
        "prototypes",
        "soft_labels",
        "evaluation",
        "seed",
    )

    def plan(self, context: StageContext) -> list[Unit]:
        """One unit per student of `student_runs`."""
        return [
            context.unit(self, run.unit_name, _settings(context, run), _reads(context, run))
            for run in student_runs(context)
        ]

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Train and score student after student; those with the same images share the labelling."""
        units = {unit.name: unit for unit in missing}
        lab = _Laboratory(context)
        for run in student_runs(context):
            if run.unit_name in units:
                yield units[run.unit_name], lab.train_and_score(run)


def student_runs(context: StageContext) -> list[StudentRun]:
    """Every student of the score table, row by row."""
    settings = context.recipe.settings.evaluation
    first = settings.students[0].label
    rows = [StudentRun("synthetic", "soft", student.label, 0) for student in settings.students]
    rows.append(StudentRun("synthetic", "hard", first, 0))
    for baseline in settings.baselines:
        if baseline != "full_data":
            rows.append(StudentRun(baseline, "soft", first, 0))
        rows.append(StudentRun(baseline, "hard", first, 0))
    runs = [replace(row, seed=seed) for row in rows for seed in range(settings.seeds)]
    architecture = context.recipe.settings.teacher.architecture
    return [*runs, StudentRun("teacher", "hard", architecture, 0)]


def _settings(context: StageContext, run: StudentRun) -> dict[str, Any]:
    settings = context.recipe.settings
    pixels = {
        "size_px": view_size_px(context),
        "decoding": dict(context.source.decoding),
    }
    if run.training_set == "teacher":
        return {"training_set": "teacher", **pixels}
    used: dict[str, Any] = {
        "training_set": run.training_set,
        "labels": run.labels,
        "student": _student(context, run).model_dump(mode="json", exclude={"name"}),
        "seed": stream_seed(settings.seed, "student", run.student, run.seed),
        "optimizer": settings.evaluation.optimizer.model_dump(mode="json"),
        "augmentation": settings.soft_labels.augmentation.model_dump(mode="json"),
        "epochs": settings.soft_labels.epochs,
        **pixels,
    }
    if run.training_set == "full_data":
        used["epochs"] = settings.evaluation.full_data_epochs
    if run.training_set == "random_real":
        used["ipc"] = settings.prototypes.ipc
    if run.labels == "soft":
        used["temperature"] = settings.evaluation.temperature
    return used


def _student(context: StageContext, run: StudentRun) -> StudentSettings:
    students = context.recipe.settings.evaluation.students
    return next(student for student in students if student.label == run.student)


def _reads(context: StageContext, run: StudentRun) -> list[tuple[str, str]]:
    reads = context.all_of("real_images", "test-")
    if run.training_set == "teacher":
        return [*reads, *context.all_of("teacher")]
    if run.training_set == "synthetic":
        reads += context.all_of("synthetic_images")
        return reads + (context.all_of("soft_labels") if run.labels == "soft" else [])
    reads += context.all_of("real_images", "train-")
    if run.training_set == "nearest_real":
        reads += context.all_of("prototypes")
    return reads + (context.all_of("teacher") if run.labels == "soft" else [])


class _Laboratory:
    """Images and labels of the training set at hand; kept until another one is asked for."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._set: tuple[Any, Spool, torch.Tensor] | None = None
        self._labels: tuple[Any, list[EpochLabels]] | None = None
        self._test: tuple[Spool, torch.Tensor] | None = None

    def train_and_score(self, run: StudentRun) -> dict[str, np.ndarray]:
        """The arrays of one unit."""
        from d4m.evaluation import score_classifier

        if run.training_set == "teacher":
            model, curve = load_teacher(self._context), None
        else:
            model, curve = self._train(run)
        scores = score_classifier(model, *self._test_set())
        return {
            "top1": np.array(scores.top1),
            "top5": np.array(scores.top5),
            "curve_epochs": np.array(curve.epochs if curve else [], np.int64),
            "curve_losses": np.array(curve.losses if curve else [], np.float64),
            "curve_top1": np.array(curve.top1 if curve else [], np.float64),
        }

    def _train(self, run: StudentRun) -> "tuple[nn.Module, LearningCurve]":
        from d4m.classifiers.registry import build_classifier
        from d4m.evaluation import score_classifier
        from d4m.student import train_with_hard_labels, train_with_soft_labels

        source, settings = self._context.source, self._context.recipe.settings
        used = _settings(self._context, run)
        model = build_classifier(
            _student(self._context, run),
            channels=source.channels,
            size_px=view_size_px(self._context),
            classes=len(source.class_table),
            seed=stream_seed(used["seed"], "weights"),
        ).to(self._context.device)
        pixels, class_ids = self._training_set(run)
        seed = stream_seed(used["seed"], "training")

        def probe(model: "nn.Module") -> float:
            return score_classifier(model, *self._probe_set()).top1

        if run.labels == "soft":
            curve = train_with_soft_labels(
                model,
                pixels,
                self._soft_labels(run),
                settings=settings.evaluation.optimizer,
                temperature=settings.evaluation.temperature,
                seed=seed,
                probe=probe,
            )
        else:
            curve = train_with_hard_labels(
                model,
                pixels,
                class_ids,
                epochs=used["epochs"],
                augmentation=settings.soft_labels.augmentation,
                settings=settings.evaluation.optimizer,
                seed=seed,
                probe=probe,
            )
        return model, curve

    def _training_set(self, run: StudentRun) -> "tuple[Spool, torch.Tensor]":
        wanted = _set_name(run)
        if self._set is None or self._set[0] != wanted:
            images, class_ids = self._read_set(run)
            self._set = (wanted, images, self._on_device(class_ids))
        return self._set[1], self._set[2]

    def _read_set(self, run: StudentRun) -> "tuple[Spool, np.ndarray]":
        if run.training_set == "synthetic":
            return spool_synthetic_images(self._context)
        if run.training_set == "full_data":
            return spool_real_images(self._context, "train")
        return spool_real_images(
            self._context, "train", choose=lambda class_id: self._chosen(run, class_id)
        )

    def _chosen(self, run: StudentRun, class_id: int) -> np.ndarray:
        """Rows within the class: those nearest to the prototypes, or a draw of its own per seed."""
        if run.training_set == "nearest_real":
            return self._context.read("prototypes", class_unit(class_id))["nearest_images"]
        settings = self._context.recipe.settings
        images = len(self._context.image_index("train", class_id).image_ids)
        draw = stream_generator(settings.seed, "random_real", class_id, run.seed)
        return np.sort(draw.choice(images, settings.prototypes.ipc, replace=False))

    def _soft_labels(self, run: StudentRun) -> "Sequence[EpochLabels]":
        if run.training_set == "synthetic":
            return StoredLabels(self._context)
        wanted = _set_name(run)
        if self._labels is None or self._labels[0] != wanted:
            self._labels = (wanted, self._label(run))
        return self._labels[1]

    def _label(self, run: StudentRun) -> "list[EpochLabels]":
        from d4m.soft_labels import label_epoch

        settings = self._context.recipe.settings
        pixels, _ = self._training_set(run)
        teacher = load_teacher(self._context)
        seed = stream_seed(settings.seed, "soft_labels", *_set_name(run))
        return [
            label_epoch(pixels, teacher, settings.soft_labels.augmentation, seed=seed, epoch=epoch)
            for epoch in range(settings.soft_labels.epochs)
        ]

    def _test_set(self) -> "tuple[Spool, torch.Tensor]":
        if self._test is None:
            images, class_ids = spool_real_images(self._context, "test")
            self._test = (images, self._on_device(class_ids))
        return self._test

    def _probe_set(self) -> "tuple[torch.Tensor, torch.Tensor]":
        """Test images for the learning curve, some of each class where there are many."""
        import torch

        images, class_ids = self._test_set()
        rows = torch.linspace(0, len(images) - 1, min(_PROBE_IMAGES, len(images))).round().long()
        return images[rows], class_ids[rows.to(class_ids.device)]

    def _on_device(self, class_ids: np.ndarray) -> "torch.Tensor":
        import torch

        return torch.from_numpy(class_ids).to(self._context.device)


def _set_name(run: StudentRun) -> tuple[str | int, ...]:
    """What tells training sets apart: random ones are drawn anew for every seed."""
    return (
        (run.training_set, run.seed) if run.training_set == "random_real" else (run.training_set,)
    )
