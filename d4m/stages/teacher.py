"""Artifact `teacher`: the classifier that labels (D4M, section 3.4)."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from d4m.classifiers.timm_names import describe_fit, name_network, name_weights
from d4m.errors import ClassifierError
from d4m.seeds import stream_seed
from d4m.settings import (
    AugmentationSettings,
    ClassifierSettings,
    InputSettings,
    LabellerSettings,
    OptimizerSettings,
    OtherTeacherSettings,
    RecipeSettings,
)
from d4m.stages.base import Product, Stage
from d4m.stages.class_balance import balance_inputs
from d4m.stages.context import Inputs, StageContext
from d4m.stages.training_sets import real_set, view_size_px
from d4m.stages.unit_names import THE_TEACHER, member_unit, name_teacher
from d4m.store.checkpoints import NOWHERE, Checkpoint
from d4m.store.digest import digest_file
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from torch import nn


class Teacher(Stage):
    """The teachers. Unit: a member of a teacher's ensemble, or its only network.

    A teacher is trained on the real training images, unless the recipe names weights.
    """

    name: ClassVar[str] = "teacher"
    version: ClassVar[str] = "2"
    upstream: ClassVar[tuple[str, ...]] = ("real_images",)
    sections: ClassVar[tuple[str, ...]] = ("teacher", "teacher_images", "seed")
    divisible: ClassVar[bool] = True

    def plan(self, context: StageContext) -> list[Unit]:
        """Return one unit per member; weights from a file depend on it and not on the images."""
        recipe = context.recipe.settings
        return [
            self._plan(context, _with_network(settings, network), name, seed)
            for teacher, settings in teachers_of(recipe).items()
            for network, (name, seed) in zip(
                settings.networks(recipe.prototypes.ipc),
                _members(recipe, teacher).items(),
                strict=True,
            )
        ]

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Train networks, or load and check their weights."""
        for unit in missing:
            yield unit, writer_of(_make(context, unit), unit)

    def _plan(
        self, context: StageContext, settings: LabellerSettings, name: str, seed: int
    ) -> Unit:
        network = Inputs(network_settings(context, settings))
        if settings.weights == "timm":
            # Stored teachers without this entry saw pixels that were not standardised.
            ready = Inputs({"weights": "timm", "pixels": "standardised"})
            return self.unit(context, name, network | ready)
        if settings.weights is not None:
            path = context.recipe.locate(settings.weights)
            seen = settings.input.used() if settings.input else {}
            fingerprint = {"weights": _digest_weights(path), **({"input": seen} if seen else {})}
            return self.unit(context, name, network | Inputs(fingerprint), place=path)
        training = Inputs(
            {
                "decoding": dict(context.source.decoding),
                "epochs": settings.epochs,
                "augmentation": settings.augmentation.used(),
                "optimizer": settings.optimizer.used(),
                "seed": seed,
            }
        )
        training |= balance_inputs(context, settings.class_balance)
        return self.unit(
            context, name, network | training | context.all_of("real_images", "train-")
        )


def writer_of(model: "nn.Module", unit: Unit) -> Callable[[Path], None]:
    """Return what writes a network into the folder of its unit."""
    from safetensors.torch import save_model

    def write(folder: Path) -> None:
        save_model(model.cpu(), str(folder / "model.safetensors"))
        text = json.dumps(unit.settings, indent=2, sort_keys=True)
        (folder / "config.json").write_text(text, encoding="utf-8")

    return write


def network_settings(context: StageContext, settings: LabellerSettings) -> dict[str, Any]:
    """Return what decides how a teacher's network is built.

    With timm's weights, its architecture has their tag; with others, it needs none.
    """
    published = settings.weights == "timm"
    seen_px = settings.input.size_px if settings.input else None
    architecture, size_px = settings.architecture, seen_px or view_size_px(context)
    return {
        "architecture": (name_weights if published else name_network)(architecture),
        "options": settings.model_dump(mode="json")["options"],
        "channels": context.source.channels,
        "size_px": size_px,
        "classes": len(context.class_ids),
        **({} if published else describe_fit(architecture, size_px)),
    }


def teachers_of(settings: RecipeSettings) -> dict[str, LabellerSettings]:
    """Return every teacher of a recipe: `THE_TEACHER`, then others as `name_teacher` calls them."""
    teacher = settings.teacher
    return {THE_TEACHER: teacher, **{name_teacher(other): other for other in teacher.others}}


def label_of(teacher: LabellerSettings) -> str:
    """Return a teacher's name in the score table; "" for the teacher of the data set."""
    return teacher.name if isinstance(teacher, OtherTeacherSettings) else ""


def teacher_inputs(context: StageContext, teacher: str = THE_TEACHER) -> Inputs:
    """Return the units of one teacher as inputs."""
    return context.some_of("teacher", _members(context.recipe.settings, teacher))


def train_teacher(
    context: StageContext,
    settings: Mapping[str, Any],
    *,
    watch: "Callable[[nn.Module], None] | None" = None,
    checkpoint: Checkpoint = NOWHERE,
) -> "nn.Module":
    """Train a network on the real training images.

    Args:
        context: with the index of the real images.
        settings: of a teacher's unit.
        watch: looks at the network after each epoch, and changes nothing.
        checkpoint: where the training is saved.
    """
    from d4m.training.train import Training, train_with_hard_labels

    optimizer = OptimizerSettings.among(settings["optimizer"])
    images = real_set(context, "train", size_px=settings["size_px"])
    model = _build(settings, stream_seed(settings["seed"], "weights")).to(context.device)
    train_with_hard_labels(
        model,
        images,
        Training(
            epochs=settings["epochs"],
            optimizer=optimizer,
            seed=stream_seed(settings["seed"], "views"),
            watch=watch,
            at_once=context.compute.batch_size,
            backend=context.compute.compiler,
            checkpoint=checkpoint,
        ),
        augmentation=AugmentationSettings.among(settings["augmentation"]),
        balance=settings.get("class_balance", "none"),
    )
    return model


def load_teacher(context: StageContext, members: Sequence[str]) -> "nn.Module":
    """Return a stored teacher, in evaluation mode, on the context's device.

    Args:
        context: where it is stored.
        members: names of its units.
    """
    from d4m.classifiers.ensemble import Ensemble

    def load() -> "nn.Module":
        networks = [_load_member(context.open_files("teacher", member)) for member in members]
        model = networks[0] if len(networks) == 1 else Ensemble(networks)
        return model.to(context.device).eval()

    digests = (context.digest("teacher", member) for member in members)
    return context.models.get(("teacher", context.device, *digests), load)


def _members(settings: RecipeSettings, teacher: str) -> dict[str, int]:
    """Return the units of one teacher, and their seeds, which hold in every recipe."""
    return {
        member_unit(teacher, member): stream_seed(
            settings.seed, "teacher", *([member] if member else [])
        )
        for member in range(len(teachers_of(settings)[teacher].networks(settings.prototypes.ipc)))
    }


def _with_network(settings: LabellerSettings, network: ClassifierSettings) -> LabellerSettings:
    """Return the settings of one member of an ensemble, which may have another architecture."""
    own = {"architecture": network.architecture, "options": network.options}
    return settings.model_copy(update=own)


def _digest_weights(path: Path) -> str:
    if path.suffix != ".safetensors" or not path.is_file():
        msg = f"`teacher.weights`: wanted `timm` or a .safetensors file, found {path}"
        raise ClassifierError(msg)
    return digest_file(path)


def _make(context: StageContext, unit: Unit) -> "nn.Module":
    settings = unit.settings
    if settings.get("weights") == "timm":
        return _build_as_published(settings, with_weights=True)
    if unit.place is not None:
        network = _load_weights(_build(settings, seed=0), unit.place, settings)
        return _with_input(network, settings)
    return train_teacher(context, settings, checkpoint=context.checkpoint(unit))


def _load_member(folder: Path) -> "nn.Module":
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return read_network(settings, folder / "model.safetensors")


def read_network(settings: Mapping[str, Any], file: Path) -> "nn.Module":
    """Return the network of a teacher's unit.

    Args:
        settings: of the unit.
        file: weights of that very network.

    Raises:
        ClassifierError: the file holds something else.
    """
    published = settings.get("weights") == "timm"
    if published:
        model = _build_as_published(settings, with_weights=False)
    else:
        model = _with_input(_build(settings, 0), settings)
    return _load_weights(model, file, settings)


def _with_input(network: "nn.Module", settings: Mapping[str, Any]) -> "nn.Module":
    """Return a network that takes our pixels as its weights need them."""
    from d4m.classifiers.standardised import Standardised

    if "input" not in settings:
        return network
    seen, channels = InputSettings.model_validate(settings["input"]), settings["channels"]
    mean, deviation = (
        values * channels if len(values) == 1 else values for values in (seen.mean, seen.deviation)
    )
    return Standardised(network, mean, deviation, size_px=seen.size_px or 0)


def _build_as_published(settings: Mapping[str, Any], *, with_weights: bool) -> "nn.Module":
    from d4m.classifiers.timm_models import load_timm_model

    return load_timm_model(
        ClassifierSettings.among(settings),
        channels=settings["channels"],
        classes=settings["classes"],
        with_weights=with_weights,
    )


def _build(settings: Mapping[str, Any], seed: int) -> "nn.Module":
    from d4m.classifiers.registry import build_classifier

    return build_classifier(
        ClassifierSettings.among(settings),
        channels=settings["channels"],
        size_px=settings["size_px"],
        classes=settings["classes"],
        seed=seed,
    )


def _load_weights(model: "nn.Module", path: Path, settings: Mapping[str, Any]) -> "nn.Module":
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    try:
        load_model(model, str(path))
    except (RuntimeError, SafetensorError, OSError) as failure:
        msg = (
            f"{path.name} does not hold weights of {settings['architecture']} for these images: "
            f"{failure}"
        )
        raise ClassifierError(msg) from failure
    return model
