"""Artifact `evaluation_scores`: students of each training set, scored on held-out images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from d4m.images.statistics import ChannelStatistics, measure_channels
from d4m.seeds import distillation_seed, stream_seed
from d4m.settings import (
    AugmentationSettings,
    ClassifierSettings,
    MatchingSettings,
    OptimizerSettings,
    SoftLabelSettings,
)
from d4m.stages import compared_sets
from d4m.stages.base import Product, Stage
from d4m.stages.compared_sets import read_training_set
from d4m.stages.context import Inputs, StageContext
from d4m.stages.soft_labels import StoredLabels, label_seed, read_label_settings
from d4m.stages.student_runs import (
    by_images,
    images_name,
    read_scored_set,
    run_inputs,
    scored_inputs,
    student_runs,
)
from d4m.stages.teacher import load_teacher, teacher_inputs, teachers_of
from d4m.stages.training_sets import cluster_weights, real_batches
from d4m.stages.unit_names import distillation_of, seed_number_of, teacher_score_unit
from d4m.store.checkpoints import NOWHERE, Checkpoint
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from torch import nn

    from d4m.images.image_set import ImageSet
    from d4m.settings import Precision
    from d4m.training.soft_labels import EpochLabels
    from d4m.training.train import LearningCurve, Training

_PROBE_IMAGES = 500


class EvaluationScores(Stage):
    """The scores. Unit: one student, or one teacher.

    A student's unit depends on what the student is trained on, and on the scored images.
    """

    name: ClassVar[str] = "evaluation_scores"
    version: ClassVar[str] = "4"
    upstream: ClassVar[tuple[str, ...]] = (*compared_sets.ARTIFACTS, "soft_labels", "teacher")
    sections: ClassVar[tuple[str, ...]] = ("evaluation", "students")
    divisible: ClassVar[bool] = True

    def plan(self, context: StageContext) -> list[Unit]:
        """Return one unit per student of `student_runs`, and one per teacher."""
        recipe = context.recipe.settings
        students = [
            self.unit(context, run.unit_name, run_inputs(context, run))
            for run in student_runs(recipe)
        ]
        teachers = [
            self.unit(
                context,
                teacher_score_unit(teacher),
                Inputs(
                    {"training_set": "teacher", "precision": settings.optimizer.precision},
                )
                | scored_inputs(context)
                | teacher_inputs(context, teacher),
            )
            for teacher, settings in teachers_of(recipe).items()
        ]
        return [*students, *teachers]

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Train and score student after student; those with the same images share them."""
        lab = Laboratory(context, checkpoint=context.checkpoint)
        for unit in by_images(missing):
            if unit.settings["training_set"] == "teacher":
                model = load_teacher(context, unit.reads("teacher"))
                yield unit, lab.score(model, unit.settings, unit.settings["precision"])
            else:
                yield unit, lab.train_and_score(unit)


class Laboratory:
    """The training set at hand, kept until another one is asked for, and the scored images.

    Args:
        context: with what the units read.
        read: reads the training set of a unit; None: `read_training_set`.
        scored: the images that students are scored on; None: those that the units name.
        checkpoint: where the training of a unit is saved; only for units that are published then.
    """

    def __init__(
        self,
        context: StageContext,
        *,
        read: "Callable[[Unit], ImageSet] | None" = None,
        scored: "ImageSet | None" = None,
        checkpoint: Callable[[Unit], Checkpoint] = lambda _: NOWHERE,
    ) -> None:
        """Read nothing yet."""
        self._context = context
        self._checkpoint = checkpoint
        self._read = read or self._read_set
        self._set: tuple[Any, ImageSet] | None = None
        self._scored = scored
        self._measured: ChannelStatistics | None = None

    def train_and_score(self, unit: Unit) -> dict[str, np.ndarray]:
        """Return the arrays of one student's unit."""
        settings = unit.settings
        model, curve = self.train(unit)
        views = settings["epochs"] * len(self._images(unit))
        scored = self.score(model, settings, settings["optimizer"]["precision"], curve)
        return scored | {"views": np.array(views, np.int64)}

    def train(self, unit: Unit) -> "tuple[nn.Module, LearningCurve]":
        """Return the trained student of a unit, and how it learnt."""
        from d4m.classifiers.registry import build_classifier

        context, settings = self._context, unit.settings
        model = build_classifier(
            ClassifierSettings.among(settings["student"]),
            channels=context.source.channels,
            size_px=settings["size_px"],
            classes=len(context.class_ids),
            seed=stream_seed(settings["seed"], "weights"),
        ).to(context.device)
        if settings.get("standardise"):
            model = self._standardise(settings, model)
        train = self._train_softly if settings["labels"] == "soft" else self._train_hard
        return model, train(unit, model, OptimizerSettings.among(settings["optimizer"]))

    def score(
        self,
        model: "nn.Module",
        settings: Mapping[str, Any],
        precision: "Precision",
        curve: "LearningCurve | None" = None,
    ) -> dict[str, np.ndarray]:
        """Return the arrays of one classifier's unit."""
        from d4m.scores.accuracy import score_classifier

        scored = self._scored_set(settings)
        scores = score_classifier(model, scored.pixels, scored.class_ids, precision)
        return {
            "top1": np.array(scores.top1),
            "top5": np.array(scores.top5),
            "curve_epochs": np.array(curve.epochs if curve else [], np.int64),
            "curve_losses": np.array(curve.losses if curve else [], np.float64),
            "curve_top1": np.array(curve.top1 if curve else [], np.float64),
            "curve_balanced": np.array(curve.balanced if curve else [], np.float64),
            "class_hits": np.array(scores.class_hits, np.int64),
            "class_images": np.array(scores.class_images, np.int64),
        }

    def _train_softly(
        self, unit: Unit, model: "nn.Module", optimizer: OptimizerSettings
    ) -> "LearningCurve":
        from d4m.training.train import train_with_soft_labels

        settings, images = unit.settings, self._images(unit)
        labels = self._labels(unit, images)
        matching = MatchingSettings.among(settings["matching"])
        if matching.cluster_weights:
            images = replace(
                images, weights=cluster_weights(self._context, distillation_of(unit.name))
            )
        training = self._training(unit, optimizer)
        return train_with_soft_labels(model, images, labels, training, matching=matching)

    def _train_hard(
        self, unit: Unit, model: "nn.Module", optimizer: OptimizerSettings
    ) -> "LearningCurve":
        from d4m.training.dsa import BatchChanges
        from d4m.training.train import train_with_hard_labels

        settings = unit.settings
        changes = None
        if kinds := settings.get("batch_changes"):
            seed = stream_seed(settings["seed"], "batch changes")
            changes = BatchChanges(kinds, self._statistics(settings), seed)
        return train_with_hard_labels(
            model,
            self._images(unit),
            self._training(unit, optimizer),
            augmentation=AugmentationSettings.among(settings["augmentation"]),
            changes=changes,
            balance=settings.get("class_balance", "none"),
        )

    def _training(self, unit: Unit, optimizer: OptimizerSettings) -> "Training":
        from d4m.training.train import Training

        return Training(
            epochs=unit.settings["epochs"],
            optimizer=optimizer,
            seed=stream_seed(unit.settings["seed"], "training"),
            probe=self._probe(unit.settings, optimizer.precision),
            at_once=self._context.compute.batch_size,
            backend=self._context.compute.compiler,
            checkpoint=self._checkpoint(unit),
        )

    def _standardise(self, settings: Mapping[str, Any], model: "nn.Module") -> "nn.Module":
        """Return the model with an input of standardised pixels."""
        from d4m.classifiers.standardised import Standardised

        statistics = self._statistics(settings)
        standardised = Standardised(model, statistics.mean, statistics.deviation)
        return standardised.to(self._context.device)

    def _statistics(self, settings: Mapping[str, Any]) -> ChannelStatistics:
        """Return the statistics among a unit's settings, or those of the training images."""
        if "mean" in settings:
            named = ChannelStatistics(tuple(settings["mean"]), tuple(settings["deviation"]))
            return named.for_channels(self._context.source.channels)
        if self._measured is None:
            batches = real_batches(self._context, "train", size_px=settings["size_px"])
            self._measured = measure_channels(batches)
        return self._measured

    def _images(self, unit: Unit) -> "ImageSet":
        name = images_name(unit)
        if self._set is None or self._set[0] != name:
            self._set = name, self._read(unit)
        return self._set[1]

    def _read_set(self, unit: Unit) -> "ImageSet":
        return read_training_set(
            self._context,
            unit.settings,
            seed_number=seed_number_of(unit.name),
            distillation=distillation_of(unit.name),
        )

    def _labels(self, unit: Unit, images: "ImageSet") -> "Sequence[EpochLabels]":
        from d4m.training.soft_labels import TeacherLabels

        settings, used = unit.settings, unit.settings["soft_labels"]
        distillation, name = images_name(unit)
        labels: SoftLabelSettings = read_label_settings(
            used,
            epochs=settings["epochs"],
            labelled_epochs=settings["labelled_epochs"],
            mode=settings["mode"],
        )
        if unit.reads("soft_labels"):
            return StoredLabels(
                self._context, images, labels, seed=used["seed"], distillation=distillation
            )
        return TeacherLabels(
            images,
            load_teacher(self._context, unit.reads("teacher")),
            labels,
            precision=used["precision"],
            seed=label_seed(distillation_seed(self._context.seed, distillation), *name),
        )

    def _scored_set(self, settings: Mapping[str, Any]) -> "ImageSet":
        if self._scored is None:
            self._scored = read_scored_set(self._context, settings)
        return self._scored

    def _probe(
        self, settings: Mapping[str, Any], precision: "Precision"
    ) -> "Callable[[nn.Module], tuple[float, float]]":
        """Return what scores a model on some images of each class, for the learning curve."""
        import torch

        from d4m.scores.accuracy import score_classifier

        scored = self._scored_set(settings)
        count = min(_PROBE_IMAGES, len(scored))
        rows = torch.linspace(0, len(scored) - 1, count).round().long()
        some = scored.pick(rows)  # images that are kept in a file are read again for each point

        def probe(model: "nn.Module") -> tuple[float, float]:
            scores = score_classifier(model, some.pixels, some.class_ids, precision)
            return scores.top1, scores.balanced

        return probe
