"""Artifact `synthetic_images`: what the generator makes of each prototype (D4M, 3.3)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from jaxtyping import Float32, UInt8

from d4m.seeds import stream_seed
from d4m.stages.base import Product, Stage, StageContext
from d4m.stages.real_images import class_unit
from d4m.store.reference import Unit


class SyntheticImages(Stage):
    """Unit: one class. Of the prompts it depends on its own class's alone."""

    name: ClassVar[str] = "synthetic_images"
    upstream: ClassVar[tuple[str, ...]] = ("prototypes", "generator")
    sections: ClassVar[tuple[str, ...]] = ("prompts", "synthesis", "seed")

    def plan(self, context: StageContext) -> list[Unit]:
        """One unit per class: its prompt, its prototypes, the whole generator."""
        settings = context.recipe.settings
        table = context.source.class_table
        return [
            context.unit(
                self,
                class_unit(class_id),
                settings.synthesis.model_dump(mode="json")
                | {
                    "prompt": table.prompt(class_id, settings.prompts),
                    "negative_prompt": settings.prompts.negative,
                    "seed": stream_seed(settings.seed, "synthesis", class_id),
                },
                [("prototypes", class_unit(class_id)), *context.all_of("generator")],
            )
            for class_id in context.class_ids
        ]

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Fill batches across classes; a class is done with its last image."""
        from d4m.stages.generator import load_pipeline
        from d4m.synthesis import decode_latents, synthesize_images, use_scheduler

        settings = context.recipe.settings
        pipeline = load_pipeline(context)
        use_scheduler(pipeline, settings.synthesis)
        orders = [_Order.of(context, unit) for unit in missing]
        batches = synthesize_images(
            pipeline,
            np.concatenate([order.prototypes for order in orders]),
            [order.prompt for order in orders for _ in order.seeds],
            seeds=[seed for order in orders for seed in order.seeds],
            negative_prompt=settings.prompts.negative,
            settings=settings.synthesis,
        )
        images = np.empty((0,))
        for order in orders:
            while len(images) < len(order.seeds):
                batch = next(batches)
                images = np.concatenate([images, batch]) if len(images) else batch
            done, images = np.split(images, [len(order.seeds)])
            yield (
                order.unit,
                {
                    "images": done,
                    "decoded_prototypes": decode_latents(pipeline, order.prototypes),
                    "seeds": np.array(order.seeds, np.int64),
                },
            )


@dataclass(frozen=True)
class _Order:
    """What is to be made for one class."""

    unit: Unit
    prompt: str
    prototypes: Float32[np.ndarray, "prototype channel height width"]
    seeds: list[int]

    @classmethod
    def of(cls, context: StageContext, unit: Unit) -> Self:
        settings = unit.inputs["settings"]
        prototypes = context.read("prototypes", unit.name)["prototypes"]
        seeds = [stream_seed(settings["seed"], row) for row in range(len(prototypes))]
        return cls(unit, settings["prompt"], prototypes, seeds)


def read_synthetic_images(
    context: StageContext, *, array: str = "images"
) -> tuple[UInt8[np.ndarray, "image height width channel"], np.ndarray]:
    """All synthetic images in class order, and the class id of each.

    Args:
        context: the recipe and its artifacts.
        array: `images`, or `decoded_prototypes` for what the images were started from.
    """
    per_class = [
        context.read("synthetic_images", class_unit(class_id))[array]
        for class_id in context.class_ids
    ]
    return np.concatenate(per_class), np.repeat(context.class_ids, [len(i) for i in per_class])
