"""Compute a batch's gradients in parts, so that a batch of any size fits in a device's memory."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from d4m.compute import computing_in
from d4m.errors import ClassifierError
from d4m.settings import Precision

_log = logging.getLogger(__name__)
_PIXELS_ON_CPU = 128 * 64**2  # of a part, at most: more are slower, and may be more than there is
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_DROPOUTS = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
# (logits, rows of the batch) -> losses, with a column per network where several are computed
PartLosses = Callable[[Tensor, slice], Tensor]


class Gradients:
    """The gradients of a network's mean loss over a batch.

    The losses l of a batch of n images are added up over parts P of the batch:

        grad 1/n sum over the batch of l  =  sum over parts of  grad 1/n sum over P of l

    So the gradients are those of the whole batch, except for rounding, unless the network looks at
    a batch as a whole (`looks_at_batches`): batch norm then standardises by the statistics of each
    part, as on several GPUs without synchronisation, and dropout draws other numbers. Such a
    network is computed in parts only if a whole batch does not fit in memory.

    Args:
        model: the network, in training mode when `add` is called.
        precision: number format of convolutions and matrix products.
        at_once: the most images per part; None: as many as fit, and on a CPU, which does not say
            what fits, as many as have the pixels of 128 images of 64 px.
        channels_last: whether convolutions see pixels before channels, which GPUs compute faster.
        backend: of `torch.compile`; None: the network is not compiled.

    Source:
        Statistics of parts: "ghost batch norm" of Hoffer et al., "Train longer, generalize better"
        (NeurIPS 2017).
    """

    def __init__(
        self,
        model: nn.Module,
        precision: Precision,
        *,
        at_once: int | None = None,
        channels_last: bool = False,
        backend: str | None = None,
    ) -> None:
        """Prepare the network; compute nothing yet."""
        self._model = model
        self._precision: Precision = precision
        self._first_cut = at_once
        self._whole = looks_at_batches(model)
        self._at_once = None if self._whole else at_once
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        if channels_last:
            _lay_out(model, torch.channels_last)
        self._forward: Any = model if backend is None else torch.compile(model, backend=backend)
        self._fits = False

    def add(
        self, pixels: Float[Tensor, "image channel height width"], losses: PartLosses
    ) -> Float[Tensor, "*network"]:
        """Set the weights' gradients to those of the mean loss; return the sum of the losses.

        Networks that are computed by one model share no weights, so each gets the gradients of its
        own mean loss from the sum of these.

        Parts are halved until they fit; that size is kept for later batches.

        Raises:
            ClassifierError: not even one image fits.
        """
        while True:
            total = self._try(pixels, losses)
            if total is not None:
                self._fits = True
                return total
            if pixels.device.type == "cuda":
                torch.cuda.empty_cache()  # not where the failed batch is still referenced

    def finish(self) -> None:
        """Give the weights their usual layout back."""
        _lay_out(self._model, torch.contiguous_format)

    def _try(self, pixels: Tensor, losses: PartLosses) -> Tensor | None:
        """Return the sum of the losses, or None after a smaller size is chosen."""
        size = min(self._at_once or self._most(pixels), len(pixels))
        watched = pixels.device.type == "cuda" or not self._fits
        before = _state(self._model) if watched else None
        try:
            return self._parts(pixels, losses, size)
        except torch.OutOfMemoryError as failure:
            self._at_once = self._smaller(size, failure)
            if before is not None:
                _restore(self._model, before)
        return None

    def _most(self, pixels: Tensor) -> int:
        """Return how many images a part has that nothing else limits."""
        if self._whole or pixels.device.type != "cpu":
            return len(pixels)
        return max(1, _PIXELS_ON_CPU // pixels[0, 0].numel())

    def _parts(self, pixels: Tensor, losses: PartLosses, size: int) -> Tensor:
        self._model.zero_grad(set_to_none=True)
        total = torch.zeros((), device=pixels.device)
        for start in range(0, len(pixels), size):
            rows = slice(start, min(start + size, len(pixels)))
            part = pixels[rows].contiguous(memory_format=self._format)
            with computing_in(self._precision, pixels.device):
                logits = self._forward(part).float()
            own = losses(logits, rows)
            added = own if own.ndim == 1 else own.sum(1)
            (added.mean() if size >= len(pixels) else added.sum() / len(pixels)).backward()
            total = total + own.detach().sum(0)
        return total

    def _smaller(self, size: int, failure: Exception) -> int:
        if size == 1:
            msg = (
                "not even one image fits in the device's memory while a network is trained: free "
                "some memory, choose a smaller network or distil smaller images (`dataset.size_px`)"
            )
            raise ClassifierError(msg) from failure
        asked = self._first_cut if self._first_cut and self._first_cut < size else size // 2
        apart = ", each with its own statistics of batch norm and its own draws of dropout"
        _log.warning(
            "a batch of %d images does not fit in memory; its gradients are added up over parts of "
            "%d%s",
            size,
            asked,
            apart if self._whole else "",
        )
        return asked


def looks_at_batches(model: nn.Module) -> bool:
    """Return whether a network's output for an image depends on the batch it is trained in.

    Example:
        >>> looks_at_batches(nn.BatchNorm2d(3)), looks_at_batches(nn.GroupNorm(1, 3))
        (True, False)
    """
    return any(
        isinstance(module, _BATCH_NORMS)
        or any(getattr(module, name, 0.0) for name in ("drop_rate", "drop_prob"))
        or (isinstance(module, _DROPOUTS) and module.p > 0)
        for module in model.modules()
    )


def _lay_out(model: nn.Module, memory_format: torch.memory_format) -> None:
    for weight in model.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=memory_format)


def _state(model: nn.Module) -> tuple[list[Tensor], Tensor, Tensor | None]:
    """Return copies of what a forward pass changes: buffers and random generators."""
    cuda = _cuda_of(model)
    return (
        [buffer.clone() for buffer in model.buffers()],
        torch.get_rng_state(),
        None if cuda is None else torch.cuda.get_rng_state(cuda),
    )


def _cuda_of(model: nn.Module) -> torch.device | None:
    return next((weight.device for weight in model.parameters() if weight.is_cuda), None)


def _restore(model: nn.Module, before: tuple[list[Tensor], Tensor, Tensor | None]) -> None:
    buffers, state, cuda_state = before
    for buffer, kept in zip(model.buffers(), buffers, strict=True):
        buffer.data.copy_(kept)
    torch.set_rng_state(state)
    cuda = _cuda_of(model)
    if cuda is not None and cuda_state is not None:
        torch.cuda.set_rng_state(cuda_state, cuda)
