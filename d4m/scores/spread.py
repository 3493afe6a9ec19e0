"""The error of a mean score over independent distillations and the students of each.

Let y_ks be the score of student s = 1..S of distillation k = 1..K, m_k the mean of a distillation
and m the mean of all. Every student has seeds of its own, so students are nested in distillations:

    y_ks = mu + a_k + e_ks,   Var(a): between distillations,   Var(e): between students
    Var(e) = sum_ks (y_ks - m_k)^2 / (K (S - 1))
    Var(a) = max(0, sum_k (m_k - m)^2 / (K - 1) - Var(e) / S)
    error^2 = sum_k (m_k - m)^2 / (K (K - 1)),   interval = m -+ t(K - 1) error

One distillation shows students only: then error^2 = Var(e) / S with S - 1 degrees of freedom, and
the interval says nothing about other distillations.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

CONFIDENCE = 0.95

Standing = Literal["ahead", "level", "behind", "unknown"]


@dataclass(frozen=True)
class Spread:
    """A mean over distillations and students with its error, in the unit of the scores.

    An attribute is None where a single distillation or a single student cannot show it.

    Attributes:
        mean: over all students.
        deviation: standard deviation of the score of one student of one distillation.
        between_distillations: standard deviation of the part that a distillation's students share.
        between_students: standard deviation within a distillation.
        error: standard error of the mean.
        low: the lower end of the interval that has the true mean with probability `CONFIDENCE`.
        high: its upper end.
    """

    mean: float
    deviation: float | None
    between_distillations: float | None
    between_students: float | None
    error: float | None
    low: float | None
    high: float | None

    @property
    def standing(self) -> Standing:
        """The side of 0 on which the interval is: of a difference, who leads by more than chance.

        `level`: 0 is in the interval. `unknown`: there is no interval.
        """
        if self.low is None or self.high is None:
            return "unknown"
        if self.low > 0:
            return "ahead"
        return "behind" if self.high < 0 else "level"


def measure_spread(scores: Float64[np.ndarray, "distillation student"]) -> Spread:
    """Compute the mean of scores, how much they vary, and the error of the mean.

    Args:
        scores: one per distillation and student, or differences of two such scores.

    Source:
        Analysis of variance of the balanced one-way random model: Searle, Casella & McCulloch,
        "Variance Components" (1992), chapter 3.

    Example:
        >>> found = measure_spread(np.array([[1.0, 3.0], [5.0, 7.0]]))
        >>> found.mean, found.error, found.standing
        (4.0, 2.0, 'level')
        >>> round(found.between_distillations, 3), round(found.between_students, 3)
        (2.646, 1.414)
    """
    from scipy.special import stdtrit

    distillations, students = scores.shape
    mean = float(scores.mean())
    of_means = float(scores.mean(axis=1).var(ddof=1)) if distillations > 1 else None
    of_students = float(scores.var(axis=1, ddof=1).mean()) if students > 1 else None
    within = None if of_students is None else of_students**0.5
    between = None
    if of_means is not None and of_students is not None:
        between = max(0.0, of_means - of_students / students) ** 0.5
    variance, count = (of_students, students) if of_means is None else (of_means, distillations)
    if variance is None:
        return Spread(mean, None, None, None, None, None, None)
    total = variance if of_students is None else of_students + (between or 0.0) ** 2
    error = (variance / count) ** 0.5
    reach = error * float(stdtrit(count - 1, (1 + CONFIDENCE) / 2))
    return Spread(mean, total**0.5, between, within, error, mean - reach, mean + reach)
