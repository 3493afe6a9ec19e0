"""What must hold of the artifacts; every check reads what is stored and loads no model."""

import dagster as dg
import numpy as np

from d4m.settings import FileImageSettings
from d4m.stages.context import StageContext
from d4m.stages.score_table import ScoreRow, score_rows
from d4m.stages.training_sets import synthetic_classes
from d4m.training.label_formats import unpack_logits
from d4m_assets.metadata import unreadable_table
from d4m_assets.stage_asset import Check

_BLANK_SPREAD = 1.0  # grey levels: below this, an image is one colour


def _readable_files(context: StageContext) -> dg.AssetCheckResult:
    indexes = [context.image_index(s, c) for s in context.source.splits for c in context.class_ids]
    unreadable = sum(len(index.unreadable) for index in indexes)
    share = unreadable / max(1, unreadable + sum(len(index.image_ids) for index in indexes))
    dataset = context.recipe.settings.dataset
    limit = dataset.unreadable_share if isinstance(dataset, FileImageSettings) else 0.0
    return dg.AssetCheckResult(
        check_name="readable_files",
        passed=share <= limit,
        description=f"{unreadable} unreadable images, {share:.2%}; the limit is {limit:.2%}",
        metadata={
            "unreadable": unreadable,
            "share": share,
            "limit": limit,
            "files": unreadable_table(context),
        },
    )


def _no_blank_image(context: StageContext) -> dg.AssetCheckResult:
    images, blank = 0, dict[str, int]()
    for class_id, arrays in enumerate(synthetic_classes(context)):
        spread = arrays["images"].reshape(len(arrays["images"]), -1).std(axis=1)
        images += len(spread)
        if (spread < _BLANK_SPREAD).any():
            blank[str(class_id)] = int((spread < _BLANK_SPREAD).sum())
    return dg.AssetCheckResult(
        check_name="no_blank_image",
        passed=not blank,
        metadata={
            "blank_images": sum(blank.values()),
            "images": images,
            "blank_images_per_class": dict(list(blank.items())[:100]),
        },
    )


def _ipc_images_per_class(context: StageContext) -> dg.AssetCheckResult:
    wanted = context.recipe.settings.prototypes.ipc
    counts = [len(arrays["images"]) for arrays in synthetic_classes(context)]
    wrong = {str(class_id): count for class_id, count in enumerate(counts) if count != wanted}
    return dg.AssetCheckResult(
        check_name="ipc_images_per_class",
        passed=not wrong,
        metadata={"wanted": wanted, "classes_with_other_counts": wrong},
    )


def _class_order(context: StageContext) -> dg.AssetCheckResult:
    """The teacher, asked about every view of a class's images, names that class."""
    blocks = context.all_of("soft_labels").reads
    if not blocks:
        return dg.AssetCheckResult(
            check_name="class_order",
            passed=True,
            metadata={"note": "the teacher labels online: no labels are stored"},
        )
    packed = context.read(*blocks[0])
    epochs = len(next(iter(packed.values())))
    total = np.zeros(())
    for epoch in range(epochs):  # a block of many images is large once it is unpacked
        own = {name: values[epoch] for name, values in packed.items()}
        total = total + unpack_logits(own, len(context.class_ids))
    mean = total / epochs
    class_ids = np.repeat(context.class_ids, len(mean) // len(context.class_ids))
    verdicts = [int(mean[class_ids == c].mean(axis=0).argmax()) for c in context.class_ids]
    wrong = {str(c): v for c, v in enumerate(verdicts) if c != v}
    agreement = float((mean.argmax(axis=1) == class_ids).mean())
    many = len(wrong) * 2 > len(verdicts)
    return dg.AssetCheckResult(
        check_name="class_order",
        passed=not wrong,
        severity=dg.AssetCheckSeverity.ERROR if many else dg.AssetCheckSeverity.WARN,
        metadata={"share_of_images_recognised": agreement, "class_taken_for": wrong},
    )


def _beats_random_real(context: StageContext) -> dg.AssetCheckResult:
    rows = score_rows(context, context.recipe.settings)
    synthetic, random = _soft_row(rows, "synthetic"), _soft_row(rows, "random_real")
    if synthetic is None or random is None:
        return dg.AssetCheckResult(
            check_name="beats_random_real",
            passed=True,
            metadata={"note": "the recipe has no rows of both with soft labels"},
        )
    return dg.AssetCheckResult(
        check_name="beats_random_real",
        passed=synthetic.top1 > random.top1,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"synthetic {synthetic.top1:.2%}, random real {random.top1:.2%}",
        metadata={"synthetic_top1": synthetic.top1, "random_real_top1": random.top1},
    )


def _soft_row(rows: list[ScoreRow], training_set: str) -> ScoreRow | None:
    wanted = (row for row in rows if row.training_set == training_set and row.labels == "soft")
    return next(wanted, None)


readable_files = Check(
    "readable_files", "The share of unreadable files is within the recipe's limit.", _readable_files
)
no_blank_image = Check("no_blank_image", "No image is of a single colour.", _no_blank_image)
ipc_images_per_class = Check(
    "ipc_images_per_class", "Every class has IPC images.", _ipc_images_per_class
)
class_order = Check(
    "class_order", "The teacher recognises each class's images as that class.", _class_order
)
beats_random_real = Check(
    "beats_random_real",
    "With soft labels, synthetic images train a better student than random real ones.",
    _beats_random_real,
)
