"""Image-to-image pipelines of flow-matching models that start from latents and return latents."""

# The types that diffusers declares are wrong in places:
# pyright: reportIncompatibleMethodOverride=false, reportArgumentType=false
# pyright: reportPrivateUsage=false

import inspect
from typing import Any

import torch
from diffusers import (
    FluxImg2ImgPipeline,
    ImagePipelineOutput,
    StableDiffusion3Img2ImgPipeline,
)
from jaxtyping import Float
from torch import Tensor

Latents = Float[Tensor, "image latent_channel height width"]


class StableDiffusion3FromLatents(StableDiffusion3Img2ImgPipeline):
    """The stock pipeline of Stable Diffusion 3, with the size of the latents that it is given.

    Without it, the stock pipeline takes the transformer's own size, by which a scheduler with
    `use_dynamic_shifting` sets its noise levels.
    """

    @torch.no_grad()
    def __call__(self, *, image: Latents, **arguments: Any) -> Any:
        """Add noise to scaled latents with the scheduler's `scale_noise`, and denoise them."""
        stock = inspect.unwrap(StableDiffusion3Img2ImgPipeline.__call__)
        return stock(self, image=image, **_image_size(self, image), **arguments)


class FluxFromLatents(FluxImg2ImgPipeline):
    """The stock pipeline of FLUX, which returns latents in the layout that it is given.

    FLUX denoises packed latents: rows of tokens, each of which has the values of 2 x 2 places.
    """

    @torch.no_grad()
    def __call__(self, *, image: Latents, **arguments: Any) -> ImagePipelineOutput:
        """Add noise to scaled latents with the scheduler's `scale_noise`, and denoise them.

        `guidance_scale` is an input of the transformer, where it was trained with one;
        there is no second evaluation without a prompt.
        """
        stock = inspect.unwrap(FluxImg2ImgPipeline.__call__)
        size = _image_size(self, image)
        packed = stock(self, image=image, **size, **arguments).images
        unpacked = self._unpack_latents(packed, **size, vae_scale_factor=self.vae_scale_factor)
        return ImagePipelineOutput(images=unpacked)

    def pack(self, latents: Latents) -> Float[Tensor, "image token value"]:
        """Return latents in the layout in which the scheduler sees them."""
        return self._pack_latents(latents.contiguous(), *latents.shape)


def _image_size(pipeline: Any, latents: Latents) -> dict[str, int]:
    height, width = latents.shape[2:]
    factor = pipeline.vae_scale_factor
    return {"height": height * factor, "width": width * factor}
