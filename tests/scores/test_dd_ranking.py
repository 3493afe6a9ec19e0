"""DD-Ranking's two scores, worked by hand, at the ends of their range, and in their order."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d4m.scores.dd_ranking import augmentation_robust_score, label_robust_score

shares = st.floats(0, 1)


def test_label_robust_score_by_hand():
    found = label_robust_score(real_hard=0.9, synthetic_hard=0.5, synthetic=0.7, random=0.6)
    # a = (0.1 - 0.4) / 2 = -0.15
    score = 100 * (0.860707976425 - 0.367879441171) / (2.718281828459 - 0.367879441171)
    assert found.hard_label_recovery == pytest.approx(0.4)
    assert found.improvement_over_random == pytest.approx(0.1)
    assert found.score == pytest.approx(score, rel=1e-9)
    assert found.score == pytest.approx(20.9679, abs=1e-4)


def test_label_robust_score_of_d4m_on_the_leaderboard():
    # CIFAR-10 at ipc 10: HLR 39.88, IOR 9.12, so a = -0.1538
    found = label_robust_score(real_hard=0.8, synthetic_hard=0.4012, synthetic=0.5, random=0.4088)
    assert found.score == pytest.approx(20.829, abs=1e-3)


def test_augmentation_robust_score_by_hand():
    found = augmentation_robust_score(
        synthetic_augmented=0.6, random_augmented=0.4, synthetic_plain=0.3, random_plain=0.4
    )
    # b = (0.2 - 0.1) / 2 = 0.05
    score = 100 * (1.051271096376 - 0.367879441171) / (2.718281828459 - 0.367879441171)
    assert found == pytest.approx(score, rel=1e-9)
    assert found == pytest.approx(29.0755, abs=1e-4)


def test_the_best_and_the_worst_set_have_100_and_0():
    best = label_robust_score(real_hard=0.0, synthetic_hard=1.0, synthetic=1.0, random=0.0)
    worst = label_robust_score(real_hard=1.0, synthetic_hard=0.0, synthetic=0.0, random=1.0)
    assert (best.hard_label_recovery, best.improvement_over_random) == (-1.0, 1.0)
    assert (worst.hard_label_recovery, worst.improvement_over_random) == (1.0, -1.0)
    assert (best.score, worst.score) == pytest.approx((100, 0), abs=1e-9)
    plain = {"synthetic_plain": 1.0, "random_plain": 0.0}
    found = augmentation_robust_score(synthetic_augmented=1.0, random_augmented=0.0, **plain)
    assert found == pytest.approx(100)


def test_the_weight_is_that_of_the_first_term():
    accuracies = {"real_hard": 1.0, "synthetic_hard": 0.75, "synthetic": 0.5, "random": 0.0}
    ends = [label_robust_score(**accuracies, weight=weight).score for weight in (0.0, 0.2, 1.0)]
    spread = math.e - 1 / math.e
    expected = [100 * (math.exp(gain) - 1 / math.e) / spread for gain in (-0.25, -0.1, 0.5)]
    assert ends == pytest.approx(expected)
    augmented = {"synthetic_augmented": 0.5, "random_augmented": 0.0}
    plain = {"synthetic_plain": 0.5, "random_plain": 0.75}
    found = [
        augmentation_robust_score(**augmented, **plain, weight=weight) for weight in (0.0, 1.0)
    ]
    assert found == pytest.approx([expected[0], expected[2]])


@given(real=shares, low=shares, high=shares, random=shares)
def test_a_better_distilled_set_scores_no_less(real, low, high, random):
    low, high = sorted((low, high))
    worse = label_robust_score(real_hard=real, synthetic_hard=low, synthetic=low, random=random)
    better = label_robust_score(real_hard=real, synthetic_hard=high, synthetic=high, random=random)
    assert -1e-12 <= worse.score <= better.score <= 100 + 1e-12


@pytest.mark.parametrize("found", [-0.1, 1.1, 39.88, math.nan, math.inf])
@pytest.mark.parametrize("name", ["real_hard", "synthetic_hard", "synthetic", "random", "weight"])
def test_values_outside_0_to_1_are_refused(name, found):
    shares = dict.fromkeys(["real_hard", "synthetic_hard", "synthetic", "random"], 0.5)
    with pytest.raises(ValueError, match=f"between 0 and 1, found {found}"):
        label_robust_score(**{**shares, name: found})


@pytest.mark.parametrize(
    "name",
    ["synthetic_augmented", "random_augmented", "synthetic_plain", "random_plain", "weight"],
)
def test_values_outside_0_to_1_are_refused_with_augmentation(name):
    shares = dict.fromkeys(
        ["synthetic_augmented", "random_augmented", "synthetic_plain", "random_plain"], 0.5
    )
    with pytest.raises(ValueError, match="between 0 and 1, found 50"):
        augmentation_robust_score(**{**shares, name: 50.0})
