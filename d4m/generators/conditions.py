"""Encode prompts for a denoiser, each distinct text once."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from d4m.errors import GeneratorError
from d4m.generators.dit import DiTImg2ImgPipeline
from d4m.generators.kinds import Kind, TextSide, kind_of
from d4m.generators.prompt_cuts import TextReader, find_cuts

_KEPT_TEXTS = 256
_Encoded = tuple[Tensor, ...]


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
    readers = [
        TextReader.loaded(each.backend_tokenizer, limit=min(each.model_max_length, most))
        for name, most in _text_side(_kind(pipeline)).tokens.items()
        if (each := getattr(pipeline, name, None)) is not None
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
        pipeline: of one of the kinds in `d4m/generators/kinds.py`.
        negative_prompt: the negative prompt of all images. If it is empty, an SDXL pipeline with
            `force_zeros_for_empty_prompt` uses zeros instead. A DiT and FLUX ignore it.
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
        self._kept = OrderedDict[str, _Encoded]()  # lru_cache of a method would keep the pipeline

    def arguments(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Return the pipeline call's keyword arguments for these prompts, one prompt per image."""
        if isinstance(self._pipeline, DiTImg2ImgPipeline):
            return {"class_labels": self._pipeline.find_class_ids(prompts)}
        kind = _kind(self._pipeline)
        encoded = [self._encode_once(prompt) for prompt in prompts]
        arguments = {
            name: torch.cat(tensors)
            for name, tensors in zip(
                _text_side(kind).embeddings, zip(*encoded, strict=True), strict=True
            )
        }
        if self._guided and kind.reads_negative:
            self._negative = self._negative or self._encode_negative()
            for name, tensor in zip(_text_side(kind).embeddings, self._negative, strict=True):
                repeats = (len(prompts), *[1] * (tensor.ndim - 1))
                arguments[f"negative_{name}"] = tensor.repeat(repeats)
        return arguments

    def _encode_once(self, text: str) -> _Encoded:
        """Return what a text is encoded to, as it was kept if it is among the last ones."""
        found = self._kept.pop(text, None) or self._encode(text)
        self._kept[text] = found
        if len(self._kept) > _KEPT_TEXTS:
            self._kept.popitem(last=False)
        return found

    def _encode(self, text: str) -> _Encoded:
        """Return the text encoders' hidden states, and pooled outputs or a mask where there are."""
        side = _text_side(_kind(self._pipeline))
        with torch.inference_mode():
            encoded = self._pipeline.encode_prompt(
                prompt=text, device=self._device, num_images_per_prompt=1, **side.options
            )
        return tuple(encoded[place] for place in side.embeddings.values())

    def _encode_negative(self) -> _Encoded:
        zeros = self._pipeline.config.get("force_zeros_for_empty_prompt", False)
        if self._negative_prompt or not zeros:
            return self._encode(self._negative_prompt)
        return tuple(torch.zeros_like(tensor) for tensor in self._encode(""))


def _kind(pipeline: Any) -> Kind:
    kind = kind_of(pipeline)
    assert kind is not None, "a generator loads pipelines of known kinds"
    return kind


def _text_side(kind: Kind) -> TextSide:
    assert kind.text is not None, "class-conditional pipelines have no prompts"
    return kind.text
