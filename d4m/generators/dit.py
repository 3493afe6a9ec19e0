"""An image-to-image pipeline for class-conditional DiTs, which diffusers does not have."""

# The types that diffusers declares are wrong in places:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportIncompatibleMethodOverride=false, reportGeneralTypeIssues=false, reportCallIssue=false

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, DiTPipeline, DiTTransformer2DModel, ImagePipelineOutput
from jaxtyping import Float, Int64
from torch import Tensor

from d4m.generators.dit_labels import DiTLabels
from d4m.generators.from_latents import start_from_latents, with_fixed_variance


class DiTImg2ImgPipeline(DiTPipeline):
    """The stock DiT pipeline, but started from latents with added noise instead of pure noise.

    Images are conditioned on classes instead of prompts. There is no negative prompt: the
    unconditional prediction of classifier-free guidance is that for the transformer's null class.

    Source:
        Peebles & Xie, "Scalable diffusion models with transformers" (ICCV 2023). The denoising
        follows `DiTPipeline.__call__`, the start `StableDiffusionImg2ImgPipeline`.

    Differs:
        The null class is read from the transformer's `num_embeds_ada_norm`; in the stock pipeline
        it is always 1000. A scheduler of its own for learned variances is replaced by one for fixed
        variances, because the stock pipeline drops the variances that the transformer predicts; the
        sampler `ddpm` uses them, as the authors' code does. Classifier-free guidance changes all
        channels of the latents, as in diffusers, unless `guided_channels` says otherwise; the
        authors' code changes the first three.
    """

    def __init__(
        self,
        transformer: DiTTransformer2DModel,
        vae: AutoencoderKL,
        scheduler: Any,
        id2label: Mapping[str, str] | None = None,
    ) -> None:
        """Keep the components; `id2label` maps class numbers to comma-separated synonyms."""
        super().__init__(transformer, vae, with_fixed_variance(scheduler))
        self._labels = DiTLabels(id2label or {}, int(transformer.config.num_embeds_ada_norm))

    def find_class_ids(self, prompts: Sequence[str]) -> list[int]:
        """Find the class that each prompt names, by one of the pipeline's labels or by number.

        Raises:
            GeneratorError: a prompt names no class, or is a label that several classes share.
        """
        return self._labels.find(prompts)

    @torch.no_grad()
    def __call__(
        self,
        *,
        class_labels: Sequence[int],
        image: Float[Tensor, "image latent_channel height width"],
        strength: float,
        guidance_scale: float,
        num_inference_steps: int,
        generator: Sequence[torch.Generator],
        guided_channels: int | None = None,
        output_type: str = "latent",
    ) -> ImagePipelineOutput:
        """Add noise to latents and denoise them, conditioned on their classes.

        Args:
            class_labels: the class of each image.
            image: scaled latents, of the size that the transformer was made for.
            strength: fraction of the schedule that runs, at its end.
            guidance_scale: scale of classifier-free guidance; 1 turns guidance off.
            num_inference_steps: steps in the full schedule; only the last `strength` fraction runs.
            generator: one random generator per image, for its noise.
            guided_channels: the first channels of the latents that guidance changes; None: all.
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
        latents, channels = start.latents, guided_channels or image.shape[1]
        classes = torch.tensor(class_labels, device=latents.device)
        for timestep in self.progress_bar(start.timesteps):
            predicted = self._predict(latents, timestep, classes, guidance_scale, channels)
            latents = self.scheduler.step(predicted, timestep, latents, **start.options).prev_sample
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=latents)

    def _predict(
        self,
        latents: Float[Tensor, "image latent_channel height width"],
        timestep: Tensor,
        classes: Int64[Tensor, "image"],
        guidance_scale: float,
        guided_channels: int,
    ) -> Float[Tensor, "image output_channel height width"]:
        """Return the predicted noise, followed by its variance where the sampler asks for it."""
        guided = guidance_scale > 1
        if guided:
            classes = torch.cat([classes, torch.full_like(classes, self._classes)])
        scaled = self.scheduler.scale_model_input(
            torch.cat([latents, latents]) if guided else latents, timestep
        )
        steps = timestep.reshape(1).to(scaled.device).expand(len(scaled))
        output = self.transformer(scaled, timestep=steps, class_labels=classes).sample
        noise = output[:, : latents.shape[1]]  # the rest, if any, is the predicted variance
        variance = output[: len(latents), latents.shape[1] :]
        if guided:
            conditional, unconditional = noise.chunk(2)
            noise = unconditional + guidance_scale * (conditional - unconditional)
            noise = torch.cat([noise[:, :guided_channels], conditional[:, guided_channels:]], dim=1)
        takes_variance = self.scheduler.config.get("variance_type") == "learned_range"
        return torch.cat([noise, variance], dim=1) if takes_variance else noise

    @property
    def predicts_variance(self) -> bool:
        """Whether the transformer predicts the variance of each step's noise too."""
        config = self.transformer.config
        return int(config.out_channels) == 2 * int(config.in_channels)

    @property
    def _classes(self) -> int:
        """Return the number of classes, which is also the number of the null class."""
        return int(self.transformer.config.num_embeds_ada_norm)
