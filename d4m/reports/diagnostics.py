"""Diagnostics: how much images repeat one another, and which objectives order sets as students do.

Both measurements train students with class labels, by the recipe's own protocol, and store nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jaxtyping import Float64, Int64

from d4m.errors import D4MError
from d4m.progress import track
from d4m.seeds import stream_seed
from d4m.settings import AugmentationSettings, Precision, RefinementSettings
from d4m.stages.compared_sets import read_training_set
from d4m.stages.context import StageContext
from d4m.stages.evaluation_scores import EvaluationScores
from d4m.stages.laboratory import Laboratory
from d4m.stages.refined_prototypes import some_real
from d4m.stages.student_runs import StudentRun, run_inputs, student_runs
from d4m.stages.teacher import load_teacher, teacher_inputs
from d4m.stages.training_sets import view_size_px
from d4m.stages.unit_names import THE_TEACHER

if TYPE_CHECKING:
    from torch import Tensor, nn

    from d4m.images.image_set import ImageSet
    from d4m.prototypes.labels import Labels
    from d4m.stages.compared_sets import TrainingSet
    from d4m.store.reference import Unit

Objective = Literal["class regression", "teacher regression", "mean features"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
_TARGETS = 2000  # real images that objectives look at


@dataclass(frozen=True)
class Redundancy:
    """How well students of one part of a set know its other parts.

    Attributes:
        top1: share of the images of each part (column) that a student of another part (row)
            classifies correctly.
    """

    top1: Float64[np.ndarray, "trained tested"]

    @property
    def between(self) -> float:
        """Mean over pairs of different parts: high where images repeat one another."""
        different = ~np.eye(len(self.top1), dtype=bool)
        return float(self.top1[different].mean())


@dataclass(frozen=True)
class Relation:
    """An objective and the error of students, over random sets of real images.

    Attributes:
        values: the objective of each set; lower is better.
        errors: share of the scored images that a student of each set gets wrong.
    """

    values: Float64[np.ndarray, "set"]
    errors: Float64[np.ndarray, "set"]

    @property
    def is_ordered(self) -> bool:
        """Whether sets differ both in the objective and in the error, so that there are ranks."""
        return bool(np.ptp(self.values) > 0 and np.ptp(self.errors) > 0)

    @property
    def spearman(self) -> float:
        """Rank correlation: 1 where the objective orders sets as their students do."""
        values, errors = self._ranks
        return float(np.corrcoef(values, errors)[0, 1])

    @property
    def chance(self) -> float:
        """Probability of a rank correlation as far from 0 if there were none.

        It is counted over all orders of up to seven sets, and over 9,999 random ones of more, since
        the usual approximation calls three sets in the same order certain.
        """
        from scipy.stats import permutation_test

        values, errors = self._ranks
        found: Any = permutation_test(
            (values,),
            lambda drawn, axis: (drawn * (errors - errors.mean())).sum(axis=axis),
            permutation_type="pairings",
            vectorized=True,
            rng=np.random.default_rng(0),
        )
        return float(found.pvalue)

    @property
    def _ranks(self) -> tuple[np.ndarray, np.ndarray]:
        from scipy.stats import rankdata  # takes half a second, which other commands need not

        return rankdata(self.values), rankdata(self.errors)


def split_classes(class_ids: Int64[np.ndarray, "image"], parts: int) -> list[np.ndarray]:
    """Split the images of each class evenly into parts, in their order.

    Raises:
        D4MError: a class has fewer images than there are parts.

    Example:
        >>> [part.tolist() for part in split_classes(np.array([0, 0, 0, 1, 1]), 2)]
        [[0, 2, 3], [1, 4]]
    """
    groups = [np.flatnonzero(class_ids == each) for each in np.unique(class_ids)]
    fewest = min(map(len, groups))
    if fewest < parts:
        msg = f"wanted at least {parts} images per class, one for each part, found {fewest}"
        raise D4MError(msg)
    return [np.concatenate([group[part::parts] for group in groups]) for part in range(parts)]


def measure_redundancy(
    context: StageContext, training_set: "TrainingSet", *, parts: int
) -> Redundancy:
    """Train a student on each part of a training set, and test it on all parts.

    Args:
        context: with the recipe's artifacts up to the training set.
        training_set: of the first distillation and seed.
        parts: number of parts, each of which gets a student.

    Raises:
        D4MError: a class has fewer images than there are parts.
    """
    from d4m.scores.accuracy import score_classifier

    unit = _plan(context, training_set, 0)
    images = read_training_set(context, unit.settings, seed_number=0)
    sets = [_some(images, rows) for rows in split_classes(images.class_ids.cpu().numpy(), parts)]
    top1 = np.zeros((parts, parts))
    for row in track(parts, "parts", unit="part"):
        lab = Laboratory(context, read=partial(_given, sets[row]), scored=sets[row])
        student, _ = lab.train(unit)
        for column, other in enumerate(sets):
            top1[row, column] = score_classifier(student, other.pixels, other.class_ids).top1
    return Redundancy(top1)


def relate_objectives(
    context: StageContext, *, sets: int, steps: int, objectives: Sequence[Objective] = OBJECTIVES
) -> dict[Objective, Relation]:
    """Relate objectives to the error of students, over random sets of real images.

    An objective is worth optimising if it orders sets as their students do. The sets are those of
    the rows `random_real`; students that are stored are not trained again.

    - `class regression`: the error of a regression towards classes.
    - `teacher regression`: the error of a regression towards the teacher.
    - `mean features`: the squared distance of the mean feature, in the teacher, of each class.

    Args:
        context: with real images, teacher and, where there are any, scores.
        sets: number of sets.
        steps: steps that the regressions' errors are a mean of.
        objectives: which ones.

    Raises:
        D4MError: there are fewer than three sets.
    """
    if sets < 3:
        msg = f"wanted at least 3 sets for a rank correlation, found {sets}"
        raise D4MError(msg)
    lab, errors = Laboratory(context), np.zeros(sets)
    values: dict[Objective, np.ndarray] = {name: np.zeros(sets) for name in objectives}
    for number in track(sets, "sets", unit="set"):
        unit = _plan(context, "random_real", number)
        stored = context.store.find(unit.stage, unit.key)
        arrays = (
            context.store.read_arrays(unit.stage, unit.key)
            if stored
            else next(lab.train_and_score([unit]))
        )
        errors[number] = 1 - float(arrays["top1"])
        images = read_training_set(context, unit.settings, seed_number=number)
        for name in objectives:
            values[name][number] = _MEASURES[name](context, images, steps)
    return {name: Relation(each, errors) for name, each in values.items()}


def _plan(context: StageContext, training_set: "TrainingSet", seed: int) -> "Unit":
    """Return the unit of the first student with class labels, on a training set."""
    first = student_runs(context.recipe.settings)[0]
    run: StudentRun = replace(
        first,
        training_set=training_set,
        labels="hard",
        seed=seed,
        augmented=True,
        teacher=THE_TEACHER,
    )
    return EvaluationScores().unit(context, run.unit_name, run_inputs(context, run))


def _given(images: "ImageSet", unit: "Unit") -> "ImageSet":
    del unit
    return images


def _some(images: "ImageSet", rows: Int64[np.ndarray, "row"]) -> "ImageSet":
    import torch

    from d4m.images.image_set import ImageSet

    chosen = torch.from_numpy(rows)
    return ImageSet(images.pixels[chosen], images.class_ids[chosen.to(images.class_ids.device)])


def _class_regression(context: StageContext, images: "ImageSet", steps: int) -> float:
    from d4m.prototypes.towards_classes import TowardsClasses

    settings, targets = RefinementSettings(), _targets(context)
    labels = TowardsClasses(targets.class_ids)
    return _mean_error(
        context, images, targets, labels, settings.augmentation, settings.precision, steps
    )


def _teacher_regression(context: StageContext, images: "ImageSet", steps: int) -> float:
    from d4m.prototypes.towards_teacher import TowardsTeacher

    settings, targets = context.recipe.settings, _targets(context)
    precision = settings.teacher.optimizer.precision
    labels = TowardsTeacher(_teacher(context), targets, precision)
    return _mean_error(
        context, images, targets, labels, settings.soft_labels.augmentation, precision, steps
    )


def _mean_error(
    context: StageContext,
    images: "ImageSet",
    targets: "ImageSet",
    labels: "Labels",
    augmentation: AugmentationSettings,
    precision: Precision,
    steps: int,
) -> float:
    """Return the mean error of the regressions of so many steps from these images."""
    from d4m.prototypes.student_regression import StudentRegression

    regression = StudentRegression(
        images.class_ids.cpu().numpy(),
        targets,
        labels,
        augmentation=augmentation,
        precision=precision,
        seed=stream_seed(context.seed, "diagnostics"),
    )
    pixels = _all_pixels(images)
    found = [regression.error(pixels, images.class_ids, step).item() for step in range(steps)]
    return float(np.mean(found))


def _targets(context: StageContext) -> "ImageSet":
    return some_real(context, _TARGETS, size_px=view_size_px(context))


def _mean_features(context: StageContext, images: "ImageSet", steps: int) -> float:
    del steps  # nothing is drawn
    from d4m.classifiers.predict import penultimate_features

    teacher = _teacher(context)
    real = _targets(context)
    total = 0.0
    found = [(each, penultimate_features(teacher, each.pixels).float()) for each in (real, images)]
    for class_id in context.class_ids:
        means = [features[each.class_ids == class_id].mean(dim=0) for each, features in found]
        total += float((means[0] - means[1]).square().sum())
    return total


def _all_pixels(images: "ImageSet") -> "Tensor":
    import torch

    return images.pixels[torch.arange(len(images))]


def _teacher(context: StageContext) -> "nn.Module":
    return load_teacher(context, [unit for _, unit in teacher_inputs(context).reads])


_MEASURES: Mapping[Objective, Callable[[StageContext, "ImageSet", int], float]] = {
    "class regression": _class_regression,
    "teacher regression": _teacher_regression,
    "mean features": _mean_features,
}
