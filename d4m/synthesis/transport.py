"""Guidance by optimal transport: the images of a class go to where real latents are."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from d4m.settings import OtSettings

_ITERATIONS = 200


def transport_direction(
    clean: Float[Tensor, "image channel height width"],
    real: Float[Tensor, "reference channel height width"],
    settings: OtSettings,
) -> Float[Tensor, "image channel height width"]:
    """Return where optimal transport moves the clean latents of a class's images.

    With x_i the n clean latents, r_j real ones, and P the plan that minimises the transport's cost
    sum P_ij |x_i - r_j|^2 with an entropic regularisation (the Sinkhorn distance):

        d_i = -n / 2 grad_i = n sum_j P_ij r_j - x_i

    This is the way to the mean of the real latents that the plan assigns to the image. Each real
    latent is assigned once in all, so images are sent to different parts of the class.

    Args:
        clean: the latents that the present prediction implies, of all images of one class.
        real: latents of the class's real images.
        settings: weight and regularisation.

    Source:
        Cui et al., "Optimizing distributional geometry alignment with optimal transport for
        generative dataset distillation" (NeurIPS 2025), OT-guided diffusion sampling. The paper has
        no public code; its abstract was read, its equations are second-hand. Cuturi, "Sinkhorn
        distances" (NeurIPS 2013). The gradient follows from the envelope theorem.

    Differs:
        The paper draws images one after the other and compares those drawn so far and the present
        one with real latents. Here all images of a class are denoised and transported together, so
        that the order plays no part. Weight and regularisation are this project's.
    """
    points, references = clean.flatten(1).float(), real.flatten(1).to(clean).float()
    costs = torch.cdist(points, references).square()
    plan = sinkhorn_plan(costs, settings.regularisation)
    direction = len(points) * plan @ references - points
    return settings.weight * direction.reshape(clean.shape)


def sinkhorn_plan(
    costs: Float[Tensor, "image reference"], regularisation: float
) -> Float[Tensor, "image reference"]:
    """Return the transport plan of lowest regularised cost between two sets of equal weights.

        P = argmin sum_ij P_ij C_ij + epsilon sum_ij P_ij log P_ij
        sum_j P_ij = 1 / n,  sum_i P_ij = 1 / m

    Args:
        costs: C, one row per image, one column per reference.
        regularisation: epsilon as a share of the mean cost.

    Returns:
        P; its rows sum to 1 / n up to rounding, its columns to 1 / m as far as 200 iterations go.
    """
    images, references = costs.shape
    # In units of epsilon; where all costs are 0, any plan is as good as another.
    scaled = costs.double() / (regularisation * costs.double().mean()).clamp(min=1e-30)
    of_images = torch.zeros(images, dtype=torch.float64, device=costs.device)
    of_references = torch.zeros(references, dtype=torch.float64, device=costs.device)
    for _ in range(_ITERATIONS):
        free = of_images[:, None] - scaled - math.log(images)
        of_references = -torch.logsumexp(free, dim=0)
        free = of_references[None, :] - scaled - math.log(references)
        of_images = -torch.logsumexp(free, dim=1)
    plan = torch.exp(of_images[:, None] + of_references[None, :] - scaled)
    return (plan / (images * references)).to(costs.dtype)
