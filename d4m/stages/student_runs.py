"""Every student of the score table: what it is trained on, how, and what that depends on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from d4m.classifiers.timm_names import describe_fit
from d4m.seeds import distillation_seed, stream_seed
from d4m.settings import (
    AugmentationSettings,
    BatchChange,
    CentreCropSettings,
    EvaluationSettings,
    Labels,
    OptimizerSettings,
    RecipeSettings,
    SoftLabelSettings,
)
from d4m.stages.class_balance import balance_inputs
from d4m.stages.compared_sets import REDRAWN, TrainingSet, baselines_of, training_set_inputs
from d4m.stages.context import Inputs, StageContext
from d4m.stages.soft_labels import label_settings
from d4m.stages.teacher import teacher_inputs, teachers_of
from d4m.stages.training_sets import real_set, view_size_px
from d4m.stages.unit_names import (
    THE_TEACHER,
    distillation_of,
    name_students,
    of_distillation,
    seed_number_of,
    student_unit,
)
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from d4m.images.image_set import ImageSet

_PLAIN = AugmentationSettings(crop_scale=(1.0, 1.0), flip=0.0, cutmix=0.0)
_OF_PROTOTYPES = ("synthetic", "decoded_prototypes")


@dataclass(frozen=True)
class StudentRun:
    """One student: a unit of the artifact. All distillations and seeds make a row of the table.

    Attributes:
        training_set: the images that it is trained on.
        labels: the teacher's, or the class's own.
        student: its name in the score table.
        network: its name in the names of units.
        seed: which of the seeds.
        augmented: whether it sees random views, or the images as they are.
        teacher: whose labels it learns, where not those of the distilled data set; by its name in
            the names of units.
        distillation: which of the independent distillations.
    """

    training_set: TrainingSet
    labels: Labels
    student: str
    network: str
    seed: int = 0
    augmented: bool = True
    teacher: str = THE_TEACHER
    distillation: int = 0

    @property
    def unit_name(self) -> str:
        """Name of its unit."""
        name = student_unit(
            self.training_set,
            self.labels,
            self.network,
            seed=self.seed,
            augmented=self.augmented,
            teacher=self.teacher,
        )
        return of_distillation(self.distillation, name)


def student_runs(recipe: RecipeSettings) -> list[StudentRun]:
    """Return every student of the score table, row by row.

    Each student that has a row of synthetic images has one of random real images too, with the same
    labels. The other baselines have the first student only, unless the recipe says `all`. A row has
    a student per distillation and seed; all real images are the same in every distillation, so
    their row has one per seed.
    """
    settings = recipe.evaluation
    rows = _synthetic_rows(recipe)
    for baseline in baselines_of(recipe):
        rows += _baseline_rows(settings, baseline)
    if settings.without_augmentation and "soft" in settings.labels:
        plain: list[TrainingSet] = ["synthetic"]
        if "random_real" in settings.baselines:
            plain.append("random_real")
        rows += [
            StudentRun(each, "soft", *_learners(settings, "soft")[0], augmented=False)
            for each in plain
        ]
    return [
        replace(row, distillation=distillation, seed=seed)
        for row in rows
        for distillation in range(1 if row.training_set == "full_data" else settings.distillations)
        for seed in range(settings.seeds)
    ]


def _synthetic_rows(recipe: RecipeSettings) -> list[StudentRun]:
    settings = recipe.evaluation
    rows = list[StudentRun]()
    if "soft" in settings.labels:
        rows += [
            StudentRun("synthetic", "soft", *student, teacher=teacher)
            for teacher in teachers_of(recipe)
            for student in _learners(settings, "soft")
        ]
    if "hard" in settings.labels:
        rows += [StudentRun("synthetic", "hard", *each) for each in _learners(settings, "hard")]
    return rows


def _baseline_rows(settings: EvaluationSettings, baseline: TrainingSet) -> list[StudentRun]:
    if baseline == "full_data":
        return [StudentRun(baseline, "hard", *_learners(settings, "hard")[0])]
    for_all = baseline == "random_real" or settings.baseline_students == "all"
    return [
        StudentRun(baseline, labels, *student)
        for labels in settings.labels
        for student in _learners(settings, labels)[: None if for_all else 1]
    ]


def _learners(settings: EvaluationSettings, labels: Labels) -> list[tuple[str, str]]:
    """Return the students with these labels: their names for people and in the names of units.

    With both kinds of labels, only the first student has class labels.
    """
    names = [student.label for student in settings.students]
    learners = list(zip(names, name_students(settings.students), strict=True))
    alone = labels == "hard" and "soft" in settings.labels
    return learners[: 1 if alone else None]


def run_inputs(context: StageContext, run: StudentRun) -> Inputs:
    """Return all that a student's score depends on."""
    recipe = context.recipe.settings
    root = distillation_seed(recipe.seed, run.distillation)
    student = next(each for each in recipe.evaluation.students if each.label == run.student)
    own: dict[str, Any] = {
        "labels": run.labels,
        "student": student.model_dump(mode="json", exclude={"name"}),
        "seed": stream_seed(root, "student", student.architecture, run.seed),
        **describe_fit(student.architecture, view_size_px(context)),
    }
    training = (_soft_inputs if run.labels == "soft" else _hard_inputs)(context, run)
    images = training_set_inputs(context, run.training_set, run.distillation)
    return scored_inputs(context) | images | Inputs(own) | training


def scored_inputs(context: StageContext) -> Inputs:
    """Return which images students are scored on, and how these are read."""
    evaluation = context.recipe.settings.evaluation
    reading = {
        "split": evaluation.split,
        "size_px": view_size_px(context),
        "decoding": dict(context.source.decoding),
        **evaluation.model_dump(mode="json", include={"test_crop"}),  # nothing by default
    }
    return Inputs(reading) | context.all_of("real_images", f"{evaluation.split}-")


def read_scored_set(context: StageContext, settings: Mapping[str, Any]) -> "ImageSet":
    """Read the images that students are scored on.

    Args:
        context: with the index of the real images.
        settings: a unit's, among them those of `scored_inputs`.
    """
    crop = settings.get("test_crop")
    return real_set(
        context,
        settings["split"],
        size_px=settings["size_px"],
        crop=crop and CentreCropSettings.model_validate(crop),
    )


def _soft_inputs(context: StageContext, run: StudentRun) -> Inputs:
    recipe = context.recipe.settings
    labels, matching = recipe.soft_labels, recipe.evaluation.matching
    if not run.augmented:
        labels = labels.model_copy(update={"augmentation": _PLAIN, "labelled_epochs": 1})
    weighted = matching.cluster_weights and run.training_set in _OF_PROTOTYPES
    training = Inputs(
        {
            "epochs": labels.epochs,
            "labelled_epochs": labels.labelled,
            "mode": labels.mode,
            "soft_labels": label_settings(
                context, labels, run.teacher, distillation=run.distillation
            ),
            "optimizer": recipe.evaluation.optimizer.used(),
            "matching": matching.used() | {"cluster_weights": weighted},
        }
    )
    training |= _pixel_inputs(context)
    if weighted:
        training |= context.all_of("prototypes", distillation=run.distillation)
    if _reads_stored_labels(labels, run):
        return training | context.all_of("soft_labels", distillation=run.distillation)
    return training | teacher_inputs(context, run.teacher)


def _reads_stored_labels(labels: SoftLabelSettings, run: StudentRun) -> bool:
    """Return whether its labels are an artifact; else the teacher labels while it trains."""
    by_the_teacher = run.teacher == THE_TEACHER
    of_the_set = run.training_set == "synthetic" and run.augmented
    return labels.mode == "stored" and by_the_teacher and of_the_set


def _hard_inputs(context: StageContext, run: StudentRun) -> Inputs:
    """Return how class labels are learnt: as soft ones, but for what the recipe says of these."""
    recipe = context.recipe.settings
    soft, evaluation = recipe.soft_labels, recipe.evaluation
    hard, full = evaluation.hard, evaluation.full_data
    whole = run.training_set == "full_data"
    views: AugmentationSettings = hard.augmentation or soft.augmentation
    optimizer: OptimizerSettings = hard.optimizer or evaluation.optimizer
    training = Inputs(
        {
            "epochs": full.epochs if whole else hard.epochs or soft.epochs,
            "augmentation": ((whole and full.augmentation) or views).used(),
            "optimizer": (full.optimizer if whole else optimizer).used(),
        }
    )
    if whole:
        training |= balance_inputs(context, full.class_balance)
    changes = () if whole and full.augmentation else hard.batch_changes
    return training | _pixel_inputs(context, changes)


def _pixel_inputs(context: StageContext, changes: Sequence[BatchChange] = ()) -> Inputs:
    """Return what batches are changed by and how pixels are standardised, where they are."""
    pixels = context.recipe.settings.evaluation.pixels
    used: dict[str, Any] = {"batch_changes": list(changes)} if changes else {}
    used |= {"standardise": True} if pixels.standardise else {}
    if not used:
        return Inputs()
    if pixels.mean is None:
        return Inputs(used) | context.all_of("real_images", "train-")
    return Inputs(used | pixels.model_dump(mode="json", include={"mean", "deviation"}))


def images_name(unit: Unit) -> tuple[int, tuple[str | int, ...]]:
    """Return what tells training sets apart: the distillation, and a name within it.

    Images that are drawn again for every seed have its number too.
    """
    name = unit.settings["training_set"]
    own = (name, seed_number_of(unit.name)) if name in REDRAWN else (name,)
    return distillation_of(unit.name), own


def by_images(units: Sequence[Unit]) -> list[Unit]:
    """Return units with the same images one after the other, so that these are read once."""
    groups = dict[Any, list[Unit]]()
    for unit in units:
        groups.setdefault(images_name(unit), []).append(unit)
    return [unit for group in groups.values() for unit in group]
