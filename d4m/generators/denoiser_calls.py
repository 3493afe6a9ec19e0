"""One evaluation of a pretrained pipeline's denoiser, as its training needs it."""

# The types that diffusers declares are wrong in places:
# pyright: reportPrivateUsage=false

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from d4m.generators.conditions import Conditions
from d4m.generators.dit import DiTImg2ImgPipeline
from d4m.generators.kinds import kind_of
from d4m.generators.pixart import PixArtAlphaImg2ImgPipeline, PixArtSigmaImg2ImgPipeline

_NEGATIVE = "negative_"


class DenoiserCalls:
    """The evaluations of a denoiser under prompts, some of which are left out.

    Args:
        pipeline: Stable Diffusion 1.x to 3, PixArt or a DiT, on its device.
    """

    def __init__(self, pipeline: Any) -> None:
        """Encode nothing yet."""
        kind = kind_of(pipeline)
        assert kind is not None, "a generator loads pipelines of known kinds"
        assert not kind.takes_guidance, "refused before"
        self._pipeline = pipeline
        self._flow = kind.flow
        device = str(pipeline._execution_device)  # noqa: SLF001
        self._conditions = Conditions(pipeline, "", device=device)

    def __call__(
        self,
        denoiser: Any,
        noisy: Float[Tensor, "image latent_channel height width"],
        times: Float[Tensor, "image"] | Any,
        prompts: Sequence[str],
        dropped: Bool[Tensor, "image"],
    ) -> Float[Tensor, "image latent_channel height width"]:
        """Return what the denoiser predicts, without variances.

        Args:
            denoiser: the pipeline's own network, or one that wraps it.
            noisy: latents with noise, in the scale of the pipeline's training.
            times: of each image, in the scheduler's own units.
            prompts: of each image.
            dropped: where the prompt is left out: the empty text, or a DiT's null class.
        """
        given = self._conditions.arguments(prompts)
        if isinstance(self._pipeline, DiTImg2ImgPipeline):
            classes = torch.tensor(given["class_labels"], device=noisy.device)
            null = int(denoiser.config["num_embeds_ada_norm"])
            classes = classes.masked_fill(dropped, null)
            output = denoiser(noisy, timestep=times, class_labels=classes).sample
        else:
            kept = _without_prompts(given, dropped)
            named = {"timestep": times, **self._text_arguments(kept, noisy)}
            first = {"hidden_states": noisy} if self._flow else {}
            output = denoiser(*([] if self._flow else [noisy]), **first, **named).sample
        return output[:, : noisy.shape[1]]

    def _text_arguments(self, kept: Mapping[str, Tensor], noisy: Tensor) -> dict[str, Any]:
        """Return the denoiser's arguments of encoded prompts, by its own names for them."""
        arguments: dict[str, Any] = {"encoder_hidden_states": kept["prompt_embeds"]}
        pooled = kept.get("pooled_prompt_embeds")
        if self._flow:
            return arguments | {"pooled_projections": pooled}
        if isinstance(self._pipeline, PixArtAlphaImg2ImgPipeline | PixArtSigmaImg2ImgPipeline):
            sizes = self._pipeline.size_conditions(len(noisy), noisy)
            mask = kept["prompt_attention_mask"]
            return arguments | {"encoder_attention_mask": mask, "added_cond_kwargs": sizes}
        if pooled is not None:
            times = self._time_ids(noisy).repeat(len(noisy), 1)
            arguments["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": times}
        return arguments

    def _time_ids(self, noisy: Tensor) -> Float[Tensor, "1 number"]:
        """Return SDXL's conditions of the size of images that were not cropped."""
        factor, (height, width) = self._pipeline.vae_scale_factor, noisy.shape[2:]
        size, corner = (height * factor, width * factor), (0, 0)
        scores = (6.0, 2.5)  # diffusers' own for good and for bad images; only refiners read them
        times, _ = self._pipeline._get_add_time_ids(  # noqa: SLF001
            *(size, corner, size, *scores, size, corner, size),
            dtype=noisy.dtype,
            text_encoder_projection_dim=self._pipeline.text_encoder_2.config.projection_dim,
        )
        return times.to(noisy.device)


def _without_prompts(given: Mapping[str, Tensor], dropped: Tensor) -> dict[str, Tensor]:
    """Return encoded prompts, with the negative one in place of those that are dropped."""
    return {
        name: torch.where(
            dropped.view(-1, *[1] * (tensor.ndim - 1)), given[_NEGATIVE + name], tensor
        )
        for name, tensor in given.items()
        if not name.startswith(_NEGATIVE)
    }
