"""Artifact `synthetic_images`: what the diffusion model makes of each prototype (D4M, section 3.3)."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import UInt8

from d4m.seeds import stream_seed
from d4m.stages.base import Product, Stage, StageContext
from d4m.stages.real_images import class_unit
from d4m.store.store import Unit


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
        from d4m.synthesis import synthesize_images, use_scheduler

        pipeline = load_pipeline(context)
        use_scheduler(pipeline, context.recipe.settings.synthesis)
        prototypes = [context.read("prototypes", unit.name)["prototypes"] for unit in missing]
        seeds = [
            stream_seed(unit.inputs["settings"]["seed"], row)
            for unit, rows in zip(missing, prototypes, strict=True)
            for row in range(len(rows))
        ]
        prompts = [
            unit.inputs["settings"]["prompt"]
            for unit, rows in zip(missing, prototypes, strict=True)
            for _ in rows
        ]
        batches = synthesize_images(
            pipeline,
            np.concatenate(prototypes),
            prompts,
            seeds=seeds,
            negative_prompt=context.recipe.settings.prompts.negative,
            settings=context.recipe.settings.synthesis,
        )
        waiting: list[np.ndarray] = []
        done = 0
        for unit, rows in zip(missing, prototypes, strict=True):
            while sum(map(len, waiting)) < len(rows):
                waiting.append(next(batches))
            images = np.concatenate(waiting)
            waiting = [images[len(rows) :]]
            own_seeds = np.array(seeds[done : done + len(rows)], np.int64)
            done += len(rows)
            yield unit, {"images": images[: len(rows)], "seeds": own_seeds}


def read_synthetic_images(
    context: StageContext,
) -> tuple[UInt8[np.ndarray, "image height width channel"], np.ndarray]:
    """All synthetic images in class order, and the class id of each."""
    per_class = [
        context.read("synthetic_images", class_unit(class_id))["images"]
        for class_id in context.class_ids
    ]
    return np.concatenate(per_class), np.repeat(context.class_ids, [len(i) for i in per_class])
