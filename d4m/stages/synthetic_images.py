"""Artifact `synthetic_images`: what the generator makes of each prototype (D4M, 3.3)."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from jaxtyping import Float32, UInt8

from d4m.seeds import stream_seed
from d4m.settings import SynthesisSettings
from d4m.stages.base import Product, Stage, StageContext
from d4m.stages.real_images import class_unit
from d4m.stages.teacher import load_teacher, teacher_reads
from d4m.stages.training_sets import view_size_px
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from d4m.synthesis.synthesize import ImageRequest, ImageToImagePipeline


class SyntheticImages(Stage):
    """Unit: one class. Of the prompts it depends on its own class's alone.

    The teacher is read only where it chooses among candidates.
    """

    name: ClassVar[str] = "synthetic_images"
    upstream: ClassVar[tuple[str, ...]] = ("prototypes", "generator", "teacher")
    sections: ClassVar[tuple[str, ...]] = ("dataset", "prompts", "synthesis", "seed")

    def plan(self, context: StageContext) -> list[Unit]:
        """One unit per class: its prompt, its prototypes, the whole generator."""
        settings = context.recipe.settings
        teacher = teacher_reads(context) if settings.synthesis.candidates > 1 else []
        return [
            context.unit(
                self,
                class_unit(class_id),
                _drawing_settings(context, class_id)
                | {"seed": stream_seed(settings.seed, "synthesis", class_id)},
                [
                    ("prototypes", class_unit(class_id)),
                    *context.all_of("generator"),
                    *teacher,
                ],
            )
            for class_id in context.class_ids
        ]

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Fill batches across classes; a class is done with its last image."""
        from d4m.generators.conditions import check_prompts
        from d4m.synthesis.synthesize import decode_latents

        pipeline, synthesis = _prepared_pipeline(context)
        check_prompts(pipeline, [unit.inputs["settings"]["prompt"] for unit in missing])
        orders = _Orders(context, missing)
        batches = _draw(context, pipeline, synthesis, orders.requests())
        choose = _chooser(context)
        for order, candidates in orders.fill(batches):
            rows = choose(candidates, order)
            decoded = decode_latents(
                pipeline, order.prototypes, compute=context.compute, size_px=synthesis.size_px
            )
            yield (
                order.unit,
                {
                    "images": candidates[rows],
                    "decoded_prototypes": decoded,
                    "seeds": np.array(order.seeds, np.int64)[rows],
                },
            )


def noise_settings(context: StageContext, class_id: int) -> dict[str, Any]:
    """What one class of `images_from_noise` depends on, beside the generator."""
    settings = _drawing_settings(context, class_id)
    of_prototypes = ("strength", "mode_guidance", "mode_guidance_until", "candidates", "diversity")
    seed = stream_seed(context.recipe.settings.seed, "from_noise", class_id)
    return {k: v for k, v in settings.items() if k not in of_prototypes} | {
        "latents_px": context.source.size_px,  # whose latents have the size of the noise
        "seed": seed,
    }


def images_from_noise(
    context: StageContext,
) -> Iterator[UInt8[np.ndarray, "_image height width channel"]]:
    """As many images of every class as are distilled, drawn from noise alone, without prototypes.

    Noise of full strength leaves nothing of what it is added to.
    """
    from d4m.synthesis.synthesize import ImageRequest

    ipc = context.recipe.settings.prototypes.ipc
    pipeline, synthesis = _prepared_pipeline(context)
    nothing = np.zeros_like(context.read("prototypes", class_unit(0))["prototypes"][0], np.float32)
    requests = (
        ImageRequest(nothing, settings["prompt"], stream_seed(settings["seed"], row))
        for settings in (noise_settings(context, class_id) for class_id in context.class_ids)
        for row in range(ipc)
    )
    settings = synthesis.model_copy(update={"strength": 1.0, "mode_guidance": 0.0})
    yield from _draw(context, pipeline, settings, requests)


def _drawing_settings(context: StageContext, class_id: int) -> dict[str, Any]:
    settings = context.recipe.settings
    unused = set[str]()
    if settings.synthesis.candidates == 1:
        unused.add("diversity")
    if settings.synthesis.mode_guidance == 0:
        unused.add("mode_guidance_until")
    return settings.synthesis.model_dump(mode="json", exclude=unused) | {
        "size_px": view_size_px(context),
        "prompt": context.source.class_table.prompt(class_id, settings.prompts),
        "negative_prompt": settings.prompts.negative,
    }


def _prepared_pipeline(context: StageContext) -> "tuple[ImageToImagePipeline, SynthesisSettings]":
    """The generator with its sampler, and the settings with the size that the key names."""
    from d4m.stages.generator import load_pipeline
    from d4m.synthesis.synthesize import use_scheduler

    # Resolved as in the key: a VAE that does not divide the size decodes smaller images.
    size = {"size_px": view_size_px(context)}
    synthesis = context.recipe.settings.synthesis.model_copy(update=size)
    pipeline = load_pipeline(context)
    use_scheduler(pipeline, synthesis)
    return pipeline, synthesis


def _draw(
    context: StageContext,
    pipeline: "ImageToImagePipeline",
    settings: SynthesisSettings,
    requests: "Iterable[ImageRequest]",
) -> Iterator[UInt8[np.ndarray, "_image height width channel"]]:
    from d4m.synthesis.synthesize import synthesize_images

    return synthesize_images(
        pipeline,
        requests,
        negative_prompt=context.recipe.settings.prompts.negative,
        settings=settings,
        compute=context.compute,
    )


def _chooser(context: StageContext) -> "Callable[[np.ndarray, _Order], np.ndarray]":
    """What picks the rows to keep of a class's candidates."""
    synthesis = context.recipe.settings.synthesis
    if synthesis.candidates == 1:
        return lambda candidates, _: np.arange(len(candidates))
    from d4m.classifiers.predict import class_probabilities, penultimate_features
    from d4m.images.pixels import to_pixels
    from d4m.synthesis.candidates import select_candidates

    teacher = load_teacher(context)

    def choose(candidates: np.ndarray, order: _Order) -> np.ndarray:
        pixels = to_pixels(candidates).to(context.device)
        shape = (len(order.prototypes), synthesis.candidates)
        chosen = select_candidates(
            class_probabilities(teacher, pixels)[:, order.class_id].reshape(shape),
            penultimate_features(teacher, pixels).cpu().numpy().reshape(*shape, -1),
            diversity=synthesis.diversity,
        )
        return np.arange(shape[0]) * synthesis.candidates + chosen

    return choose


@dataclass(frozen=True)
class _Order:
    """What is to be made for one class: candidates of each prototype in turn."""

    unit: Unit
    class_id: int
    prototypes: Float32[np.ndarray, "prototype channel height width"]
    seeds: list[int]

    @classmethod
    def of(cls, context: StageContext, unit: Unit) -> Self:
        settings = unit.inputs["settings"]
        prototypes = context.read("prototypes", unit.name)["prototypes"].astype(np.float32)
        # The first candidate's noise is that of a prototype with no other.
        seeds = [
            stream_seed(settings["seed"], *((row, candidate) if candidate else (row,)))
            for row in range(len(prototypes))
            for candidate in range(settings["candidates"])
        ]
        class_id = int(unit.name.removeprefix("class-"))
        return cls(unit, class_id, prototypes, seeds)


class _Orders:
    """The classes of one run, each in memory from its first request to its last image."""

    def __init__(self, context: StageContext, units: Sequence[Unit]) -> None:
        self._context = context
        self._units = units
        self._open = deque[_Order]()

    def requests(self) -> Iterator["ImageRequest"]:
        """Every image of every class; a class is read when its first is asked for."""
        from d4m.synthesis.synthesize import ImageRequest

        for unit in self._units:
            order = _Order.of(self._context, unit)
            self._open.append(order)
            candidates = unit.inputs["settings"]["candidates"]
            repeated = np.repeat(order.prototypes, candidates, axis=0)
            for prototype, seed in zip(repeated, order.seeds, strict=True):
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
