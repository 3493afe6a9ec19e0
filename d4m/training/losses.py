"""The losses of training-time matching, image by image (D4M, section 3.4)."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def kl_loss(
    student_logits: Float[Tensor, "image class"],
    teacher_logits: Float[Tensor, "image class"],
    temperature: float,
) -> Float[Tensor, "image"]:
    """KL(teacher || student) of each image, both softened by the temperature.

    Source:
        D4M, equation 7 (`KLDivLoss(reduction="batchmean")` is its mean, without a factor of
        temperature squared).

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 0.0]])
        >>> kl_loss(logits, logits, temperature=4.0).tolist()
        [0.0]
    """
    return F.kl_div(
        F.log_softmax(student_logits / temperature, dim=1),
        F.log_softmax(teacher_logits / temperature, dim=1),
        reduction="none",
        log_target=True,
    ).sum(dim=1)


def mse_loss(
    student_logits: Float[Tensor, "image class"], teacher_logits: Float[Tensor, "image class"]
) -> Float[Tensor, "image"]:
    """Mean squared difference of each image's logits, each side centred.

    Source:
        Ba & Caruana, "Do deep nets really need to be deep?" (NeurIPS 2014); with a small
        cross-entropy beside it in Shao et al., "Generalized large-scale data condensation via
        various backbone and statistical matching" (CVPR 2024).

    Differs:
        Logits that differ by a constant are the same verdict, and count as such.
    """
    student, teacher = (
        logits - logits.mean(dim=1, keepdim=True) for logits in (student_logits, teacher_logits)
    )
    return (student - teacher).square().mean(dim=1)


def class_loss(
    student_logits: Float[Tensor, "image class"],
    class_ids: Int[Tensor, "image"],
    partner_class_ids: Int[Tensor, "image"],
    own_shares: Float[Tensor, "image"],
) -> Float[Tensor, "image"]:
    """Cross-entropy with the two classes of a mixed image, weighted by its own share.

    Source:
        Yun et al., "CutMix" (ICCV 2019), equation 1; Zhang et al., "mixup" (ICLR 2018).
    """
    own = F.cross_entropy(student_logits, class_ids, reduction="none")
    partner = F.cross_entropy(student_logits, partner_class_ids, reduction="none")
    return own_shares * own + (1 - own_shares) * partner
