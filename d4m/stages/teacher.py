"""Artifact `teacher`: the classifier that labels (D4M, section 3.4)."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from d4m.errors import ClassifierError
from d4m.seeds import stream_seed
from d4m.settings import LabellerSettings
from d4m.stages.base import Product, Stage, StageContext
from d4m.stages.training_sets import real_set, view_size_px
from d4m.store.digest import digest_file
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from torch import nn

THE_TEACHER = ""  # the one whose labels the distilled data set has; others have names


class Teacher(Stage):
    """Unit: a member of a teacher's ensemble, or the one there is.

    Trained on the real training images, unless the recipe names weights.
    """

    name: ClassVar[str] = "teacher"
    version: ClassVar[str] = "2"
    upstream: ClassVar[tuple[str, ...]] = ("real_images",)
    sections: ClassVar[tuple[str, ...]] = ("dataset", "synthesis", "teacher", "seed")

    def plan(self, context: StageContext) -> list[Unit]:
        """One unit a member; ready-made weights depend on their file and not on the images."""
        return [
            self._plan(context, settings, name, seed)
            for teacher, settings in teachers_of(context).items()
            for name, seed in _members(context, teacher).items()
        ]

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Train them, or load and check their weights."""
        from safetensors.torch import save_model

        units = {unit.name: unit for unit in missing}
        for teacher, settings in teachers_of(context).items():
            for name, seed in _members(context, teacher).items():
                if name not in units:
                    continue
                unit, model = units[name], _make(context, settings, seed)

                def write(folder: Path, model: "nn.Module" = model, unit: Unit = unit) -> None:
                    save_model(model.cpu(), str(folder / "model.safetensors"))
                    text = json.dumps(unit.inputs["settings"], indent=2, sort_keys=True)
                    (folder / "config.json").write_text(text, encoding="utf-8")

                yield unit, write

    def _plan(
        self, context: StageContext, settings: LabellerSettings, name: str, seed: int
    ) -> Unit:
        shape = {
            "architecture": settings.architecture,
            "options": settings.model_dump(mode="json")["options"],
            "channels": context.source.channels,
            "size_px": view_size_px(context),
            "classes": len(context.class_ids),
        }
        if settings.weights is not None:
            inputs = shape | {"weights": _weights_fingerprint(context, settings.weights)}
            if settings.weights == "timm":
                inputs["pixels"] = "standardised"  # teachers of before saw them as they are
            return context.unit(self, name, inputs)
        inputs = shape | {
            "decoding": dict(context.source.decoding),
            **settings.model_dump(mode="json", include={"epochs", "augmentation"}),
            "optimizer": settings.optimizer.used(),
            "seed": seed,
        }
        return context.unit(self, name, inputs, context.all_of("real_images", "train-"))


def teachers_of(context: StageContext) -> dict[str, LabellerSettings]:
    """Every teacher of the recipe: `THE_TEACHER`, then others by their names."""
    settings = context.recipe.settings.teacher
    return {THE_TEACHER: settings, **{other.name: other for other in settings.others}}


def teacher_reads(context: StageContext, teacher: str = THE_TEACHER) -> list[tuple[str, str]]:
    """The units of one teacher."""
    return [("teacher", name) for name in _members(context, teacher)]


def load_teacher(context: StageContext, teacher: str = THE_TEACHER) -> "nn.Module":
    """A stored teacher, in evaluation mode, on the context's device."""
    from d4m.classifiers.ensemble import Ensemble

    settings = teachers_of(context)[teacher]
    members = [
        _load_weights(context, settings, context.open_files(*unit) / "model.safetensors")
        for unit in teacher_reads(context, teacher)
    ]
    model = members[0] if len(members) == 1 else Ensemble(members)
    return model.to(context.device).eval()


def _members(context: StageContext, teacher: str) -> dict[str, int]:
    """Units of one teacher, and their seeds: the same network is the same unit in any recipe."""
    unit, seed = (
        "teacher" if teacher == THE_TEACHER else f"other-{teacher}",
        context.recipe.settings.seed,
    )
    return {
        f"{unit}-{member:02d}" if member else unit: stream_seed(
            seed, "teacher", *([member] if member else [])
        )
        for member in range(teachers_of(context)[teacher].members)
    }


def _weights_fingerprint(context: StageContext, weights: str) -> str:
    if weights == "timm":
        return weights
    path = context.recipe.locate(weights)
    if path.suffix != ".safetensors" or not path.is_file():
        msg = f"`teacher.weights`: wanted `timm` or a .safetensors file, found {path}"
        raise ClassifierError(msg)
    return digest_file(path)


def _make(context: StageContext, settings: LabellerSettings, seed: int) -> "nn.Module":
    if settings.weights is None:
        return _train(context, settings, seed)
    if settings.weights == "timm":
        return _build_as_published(context, settings, with_weights=True)
    return _load_weights(context, settings, context.recipe.locate(settings.weights))


def _build_as_published(
    context: StageContext, settings: LabellerSettings, *, with_weights: bool
) -> "nn.Module":
    from d4m.classifiers.timm_models import load_timm_model

    return load_timm_model(
        settings,
        channels=context.source.channels,
        classes=len(context.class_ids),
        with_weights=with_weights,
    )


def _build(context: StageContext, settings: LabellerSettings, seed: int) -> "nn.Module":
    from d4m.classifiers.registry import build_classifier

    return build_classifier(
        settings,
        channels=context.source.channels,
        size_px=view_size_px(context),
        classes=len(context.class_ids),
        seed=seed,
    )


def _load_weights(context: StageContext, settings: LabellerSettings, path: Path) -> "nn.Module":
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    if settings.weights == "timm":
        model = _build_as_published(context, settings, with_weights=False)
    else:
        model = _build(context, settings, seed=0)
    try:
        load_model(model, str(path))
    except (RuntimeError, SafetensorError, OSError) as failure:
        msg = (
            f"{path.name} does not hold weights of {settings.architecture} for these images: "
            f"{failure}"
        )
        raise ClassifierError(msg) from failure
    return model


def _train(context: StageContext, settings: LabellerSettings, seed: int) -> "nn.Module":
    from d4m.training.train import train_with_hard_labels

    images = real_set(context, "train")
    model = _build(context, settings, stream_seed(seed, "weights")).to(context.device)
    train_with_hard_labels(
        model,
        images,
        epochs=settings.epochs,
        augmentation=settings.augmentation,
        optimizer=settings.optimizer,
        seed=stream_seed(seed, "views"),
    )
    return model
