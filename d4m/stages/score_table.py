"""The score table: one row per training set, labels and student, over distillations and seeds."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

import numpy as np
from jaxtyping import Float64

from d4m.scores.balanced_accuracy import balanced_accuracy
from d4m.scores.dd_ranking import LabelRobustness, augmentation_robust_score, label_robust_score
from d4m.scores.spread import Spread, measure_spread
from d4m.settings import Labels, RecipeSettings
from d4m.stages.compared_sets import TrainingSet
from d4m.stages.context import StageContext
from d4m.stages.provenance import conditions
from d4m.stages.student_runs import StudentRun, student_runs
from d4m.stages.teacher import label_of, teachers_of
from d4m.stages.unit_names import teacher_score_unit
from d4m.store.reference import Reference

Curve = tuple[tuple[int, float], ...]
_Accuracy = Float64[np.ndarray, "distillation student"]
_Units = Sequence[Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class ScoreRow:
    """A row; accuracies are shares of the scored images.

    Attributes:
        training_set: the set that the students were trained on; `teacher` is a teacher itself.
        labels: `soft` (the teacher's) or `hard` (the classes).
        student: architecture.
        augmented: whether the students saw random views, or the images as they are.
        teacher: whose labels they learnt, by its name; empty for the data set's own labels.
        ipc: images per class in the training set; None where it is the whole.
        seeds: number of students of each distillation.
        top1: mean, and `top1_std` the standard deviation of one student's score.
        top5: mean.
        curve: (epoch, mean top-1 over the students), along the training.
        balanced_curve: the same of balanced accuracy; empty where a unit of an earlier release
            lacks it.
        distillations: number of independent ones.
        spread: of top-1, with the error of its mean; None for a teacher and in old tables.
        lead: of the difference in top-1 to random real images of the same distillation, labels,
            student and seed; None where there are none.
        balanced_lead: the same of balanced accuracy; None also where `balanced` is.
        balanced: mean balanced accuracy; None where a unit of an earlier release lacks the counts.
        views: images that one student saw in its training, each view counted; None for a teacher,
            and where a unit of an earlier release lacks it.
        made: the conditions that the students were trained under, each set of conditions once.
    """

    training_set: TrainingSet | Literal["teacher"]
    labels: Labels
    student: str
    augmented: bool
    teacher: str
    ipc: int | None
    seeds: int
    top1: float
    top1_std: float
    top5: float
    curve: Curve
    distillations: int = 1
    spread: Spread | None = None
    lead: Spread | None = None
    balanced_lead: Spread | None = None
    balanced: float | None = None
    views: int | None = None
    made: tuple[Mapping[str, str], ...] = ()
    balanced_curve: Curve = ()

    @property
    def students(self) -> int:
        """Number of students of all distillations."""
        return self.distillations * self.seeds

    @property
    def label(self) -> str:
        """The row in words."""
        views = "" if self.augmented else ", as they are"
        by = f" ({self.teacher})" if self.teacher else ""
        return f"{self.training_set}{views}, {self.labels}{by}, {self.student}"


@dataclass(frozen=True)
class Ranking:
    """DD-Ranking's scores of the first student, from the rows of one table.

    Attributes:
        label_robust: LRS with its parts; None without full_data, random_real, soft and hard rows,
            and before all of these have equally many seeds.
        augmentation_robust: ARS; None without rows trained without augmentation, and likewise.
    """

    label_robust: LabelRobustness | None
    augmentation_robust: float | None


def score_rows(
    context: StageContext, recipe: RecipeSettings, *, stored: Container[str] | None = None
) -> list[ScoreRow]:
    """Return the rows of a recipe's stored scores, in the order of the table.

    Args:
        context: with the units of `evaluation_scores`.
        recipe: the settings that the scores were made with.
        stored: names of the units that there are, where a run has not made all of them. Rows then
            have the seeds that every distillation has a student of, and other rows are left out;
            None: all units are there.
    """
    runs = groupby(student_runs(recipe), key=lambda run: replace(run, distillation=0, seed=0))
    planned = {
        row: _with_seeds([run.unit_name for run in each], recipe.evaluation.seeds, stored)
        for row, each in runs
    }
    names = {row: own.ravel().tolist() for row, own in planned.items() if own.size}
    all_names = [name for each in names.values() for name in each]
    scores = dict(zip(all_names, context.read_each("evaluation_scores", all_names), strict=True))
    units = {row: [scores[name] for name in each] for row, each in names.items()}
    references = context.references("evaluation_scores", all_names)
    top1 = {
        row: np.reshape([float(unit["top1"]) for unit in each], planned[row].shape)
        for row, each in units.items()
    }
    balanced = {
        row: np.reshape(known, planned[row].shape)
        for row, each in units.items()
        if (known := _balanced(each))
    }
    rows = [
        replace(
            _row(recipe, row, each, top1[row]),
            lead=_lead(row, top1),
            balanced_lead=_lead(row, balanced),
            made=_made([references[name] for name in names[row]]),
        )
        for row, each in units.items()
    ]
    teachers = (
        teacher
        for teacher in teachers_of(recipe)
        if stored is None or teacher_score_unit(teacher) in stored
    )
    return [*rows, *(_teacher_row(context, recipe, teacher) for teacher in teachers)]


def _with_seeds(names: Sequence[str], seeds: int, stored: Container[str] | None) -> np.ndarray:
    """Return the units of a row, a column per seed that every distillation has a student of.

    Columns end at the first seed that is missing, so rows of equally many have the same seeds.
    """
    table = np.reshape(names, (-1, seeds))
    whole = [stored is None or all(name in stored for name in own) for own in table.T]
    return table[:, : (*whole, False).index(False)]


def rank(rows: Sequence[ScoreRow]) -> Ranking:
    """Compute DD-Ranking's label-robust and augmentation-robust scores, where their rows exist.

    Source:
        Li et al., "DD-Ranking" (2025); see `d4m.scores.dd_ranking`.
    """
    soft = [_first(rows, each) for each in ("synthetic", "random_real")]
    hard = [_first(rows, each, labels="hard") for each in ("synthetic", "full_data")]
    plain = [_first(rows, each, augmented=False) for each in ("synthetic", "random_real")]
    label_robust = augmentation_robust = None
    if top1 := _top1_of_equals([*soft, *hard]):
        synthetic, random, synthetic_hard, real_hard = top1
        label_robust = label_robust_score(
            real_hard=real_hard, synthetic_hard=synthetic_hard, synthetic=synthetic, random=random
        )
    if top1 := _top1_of_equals([*soft, *plain]):
        synthetic, random, synthetic_plain, random_plain = top1
        augmentation_robust = augmentation_robust_score(
            synthetic_augmented=synthetic,
            random_augmented=random,
            synthetic_plain=synthetic_plain,
            random_plain=random_plain,
        )
    return Ranking(label_robust, augmentation_robust)


def _row(
    recipe: RecipeSettings,
    run: StudentRun,
    units: _Units,
    top1: _Accuracy,
) -> ScoreRow:
    spread = measure_spread(top1)
    return ScoreRow(
        training_set=run.training_set,
        labels=run.labels,
        student=run.student,
        augmented=run.augmented,
        teacher=label_of(teachers_of(recipe)[run.teacher]),
        ipc=None if run.training_set == "full_data" else recipe.prototypes.ipc,
        seeds=top1.shape[1],
        top1=spread.mean,
        top1_std=spread.deviation or 0.0,
        top5=float(np.mean([float(unit["top5"]) for unit in units])),
        curve=_curve(units, "curve_top1"),
        distillations=len(top1),
        spread=spread,
        balanced=_mean(_balanced(units)),
        balanced_curve=_curve(units, "curve_balanced"),
        views=int(units[0]["views"]) if "views" in units[0] else None,
    )


def _lead(run: StudentRun, accuracies: Mapping[StudentRun, _Accuracy]) -> Spread | None:
    """Return the paired difference of a row to random real images, if both are known."""
    own, random = (accuracies.get(each) for each in (run, replace(run, training_set="random_real")))
    if own is None or random is None or run.training_set in ("random_real", "full_data"):
        return None
    return measure_spread(own - random) if own.shape == random.shape else None


def _curve(units: _Units, accuracy: str) -> Curve:
    """Return the mean curve of students; empty where one lacks it."""
    if not all(accuracy in unit for unit in units):
        return ()
    mean = np.mean([unit[accuracy] for unit in units], axis=0)
    return tuple(zip(units[0]["curve_epochs"].tolist(), mean.tolist(), strict=True))


def _teacher_row(context: StageContext, recipe: RecipeSettings, teacher: str) -> ScoreRow:
    unit = context.read("evaluation_scores", teacher_score_unit(teacher))
    settings = teachers_of(recipe)[teacher]
    return ScoreRow(
        training_set="teacher",
        labels="hard",
        student=settings.architecture,
        augmented=True,
        teacher=label_of(settings),
        ipc=None,
        seeds=1,
        top1=float(unit["top1"]),
        top1_std=0.0,
        top5=float(unit["top5"]),
        curve=(),
        balanced=_mean(_balanced([unit])),
        made=_made([context.reference("evaluation_scores", teacher_score_unit(teacher))]),
    )


def _balanced(units: _Units) -> list[float]:
    """Return the balanced accuracy of each student; none where one has no counts per class."""
    if not all("class_hits" in unit for unit in units):
        return []
    return [balanced_accuracy(unit["class_hits"], unit["class_images"]) for unit in units]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _made(references: Sequence[Reference | None]) -> tuple[Mapping[str, str], ...]:
    """Return the conditions that units were made under, each once, in the order of the units."""
    made = [conditions(each.provenance) for each in references if each]
    return tuple(one for place, one in enumerate(made) if one not in made[:place])


def teacher_by_student(rows: Sequence[ScoreRow]) -> dict[str, dict[str, ScoreRow]]:
    """Return the teacher x student matrix: the synthetic images' rows, by teacher and student.

    The matrix is empty where there is a single teacher.
    """
    matrix = dict[str, dict[str, ScoreRow]]()
    for row in rows:
        if row.training_set == "synthetic" and row.labels == "soft" and row.augmented:
            matrix.setdefault(row.teacher, {})[row.student] = row
    return matrix if len(matrix) > 1 else {}


def _first(
    rows: Sequence[ScoreRow],
    training_set: str,
    *,
    labels: Labels = "soft",
    augmented: bool = True,
) -> ScoreRow | None:
    """Return the first such row, which is the first student's."""
    key = (training_set, labels, augmented)
    found = (row for row in rows if (row.training_set, row.labels, row.augmented) == key)
    return next(found, None)


def _top1_of_equals(rows: Sequence[ScoreRow | None]) -> list[float]:
    """Return the mean accuracies of rows with equally many seeds; none if a row or seed lacks."""
    known = [row for row in rows if row is not None]
    equal = len(known) == len(rows) and len({row.seeds for row in known}) == 1
    return [row.top1 for row in known] if equal else []
