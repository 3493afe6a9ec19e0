"""Baselines: what keeps a recipe from making the training sets that it compares with."""

from collections.abc import Iterator

from d4m.classifiers.dry_build import has_batch_norm
from d4m.errors import ClassifierError
from d4m.recipe.problems import Problem
from d4m.settings import Baseline
from d4m.stages.context import StageContext
from d4m.stages.training_sets import view_size_px

_PIECES = 4  # crops of different images in one mosaic
_KEYS = ("evaluation", "baselines")


def baseline_problems(context: StageContext) -> Iterator[Problem]:
    """Yield classes with too few images for mosaics, and a teacher without batch norm for SRe2L.

    Args:
        context: the recipe and its images, which are counted without opening them.
    """
    settings = context.recipe.settings
    baselines = settings.evaluation.baselines
    if "mosaic_real" in baselines:
        needed, source = _PIECES * settings.prototypes.ipc, context.source
        counts = [source.count("train", class_id) for class_id in context.class_ids]
        few = min(counts)
        if few < needed:
            class_id = counts.index(few)
            text = (
                f"`mosaic_real` puts four images into one: wanted at least {needed} training "
                f"images per class (4 times `prototypes.ipc` {settings.prototypes.ipc}), found "
                f"class {class_id} ('{source.class_table.names[class_id]}'): {few}; lower "
                f"`prototypes.ipc`, or leave `mosaic_real` out"
            )
            yield Problem(_place(context, "mosaic_real"), text)
    if "sre2l" in baselines and _lacks_batch_norm(context):
        text = (
            f"`sre2l` fits images to a teacher's batch-norm statistics, found "
            f"{settings.teacher.architecture} without batch norm; choose a teacher with it, such "
            f"as `{{architecture: convnet3, options: {{norm: batch}}}}`, or leave `sre2l` out"
        )
        yield Problem(_place(context, "sre2l"), text)


def _place(context: StageContext, baseline: Baseline) -> tuple[str | int, ...]:
    """Return the keys of a baseline in the recipe's list, or those of the whole list."""
    named: list[str] = [*context.recipe.settings.evaluation.baselines]
    keys = (*_KEYS, named.index(baseline))
    return keys if context.recipe.states(*keys) else _KEYS


def _lacks_batch_norm(context: StageContext) -> bool:
    try:
        return not has_batch_norm(
            context.recipe.settings.teacher,
            channels=context.source.channels,
            size_px=view_size_px(context),
            classes=len(context.class_ids),
        )
    except ClassifierError:  # a network that cannot be built, which is reported at its own key
        return False
