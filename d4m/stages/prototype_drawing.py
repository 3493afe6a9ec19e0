"""From prototypes to the pixels that students see, with the gradient of the way there."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from d4m.seeds import stream_seed
from d4m.settings import RefinementSettings, SynthesisSettings
from d4m.stages.chosen_settings import with_choice
from d4m.stages.context import StageContext
from d4m.stages.synthetic_images import prepared_pipeline

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from d4m.prototypes.refinement import Draw, Rows


def drawing(
    context: StageContext,
    refined: RefinementSettings,
    used: Mapping[str, Any],
    class_ids: np.ndarray,
) -> "Draw":
    """Return what makes pixels of prototypes, in the student's size, with their gradient.

    Args:
        context: with the generator's units.
        refined: through what images are judged.
        used: settings of a unit of prototypes.
        class_ids: the class of each prototype.
    """
    if refined.through == "synthesis":
        drawn, size_px = with_choice(context, used["drawn"]), used["size_px"]
        pipeline = prepared_pipeline(context, drawn)
        return draw_through_synthesis(pipeline, drawn, class_ids, size_px, device=context.device)
    from d4m.stages.generator import load_vae

    return draw_through_vae(load_vae(context), used["size_px"], clip=refined.of_classes)


def draw_tiles(draw: "Draw", edge: int) -> "Draw":
    """Return what makes the images that students train on: the tiles of mosaics.

    Args:
        draw: makes stored images.
        edge: tiles along a side of one of them.
    """
    if edge == 1:
        return draw
    from d4m.images.mosaics import unpack_pixels

    return lambda latents, rows: unpack_pixels(draw(latents, rows), edge)


def draw_through_vae(vae: Any, size_px: int, *, clip: bool) -> "Draw":
    """Return what decodes prototypes.

    Args:
        vae: the generator's.
        size_px: of the images that students see.
        clip: whether pixels are clipped as images are.
    """
    decode = _decoder(vae, size_px)
    if not clip:
        return lambda latents, _: decode(latents)
    return lambda latents, _: _clipped(decode(latents))


def draw_through_synthesis(
    pipeline: Any, drawn: Mapping[str, Any], class_ids: np.ndarray, size_px: int, *, device: str
) -> "Draw":
    """Return what makes the pixels that synthesis will make, with their gradient.

    Args:
        pipeline: with the scheduler of the settings.
        drawn: settings of synthesis, with `negative_prompt`, and `prompt` and `seed` of each class.
        class_ids: the class of each prototype, as many of each class.
        size_px: of the images that students see.
        device: of the pipeline.
    """
    from torch import nn

    from d4m.generators.conditions import Conditions
    from d4m.synthesis.synthesize import ImageRequest, denoise

    settings = SynthesisSettings.among(drawn)
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.requires_grad_(False)
    conditions = Conditions(
        pipeline,
        drawn["negative_prompt"],
        device=device,
        guided=settings.guidance_scale > 1,
    )
    decode = _decoder(pipeline.vae, size_px)
    ipc, nothing = len(class_ids) // len(drawn["seed"]), np.zeros((0, 0, 0), np.float32)
    requests = [
        ImageRequest(
            nothing, drawn["prompt"][class_id], stream_seed(drawn["seed"][class_id], row % ipc)
        )
        for row, class_id in enumerate(class_ids)
    ]

    def draw(latents: "Float[Tensor, 'row channel height width']", rows: "Rows") -> "Tensor":
        own = [requests[row] for row in rows]
        return _clipped(decode(denoise(pipeline, latents, own, conditions, settings)))

    return draw


def _clipped(pixels: "Tensor") -> "Tensor":
    """Clip pixels as images are clipped, but not their gradient: what is black can grow lighter."""
    return pixels + (pixels.clamp(-1, 1) - pixels).detach()


def _decoder(
    vae: Any, size_px: int
) -> "Callable[[Float[Tensor, 'row channel height width']], Tensor]":
    """Return what makes pixels of scaled latents."""
    from d4m.generators.autoencoder import unscale_latents
    from d4m.images.pixels import resize_pixels

    vae.requires_grad_(False)

    def decode(latents: "Float[Tensor, 'row channel height width']") -> "Tensor":
        pixels = vae.decode(unscale_latents(latents.to(vae.dtype), vae)).sample.float()
        return resize_pixels(pixels, size_px)

    return decode
