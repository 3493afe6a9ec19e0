"""The error of a mean over distillations and students."""

import numpy as np
import pytest
from scipy import stats

from d4m.scores.spread import CONFIDENCE, measure_spread


def test_variance_components_and_error_by_hand():
    """Means 2, 6 and 10; within each distillation the deviation is that of a - 1 and a + 1."""
    found = measure_spread(np.array([[1.0, 3.0], [5.0, 7.0], [9.0, 11.0]]))
    assert found.mean == 6
    assert found.between_students == pytest.approx(2**0.5)
    assert found.between_distillations == pytest.approx((16 - 2 / 2) ** 0.5)
    assert found.deviation == pytest.approx((15 + 2) ** 0.5)
    assert found.error == pytest.approx((16 / 3) ** 0.5)
    reach = 4.302652729911275 * (16 / 3) ** 0.5  # t of 2 degrees of freedom, at 97.5 %
    assert (found.low, found.high) == pytest.approx((6 - reach, 6 + reach))


def test_the_interval_of_one_distillation_is_that_of_its_students():
    scores = np.random.default_rng(0).normal(0.8, 0.02, size=(1, 5))
    found = measure_spread(scores)
    expected = stats.ttest_1samp(scores[0], 0.0).confidence_interval(CONFIDENCE)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.error == pytest.approx(stats.sem(scores[0]))
    assert found.between_distillations is None
    assert found.deviation == found.between_students == pytest.approx(np.std(scores, ddof=1))


def test_the_interval_of_several_distillations_is_that_of_their_means():
    scores = np.random.default_rng(1).normal(0.8, 0.02, size=(4, 3))
    found = measure_spread(scores)
    expected = stats.ttest_1samp(scores.mean(axis=1), 0.0).confidence_interval(CONFIDENCE)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    within = stats.f_oneway(*scores)  # F is the ratio of the two mean squares
    between = 3 * scores.mean(axis=1).var(ddof=1)
    assert found.between_students == pytest.approx((between / within.statistic) ** 0.5)


def test_one_student_per_distillation_leaves_its_parts_unknown():
    found = measure_spread(np.array([[0.7], [0.9]]))
    assert found.between_students is found.between_distillations is None
    assert found.deviation == pytest.approx(0.2 / 2**0.5)
    assert found.error == pytest.approx(0.1)


def test_a_single_student_has_a_mean_and_no_interval():
    found = measure_spread(np.array([[0.7]]))
    assert found.mean == 0.7
    assert (found.deviation, found.error, found.low, found.high) == (None,) * 4
    assert found.standing == "unknown"


def test_students_who_differ_more_than_distillations_leave_nothing_between_these():
    found = measure_spread(np.array([[0.0, 2.0], [0.5, 1.5]]))
    assert found.between_distillations == 0
    assert found.error == 0


@pytest.mark.parametrize(
    ("centre", "standing"), [(0.10, "ahead"), (0.0, "level"), (-0.10, "behind")]
)
def test_a_difference_stands_where_its_interval_is(centre, standing):
    found = measure_spread(centre + np.array([[-0.01], [0.0], [0.01]]))
    assert found.low < centre < found.high
    assert found.standing == standing


def test_the_interval_covers_the_true_mean_as_often_as_it_says_whatever_distillations_differ_by():
    """Tables of 5 x 3 students, deviations 0.65 between distillations and 1.11 between students.

    The deviation of students alone gives intervals that are too short.
    """
    draw = np.random.default_rng(2)
    tables = draw.normal(0, 0.65, (4000, 5, 1)) + draw.normal(0, 1.11, (4000, 5, 3))
    found = [measure_spread(table) for table in tables]
    covered = np.mean([each.low <= 0 <= each.high for each in found])
    assert covered == pytest.approx(CONFIDENCE, abs=0.01)
    one = [measure_spread(table[:1]) for table in tables]
    assert np.mean([each.low <= 0 <= each.high for each in one]) < 0.92
    assert np.mean([e.between_students**2 for e in found]) == pytest.approx(1.11**2, rel=0.02)
