"""Artifact `synthetic_images`: what the generator makes of each prototype (D4M, 3.3)."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from jaxtyping import Float32, UInt8

from d4m.seeds import stream_seed
from d4m.stages.base import Product, Stage, StageContext
from d4m.stages.real_images import class_unit
from d4m.stages.training_sets import view_size_px
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from d4m.synthesis import ImageRequest


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
                    "size_px": view_size_px(context),
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
        from d4m.generators.conditions import check_prompts
        from d4m.stages.generator import load_pipeline
        from d4m.synthesis import decode_latents, synthesize_images, use_scheduler

        settings = context.recipe.settings
        # Resolved as in the key: a VAE that does not divide the size decodes smaller images.
        synthesis = settings.synthesis.model_copy(update={"size_px": view_size_px(context)})
        pipeline = load_pipeline(context)
        check_prompts(pipeline, [unit.inputs["settings"]["prompt"] for unit in missing])
        use_scheduler(pipeline, synthesis)
        orders = _Orders(context, missing)
        batches = synthesize_images(
            pipeline,
            orders.requests(),
            negative_prompt=settings.prompts.negative,
            settings=synthesis,
            compute=context.compute,
        )
        for order, images in orders.fill(batches):
            decoded = decode_latents(
                pipeline,
                order.prototypes,
                compute=context.compute,
                size_px=synthesis.size_px,
            )
            seeds = np.array(order.seeds, np.int64)
            yield order.unit, {"images": images, "decoded_prototypes": decoded, "seeds": seeds}


@dataclass(frozen=True)
class _Order:
    """What is to be made for one class."""

    unit: Unit
    prototypes: Float32[np.ndarray, "prototype channel height width"]
    seeds: list[int]

    @classmethod
    def of(cls, context: StageContext, unit: Unit) -> Self:
        settings = unit.inputs["settings"]
        prototypes = context.read("prototypes", unit.name)["prototypes"].astype(np.float32)
        seeds = [stream_seed(settings["seed"], row) for row in range(len(prototypes))]
        return cls(unit, prototypes, seeds)


class _Orders:
    """The classes of one run, each in memory from its first request to its last image."""

    def __init__(self, context: StageContext, units: Sequence[Unit]) -> None:
        self._context = context
        self._units = units
        self._open = deque[_Order]()

    def requests(self) -> Iterator["ImageRequest"]:
        """Every image of every class; a class is read when its first is asked for."""
        from d4m.synthesis import ImageRequest

        for unit in self._units:
            order = _Order.of(self._context, unit)
            self._open.append(order)
            for prototype, seed in zip(order.prototypes, order.seeds, strict=True):
                yield ImageRequest(prototype, unit.inputs["settings"]["prompt"], seed)

    def fill(
        self, batches: Iterable[UInt8[np.ndarray, "_image height width channel"]]
    ) -> Iterator[tuple[_Order, UInt8[np.ndarray, "image height width channel"]]]:
        """Each class with its images, made of the batches that its requests gave."""
        kept = list[np.ndarray]()
        for batch in batches:
            kept.append(batch)
            while self._open and sum(map(len, kept)) >= len(self._open[0].seeds):
                order = self._open.popleft()
                done, rest = np.split(np.concatenate(kept), [len(order.seeds)])
                kept = [rest] if len(rest) else []
                yield order, done
