"""Image-to-image pipelines for PixArt, which diffusers does not have."""

# The types that diffusers declares are wrong in places:
# pyright: reportIncompatibleMethodOverride=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ImagePipelineOutput,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
)
from jaxtyping import Float, Int64
from torch import Tensor

from d4m.generators.from_latents import start_from_latents, with_fixed_variance


class _FromLatents:
    """The start and the call that both stock pipelines of PixArt get in place of their own.

    Source:
        Chen et al., "PixArt-alpha" (ICLR 2024) and "PixArt-Sigma" (ECCV 2024). The denoising
        follows `PixArtSigmaPipeline.__call__`, the start `StableDiffusionImg2ImgPipeline`.

    Differs:
        Images have the transformer's own size, so sizes are not rounded to those of training, and
        the conditions of resolution and aspect ratio are those of square images. Prompts are not
        cleaned of links and signs. A scheduler for learned variances is replaced by one for fixed
        variances, because the stock pipelines drop the variances that the transformer predicts.
    """

    transformer: PixArtTransformer2DModel
    vae: AutoencoderKL
    scheduler: Any
    progress_bar: Any
    maybe_free_model_hooks: Any

    def __init__(
        self,
        tokenizer: Any,
        text_encoder: Any,
        vae: AutoencoderKL,
        transformer: PixArtTransformer2DModel,
        scheduler: Any,
    ) -> None:
        """Keep the components."""
        stock: Any = super()
        stock.__init__(tokenizer, text_encoder, vae, transformer, with_fixed_variance(scheduler))

    @torch.no_grad()
    def __call__(  # noqa: PLR0913 - the stock pipelines' own arguments
        self,
        *,
        prompt_embeds: Float[Tensor, "image token text_width"],
        prompt_attention_mask: Int64[Tensor, "image token"],
        image: Float[Tensor, "image latent_channel height width"],
        strength: float,
        guidance_scale: float,
        num_inference_steps: int,
        generator: Sequence[torch.Generator],
        negative_prompt_embeds: Float[Tensor, "image token text_width"] | None = None,
        negative_prompt_attention_mask: Int64[Tensor, "image token"] | None = None,
        output_type: str = "latent",
    ) -> ImagePipelineOutput:
        """Add noise to latents and denoise them under encoded prompts.

        Args:
            prompt_embeds: encoded prompts.
            prompt_attention_mask: 1 for every token of a prompt, 0 for padding.
            image: scaled latents, of the size that the transformer was made for.
            strength: fraction of the schedule that runs, at its end.
            guidance_scale: scale of classifier-free guidance; 1 turns guidance off.
            num_inference_steps: steps in the full schedule; only the last `strength` fraction runs.
            generator: one random generator per image, for its noise.
            negative_prompt_embeds: encoded negative prompt of each image, with guidance.
            negative_prompt_attention_mask: as above.
            output_type: `latent`; nothing else is supported.

        Raises:
            GeneratorError: latents do not have the transformer's size.
        """
        assert output_type == "latent", "synthesis decodes all pipelines' latents itself"
        start = start_from_latents(
            self,
            image,
            strength=strength,
            num_inference_steps=num_inference_steps,
            generator=generator,
        )
        texts, mask = prompt_embeds, prompt_attention_mask
        if guidance_scale > 1:
            assert negative_prompt_embeds is not None
            assert negative_prompt_attention_mask is not None
            texts = torch.cat([negative_prompt_embeds, texts])
            mask = torch.cat([negative_prompt_attention_mask, mask])
        latents = start.latents
        for timestep in self.progress_bar(start.timesteps):
            noise = self._predict(latents, timestep, texts, mask, guidance_scale)
            latents = self.scheduler.step(noise, timestep, latents, **start.options).prev_sample
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=latents)

    def _predict(
        self,
        latents: Float[Tensor, "image latent_channel height width"],
        timestep: Tensor,
        texts: Float[Tensor, "row token text_width"],
        mask: Int64[Tensor, "row token"],
        guidance_scale: float,
    ) -> Float[Tensor, "image latent_channel height width"]:
        """Return the predicted noise, guided where the scale is above 1."""
        guided = guidance_scale > 1
        scaled = self.scheduler.scale_model_input(
            torch.cat([latents, latents]) if guided else latents, timestep
        )
        output = self.transformer(
            scaled,
            encoder_hidden_states=texts,
            encoder_attention_mask=mask,
            timestep=timestep.reshape(1).to(scaled.device).expand(len(scaled)),
            added_cond_kwargs=self.size_conditions(len(scaled), scaled),
        ).sample
        noise = output[:, : latents.shape[1]]  # the rest, if any, is the predicted variance
        if not guided:
            return noise
        unconditional, conditional = noise.chunk(2)
        return unconditional + guidance_scale * (conditional - unconditional)

    def size_conditions(self, rows: int, like: Tensor) -> dict[str, Tensor | None]:
        """Return the height and width of the images and their ratio, where they are a condition."""
        config: Any = self.transformer.config
        if not self.transformer.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        edge = float(config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1))
        return {
            "resolution": torch.full((rows, 2), edge).to(like),
            "aspect_ratio": torch.ones(rows, 1).to(like),
        }


class PixArtAlphaImg2ImgPipeline(_FromLatents, PixArtAlphaPipeline):
    """PixArt-alpha, but started from latents with added noise instead of pure noise."""


class PixArtSigmaImg2ImgPipeline(_FromLatents, PixArtSigmaPipeline):
    """PixArt-Sigma, but started from latents with added noise instead of pure noise."""
