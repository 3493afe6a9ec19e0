"""DD-Ranking's scores: what distilled images are worth beyond labels and augmentation."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LabelRobustness:
    """The label-robust score and the two differences that it is made of.

    Attributes:
        hard_label_recovery: HLR, what students lose on hard labels when the distilled set takes the
            place of the whole one; a share of the test images from -1 to 1, smaller is better.
        improvement_over_random: IOR, what students gain over as many random real images; from -1 to
            1, larger is better.
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
    """HLR, IOR and LRS of a distilled set; accuracies are shares of the test images.

    A set that is as good as random real images and loses nothing on hard labels has 26.9.

    Args:
        real_hard: top-1 after training on the whole real set, with hard labels.
        synthetic_hard: top-1 after training on the distilled set, with hard labels.
        synthetic: top-1 after training on the distilled set as its method would (soft labels).
        random: top-1 after training likewise on as many random real images.
        weight: of IOR; HLR has the rest. The leaderboard's is 0.5.

    Raises:
        ValueError: an accuracy or the weight is not in [0, 1].

    Source:
        Li et al., "DD-Ranking: Rethinking the evaluation of dataset distillation" (2025):
        a = w IOR - (1 - w) HLR, and LRS = (e^a - e^-1) / (e - e^-1); as in their public code,
        `ddranking` 0.2.0, `LabelRobustScoreSoft`.

    Differs:
        - Accuracies are shares and the score is in percent. Their code feeds accuracies in percent
          to the exponential, which takes its score out of the range; their leaderboard does not.
        - Theirs are means of each seed's score. The score of the seeds' mean accuracies is lower,
          by 0.002 where a deviates by 0.01 over the seeds.
        - Theirs are the best of several accuracies late in training, at the best of several
          learning rates, both picked by the test images. Ours are of the trained students, every
          training set with the recipe's settings; `real_hard` is the full_data row, which has
          `evaluation.full_data_epochs`.

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
    """ARS of a distilled set, from 0 to 100; accuracies are shares of the test images.

    A set that is as good as random real images, with and without augmentation, has 26.9.

    Args:
        synthetic_augmented: top-1 after training on the distilled set with its augmentation.
        random_augmented: top-1 after training likewise on as many random real images.
        synthetic_plain: as `synthetic_augmented`, without any augmentation.
        random_plain: as `random_augmented`, without any augmentation.
        weight: of the gain with augmentation; the gain without has the rest.

    Raises:
        ValueError: an accuracy or the weight is not in [0, 1].

    Source:
        Li et al., "DD-Ranking" (2025): b = g (synthetic - random, augmented) + (1 - g) (synthetic -
        random, plain), and ARS = (e^b - e^-1) / (e - e^-1); as in their public code, `ddranking`
        0.2.0, `AugmentationRobustScore`.

    Differs:
        As `label_robust_score` does.

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
    """Percent of the way from e^-1 to e that e to the weighted mean of both gains has come."""
    _check_share("a weight", weight)
    gain = weight * first + (1 - weight) * second
    return 100 * (math.exp(gain) - math.exp(-1)) / (math.e - math.exp(-1))


def _check_share(wanted: str, found: float) -> None:
    if not 0 <= found <= 1:  # also refuses NaN
        msg = f"wanted {wanted} between 0 and 1, found {found}; a percentage must be divided by 100"
        raise ValueError(msg)
