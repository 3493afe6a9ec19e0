"""Every student of the score table: what it is trained on, how, and what that depends on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from d4m.seeds import stream_seed
from d4m.settings import (
    AugmentationSettings,
    Labels,
    OptimizerSettings,
    SoftLabelSettings,
    StudentSettings,
)
from d4m.stages.base import StageContext
from d4m.stages.compared_sets import TrainingSet, training_set_reads, training_set_settings
from d4m.stages.soft_labels import label_settings
from d4m.stages.teacher import THE_TEACHER, teacher_reads
from d4m.stages.training_sets import view_size_px

_PLAIN = AugmentationSettings(crop_scale=(1.0, 1.0), flip=0.0, cutmix=0.0)
_OF_PROTOTYPES = ("synthetic", "decoded_prototypes")


@dataclass(frozen=True)
class StudentRun:
    """One student: a unit of the artifact and, over its seeds, a row of the score table.

    Attributes:
        training_set: what it is trained on.
        labels: the teacher's, or the class's own.
        student: its name.
        seed: which of the seeds.
        augmented: whether it sees random views, or the images as they are.
        teacher: whose labels it learns, where not those of the distilled data set.
    """

    training_set: TrainingSet
    labels: Labels
    student: str
    seed: int
    augmented: bool = True
    teacher: str = THE_TEACHER

    @property
    def unit_name(self) -> str:
        """Name of its unit."""
        plain = "" if self.augmented else "-plain"
        by = f"-by-{self.teacher}" if self.teacher != THE_TEACHER else ""
        return f"{self.training_set}-{self.labels}{plain}{by}-{self.student}-{self.seed:02d}"

    @property
    def images_name(self) -> tuple[str | int, ...]:
        """What tells training sets apart: random ones are drawn anew for every seed."""
        drawn = self.training_set == "random_real"
        return (self.training_set, self.seed) if drawn else (self.training_set,)

    def reads_stored_labels(self, context: StageContext) -> bool:
        """Whether its labels are an artifact; else the teacher gives them as it trains."""
        stored = context.recipe.settings.soft_labels.mode == "stored"
        by_the_teacher = self.teacher == THE_TEACHER
        return stored and by_the_teacher and self.training_set == "synthetic" and self.augmented


def student_runs(context: StageContext) -> list[StudentRun]:
    """Every student of the score table, row by row."""
    settings = context.recipe.settings.evaluation
    first = settings.students[0].label
    rows = list[StudentRun]()
    if "soft" in settings.labels:
        others = [other.name for other in context.recipe.settings.teacher.others]
        rows += [
            StudentRun("synthetic", "soft", student.label, 0, teacher=teacher)
            for teacher in (THE_TEACHER, *others)
            for student in settings.students
        ]
    if "hard" in settings.labels:
        students = settings.students[:1] if "soft" in settings.labels else settings.students
        rows += [StudentRun("synthetic", "hard", student.label, 0) for student in students]
    for baseline in settings.baselines:
        kinds: Sequence[Labels] = ("hard",) if baseline == "full_data" else settings.labels
        rows += [StudentRun(baseline, labels, first, 0) for labels in kinds]
    if settings.without_augmentation and "soft" in settings.labels:
        plain: list[TrainingSet] = ["synthetic"]
        if "random_real" in settings.baselines:
            plain.append("random_real")
        rows += [StudentRun(each, "soft", first, 0, augmented=False) for each in plain]
    return [replace(row, seed=seed) for row in rows for seed in range(settings.seeds)]


def scored_settings(context: StageContext) -> dict[str, Any]:
    """Which images are scored, and how they are read."""
    return {
        "split": context.recipe.settings.evaluation.split,
        "size_px": view_size_px(context),
        "decoding": dict(context.source.decoding),
    }


def run_settings(context: StageContext, run: StudentRun) -> dict[str, Any]:
    """All settings that a student's score depends on."""
    return {
        **training_set_settings(context, run.training_set),
        "labels": run.labels,
        "student": student_settings(context, run).model_dump(mode="json", exclude={"name"}),
        "seed": stream_seed(context.recipe.settings.seed, "student", run.student, run.seed),
        **(_soft_settings if run.labels == "soft" else _hard_settings)(context, run),
        **scored_settings(context),
    }


def run_reads(context: StageContext, run: StudentRun) -> list[tuple[str, str]]:
    """The upstream units that a student's score depends on."""
    reads = [*scored_reads(context), *training_set_reads(context, run.training_set)]
    if run.labels == "hard":
        return reads
    if is_weighted(context, run):
        reads += context.all_of("prototypes")
    if run.reads_stored_labels(context):
        return reads + context.all_of("soft_labels")
    return reads + teacher_reads(context, run.teacher)


def scored_reads(context: StageContext) -> list[tuple[str, str]]:
    """The units of the images that students are scored on."""
    return context.all_of("real_images", f"{scored_split(context)}-")


def scored_split(context: StageContext) -> Literal["test", "validation"]:
    """The split of those images."""
    return context.recipe.settings.evaluation.split


def soft_label_settings(context: StageContext, run: StudentRun) -> SoftLabelSettings:
    """The views and labels that a student is trained on."""
    settings = context.recipe.settings.soft_labels
    if run.augmented:
        return settings
    return settings.model_copy(update={"augmentation": _PLAIN, "labelled_epochs": 1})


@dataclass(frozen=True)
class HardTraining:
    """How a student is trained on class labels."""

    epochs: int
    augmentation: AugmentationSettings
    optimizer: OptimizerSettings


def hard_training(context: StageContext, run: StudentRun) -> HardTraining:
    """Training on class labels: as with soft labels, but for what `evaluation.hard` says."""
    settings = context.recipe.settings
    soft, evaluation, hard = settings.soft_labels, settings.evaluation, settings.evaluation.hard
    whole = run.training_set == "full_data"
    return HardTraining(
        epochs=evaluation.full_data_epochs if whole else hard.epochs or soft.epochs,
        augmentation=hard.augmentation or soft.augmentation,
        optimizer=hard.optimizer or evaluation.optimizer,
    )


def optimizer_settings(context: StageContext, run: StudentRun) -> OptimizerSettings:
    """How a student's weights are fitted."""
    if run.labels == "hard":
        return hard_training(context, run).optimizer
    return context.recipe.settings.evaluation.optimizer


def student_settings(context: StageContext, run: StudentRun) -> StudentSettings:
    """The network to train."""
    students = context.recipe.settings.evaluation.students
    return next(student for student in students if student.label == run.student)


def is_weighted(context: StageContext, run: StudentRun) -> bool:
    """Whether each image's loss is weighed by its prototypes' share of the class."""
    weighted = context.recipe.settings.evaluation.matching.cluster_weights
    return weighted and run.training_set in _OF_PROTOTYPES


def _soft_settings(context: StageContext, run: StudentRun) -> dict[str, Any]:
    evaluation = context.recipe.settings.evaluation
    soft = soft_label_settings(context, run)
    return {
        "epochs": soft.epochs,
        "labelled_epochs": soft.labelled,
        "mode": soft.mode,
        "soft_labels": label_settings(context, soft, run.teacher),
        "optimizer": optimizer_settings(context, run).used(),
        "matching": evaluation.matching.used() | {"cluster_weights": is_weighted(context, run)},
    }


def _hard_settings(context: StageContext, run: StudentRun) -> dict[str, Any]:
    hard = hard_training(context, run)
    return {
        "epochs": hard.epochs,
        "augmentation": hard.augmentation.model_dump(mode="json"),
        "optimizer": hard.optimizer.used(),
    }
