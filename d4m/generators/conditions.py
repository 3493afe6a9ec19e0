"""Encode prompts for a denoiser, each distinct text once."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from d4m.errors import GeneratorError
from d4m.generators.dit import DiTImg2ImgPipeline
from d4m.generators.prompt_cuts import CLIP_LIMIT, TextReader, find_cuts

_KEPT_TEXTS = 256
_Encoded = tuple[Tensor, ...]
_ARGUMENTS = ("prompt_embeds", "pooled_prompt_embeds")
_TOKENIZERS = ("tokenizer", "tokenizer_2")


def check_prompts(
    pipeline: Any, prompts: Iterable[str], needed: Callable[[str], int] = lambda _: 0
) -> None:
    """Refuse prompts that the pipeline cannot follow, before any image is made.

    Args:
        pipeline: as it was loaded.
        prompts: of the images.
        needed: prompt -> characters that must be read, up to the end of its class name; asked of
            prompts that are cut.

    Raises:
        GeneratorError: a prompt of a class-conditional pipeline does not name one of its classes,
            or a text encoder cuts a prompt before the end of its class name.
    """
    if isinstance(pipeline, DiTImg2ImgPipeline):
        pipeline.find_class_ids(list(prompts))
        return
    tokenizers = [getattr(pipeline, name, None) for name in _TOKENIZERS]
    readers = [
        TextReader.loaded(each.backend_tokenizer, limit=min(each.model_max_length, CLIP_LIMIT))
        for each in tokenizers
        if each is not None
    ]
    cuts = find_cuts(readers, dict.fromkeys(prompts))
    lost = [cut.reason for prompt, cut in cuts.items() if (cut.read or 0) < needed(prompt)]
    if lost:
        msg = (
            f"prompts are cut before the end of their class name ({len(lost)}), such as this: "
            f"{lost[0]}; shorten `prompts.template` or `prompts.per_class`"
        )
        raise GeneratorError(msg)


class Conditions:
    """The conditions of a pipeline's calls: encoded prompts, or class numbers for a DiT.

    Texts are encoded one by one, so that an embedding does not depend on other texts in its batch.
    The last 256 embeddings are kept, enough for any batch, so memory does not grow with the number
    of classes.

    Args:
        pipeline: Stable Diffusion 1.x, 2.x or XL, or a DiT.
        negative_prompt: the negative prompt of all images. If it is empty, an SDXL pipeline with
            `force_zeros_for_empty_prompt` uses zeros instead. A DiT ignores it.
        device: the device the text encoder runs on.
        guided: whether classifier-free guidance is on; without it there is no negative prompt.
    """

    def __init__(
        self, pipeline: Any, negative_prompt: str, *, device: str, guided: bool = True
    ) -> None:
        """Keep the arguments; encode nothing yet."""
        self._pipeline = pipeline
        self._negative_prompt = negative_prompt
        self._device = torch.device(device)
        self._guided = guided
        self._negative: _Encoded | None = None
        self._kept = lru_cache(maxsize=_KEPT_TEXTS)(self._encode)

    def arguments(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Return the pipeline call's keyword arguments for these prompts, one prompt per image."""
        if isinstance(self._pipeline, DiTImg2ImgPipeline):
            return {"class_labels": self._pipeline.find_class_ids(prompts)}
        encoded = [self._kept(prompt) for prompt in prompts]
        arguments = {
            name: torch.cat(tensors)
            for name, tensors in zip(_ARGUMENTS, zip(*encoded, strict=True), strict=False)
        }
        if self._guided:
            self._negative = self._negative or self._encode_negative()
            for name, tensor in zip(_ARGUMENTS, self._negative, strict=False):
                repeats = (len(prompts), *[1] * (tensor.ndim - 1))
                arguments[f"negative_{name}"] = tensor.repeat(repeats)
        return arguments

    def _encode(self, text: str) -> _Encoded:
        """Return the text encoder's hidden states and, for an SDXL pipeline, its pooled output."""
        with torch.inference_mode():
            encoded = self._pipeline.encode_prompt(
                prompt=text,
                device=self._device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
            )
        return tuple(encoded[::2])  # the others are the negative prompt's

    def _encode_negative(self) -> _Encoded:
        zeros = self._pipeline.config.get("force_zeros_for_empty_prompt", False)
        if self._negative_prompt or not zeros:
            return self._encode(self._negative_prompt)
        return tuple(torch.zeros_like(tensor) for tensor in self._encode(""))
