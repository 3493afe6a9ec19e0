"""Artifact `teacher`: the classifier that labels (D4M, section 3.4)."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from d4m.errors import ClassifierError
from d4m.seeds import stream_seed
from d4m.stages.base import Product, Stage, StageContext
from d4m.stages.training_sets import real_set, view_size_px
from d4m.store.digest import digest_file
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from torch import nn

_UNIT = "teacher"


class Teacher(Stage):
    """Unit: a member of the ensemble, or the one there is.

    Trained on the real training images, unless the recipe names weights.
    """

    name: ClassVar[str] = "teacher"
    upstream: ClassVar[tuple[str, ...]] = ("real_images",)
    sections: ClassVar[tuple[str, ...]] = ("dataset", "synthesis", "teacher", "seed")

    def plan(self, context: StageContext) -> list[Unit]:
        """One unit a member; ready-made weights depend on their file and not on the images."""
        settings = context.recipe.settings.teacher
        shape = {
            "architecture": settings.architecture,
            "options": settings.model_dump(mode="json")["options"],
            "channels": context.source.channels,
            "size_px": view_size_px(context),
            "classes": len(context.class_ids),
        }
        if settings.weights is not None:
            inputs = shape | {"weights": self._weights_fingerprint(context, settings.weights)}
            return [context.unit(self, _UNIT, inputs)]
        inputs = shape | {
            "decoding": dict(context.source.decoding),
            **settings.model_dump(mode="json", include={"epochs", "augmentation", "optimizer"}),
        }
        reads = context.all_of("real_images", "train-")
        seeds = [_member_seed(context, member) for member in range(settings.members)]
        return [
            context.unit(self, _unit_name(member), inputs | {"seed": seed}, reads)
            for member, seed in enumerate(seeds)
        ]

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Train it, or load and check its weights."""
        from safetensors.torch import save_model

        for unit in missing:
            model = self._make(context, unit.inputs["settings"].get("seed", 0))

            def write(folder: Path, model: "nn.Module" = model, unit: Unit = unit) -> None:
                save_model(model.cpu(), str(folder / "model.safetensors"))
                text = json.dumps(unit.inputs["settings"], indent=2, sort_keys=True)
                (folder / "config.json").write_text(text, encoding="utf-8")

            yield unit, write

    def _make(self, context: StageContext, seed: int) -> "nn.Module":
        weights = context.recipe.settings.teacher.weights
        if weights is None:
            return _train(context, seed)
        if weights == "timm":
            return _build_as_published(context, with_weights=True)
        return _load_weights(context, context.recipe.locate(weights))

    def _weights_fingerprint(self, context: StageContext, weights: str) -> str:
        if weights == "timm":
            return weights
        path = context.recipe.locate(weights)
        if path.suffix != ".safetensors" or not path.is_file():
            msg = f"`teacher.weights`: wanted `timm` or a .safetensors file, found {path}"
            raise ClassifierError(msg)
        return digest_file(path)


def load_teacher(context: StageContext) -> "nn.Module":
    """The stored teacher, in evaluation mode, on the context's device."""
    from d4m.classifiers.ensemble import Ensemble

    members = [
        _load_weights(context, context.open_files("teacher", unit) / "model.safetensors")
        for _, unit in context.all_of("teacher")
    ]
    teacher = members[0] if len(members) == 1 else Ensemble(members)
    return teacher.to(context.device).eval()


def _unit_name(member: int) -> str:
    return _UNIT if member == 0 else f"{_UNIT}-{member:02d}"


def _member_seed(context: StageContext, member: int) -> int:
    names = ("teacher",) if member == 0 else ("teacher", member)
    return stream_seed(context.recipe.settings.seed, *names)


def _build_as_published(context: StageContext, *, with_weights: bool) -> "nn.Module":
    from d4m.classifiers.timm_models import load_timm_model

    return load_timm_model(
        context.recipe.settings.teacher,
        channels=context.source.channels,
        classes=len(context.class_ids),
        with_weights=with_weights,
    )


def _build(context: StageContext, seed: int) -> "nn.Module":
    from d4m.classifiers.registry import build_classifier

    return build_classifier(
        context.recipe.settings.teacher,
        channels=context.source.channels,
        size_px=view_size_px(context),
        classes=len(context.class_ids),
        seed=seed,
    )


def _load_weights(context: StageContext, path: Path) -> "nn.Module":
    from safetensors.torch import load_model

    settings = context.recipe.settings.teacher
    if settings.weights == "timm":
        model = _build_as_published(context, with_weights=False)
    else:
        model = _build(context, seed=0)
    try:
        load_model(model, str(path))
    except RuntimeError as failure:
        msg = (
            f"{path.name} does not hold weights of {settings.architecture} for these images: "
            f"{failure}"
        )
        raise ClassifierError(msg) from failure
    return model


def _train(context: StageContext, seed: int) -> "nn.Module":
    from d4m.student import train_with_hard_labels

    settings = context.recipe.settings.teacher
    images = real_set(context, "train")
    model = _build(context, stream_seed(seed, "weights")).to(context.device)
    train_with_hard_labels(
        model,
        images,
        epochs=settings.epochs,
        augmentation=settings.augmentation,
        optimizer=settings.optimizer,
        seed=stream_seed(seed, "views"),
    )
    return model
