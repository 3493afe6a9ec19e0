"""Diffusion as priors: features inside the denoiser are pulled to those of real latents (DAP)."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from d4m.generators.dit import DiTImg2ImgPipeline
from d4m.generators.kinds import find_denoiser
from d4m.settings import DapSettings
from d4m.synthesis.denoiser_parts import cut

Features = Callable[[Float[Tensor, "row channel height width"]], Float[Tensor, "row feature"]]
"""Noisy latents of unit variance -> features, with a gradient where gradients are on."""


def dap_direction(
    noisy: Float[Tensor, "image channel height width"],
    noisy_real: Float[Tensor, "reference channel height width"],
    features: Features,
    settings: DapSettings,
    *,
    at_once: int,
) -> Float[Tensor, "image channel height width"]:
    """Return where DAP moves the latents of a class's images.

    With x_t an image's latents at the present step, D their number of values, r_j real latents with
    noise of the same level, h the denoiser's middle features, S the mean squared distance of the
    h(r_j) to their mean, and b the bandwidth:

        E(x_t) = -2 b log mean_j exp(-|h(x_t) - h(r_j)|^2 / (2 b S))
        d = -D / 2 grad E(x_t)

    E measures how far the image is from the class, by a Gaussian kernel on features. A wide kernel
    makes E the squared distance to the mean features, up to a constant, in units of the class's own
    variance. The factor D / 2 makes d the way to the real latents if h is the identity and latents
    have unit variance.

    Args:
        noisy: latents of the images, scaled to unit variance.
        noisy_real: r_j.
        features: h, under the prompt of the class.
        settings: weight and bandwidth.
        at_once: the most latents that go through the denoiser at a time.

    Source:
        Su et al., "Diffusion models as dataset distillation priors" (DAP, ICLR 2026; D4M's first
        author): representativeness as the similarity to real data under a Mercer kernel on the
        diffusion model's features, as guidance. The abstract was read; kernel and weights are
        second-hand or this project's, as no public code was found.

    Differs:
        The features are those of the middle block of a U-Net, or of the middle transformer block of
        a DiT or PixArt. Kernel, bandwidth and the scale of the weight are this project's.
    """
    with torch.inference_mode(False):
        with torch.no_grad():
            parts = [features(part.clone()).float() for part in noisy_real.split(at_once)]
        real = torch.cat(parts)
        centre = real.mean(dim=0)
        real = real - centre
        spread = float(real.square().sum(dim=1).mean()) or 1.0
        values = noisy[0].numel()
        moves = list[Tensor]()
        for part in noisy.split(at_once):
            with torch.enable_grad():
                latents = part.clone().requires_grad_()
                found = features(latents).float() - centre
                energy = values / 2 * _energy(found, real, spread, settings.bandwidth)
                (gradient,) = torch.autograd.grad(energy, latents)
            moves.append(-settings.weight * gradient)
    return torch.cat(moves)


def _energy(
    found: Float[Tensor, "image feature"],
    real: Float[Tensor, "reference feature"],
    spread: float,
    bandwidth: float,
) -> Float[Tensor, ""]:
    """Return the sum of E over images, from centred features."""
    lengths = found.square().sum(dim=1, keepdim=True) + real.square().sum(dim=1)
    distances = lengths - 2 * found @ real.T
    similar = torch.logsumexp(-distances / (2 * bandwidth * spread), dim=1)
    return -2 * bandwidth * similar.sum()


class _ReachedError(Exception):
    """The middle of the denoiser is reached, so the rest need not be computed."""


class MiddleFeatures:
    """The features in the middle of a pipeline's denoiser, under the conditions of its last call.

    The first half of the denoiser is evaluated; its other half is not.
    """

    def __init__(self, pipeline: Any, images: int) -> None:
        """Watch no call yet.

        Args:
            pipeline: whose denoiser is watched.
            images: of the pipeline call, all under the same prompt.
        """
        self._denoiser: Any = find_denoiser(pipeline)
        # With guidance, the conditional rows come first in a DiT, second in all others.
        self._first = isinstance(pipeline, DiTImg2ImgPipeline)
        self._images = images
        self._asking = False
        self._call: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
        self._found: Tensor | None = None

    @contextmanager
    def watch(self) -> Generator[None]:
        """Keep the arguments of the denoiser's calls in this context."""
        blocks = getattr(self._denoiser, "transformer_blocks", None)
        middle = blocks[(len(blocks) - 1) // 2] if blocks else self._denoiser.mid_block
        hooks = [
            self._denoiser.register_forward_pre_hook(self._keep, with_kwargs=True),
            middle.register_forward_hook(self._stop),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def __call__(
        self, noisy: Float[Tensor, "row channel height width"]
    ) -> Float[Tensor, "row feature"]:
        """Return the middle features of other latents, at the time and prompt of the last call."""
        (sample, *arguments), options = self._call
        begin = len(sample) - self._images
        one = torch.full((len(noisy),), 0 if self._first else begin, device=sample.device)
        self._asking = True
        try:
            self._denoiser(
                noisy.to(sample.dtype),
                *cut(tuple(arguments), one, len(sample)),
                **cut(options, one, len(sample)),
            )
        except _ReachedError:
            pass
        finally:
            self._asking = False
        assert self._found is not None, "every denoiser has a middle"
        found, self._found = self._found, None
        return found.flatten(1)

    def _keep(self, module: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        del module
        if not self._asking:
            self._call = arguments, options

    def _stop(self, module: Any, arguments: Any, output: Tensor) -> None:
        del module, arguments
        if self._asking:
            self._found = output
            raise _ReachedError
