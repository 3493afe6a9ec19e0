"""Artifact `teacher`: the classifier that labels (D4M, section 3.4)."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from d4m.errors import ClassifierError
from d4m.seeds import stream_seed
from d4m.stages.base import Product, Stage, StageContext
from d4m.stages.training_sets import spool_real_images, view_size_px
from d4m.store.digest import digest_file
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from torch import nn

_UNIT = "teacher"


class Teacher(Stage):
    """Unit: the whole. Trained on the real training images, unless the recipe names weights."""

    name: ClassVar[str] = "teacher"
    upstream: ClassVar[tuple[str, ...]] = ("real_images",)
    sections: ClassVar[tuple[str, ...]] = ("dataset", "synthesis", "teacher", "seed")

    def plan(self, context: StageContext) -> list[Unit]:
        """One unit; ready-made weights depend on their file and not on the images."""
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
            "seed": stream_seed(context.recipe.settings.seed, "teacher"),
            "decoding": dict(context.source.decoding),
            **settings.model_dump(mode="json", include={"epochs", "augmentation", "optimizer"}),
        }
        return [context.unit(self, _UNIT, inputs, context.all_of("real_images", "train-"))]

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
    path = context.open_files("teacher", _UNIT) / "model.safetensors"
    return _load_weights(context, path).to(context.device).eval()


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
    import torch

    from d4m.student import train_with_hard_labels

    settings = context.recipe.settings.teacher
    pixels, class_ids = spool_real_images(context, "train")
    model = _build(context, stream_seed(seed, "weights"))
    train_with_hard_labels(
        model.to(context.device),
        pixels,
        torch.from_numpy(class_ids).to(context.device),
        epochs=settings.epochs,
        augmentation=settings.augmentation,
        settings=settings.optimizer,
        seed=stream_seed(seed, "views"),
    )
    return model
