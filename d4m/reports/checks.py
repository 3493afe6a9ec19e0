"""Check what must hold of stored artifacts; every check reads arrays and loads no model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from d4m.reports.closeness import compare_with_decoded
from d4m.reports.conditions import describe_differences, differing, find_conditions
from d4m.reports.image_copies import count_copies
from d4m.reports.near_copies import compare_pictures
from d4m.reports.standing import compare_with_random
from d4m.reports.unreadable import count_unreadable, unreadable_rows
from d4m.reports.used_range import narrow_images
from d4m.settings import FileImageSettings
from d4m.stages.context import StageContext
from d4m.stages.image_fidelity import fidelity_rows
from d4m.stages.score_table import score_rows
from d4m.stages.training_sets import synthetic_classes
from d4m.stages.unit_names import of_distillation
from d4m.training.label_formats import unpack_logits

_MOST_NARROW = 0.1  # share of the images; a few dark ones are in every data set
_BLANK_SPREAD = 1.0  # grey levels: an image with a smaller deviation is of one colour
_MOST_LISTED = 100


@dataclass(frozen=True)
class CheckResult:
    """The outcome of a check.

    Attributes:
        passed: whether it holds.
        summary: the outcome in a sentence, with its figures.
        severity: `error` where the artifact should not be used; `warning` where it may be.
        figures: the figures by name, in JSON's types.
        rows: the single findings, such as files, as rows with the same columns.
        changed: whether an image was found to have changed since it was indexed.
    """

    passed: bool
    summary: str
    severity: Literal["error", "warning"] = "error"
    figures: Mapping[str, Any] = field(default_factory=dict[str, Any])
    rows: Sequence[Mapping[str, str]] = ()
    changed: bool = False


@dataclass(frozen=True)
class Check:
    """Something that must hold of an artifact.

    Attributes:
        name: of the check.
        artifact: that it looks at.
        promise: what it promises, in a sentence.
        examine: looks at the stored artifact.
    """

    name: str
    artifact: str
    promise: str
    examine: Callable[[StageContext], CheckResult]


def checks_of(artifact: str) -> list[Check]:
    """Return the checks of an artifact."""
    return [check for check in CHECKS if check.artifact == artifact]


def _readable_files(context: StageContext) -> CheckResult:
    indexes = context.image_indexes()
    unreadable = count_unreadable(indexes.values())
    images = sum(len(index.image_ids) for index in indexes.values())
    share = unreadable / max(1, unreadable + images)
    dataset = context.recipe.settings.dataset
    limit = dataset.unreadable_share if isinstance(dataset, FileImageSettings) else 0.0
    return CheckResult(
        share <= limit,
        f"{unreadable} unreadable images, {share:.2%}; the limit is {limit:.2%}",
        figures={"unreadable": unreadable, "share": share, "limit": limit},
        rows=unreadable_rows(indexes),
    )


def _duplicates(context: StageContext) -> CheckResult:
    """Count copies; a warning, because published data sets have some and the owner may want them.

    Scores of such a data set are too high rather than wrong, so the share of test images that are
    training images too is in the summary.
    """
    found = count_copies(context)
    return CheckResult(
        found.total == 0, found.summary, severity="warning", figures=found.figures, rows=found.rows
    )


def _near_copies(context: StageContext) -> CheckResult:
    """Count test images that are nearly training images; a warning, for people to look at."""
    found = compare_pictures(context)
    return CheckResult(
        found.near == 0,
        found.summary,
        severity="warning",
        figures={"near": found.near, "evaluated": found.evaluated},
        rows=found.rows,
        changed=found.changed,
    )


def _value_range(context: StageContext) -> CheckResult:
    found = narrow_images(context)
    return CheckResult(
        found.share <= _MOST_NARROW,
        found.summary,
        severity="warning",
        figures={"images": found.images, "narrow": found.narrow, "brightest": found.brightest},
        rows=found.rows,
        changed=bool(found.changed),
    )


def _no_blank_image(context: StageContext) -> CheckResult:
    images, blank = 0, dict[str, int]()
    for name, arrays in _named_classes(context):
        spread = arrays["images"].reshape(len(arrays["images"]), -1).std(axis=1)
        images += len(spread)
        if (spread < _BLANK_SPREAD).any():
            blank[name] = int((spread < _BLANK_SPREAD).sum())
    return CheckResult(
        not blank,
        f"{sum(blank.values())} of {images} images are of a single colour",
        figures={
            "blank_images": sum(blank.values()),
            "images": images,
            "blank_images_per_class": dict(list(blank.items())[:_MOST_LISTED]),
        },
    )


def _ipc_images_per_class(context: StageContext) -> CheckResult:
    wanted = context.recipe.settings.prototypes.ipc
    counts = {name: len(arrays["images"]) for name, arrays in _named_classes(context)}
    wrong = {name: count for name, count in counts.items() if count != wanted}
    return CheckResult(
        not wrong,
        f"{len(wrong)} of {len(counts)} classes have another number of images than {wanted}",
        figures={"wanted": wanted, "classes_with_other_counts": wrong},
    )


def _named_classes(context: StageContext) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield the arrays of every class of every distillation, by a name of class and distillation.

    A class of the first distillation is named by its number, the others as in `set-01-3`.
    """
    for distillation in range(context.recipe.settings.evaluation.distillations):
        for class_id, arrays in enumerate(synthetic_classes(context, distillation=distillation)):
            yield of_distillation(distillation, str(class_id)), arrays


def _class_order(context: StageContext) -> CheckResult:
    """Compare each class with the class that the teacher predicts for its images.

    The images are those of the first distillation, which is the distilled data set.
    """
    blocks = context.all_of("soft_labels").reads
    if not blocks:
        return CheckResult(True, "the teacher labels online: no labels are stored")
    packed = context.open_rows(*blocks[0])
    total = np.zeros(())
    for epoch in range(len(packed)):
        total = total + unpack_logits(packed[epoch], len(context.class_ids))
    mean = total / len(packed)
    class_ids = np.repeat(context.class_ids, len(mean) // len(context.class_ids))
    predicted = [int(mean[class_ids == c].mean(axis=0).argmax()) for c in context.class_ids]
    wrong = {str(c): other for c, other in enumerate(predicted) if c != other}
    recognised = float((mean.argmax(axis=1) == class_ids).mean())
    return CheckResult(
        not wrong,
        f"the teacher recognises {recognised:.1%} of the images, and takes {len(wrong)} of "
        f"{len(predicted)} classes for another one",
        severity="error" if len(wrong) * 2 > len(predicted) else "warning",
        figures={"share_of_images_recognised": recognised, "class_taken_for": wrong},
    )


def _beats_random_real(context: StageContext) -> CheckResult:
    """Warn where a row is behind random real images by more than chance; say where each stands.

    A level row passes: with few students almost every row is level, and people learn to ignore a
    warning that chance switches on and off. The summary calls the row level.
    """
    found = compare_with_random(score_rows(context, context.recipe.settings))
    return CheckResult(
        found.behind == 0,
        found.summary,
        severity="warning",
        figures=found.figures,
        rows=found.rows,
    )


def _closer_than_prototypes(context: StageContext) -> CheckResult:
    """Compare synthetic images with their decoded prototypes; a warning, as sets are small."""
    recipe = context.recipe.settings
    trained = recipe.generator.kind == "compact"
    found = compare_with_decoded(fidelity_rows(context, recipe)[0], trained=trained)
    return CheckResult(not found.further, found.summary, severity="warning", figures=found.figures)


def _same_conditions(context: StageContext) -> CheckResult:
    """Compare device, threads and versions; a warning, as they change last digits only."""
    rows = score_rows(context, context.recipe.settings)
    found = differing(find_conditions({row.label: row for row in rows}))
    lines = describe_differences(found)
    return CheckResult(
        not found,
        f"rows of the score table differ in {'; '.join(lines)}"
        if found
        else "all rows were made with one kind of device, number of threads and set of versions",
        severity="warning",
        figures={
            name: {value: len(rows) for value, rows in each.items()} for name, each in found.items()
        },
        rows=[
            {"condition": name, "value": value, "rows": "; ".join(rows)}
            for name, each in found.items()
            for value, rows in each.items()
        ],
    )


CHECKS: tuple[Check, ...] = (
    Check(
        "readable_files",
        "real_images",
        "The share of unreadable files is within the recipe's limit.",
        _readable_files,
    ),
    Check(
        "duplicates",
        "real_images",
        "No two images have the same bytes, in a split or across splits and classes.",
        _duplicates,
    ),
    Check(
        "near_copies",
        "real_images",
        "No test or validation image is nearly a training image.",
        _near_copies,
    ),
    Check(
        "value_range",
        "real_images",
        "The training images use the range from black to white.",
        _value_range,
    ),
    Check("no_blank_image", "synthetic_images", "No image is of a single colour.", _no_blank_image),
    Check(
        "ipc_images_per_class",
        "synthetic_images",
        "Every class has IPC images.",
        _ipc_images_per_class,
    ),
    Check(
        "class_order",
        "soft_labels",
        "The teacher recognises each class's images as that class.",
        _class_order,
    ),
    Check(
        "beats_random_real",
        "evaluation_scores",
        "No student learns less from synthetic images than from random real ones, by more than "
        "chance; each row is called ahead, level or behind, with its interval.",
        _beats_random_real,
    ),
    Check(
        "same_conditions",
        "evaluation_scores",
        "All rows were made with one kind of device, number of threads and set of versions.",
        _same_conditions,
    ),
    Check(
        "closer_than_prototypes",
        "image_fidelity",
        "Synthetic images are no further from real ones than their decoded prototypes are.",
        _closer_than_prototypes,
    ),
)
"""Every check, in the order of the artifacts."""
