"""The baseline `from_noise`: images diffused from noise alone, without prototypes."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from d4m.seeds import distillation_seed, stream_seed
from d4m.settings import SynthesisSettings
from d4m.stages.chosen_settings import choice_inputs, with_choice
from d4m.stages.context import Inputs, StageContext
from d4m.stages.synthetic_images import draw_images, drawing_inputs, prepared_pipeline
from d4m.stages.training_sets import Batch

_OF_PROTOTYPES = (
    "strength",
    "mode_guidance",
    "mode_guidance_until",
    "inversion",
    "set_guidance",
    "candidates",
    "diversity",
    "groups",
)


def noise_inputs(context: StageContext, distillation: int) -> Inputs:
    """Return what `images_from_noise` depends on in one distillation."""
    root = distillation_seed(context.recipe.settings.seed, distillation)
    return (
        Inputs(
            {
                "ipc": context.recipe.settings.prototypes.ipc,
                "noise": [
                    _noise_settings(context, class_id, root) for class_id in context.class_ids
                ],
            }
        )
        | context.all_of("generator")
        | choice_inputs(context, "guidance_scale")
    )


def images_from_noise(
    context: StageContext, settings: Mapping[str, Any]
) -> Iterator[tuple[int, Batch]]:
    """Draw images of every class from noise alone, without prototypes.

    Noise of full strength leaves nothing of the latent that it is added to.

    Args:
        context: with the generator's units.
        settings: those of `noise_inputs`.

    Yields:
        (class id, one image), `ipc` of each class.
    """
    from d4m.generators.autoencoder import latent_shape
    from d4m.synthesis.synthesize import ImageRequest

    classes = settings["noise"]
    drawn = with_choice(context, classes[0])
    pipeline = prepared_pipeline(context, drawn)
    nothing = np.zeros(latent_shape(pipeline.vae, classes[0]["latents_px"]), np.float32)
    requests = (
        ImageRequest(nothing, each["prompt"], stream_seed(each["seed"], row))
        for each in classes
        for row in range(settings["ipc"])
    )
    synthesis = SynthesisSettings.among({**drawn, "strength": 1.0, "mode_guidance": 0.0})
    batches = draw_images(
        context,
        pipeline,
        requests,
        settings=synthesis,
        negative_prompt=classes[0]["negative_prompt"],
    )
    images = (image for batch in batches for image in batch)
    for row, image in enumerate(images):
        yield row // settings["ipc"], image[None]


def _noise_settings(context: StageContext, class_id: int, root: int) -> dict[str, Any]:
    settings = drawing_inputs(context, class_id).settings
    return {name: value for name, value in settings.items() if name not in _OF_PROTOTYPES} | {
        "latents_px": context.source.size_px,  # whose latents have the size of the noise
        "seed": stream_seed(root, "from_noise", class_id),
    }
