"""Teachers and students: networks that cannot be built for the recipe's images."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d4m.classifiers.dry_build import find_contradiction, find_refusal
from d4m.classifiers.timm_names import describe_fit
from d4m.errors import D4MError
from d4m.recipe.problems import Problem
from d4m.settings import ClassifierSettings, LabellerSettings, OptimizerSettings
from d4m.stages.context import StageContext
from d4m.stages.teacher import network_settings
from d4m.stages.training_sets import view_size_px
from d4m.store.digest import digest_file

_UNKNOWN_INPUT = (
    "a file of weights does not say which pixels it was trained on, and a wrong guess labels "
    "wrongly; set `input` next to it: {mean: [0.5], deviation: [0.5]} for weights that d4m "
    "trained, {mean: [0.485, 0.456, 0.406], deviation: [0.229, 0.224, 0.225]} for torchvision's"
)


@dataclass(frozen=True)
class _Network:
    """A network that the recipe names.

    Attributes:
        keys: where.
        settings: its architecture, with options.
        batch: the key of the size of its batches.
        alone: whether a batch of its training has a single image.
        weights: None: trained here; `timm`; or a .safetensors file.
    """

    keys: tuple[int | str, ...]
    settings: ClassifierSettings
    batch: tuple[int | str, ...]
    alone: bool
    weights: str | None = None


def network_problems(context: StageContext) -> Iterator[Problem]:
    """Yield every teacher and student that cannot be built, or whose weights do not fit.

    One that a unit of the recipe's current artifacts was made with is not built again.

    Args:
        context: with the current manifests of all stages.
    """
    for network in _networks(context):
        weights = _find_weights(context, network)
        if weights == "":
            path = _locate(context, network)
            found = path if Path(path).exists() else f"no such file: {path}"
            text = f"wanted null, `timm` or a .safetensors file, found {found}"
            yield Problem((*network.keys, "weights"), text)
            continue
        yield from _input_problems(context, network)
        if network.alone or not _was_built(context, network, weights):
            yield from _problems(context, network, weights)


def _networks(context: StageContext) -> Iterator[_Network]:
    settings = context.recipe.settings
    real = sum(context.source.count("train", class_id) for class_id in context.class_ids)
    others = {("teacher", "others", n): other for n, other in enumerate(settings.teacher.others)}
    for keys, teacher in {("teacher",): settings.teacher, **others}.items():
        alone = teacher.weights is None and _is_alone(real, teacher.optimizer)
        batch = (*keys, "optimizer", "batch_size")
        yield _Network(keys, teacher, batch, alone, teacher.weights)
        for place, network in enumerate(teacher.ensemble_with):
            yield _Network((*keys, "ensemble_with", place), network, batch, alone)
    refined = settings.prototypes.refined
    if refined and refined.of_classes:
        for place, student in enumerate(refined.students):
            keys = ("prototypes", "refinement", "students", place)
            yield _Network(keys, student, keys, alone=False)
    batch, alone = _smallest_batch(context, real)
    for place, student in enumerate(settings.evaluation.students):
        yield _Network(("evaluation", "students", place), student, batch, alone)


def _smallest_batch(context: StageContext, real: int) -> tuple[tuple[str, ...], bool]:
    """Return the key of a batch size of students that leaves a single image in a batch, if any.

    Args:
        context: the recipe and its classes.
        real: number of real training images.

    Returns:
        The key, and whether batches under it have a single image.
    """
    recipe = context.recipe.settings
    evaluation, stored = recipe.evaluation, recipe.prototypes.ipc * len(context.class_ids)
    counts = dict.fromkeys((stored, stored * recipe.synthesis.tiles))  # of images, and of tiles
    trainings = [("optimizer", evaluation.optimizer, count) for count in counts]
    if evaluation.hard.optimizer and "hard" in evaluation.labels:
        hard = evaluation.hard.optimizer
        trainings += [("hard.optimizer", hard, count) for count in counts]
    if "full_data" in evaluation.baselines:
        trainings.append(("full_data.optimizer", evaluation.full_data.optimizer, real))
    for section, optimizer, images in trainings:
        if _is_alone(images, optimizer):
            return ("evaluation", *section.split("."), "batch_size"), True
    return ("evaluation", "optimizer", "batch_size"), False


def _is_alone(images: int, optimizer: OptimizerSettings) -> bool:
    """Return whether the smallest batch of an epoch has a single image."""
    images = max(images, 1)
    steps = -(-images // min(optimizer.batch_size, images))
    return images // steps == 1


def _find_weights(context: StageContext, network: _Network) -> str | None:
    """Return `timm`, the absolute path of a file, None for a trained network; "" for no file."""
    if network.weights in (None, "timm"):
        return network.weights
    path = Path(_locate(context, network))
    return str(path) if path.suffix == ".safetensors" and path.is_file() else ""


def _locate(context: StageContext, network: _Network) -> str:
    try:
        return str(context.recipe.locate(network.weights or ""))
    except D4MError as failure:  # a variable that is not set
        return str(failure)


def _input_problems(context: StageContext, network: _Network) -> Iterator[Problem]:
    """Yield what is unknown about the pixels that a file of weights was trained on."""
    teacher, channels = network.settings, context.source.channels
    if not isinstance(teacher, LabellerSettings) or teacher.weights in (None, "timm"):
        return
    if teacher.input is None:
        yield Problem((*network.keys, "weights"), _UNKNOWN_INPUT)
        return
    for name, values in (("mean", teacher.input.mean), ("deviation", teacher.input.deviation)):
        if len(values) not in (1, channels):
            text = f"wanted one number or one per channel ({channels}), found {len(values)}"
            yield Problem((*network.keys, "input", name), text)


def _problems(context: StageContext, network: _Network, weights: str | None) -> Iterator[Problem]:
    images: dict[str, Any] = {
        "channels": context.source.channels,
        "size_px": _fed_px(context, network),
        "classes": len(context.class_ids),
    }
    of_images = {name: images[name] for name in ("channels", "classes")}
    if weights != "timm" and (refusal := find_contradiction(network.settings, **of_images)):
        yield Problem(_place(context, network, "options"), refusal)
        return
    refusal = find_refusal(network.settings, **images, weights=weights, alone=network.alone)
    if not refusal:
        return
    if network.alone and not find_refusal(network.settings, **images, weights=weights):
        text = f"some batches have one image; {refusal}; raise it"
        yield Problem(network.batch, text)
        return
    key = "architecture"
    plain = ClassifierSettings(architecture=network.settings.architecture)
    if weights and not find_refusal(network.settings, **images, weights=None):
        key = "weights"
    elif network.settings.options and not find_refusal(plain, **images, weights=weights):
        key = "options"
    yield Problem(_place(context, network, key), refusal)


def _place(context: StageContext, network: _Network, key: str) -> tuple[int | str, ...]:
    """Return the keys of a network's setting; those of a student that is a mere name in a list."""
    keys = (*network.keys, key)
    of_list = "students" in network.keys and not context.recipe.states(*keys)
    return network.keys if of_list else keys


def _fed_px(context: StageContext, network: _Network) -> int:
    """Return the height and width of the images that a network is fed."""
    seen = network.settings.input if isinstance(network.settings, LabellerSettings) else None
    if "refinement" in network.keys:
        from d4m.prototypes.kernel_regression import KERNEL_SIZE_PX

        return min(view_size_px(context), KERNEL_SIZE_PX)
    return (seen.size_px if seen else None) or view_size_px(context)


def _was_built(context: StageContext, network: _Network, weights: str | None) -> bool:
    """Return whether a unit of the recipe's current artifacts was made with this network."""
    if network.keys[0] == "prototypes":
        return network.settings == ClassifierSettings()  # which takes any images
    stage = "evaluation_scores" if network.keys[0] == "evaluation" else "teacher"
    wanted: dict[str, Any]
    if isinstance(network.settings, LabellerSettings):
        is_file = weights not in (None, "timm")
        digest = digest_file(Path(weights)) if weights and is_file else weights
        wanted = network_settings(context, network.settings) | {"weights": digest}
    else:
        size_px, student = view_size_px(context), network.settings
        settings = student.model_dump(mode="json", include={"architecture", "options"})
        wanted = {"size_px": size_px, "student": settings}
        wanted |= describe_fit(student.architecture, size_px)
    for record in context.upstream.get(stage, {}).values():
        reference = context.store.find(stage, record.key) if record else None
        found = reference.inputs["settings"] if reference else {}
        if reference and all(found.get(key) == value for key, value in wanted.items()):
            return True
    return False
