"""Artifact `latents`: every real training image through the VAE's encoder (D4M, section 3.2)."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from d4m.seeds import stream_seed
from d4m.stages.base import Product, Stage, StageContext
from d4m.stages.real_images import class_unit
from d4m.store.reference import Unit


class Latents(Stage):
    """Unit: one class. Depends on the VAE alone: another sampler re-encodes nothing."""

    name: ClassVar[str] = "latents"
    upstream: ClassVar[tuple[str, ...]] = ("real_images", "generator")
    sections: ClassVar[tuple[str, ...]] = ("dataset", "generator", "seed")

    def plan(self, context: StageContext) -> list[Unit]:
        """One unit per class; the seed matters only where latents are sampled."""
        return [
            context.unit(
                self,
                class_unit(class_id),
                self._settings(context, class_id),
                [("real_images", f"train-{class_id:05d}"), ("generator", "vae")],
            )
            for class_id in context.class_ids
        ]

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Encode class after class with one VAE."""
        from d4m.generators.encode import encode_images
        from d4m.stages.generator import load_vae

        vae = load_vae(context)
        for unit in missing:
            class_id = int(unit.name.removeprefix("class-"))
            index = context.image_index("train", class_id)
            batches = context.source.read_images(
                "train",
                class_id,
                index,
                batch_size=context.compute.encode_batch_size(context.source.size_px),
            )
            seed = unit.inputs["settings"].get("sample_seed")
            yield (
                unit,
                {"latents": np.concatenate(list(encode_images(batches, vae, sample_seed=seed)))},
            )

    def _settings(self, context: StageContext, class_id: int) -> dict[str, Any]:
        settings, source = context.recipe.settings, context.source
        pixels = {"size_px": source.size_px, "decoding": dict(source.decoding)}
        if settings.generator.latents == "mean":
            return {"latents": "mean", **pixels}
        return {"sample_seed": stream_seed(settings.seed, "latents", class_id), **pixels}
