"""A denoiser that takes many latents at once and evaluates them a few at a time."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from d4m.generators.kinds import find_denoiser


@contextmanager
def denoiser_in_parts(pipeline: Any, size: int) -> Generator[None]:
    """Evaluate the pipeline's denoiser on at most `size` latents at a time in this context.

    A set of any number of images can then be denoised in one pipeline call, in the memory of a
    small batch. Classifier-free guidance counts each image twice.

    Args:
        pipeline: whose denoiser's `forward` is replaced, and put back at the end.
        size: the most rows per evaluation.
    """
    denoiser = find_denoiser(pipeline)
    own: Callable[..., Any] = denoiser.forward
    wrapped = "forward" in vars(denoiser)  # as where parts are moved to the device for each call

    def forward(sample: Tensor, *arguments: Any, **options: Any) -> Any:
        count = len(sample)
        if count <= size:
            return own(sample, *arguments, **options)
        parts = [
            own(*cut((sample, *arguments), rows, count), **cut(options, rows, count))
            for rows in torch.arange(count, device=sample.device).split(size)
        ]
        if isinstance(parts[0], tuple):
            return (torch.cat([part[0] for part in parts]),)
        return type(parts[0])(sample=torch.cat([part.sample for part in parts]))

    denoiser.forward = forward
    try:
        yield
    finally:
        if wrapped:
            denoiser.forward = own
        else:
            del denoiser.forward


def cut(value: Any, rows: Tensor, count: int) -> Any:
    """Return some rows of a denoiser's arguments: of tensors with one row per latent.

    Args:
        value: a tensor, or a tuple or dict of values; anything else is returned as it is.
        rows: which rows.
        count: how many latents there are.
    """
    if isinstance(value, dict):
        return {name: cut(each, rows, count) for name, each in value.items()}
    if isinstance(value, tuple):
        return tuple(cut(each, rows, count) for each in value)
    has_rows = isinstance(value, Tensor) and value.ndim > 0 and len(value) == count
    return value[rows] if has_rows else value
