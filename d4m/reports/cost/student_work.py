"""The work of the stages that train classifiers, label with them and score them."""

from collections.abc import Iterator, Mapping
from typing import Any

from d4m.reports.cost.generator_work import drawing, fetched, generator_layout, read, stored
from d4m.reports.cost.pieces import Piece, Work
from d4m.reports.cost.plan import CostPlan
from d4m.settings import (
    EPOCHS_PER_BLOCK,
    DistributionMatchingSettings,
    OptimizerSettings,
    Sre2lSettings,
)
from d4m.stages.compared_sets import REDRAWN, baselines_of
from d4m.stages.coresets import CORESETS, RANKED
from d4m.stages.made_images import SRE2L_BLOCK
from d4m.stages.unit_names import TRAINING_LOG, distillation_of, seed_number_of
from d4m.store.reference import Unit

_CURVE_POINTS, _PROBE_IMAGES, _MOST_REAL = 10, 500, 5000
_LONGEST_PROBED_EPOCH = 8  # steps
_VIEWS_PROBED = 256  # at once; a thousand would be most of the memory of a run's driver


def teacher_work(plan: CostPlan) -> Iterator[Work]:
    """Yield the training of every teacher; weights that are loaded take next to no time."""
    for unit in plan.missing("teacher"):
        yield stored(plan, 1)
        settings = unit.settings
        if "epochs" not in settings:
            yield Work(Piece("download"), 1 if settings.get("weights") == "timm" else 0)
            continue
        yield from read(plan, plan.total("train"))
        yield from training_work(plan, _class_labels(settings, settings), plan.total("train"))


def soft_labels_work(plan: CostPlan) -> Iterator[Work]:
    """Yield the labelling of every epoch's views."""
    units = plan.missing("soft_labels")
    epochs = sum(stop - start for start, stop in (unit.settings["epochs"] for unit in units))
    if units:
        yield Work(_labelled(plan, units[0].settings), epochs * plan.shown_images)
        yield stored(plan, len(units))


def baseline_images_work(plan: CostPlan) -> Iterator[Work]:
    """Yield what the made baselines take."""
    units = plan.missing("baseline_images")
    if {"dm", "sre2l"} & {unit.settings["made"] for unit in units}:
        yield from read(plan, plan.total("train"))  # mean and deviation of the channels
    for unit in units:
        made = unit.settings["made"]
        yield stored(plan, 1)
        if made == TRAINING_LOG:
            yield from read(plan, plan.total("train"))
            training = _class_labels(unit.settings, unit.settings)
            yield from training_work(plan, training, plan.total("train"))
            # The log asks for the answers to all images after each epoch.
            answers = plan.total("train") * unit.settings["epochs"]
            yield Work(scored(plan, _network(unit.settings)), answers)
        elif made in CORESETS and made not in RANKED:
            yield from read(plan, plan.total("train"))
            yield Work(scored(plan, teacher_network(plan)), plan.total("train"))
        elif made not in CORESETS:
            yield from _method(plan, unit)


def _method(plan: CostPlan, unit: Unit) -> Iterator[Work]:
    """Yield a piece of the images that a method of another paper makes."""
    from d4m.baselines.mosaics import MOST_IMAGES, PIECES

    settings, ipc = unit.settings, plan.recipe.prototypes.ipc
    if settings["made"] == "sre2l":
        images = min(SRE2L_BLOCK, plan.stored_images)
        own = Sre2lSettings.among(settings).model_dump(mode="json", exclude={"steps"})
        step = {**plan.view, "network": teacher_network(plan), "images": images, "fitting": own}
        yield Work(Piece("sre2l step", step), settings["steps"])
        return
    of_class = plan.images["train"][settings["piece"]]
    if settings["made"] == "dm":
        own = DistributionMatchingSettings.among(settings).model_dump(mode="json")
        own.pop("steps")
        real = min(of_class, own["real_images"])
        step = {**plan.view, "ipc": ipc, "real": real, "fitting": own}
        yield from read(plan, of_class)
        yield Work(Piece("dm step", step), settings["steps"])
        return
    images = min(of_class, max(MOST_IMAGES, PIECES * ipc))
    yield from read(plan, images)
    class_ = {**plan.view, "network": teacher_network(plan), "images": images, "ipc": ipc}
    yield Work(Piece("mosaics of a class", class_), 1)


def evaluation_work(plan: CostPlan) -> Iterator[Work]:
    """Yield the training and scoring of every student, and the images that they train on."""
    units, split = plan.missing("evaluation_scores"), plan.recipe.evaluation.split
    if units:
        yield from read(plan, plan.total(split))
    images = dict[tuple[Any, ...], Unit]()
    for unit in units:
        yield stored(plan, 1)
        name = unit.settings["training_set"]
        if name == "teacher":
            yield Work(scored(plan, teacher_network(plan)), plan.total(split))
            continue
        redrawn = seed_number_of(unit.name) if name in REDRAWN else None
        images[distillation_of(unit.name), name, redrawn] = unit
        yield from _student(plan, unit)
    for unit in images.values():
        yield from _images(plan, unit.settings)


def fidelity_work(plan: CostPlan) -> Iterator[Work]:
    """Yield the features of every set, and what is measured in them."""
    units, split = plan.missing("image_fidelity"), plan.recipe.evaluation.split
    if not units:
        return
    real = min(_MOST_REAL, plan.total(split))
    yield from read(plan, plan.total(split))
    yield Work(scored(plan, teacher_network(plan)), real)
    for unit in units:
        sets = 2 if unit.settings["training_set"] == "synthetic" else 1
        yield from _images(plan, unit.settings)
        measured = {"network": teacher_network(plan), **plan.view, "images": plan.shown_images}
        yield Work(scored(plan, teacher_network(plan)), sets * plan.shown_images)
        yield Work(Piece("set measured", measured | {"real": real}), sets)
    yield stored(plan, len(units))


def distilled_dataset_work(plan: CostPlan) -> Iterator[Work]:
    """Yield the packing of images, and of labels with the views that they belong to."""
    for _ in plan.missing("distilled_dataset"):
        yield Work(Piece("image packed", plan.view), plan.stored_images)
        yield fetched(3 * plan.classes)  # for the files, the array and the contact sheet
        yield fetched(len(plan.units("evaluation_scores")) + len(plan.units("soft_labels")))
        labels = plan.recipe.soft_labels
        if labels.mode == "stored":
            packed = {
                **plan.view,
                "images": plan.shown_images,
                "labels": labels.model_dump(mode="json", include={"format", "top_k"}),
                "augmentation": labels.augmentation.used(),
                "epochs": min(labels.epochs_per_block, EPOCHS_PER_BLOCK),
            }
            yield Work(Piece("epoch packed", packed), labels.labelled)
        yield stored(plan, 1)


def _student(plan: CostPlan, unit: Unit) -> Iterator[Work]:
    """Yield one student's training, its teacher's labels and its scores."""
    settings, count = unit.settings, _set_size(plan, unit.settings)
    network = _network(settings["student"])
    whole = plan.total(plan.recipe.evaluation.split)
    probed = min(_CURVE_POINTS, settings["epochs"]) * min(_PROBE_IMAGES, whole)
    yield Work(scored(plan, network), whole + probed)
    if settings["labels"] == "hard":
        yield from training_work(plan, _class_labels(settings, settings["student"]), count)
        return
    labels = settings["soft_labels"]
    training = {
        "network": network,
        "labels": "soft",
        "optimizer": settings["optimizer"],
        "augmentation": labels["augmentation"],
        "matching": settings["matching"],
        "epochs": settings["epochs"],
    }
    yield from training_work(plan, training, count)
    if not unit.reads("soft_labels"):
        yield Work(_labelled(plan, labels), settings["epochs"] * count)


def training_work(plan: CostPlan, training: Mapping[str, Any], count: int) -> Iterator[Work]:
    """Yield the optimiser steps of one network.

    Args:
        plan: of the recipe.
        training: what `_class_labels` returns, or the same for soft labels.
        count: images of the training set.
    """
    batch = OptimizerSettings.among(training["optimizer"]).batch_size
    steps = -(-count // min(batch, count))
    probed = min(steps, _LONGEST_PROBED_EPOCH)
    own = {name: value for name, value in training.items() if name != "epochs"}
    piece = Piece("training step", {**plan.view, **own, "images": -(-count // steps) * probed})
    yield Work(piece, training["epochs"] * steps)


def _class_labels(settings: Mapping[str, Any], network: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "network": _network(network),
        "labels": "hard",
        "optimizer": settings["optimizer"],
        "augmentation": settings["augmentation"],
        "changes": settings.get("batch_changes", []),
        "epochs": settings["epochs"],
    }


def _set_size(plan: CostPlan, settings: Mapping[str, Any]) -> int:
    match settings["training_set"]:
        case "full_data":
            return plan.total("train")
        case "synthetic" | "decoded_prototypes" | "nearest_real":
            return plan.shown_images
        case _:
            return plan.stored_images


def _images(plan: CostPlan, settings: Mapping[str, Any]) -> Iterator[Work]:
    """Yield what it takes to read or make the images of a training set."""
    count = _set_size(plan, settings)
    match settings["training_set"]:
        case "from_noise":
            yield from drawing(plan, {**settings["noise"][0], "strength": 1.0}, count)
        case "diffused_real":
            yield from drawing(plan, settings["drawn"][0], count)
        case "decoded_real":
            yield Work(Piece("image decoded", generator_layout(plan)), count)
        case "synthetic" | "decoded_prototypes":
            yield fetched(plan.classes)
        case name if name in baselines_of(plan.recipe) or name == "nearest_real":
            yield from read(plan, count)
        case _:
            pass


def _labelled(plan: CostPlan, labels: Mapping[str, Any]) -> Piece:
    own = {
        "network": teacher_network(plan),
        "images": min(plan.shown_images, _VIEWS_PROBED),
        "augmentation": labels["augmentation"],
        "precision": labels["precision"],
    }
    return Piece("view labelled", {**plan.view, **own})


def scored(plan: CostPlan, network: Mapping[str, Any]) -> Piece:
    """Return the scoring of an image of the students' size."""
    return Piece("image scored", {**plan.view, "network": network})


def _network(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"architecture": settings["architecture"], "options": settings["options"]}


def teacher_network(plan: CostPlan) -> dict[str, Any]:
    """Return the teacher's network, with the number of its members."""
    teacher = plan.units("teacher")[0].settings
    return _network(teacher) | {"members": plan.recipe.teacher.members}
