"""Collaborative guided sampling: the images of a class repel, and their mean fits the class."""

import torch
from jaxtyping import Float
from torch import Tensor

from d4m.settings import CgsSettings

_JITTER = 1e-4  # on the kernel's diagonal, so that equal latents have a determinant above 0


def cgs_direction(
    clean: Float[Tensor, "image channel height width"],
    real_mean: Float[Tensor, "channel height width"],
    settings: CgsSettings,
) -> Float[Tensor, "image channel height width"]:
    """Return where collaborative guidance moves the clean latents of a class's images.

    With x_i the clean latents, h^2 their mean squared distance, and mu the real class's mean:

        L_ij = exp(-|x_i - x_j|^2 / (2 h^2)),  G = L^-1
        d_i = repulsion h^2 / 2 grad_i log det L + pull (mu - mean_j x_j)
            = -repulsion sum_j G_ij L_ij (x_i - x_j) + pull (mu - mean_j x_j)

    log det L is the log-probability of the set under a determinantal point process (DPP), up to its
    normalisation: it is high where latents differ. The factor h^2 / 2 makes the repulsion a length
    in latent space, as the pull is. A single image has no repulsion.

    Args:
        clean: the latents that the present prediction implies, of all images of one class.
        real_mean: the mean of the class's real latents.
        settings: the weights of both terms.

    Source:
        Xu et al., "Mitigating the distribution shift of diffusion-based dataset distillation" (CVPR
        2026): denoising a class together, with DPP diversity and distribution matching. The paper
        has no public code and its text could not be read here: both terms are second-hand, from a
        reader's summary.

    Differs:
        Kernel, bandwidth and weights are this project's, as no published ones could be read.
    """
    points = clean.flatten(1).float()
    direction = settings.pull * (real_mean.flatten().to(points) - points.mean(dim=0, keepdim=True))
    if len(points) > 1 and settings.repulsion:
        direction = direction + settings.repulsion * _repulsion(points)
    return direction.expand_as(points).reshape(clean.shape)


def _repulsion(points: Float[Tensor, "image value"]) -> Float[Tensor, "image value"]:
    """Return h^2 / 2 times the gradient of log det L."""
    count = len(points)
    centred = points - points.mean(dim=0)
    lengths = centred.square().sum(dim=1)
    distances = (lengths[:, None] + lengths - 2 * centred @ centred.T).clamp(min=0)
    distances.fill_diagonal_(0)
    width = distances.sum() / (count * (count - 1))
    if width == 0:
        return torch.zeros_like(points)
    kernel = torch.exp(-distances / (2 * width)).double()
    inverse = torch.linalg.inv(kernel + _JITTER * torch.eye(count, device=points.device))
    shares = (inverse * kernel).to(points.dtype)
    return -(shares.sum(dim=1, keepdim=True) * centred - shares @ centred)
