"""Compute DD-Ranking's scores, which separate the worth of images from labels and augmentation."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LabelRobustness:
    """The label-robust score and the two differences of accuracies that it combines.

    Attributes:
        hard_label_recovery: HLR, the accuracy lost with hard labels when students are trained on
            the distilled set and not on the whole real set; from -1 to 1, smaller is better.
        improvement_over_random: IOR, the accuracy gained when students are trained on the distilled
            set and not on as many random real images; from -1 to 1, larger is better.
        score: LRS, from 0 to 100, larger is better.
    """

    hard_label_recovery: float
    improvement_over_random: float
    score: float


def label_robust_score(
    *,
    real_hard: float,
    synthetic_hard: float,
    synthetic: float,
    random: float,
    weight: float = 0.5,
) -> LabelRobustness:
    """Compute HLR, IOR and LRS of a distilled set; accuracies are shares of the test images.

    With w the weight:

        HLR = real_hard - synthetic_hard
        IOR = synthetic - random
        a = w IOR - (1 - w) HLR
        LRS = 100 (e^a - e^-1) / (e - e^-1)

    A set with IOR = 0 (no better than random real images) and HLR = 0 has LRS = 26.9.

    Args:
        real_hard: top-1 after training on the whole real set, with hard labels.
        synthetic_hard: top-1 after training on the distilled set, with hard labels.
        synthetic: top-1 after training on the distilled set, with the method's own (soft) labels.
        random: top-1 after training on as many random real images, with the same kind of labels.
        weight: weight of IOR; HLR has the weight 1 - `weight`. The leaderboard uses 0.5.

    Raises:
        ValueError: an accuracy or the weight is not in [0, 1].

    Source:
        Li et al., "DD-Ranking: Rethinking the evaluation of dataset distillation" (2025), as in
        their public code, `ddranking` 0.2.0, `LabelRobustScoreSoft`.

    Differs:
        - Accuracies are shares, and the score is in percent. Their code puts accuracies in percent
          into the exponential, so its scores are out of range; those of their leaderboard are not.
        - They average the scores of several seeds. We score the mean accuracies of the seeds, which
          is lower by 0.002 if a has a standard deviation of 0.01 over the seeds.
        - They take the best of several accuracies late in training, at the best of several learning
          rates, and pick both by the test images. We take the accuracy at the end of training, and
          every training set uses the recipe's settings; `real_hard` is the full_data row, which is
          trained as `evaluation.full_data` says.

    Example:
        >>> label_robust_score(real_hard=0.9, synthetic_hard=0.9, synthetic=0.8, random=0.8).score
        26.894142136999513
    """
    for accuracy in (real_hard, synthetic_hard, synthetic, random):
        _check_share("accuracies", accuracy)
    recovery, improvement = real_hard - synthetic_hard, synthetic - random
    return LabelRobustness(
        hard_label_recovery=recovery,
        improvement_over_random=improvement,
        score=_score(improvement, -recovery, weight),
    )


def augmentation_robust_score(
    *,
    synthetic_augmented: float,
    random_augmented: float,
    synthetic_plain: float,
    random_plain: float,
    weight: float = 0.5,
) -> float:
    """Compute ARS of a distilled set, from 0 to 100; accuracies are shares of the test images.

    With g the weight:

        b = g (synthetic_augmented - random_augmented) + (1 - g) (synthetic_plain - random_plain)
        ARS = 100 (e^b - e^-1) / (e - e^-1)

    A set that is no better than random real images, with or without augmentation, has ARS = 26.9.

    Args:
        synthetic_augmented: top-1 after training on the distilled set with its augmentation.
        random_augmented: top-1 after training on as many random real images, augmented the same.
        synthetic_plain: as `synthetic_augmented`, without any augmentation.
        random_plain: as `random_augmented`, without any augmentation.
        weight: weight of the gain with augmentation; the gain without it has 1 - `weight`.

    Raises:
        ValueError: an accuracy or the weight is not in [0, 1].

    Source:
        Li et al., "DD-Ranking" (2025), as in their public code, `ddranking` 0.2.0,
        `AugmentationRobustScore`.

    Differs:
        In the same points as `label_robust_score`.

    Example:
        >>> augmentation_robust_score(
        ...     synthetic_augmented=0.5,
        ...     random_augmented=0.5,
        ...     synthetic_plain=0.3,
        ...     random_plain=0.3,
        ... )
        26.894142136999513
    """
    for accuracy in (synthetic_augmented, random_augmented, synthetic_plain, random_plain):
        _check_share("accuracies", accuracy)
    return _score(synthetic_augmented - random_augmented, synthetic_plain - random_plain, weight)


def _score(first: float, second: float, weight: float) -> float:
    """Return 100 (e^a - e^-1) / (e - e^-1), where a is the weighted mean of the two gains."""
    _check_share("a weight", weight)
    gain = weight * first + (1 - weight) * second
    return 100 * (math.exp(gain) - math.exp(-1)) / (math.e - math.exp(-1))


def _check_share(wanted: str, found: float) -> None:
    if not 0 <= found <= 1:  # also refuses NaN
        msg = f"wanted {wanted} between 0 and 1, found {found}; a percentage must be divided by 100"
        raise ValueError(msg)
