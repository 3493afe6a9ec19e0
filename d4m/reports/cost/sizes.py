"""The bytes that a stage stores, and those that it holds in memory in addition to one batch."""

from collections.abc import Callable, Mapping

from d4m.reports.cost.generator_work import generator_layout
from d4m.reports.cost.plan import CostPlan
from d4m.settings import SoftLabelSettings
from d4m.stages.unit_names import class_id_of

_LARGEST_IN_MEMORY = 256 << 20  # of a training set; larger ones are kept in a file
_UNIT = 4 << 10  # metadata and reference
_INDEX_ROW, _VIEW, _LATENT_CHANNELS = 100, 40, 4


def stored_bytes(plan: CostPlan, stage: str) -> int:
    """Return the bytes of a stage's missing units, without those of trained networks."""
    units = plan.missing(stage)
    own = _STORED[stage](plan) if units and stage in _STORED else 0
    return own + _UNIT * len(units)


def held_bytes(plan: CostPlan, stage: str) -> int:
    """Return the bytes of images, latents or labels that a stage holds while it computes."""
    if not plan.missing(stage) or stage not in _HELD:
        return 0
    return _HELD[stage](plan)


def _index(plan: CostPlan) -> int:
    return _INDEX_ROW * sum(map(sum, plan.images.values()))


def _latents(plan: CostPlan) -> int:
    classes = (class_id_of(unit.name) for unit in plan.missing("latents"))
    return sum(plan.images["train"][each] for each in classes) * _latent(plan)


def _prototypes(plan: CostPlan) -> int:
    return len(plan.missing("prototypes")) * plan.recipe.prototypes.ipc * _latent(plan)


def _synthetic(plan: CostPlan) -> int:
    units, ipc = plan.missing("synthetic_images"), plan.recipe.prototypes.ipc
    return 2 * len(units) * ipc * _image(plan)  # with the decoded prototypes


def _labels(plan: CostPlan) -> int:
    blocks = (unit.settings["epochs"] for unit in plan.missing("soft_labels"))
    epochs = sum(stop - start for start, stop in blocks)
    return epochs * plan.shown_images * _label(plan)


def _packed(plan: CostPlan) -> int:
    labels = plan.recipe.soft_labels
    epochs = labels.labelled if labels.mode == "stored" else 0
    images = 2 * plan.stored_images * _image(plan)  # as files and as an array
    return images + epochs * plan.shown_images * (_label(plan) + _VIEW)


def _label(plan: CostPlan) -> int:
    """Return the bytes of one view's labels."""
    labels: SoftLabelSettings = plan.recipe.soft_labels
    match labels.format:
        case "float16":
            return 2 * plan.classes
        case "uint8":
            return plan.classes + 2
        case "top_k":
            ids = 1 if plan.classes <= 256 else 2
            return (1 + ids) * min(labels.top_k, plan.classes) + 2


def _image(plan: CostPlan) -> int:
    return plan.view["channels"] * plan.view["size_px"] ** 2


def _latent(plan: CostPlan) -> int:
    layout = generator_layout(plan)
    levels = len(layout["autoencoder"]["channels"]) if "autoencoder" in layout else 4
    return 2 * _LATENT_CHANNELS * (layout["size_px"] // 2 ** (levels - 1)) ** 2


def _training_images(plan: CostPlan) -> int:
    return min(_LARGEST_IN_MEMORY, plan.total("train") * _image(plan))


def _largest_class(plan: CostPlan) -> int:
    return 4 * max(plan.images["train"]) * _latent(plan)  # in float32, and a copy


def _label_block(plan: CostPlan) -> int:
    labels = plan.recipe.soft_labels
    epochs = min(labels.epochs_per_block, labels.labelled)
    shown = 4 * plan.shown_images * _image(plan)  # pixels in float32
    return shown + 2 * epochs * plan.shown_images * _label(plan)


def _students(plan: CostPlan) -> int:
    scored = min(_LARGEST_IN_MEMORY, plan.total(plan.recipe.evaluation.split) * _image(plan))
    whole = "full_data" in plan.recipe.evaluation.baselines
    return scored + _label_block(plan) + (_training_images(plan) if whole else 0)


_STORED: Mapping[str, Callable[[CostPlan], int]] = {
    "real_images": _index,
    "latents": _latents,
    "prototypes": _prototypes,
    "synthetic_images": _synthetic,
    "soft_labels": _labels,
    "distilled_dataset": _packed,
}
_HELD: Mapping[str, Callable[[CostPlan], int]] = {
    "generator": _training_images,
    "latents": _largest_class,
    "prototypes": _largest_class,
    "teacher": _training_images,
    "soft_labels": _label_block,
    "evaluation_scores": _students,
    "image_fidelity": _students,
    "distilled_dataset": _label_block,
}
