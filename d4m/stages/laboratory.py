"""Train and score the students of a score table's units."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from d4m.images.statistics import ChannelStatistics, measure_channels
from d4m.seeds import distillation_seed, stream_seed
from d4m.settings import (
    AugmentationSettings,
    ClassifierSettings,
    MatchingSettings,
    OptimizerSettings,
)
from d4m.stages.compared_sets import read_training_set
from d4m.stages.context import StageContext
from d4m.stages.loaded_models import LoadedModels
from d4m.stages.provenance import TOGETHER
from d4m.stages.soft_labels import StoredLabels, label_seed, read_label_settings
from d4m.stages.student_runs import images_name, read_scored_set
from d4m.stages.teacher import load_teacher
from d4m.stages.training_sets import cluster_weights, real_batches
from d4m.stages.unit_names import distillation_of, seed_number_of
from d4m.store.checkpoints import NOWHERE, Checkpoint
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from torch import nn

    from d4m.images.image_set import ImageSet
    from d4m.settings import Precision
    from d4m.training.soft_labels import EpochLabels
    from d4m.training.together import Learner
    from d4m.training.train import LearningCurve

_PROBE_IMAGES = 500
_OF_LABELS = ("soft_labels", "epochs", "labelled_epochs", "mode")


class Laboratory:
    """The training set and the labels at hand, kept until others are asked for, and scored images.

    Args:
        context: with what the units read.
        read: reads the training set of a unit; None: `read_training_set`.
        scored: the images that students are scored on; None: those that the units name.
        checkpoint: where the training of units is saved; only for units that are published then.
    """

    def __init__(
        self,
        context: StageContext,
        *,
        read: "Callable[[Unit], ImageSet] | None" = None,
        scored: "ImageSet | None" = None,
        checkpoint: Callable[..., Checkpoint] = lambda *_: NOWHERE,
    ) -> None:
        """Read nothing yet."""
        self.context = context
        self._checkpoint = checkpoint
        self._read = read or self._read_set
        self._set: tuple[Any, ImageSet] | None = None
        self._labels: tuple[Any, Sequence[EpochLabels]] | None = None
        self._teachers = LoadedModels(1)
        self._scored = scored
        self._measured: ChannelStatistics | None = None

    def train_and_score(self, units: Sequence[Unit]) -> Iterator[dict[str, np.ndarray]]:
        """Train students, those with equally many images at once, and yield the arrays of each.

        Args:
            units: one, or several of `d4m.stages.students_together.cohorts`.
        """
        learners = [self.learner(unit) for unit in units]
        sizes = [len(learner.images) for learner in learners]
        curves: dict[str, LearningCurve] = {}
        for size in dict.fromkeys(sizes):
            places = [place for place, own in enumerate(sizes) if own == size]
            same = [units[place] for place in places]
            found = self._train(same, [learners[place] for place in places])
            for unit, curve in zip(same, found, strict=True):
                curves[unit.name] = curve
                self.context.notes[unit.key] = {TOGETHER: len(same)}
        for unit, learner in zip(units, learners, strict=True):
            yield self._score_student(unit, learner, curves[unit.name])

    def train(self, unit: Unit) -> "tuple[nn.Module, LearningCurve]":
        """Return the trained student of a unit, and how it learnt."""
        learner = self.learner(unit)
        [curve] = self._train([unit], [learner])
        return learner.model, curve

    def learner(self, unit: Unit) -> "Learner":
        """Return the student of a unit before its training, and all that it learns from."""
        from d4m.training.together import Learner
        from d4m.training.train import Training

        settings, images = unit.settings, self.images(unit)
        optimizer = OptimizerSettings.among(settings["optimizer"])
        training = Training(
            epochs=settings["epochs"],
            optimizer=optimizer,
            seed=stream_seed(settings["seed"], "training"),
            probe=self._probe(settings, optimizer.precision),
            at_once=self.context.compute.batch_size,
            backend=self.context.compute.compiler,
        )
        model = self._build(settings)
        if settings["labels"] == "hard":
            return Learner(model, images, training, changes=self._changes(settings))
        labels = self._soft_labels(unit, images)
        if MatchingSettings.among(settings["matching"]).cluster_weights:
            weights = cluster_weights(self.context, distillation_of(unit.name))
            images = replace(images, weights=weights)
        return Learner(model, images, training, labels)

    def images(self, unit: Unit) -> "ImageSet":
        """Return the training set of a unit."""
        name = images_name(unit)
        if self._set is None or self._set[0] != name:
            self._labels = None  # which hold the images before
            self._set = name, self._read(unit)
        return self._set[1]

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

    def _score_student(
        self, unit: Unit, learner: "Learner", curve: "LearningCurve"
    ) -> dict[str, np.ndarray]:
        settings, views = unit.settings, unit.settings["epochs"] * len(learner.images)
        scored = self.score(learner.model, settings, settings["optimizer"]["precision"], curve)
        return scored | {"views": np.array(views, np.int64)}

    def _train(self, units: Sequence[Unit], learners: "Sequence[Learner]") -> "list[LearningCurve]":
        from d4m.training import together, train

        settings = units[0].settings
        training = replace(learners[0].training, checkpoint=self._checkpoint(*units))
        first, *others = replace(learners[0], training=training), *learners[1:]
        if settings["labels"] == "soft":
            matching = MatchingSettings.among(settings["matching"])
            if others:
                return together.train_together_with_soft_labels([first, *others], matching=matching)
            return [
                train.train_with_soft_labels(
                    first.model, first.images, first.labels, training, matching=matching
                )
            ]
        augmentation = AugmentationSettings.among(settings["augmentation"])
        if others:
            return together.train_together_with_hard_labels(
                [first, *others], augmentation=augmentation
            )
        return [
            train.train_with_hard_labels(
                first.model,
                first.images,
                training,
                augmentation=augmentation,
                changes=first.changes,
                balance=settings.get("class_balance", "none"),
            )
        ]

    def _build(self, settings: Mapping[str, Any]) -> "nn.Module":
        """Return a student with random weights, whose input is standardised pixels if asked."""
        from d4m.classifiers.registry import build_classifier
        from d4m.classifiers.standardised import Standardised

        model = build_classifier(
            ClassifierSettings.among(settings["student"]),
            channels=self.context.source.channels,
            size_px=settings["size_px"],
            classes=len(self.context.class_ids),
            seed=stream_seed(settings["seed"], "weights"),
        )
        if settings.get("standardise"):
            statistics = self._statistics(settings)
            model = Standardised(model, statistics.mean, statistics.deviation)
        return model.to(self.context.device)

    def _changes(self, settings: Mapping[str, Any]) -> Any:
        """Return the further changes of batches; None where there are none."""
        from d4m.training.dsa import BatchChanges

        if kinds := settings.get("batch_changes"):
            seed = stream_seed(settings["seed"], "batch changes")
            return BatchChanges(kinds, self._statistics(settings), seed)
        return None

    def _statistics(self, settings: Mapping[str, Any]) -> ChannelStatistics:
        """Return the statistics among a unit's settings, or those of the training images."""
        if "mean" in settings:
            named = ChannelStatistics(tuple(settings["mean"]), tuple(settings["deviation"]))
            return named.for_channels(self.context.source.channels)
        if self._measured is None:
            batches = real_batches(self.context, "train", size_px=settings["size_px"])
            self._measured = measure_channels(batches)
        return self._measured

    def _read_set(self, unit: Unit) -> "ImageSet":
        return read_training_set(
            self.context,
            unit.settings,
            seed_number=seed_number_of(unit.name),
            distillation=distillation_of(unit.name),
        )

    def _soft_labels(self, unit: Unit, images: "ImageSet") -> "Sequence[EpochLabels]":
        settings = [unit.settings[name] for name in _OF_LABELS]
        name = settings, unit.reads("teacher"), unit.reads("soft_labels")
        if self._labels is None or self._labels[0] != name:
            self._labels = name, self._open_labels(unit, images)
        return self._labels[1]

    def _open_labels(self, unit: Unit, images: "ImageSet") -> "Sequence[EpochLabels]":
        from d4m.training.soft_labels import TeacherLabels

        settings, used = unit.settings, unit.settings["soft_labels"]
        distillation, name = images_name(unit)
        labels = read_label_settings(
            used,
            epochs=settings["epochs"],
            labelled_epochs=settings["labelled_epochs"],
            mode=settings["mode"],
        )
        if unit.reads("soft_labels"):
            return StoredLabels(
                self.context, images, labels, seed=used["seed"], distillation=distillation
            )
        members = tuple(unit.reads("teacher"))
        return TeacherLabels(
            images,
            self._teachers.get(members, lambda: load_teacher(self.context, members)),
            labels,
            precision=used["precision"],
            seed=label_seed(distillation_seed(self.context.seed, distillation), *name),
        )

    def _scored_set(self, settings: Mapping[str, Any]) -> "ImageSet":
        if self._scored is None:
            self._scored = read_scored_set(self.context, settings)
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
