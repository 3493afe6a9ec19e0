"""The baselines `decoded_real` and `diffused_real`: the random real images through the generator.

They are the very images of `random_real` with the same distillation and seed, so the difference
between the rows is what the generator costs: its VAE alone, or the VAE and the diffusion.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from d4m.seeds import distillation_seed, stream_seed
from d4m.settings import SynthesisSettings
from d4m.stages.chosen_settings import choice_inputs, with_choice
from d4m.stages.context import Inputs, StageContext
from d4m.stages.synthetic_images import draw_images, drawing_inputs, prepared_pipeline
from d4m.stages.training_sets import Batch, random_rows
from d4m.stages.unit_names import class_unit

Through = Literal["decoded_real", "diffused_real"]
_OF_SETS = ("candidates", "diversity", "groups", "set_guidance")
_OF_DECODING = ("size_px", "resampling")


def through_inputs(context: StageContext, name: Through, distillation: int) -> Inputs:
    """Return what `real_through_generator` depends on, apart from the draw of the images.

    Args:
        context: the recipe and its generator.
        name: through what part of the generator images go.
        distillation: its number.
    """
    if name == "decoded_real":
        inputs, used = Inputs(), drawing_inputs(context, 0).settings
        way = {key: used[key] for key in _OF_DECODING if key in used}
    else:
        root = distillation_seed(context.recipe.settings.seed, distillation)
        way = {"drawn": [_drawing(context, class_id, root) for class_id in context.class_ids]}
        inputs = choice_inputs(context, "strength", "guidance_scale")
    return inputs | Inputs(way) | context.all_of("generator") | context.all_of("latents")


def real_through_generator(
    context: StageContext, settings: Mapping[str, Any], *, root: int, seed_number: int
) -> Iterator[tuple[int, Batch]]:
    """Pass random real images through the generator, class by class.

    Args:
        context: with the generator's units, and the latents of the real images.
        settings: those of `through_inputs`, and `ipc`.
        root: of the random streams of the distillation.
        seed_number: which draw of the images.

    Yields:
        (class id, `ipc` images).
    """
    from d4m.synthesis.synthesize import ImageRequest, decode_latents

    diffused = settings.get("drawn")
    first = with_choice(context, diffused[0]) if diffused else settings
    synthesis = SynthesisSettings.among(first)
    pipeline = prepared_pipeline(context, first)
    for class_id in context.class_ids:
        latents = context.read("latents", class_unit(class_id))["latents"]
        rows = random_rows(root, class_id, seed_number, of=len(latents), count=settings["ipc"])
        real = latents[rows].astype(np.float32)
        if not diffused:
            yield (
                class_id,
                decode_latents(
                    pipeline.vae,
                    real,
                    compute=context.compute,
                    size_px=synthesis.size_px,
                    resampling=synthesis.resampling,
                ),
            )
            continue
        own = diffused[class_id]
        requests = (
            ImageRequest(latent, own["prompt"], stream_seed(own["seed"], seed_number, row))
            for row, latent in enumerate(real)
        )
        batches = draw_images(
            context,
            pipeline,
            requests,
            settings=synthesis,
            negative_prompt=own["negative_prompt"],
        )
        for batch in batches:
            yield class_id, batch


def _drawing(context: StageContext, class_id: int, root: int) -> dict[str, Any]:
    settings = drawing_inputs(context, class_id).settings
    used = {name: value for name, value in settings.items() if name not in _OF_SETS}
    return used | {"seed": stream_seed(root, "diffused_real", class_id)}
