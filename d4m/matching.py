"""The losses of training-time matching (D4M, section 3.4)."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def soft_label_loss(
    student_logits: Float[Tensor, "image class"],
    teacher_logits: Float[Tensor, "image class"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Mean over images of KL(teacher || student), both softened by the temperature.

    Source:
        D4M, equation 7 (`KLDivLoss(reduction="batchmean")`, no factor of temperature squared).

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 0.0]])
        >>> float(soft_label_loss(logits, logits, temperature=4.0))
        0.0
    """
    return F.kl_div(
        F.log_softmax(student_logits / temperature, dim=1),
        F.log_softmax(teacher_logits / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )


def hard_label_loss(
    student_logits: Float[Tensor, "image class"],
    class_ids: Int[Tensor, "image"],
    partner_class_ids: Int[Tensor, "image"],
    own_shares: Float[Tensor, "image"],
) -> Float[Tensor, ""]:
    """Mean cross-entropy against the two classes of a CutMix image, weighted by their areas.

    Source:
        Yun et al., "CutMix" (ICCV 2019), equation 1.
    """
    own = F.cross_entropy(student_logits, class_ids, reduction="none")
    partner = F.cross_entropy(student_logits, partner_class_ids, reduction="none")
    return (own_shares * own + (1 - own_shares) * partner).mean()
