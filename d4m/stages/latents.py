"""Artifact `latents`: every real training image through the VAE's encoder (D4M, section 3.2)."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from d4m.seeds import stream_seed
from d4m.stages.base import Product, Stage
from d4m.stages.context import Inputs, StageContext
from d4m.stages.training_sets import pixel_settings
from d4m.stages.unit_names import class_id_of, class_unit, split_unit
from d4m.store.reference import Unit


class Latents(Stage):
    """The latents of the training images. Unit: one class.

    A unit depends on the VAE alone, so another sampler encodes nothing again.
    """

    name: ClassVar[str] = "latents"
    upstream: ClassVar[tuple[str, ...]] = ("real_images", "generator")
    sections: ClassVar[tuple[str, ...]] = ("dataset", "generator", "seed")
    divisible: ClassVar[bool] = True

    def plan(self, context: StageContext) -> list[Unit]:
        """Return one unit per class; the seed matters only where latents are sampled."""
        return [
            self.unit(context, class_unit(class_id), _inputs(context, class_id))
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
            class_id = class_id_of(unit.name)
            batches = context.read_images(
                "train",
                class_id,
                context.image_index("train", class_id),
                size_px=unit.settings["size_px"],
                batch_size=context.compute.encode_batch_size(unit.settings["size_px"]),
            )
            encoded = encode_images(batches, vae, sample_seed=unit.settings.get("sample_seed"))
            yield unit, {"latents": np.concatenate(list(encoded))}


def _inputs(context: StageContext, class_id: int) -> Inputs:
    settings = context.recipe.settings
    reads = (("real_images", split_unit("train", class_id)), ("generator", "vae"))
    if settings.generator.latents == "mean":
        return Inputs({"latents": "mean", **pixel_settings(context)}, reads)
    seed = stream_seed(settings.seed, "latents", class_id)
    return Inputs({"sample_seed": seed, **pixel_settings(context)}, reads)
