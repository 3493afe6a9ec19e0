"""RSM: a denoiser's training that favours sparse clean latents."""

import torch
from jaxtyping import Float
from torch import Tensor


def sparsity_loss(
    velocity: Float[Tensor, "latent channel height width"],
    noisy: Float[Tensor, "latent channel height width"],
    signal: Float[Tensor, "latent"],
) -> Float[Tensor, ""]:
    """Return the mean absolute value of the clean latents that predictions imply.

    With v the predicted velocity and alpha_bar the share of the variance that is not noise:

        loss = mean |x0|,  x0 = sqrt(alpha_bar) x_t - sqrt(1 - alpha_bar) v

    Added to the denoiser's squared error, it keeps small what the prediction does not need: fewer
    details of single images, more of what a class has in common.

    Args:
        velocity: v.
        noisy: x_t.
        signal: alpha_bar of each latent.

    Source:
        Xu et al., "Mitigating the distribution shift of diffusion-based dataset distillation" (CVPR
        2026): an L1 penalty on the predicted clean latents in training (RSM). There is no public
        code; the term is second-hand, from a reader's summary.

    Differs:
        The paper tunes a pretrained denoiser. Here the term is part of the compact denoiser's own
        training, from the start, with a mean over values and the same weight at all noise levels.
    """
    shares = signal.to(noisy)[:, None, None, None]
    return (shares.sqrt() * noisy - torch.sqrt(1 - shares) * velocity).abs().mean()
