"""The losses of training-time matching, one value per image (D4M, section 3.4)."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def kl_loss(
    student_logits: Float[Tensor, "image class"],
    teacher_logits: Float[Tensor, "image class"],
    temperature: float,
) -> Float[Tensor, "image"]:
    """Return the divergence of the student from the teacher for each image.

    With t the teacher's logits, s the student's, and T the temperature:

        loss = KL(softmax(t / T) || softmax(s / T))

    Source:
        D4M, equation 7; its mean over images is `KLDivLoss(reduction="batchmean")`, without a
        factor of T^2.

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
    """Return the mean squared difference between the centred logits of each image.

    With t the teacher's logits, s the student's, and C the number of classes:

        loss = 1/C sum over c of ((s_c - mean s) - (t_c - mean t))^2

    Source:
        Ba & Caruana, "Do deep nets really need to be deep?" (NeurIPS 2014); combined with a small
        cross-entropy in Shao et al., "Generalized large-scale data condensation via various
        backbone and statistical matching" (CVPR 2024).

    Differs:
        Logits are centred, because logits that differ by a constant have the same softmax.
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
    class_weights: Float[Tensor, "weighted_class"] | None = None,
) -> Float[Tensor, "image"]:
    """Return the cross-entropy with the two classes of each mixed image, weighted by their shares.

    With s the student's logits, a and b the classes of the image and of its partner, and lambda the
    image's own share:

        loss = lambda CE(s, a) + (1 - lambda) CE(s, b)

    With class weights w, which may stop at the last class of these images, the two cross-entropies
    are multiplied by w_a and w_b.

    Source:
        Yun et al., "CutMix" (ICCV 2019), equation 1; Zhang et al., "mixup" (ICLR 2018).
    """
    own = F.cross_entropy(student_logits, class_ids, reduction="none")
    partner = F.cross_entropy(student_logits, partner_class_ids, reduction="none")
    if class_weights is not None:
        own, partner = own * class_weights[class_ids], partner * class_weights[partner_class_ids]
    return own_shares * own + (1 - own_shares) * partner
