"""Artifact `synthetic_images`: the images that the generator makes of prototypes (D4M, 3.3)."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float32, UInt8

from d4m.seeds import distillation_seed, stream_seed
from d4m.settings import PromptSettings, SynthesisSettings
from d4m.stages.base import Product, Stage
from d4m.stages.candidate_choice import candidate_chooser, candidate_inputs
from d4m.stages.chosen_settings import choice_inputs, with_choice
from d4m.stages.context import Inputs, StageContext
from d4m.stages.training_sets import Batch, view_size_px
from d4m.stages.unit_names import class_id_of, class_unit
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from d4m.synthesis.set_guidance import ClassLatents
    from d4m.synthesis.synthesize import ImageRequest, ImageToImagePipeline


class SyntheticImages(Stage):
    """The synthetic images. Unit: a class of a distillation; it depends on its own prompt alone.

    The teacher is read only where it chooses among candidates, the class's real images only where a
    group of candidates is chosen that is like them, its latents only where they guide the images.
    """

    name: ClassVar[str] = "synthetic_images"
    upstream: ClassVar[tuple[str, ...]] = (
        "real_images",
        "latents",
        "prototypes",
        "generator",
        "teacher",
        "synthesis_choice",
    )
    sections: ClassVar[tuple[str, ...]] = ("dataset", "prompts", "synthesis", "seed")
    divisible: ClassVar[bool] = True

    def plan(self, context: StageContext) -> list[Unit]:
        """Return one unit per class and distillation: prompt, prototypes, the whole generator."""
        return [
            self._plan(context, class_id, distillation)
            for distillation in range(context.recipe.settings.evaluation.distillations)
            for class_id in context.class_ids
        ]

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Fill batches across classes; a class is done with its last image."""
        from d4m.generators.conditions import check_prompts
        from d4m.synthesis.synthesize import decode_latents

        if not missing:
            return
        # Classes differ in their prompts and seeds alone.
        settings = with_choice(context, missing[0].settings)
        pipeline = prepared_pipeline(context, settings)
        owners = {unit.settings["prompt"]: class_id_of(unit.name) for unit in missing}
        check_prompts(pipeline, owners, lambda prompt: _find_name(context, owners, prompt))
        orders, synthesis = _Orders(context, missing), SynthesisSettings.among(settings)
        batches = draw_images(
            context,
            pipeline,
            orders.requests(),
            settings=synthesis,
            negative_prompt=settings["negative_prompt"],
        )
        choose = candidate_chooser(context, missing[0], synthesis)
        for order, candidates in orders.fill(batches):
            rows = choose(candidates, order.unit)
            decoded = decode_latents(
                pipeline.vae,
                order.prototypes,
                compute=context.compute,
                size_px=synthesis.size_px,
                resampling=synthesis.resampling,
            )
            yield (
                order.unit,
                {
                    "images": candidates[rows],
                    "decoded_prototypes": decoded,
                    "seeds": np.array(order.seeds, np.int64)[rows],
                },
            )

    def _plan(self, context: StageContext, class_id: int, distillation: int) -> Unit:
        settings, name = context.recipe.settings, class_unit(class_id, distillation)
        root = distillation_seed(settings.seed, distillation)
        return self.unit(
            context,
            name,
            drawing_inputs(context, class_id)
            | Inputs({"seed": noise_seed(root, class_id)}, (("prototypes", name),))
            | context.all_of("generator")
            | candidate_inputs(context, class_id)
            | _guidance_inputs(context, class_id),
        )


def _find_name(context: StageContext, owners: Mapping[str, int], prompt: str) -> int:
    return context.source.class_table.find_name(owners[prompt], prompt)


def _guidance_inputs(context: StageContext, class_id: int) -> Inputs:
    """Return what the guidance of a set reads: the class's real latents."""
    if context.recipe.settings.synthesis.set_guidance is None:
        return Inputs()
    return context.some_of("latents", [class_unit(class_id)])


def noise_seed(root: int, class_id: int) -> int:
    """Return the seed of the noise of a class's images; each image has a stream of its own.

    Args:
        root: of the random streams of the distillation.
        class_id: of the images.
    """
    return stream_seed(root, "synthesis", class_id)


def drawing_inputs(context: StageContext, class_id: int) -> Inputs:
    """Return what decides how images of a class are drawn, apart from prototypes and noise."""
    settings = context.recipe.settings
    unused = {"choose_from", "mosaic"}  # prototypes are mosaics already
    if settings.synthesis.candidates == 1 or settings.synthesis.groups:
        unused.add("diversity")
    if settings.synthesis.mode_guidance == 0:
        unused.add("mode_guidance_until")
    if settings.synthesis.guidance_scale == 1:
        unused.add("guided_channels")
    guidance = settings.synthesis.set_guidance
    return Inputs(
        {
            **settings.synthesis.model_dump(mode="json", exclude=unused),
            **({"set_guidance": guidance.used()} if guidance else {}),
            # A VAE that does not divide the data set's size decodes smaller images.
            "size_px": view_size_px(context),
            "prompt": context.source.class_table.prompt(class_id, settings.prompts),
            "negative_prompt": _negative_prompt(context),
        }
    ) | choice_inputs(context, "strength", "guidance_scale")


def _negative_prompt(context: StageContext) -> str:
    """Return the recipe's negative prompt; the default one where the generator reads none."""
    settings = context.recipe.settings
    read = settings.synthesis.guidance_scale != 1 and context.generator.reads_negative_prompt()
    return settings.prompts.negative if read else PromptSettings().negative


def prepared_pipeline(context: StageContext, settings: Mapping[str, Any]) -> "ImageToImagePipeline":
    """Return the generator with its sampler."""
    from d4m.stages.generator import load_pipeline
    from d4m.synthesis.samplers import use_scheduler

    pipeline = load_pipeline(context)
    use_scheduler(pipeline, SynthesisSettings.among(settings))
    return pipeline


def draw_images(
    context: StageContext,
    pipeline: "ImageToImagePipeline",
    requests: "Iterable[ImageRequest]",
    *,
    settings: SynthesisSettings,
    negative_prompt: str,
) -> Iterator[Batch]:
    """Return the images of requests, batch by batch."""
    from d4m.synthesis.synthesize import synthesize_images

    return synthesize_images(
        pipeline,
        requests,
        negative_prompt=negative_prompt,
        settings=settings,
        compute=context.compute,
    )


@dataclass(frozen=True)
class _Order:
    """The images to make for one class: the candidates of each prototype, one after the other."""

    unit: Unit
    prototypes: Float32[np.ndarray, "prototype channel height width"]
    seeds: list[int]
    real: "ClassLatents | None"

    @classmethod
    def of(cls, context: StageContext, unit: Unit) -> "_Order":
        settings = unit.settings
        prototypes = context.read("prototypes", unit.name)["prototypes"].astype(np.float32)
        # The first candidate has the noise of a prototype that has no other candidate.
        seeds = [
            stream_seed(settings["seed"], *((row, candidate) if candidate else (row,)))
            for row in range(len(prototypes))
            for candidate in range(settings["candidates"])
        ]
        return cls(unit, prototypes, seeds, _real_latents(context, unit))


def _real_latents(context: StageContext, unit: Unit) -> "ClassLatents | None":
    """Return the real latents that guide the images of a unit, if any do."""
    from d4m.synthesis.set_guidance import ClassLatents

    guidance = SynthesisSettings.among(with_choice(context, unit.settings)).set_guidance
    if guidance is None:
        return None
    latents = context.read("latents", class_unit(class_id_of(unit.name)))["latents"]
    return ClassLatents.choose(latents, guidance, unit.settings["seed"])


class _Orders:
    """The classes of one run, each in memory from its first request to its last image only."""

    def __init__(self, context: StageContext, units: Sequence[Unit]) -> None:
        self._context = context
        self._units = units
        self._open = deque[_Order]()

    def requests(self) -> Iterator["ImageRequest"]:
        """Yield every image of every class; a class is read when its first is asked for."""
        from d4m.synthesis.synthesize import ImageRequest

        for unit in self._units:
            order = _Order.of(self._context, unit)
            self._open.append(order)
            candidates = unit.settings["candidates"]
            repeated = np.repeat(order.prototypes, candidates, axis=0)
            for prototype, seed in zip(repeated, order.seeds, strict=True):
                yield ImageRequest(prototype, unit.settings["prompt"], seed, order.real)

    def fill(
        self, batches: Iterable[UInt8[np.ndarray, "_image height width channel"]]
    ) -> Iterator[tuple[_Order, UInt8[np.ndarray, "image height width channel"]]]:
        """Yield each class with its images, cut from the batches that its requests gave."""
        kept = list[np.ndarray]()
        for batch in batches:
            kept.append(batch)
            while self._open and sum(map(len, kept)) >= len(self._open[0].seeds):
                order = self._open.popleft()
                done, rest = np.split(np.concatenate(kept), [len(order.seeds)])
                kept = [rest] if len(rest) else []
                yield order, done
