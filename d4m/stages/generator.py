"""Artifact `generator`: a latent diffusion pipeline, component by component."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from d4m.generators.base import Component, ImagesDescription, TrainingImages
from d4m.stages.base import Product, Stage
from d4m.stages.context import Inputs, StageContext
from d4m.stages.training_sets import pixel_settings, real_batches
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from d4m.synthesis.synthesize import ImageToImagePipeline


class Generator(Stage):
    """The latent diffusion model. Unit: a component, as the kind of generator divides itself."""

    name: ClassVar[str] = "generator"
    upstream: ClassVar[tuple[str, ...]] = ("real_images",)
    sections: ClassVar[tuple[str, ...]] = ("dataset", "generator", "seed", "finetuning")
    divisible: ClassVar[bool] = True

    def plan(self, context: StageContext) -> list[Unit]:
        """Return a unit per component; a trained one depends on all training images."""
        images = describe_images(context)
        components = context.generator.plan_components(images, seed=context.seed)
        return [self.unit(context, each.name, _inputs(context, each)) for each in components]

    def needs_worker(self, missing: Sequence[Unit]) -> bool:
        """Return whether anything is trained; a ready-made model is looked at where it is planned.

        The components of one that is downloaded are known on this machine only then.
        """
        return any(unit.reads("real_images") for unit in missing)

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Make component after component."""
        for unit in missing:
            folders = {name: context.open_files(self.name, name) for name in unit.reads(self.name)}
            images = TrainingImages(
                batches=lambda: real_batches(context, "train"),
                counts=[
                    len(index.image_ids)
                    for index in context.image_indexes(
                        ["train"] if unit.reads("real_images") else []
                    ).values()
                ],
                device=context.device,
                checkpoint=context.checkpoint(unit),
            )
            write = context.generator.make(unit.name, unit.settings, images, folders)
            if write is not None:
                yield unit, write


def describe_images(context: StageContext) -> ImagesDescription:
    """Return the real training images as a generator plans with them."""
    table, prompts = context.source.class_table, context.recipe.settings.prompts
    return ImagesDescription(
        table.names,
        pixel_settings(context),
        [table.prompt(class_id, prompts) for class_id in context.class_ids],
    )


def load_vae(context: StageContext) -> Any:
    """Return the generator's autoencoder, in evaluation mode, on the context's device."""
    from d4m.generators.placement import place_vae

    def load() -> Any:
        vae = context.generator.load_vae(context.open_files("generator", "vae"))
        return place_vae(vae, context.compute)

    return context.models.get(("vae", context.compute, context.digest("generator", "vae")), load)


def load_pipeline(context: StageContext) -> "ImageToImagePipeline":
    """Return the generator as an img2img pipeline, on the context's device, in its memory."""
    from d4m.generators.placement import place_pipeline

    reads = context.all_of("generator").reads

    def load() -> "tuple[Any, Any]":
        folders = {read[1]: context.open_files(*read) for read in reads}
        pipeline: Any = context.generator.load_pipeline(folders)
        return place_pipeline(pipeline, context.compute), pipeline.scheduler

    name = ("pipeline", context.compute, *((read, context.digest(*read)) for read in reads))
    pipeline, scheduler = context.models.get(name, load)
    pipeline.scheduler = scheduler  # a kept one has the sampler of its last use
    return pipeline


def _inputs(context: StageContext, component: Component) -> Inputs:
    own = Inputs(component.settings, tuple(("generator", name) for name in component.reads))
    return context.all_of("real_images", "train-") | own if component.trained else own
