"""Diagnose: the tables are what the library measures."""

import numpy as np
import pytest

from d4m.cli.app import console
from d4m.cli.diagnose import _relation_table
from d4m.reports.diagnostics import Relation, measure_redundancy
from tests.cli.commands import call


def test_diagnose_prints_how_well_parts_know_one_another(finished_once):
    lines = call(finished_once, "diagnose", "tiny", "--parts", 3, "--sets", 0)
    context = finished_once.pipeline().present_context()
    for name in ("synthetic", "random_real"):
        between = measure_redundancy(context, name, parts=3).between
        assert [line.split() for line in lines if line.split()[:1] == [name]][-1] == [
            name,
            *f"mean of the others: {100 * between:.1f}".split(),
        ]


def test_an_objective_has_its_rank_correlation_and_how_likely_that_is_by_chance():
    values, errors = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.1, 0.2, 0.4, 0.3])
    with console.capture() as capture:
        console.print(_relation_table({"mean features": Relation(values, errors)}))
    last = capture.get().splitlines()[-1].split()
    # 1 - 6 x 2 / (4 x 15); of the 24 orders of four sets, 4 are as good and 4 as bad
    assert last == ["mean", "features", "+0.80", "0.333"]


def test_three_sets_in_one_order_may_well_be_chance_and_twenty_are_none():
    few, many = (Relation(np.arange(float(n)), np.arange(n) / n) for n in (3, 20))
    assert (few.spearman, few.chance) == pytest.approx((1, 2 / 6))
    assert (many.spearman, many.chance) == pytest.approx((1, 2 / 10_000))  # none of 9,999 is as far


@pytest.mark.parametrize("equal", ["values", "errors"])
def test_sets_that_are_all_equal_have_no_rank_correlation(equal):
    figures = {"values": np.arange(3.0), "errors": np.arange(3.0)} | {equal: np.full(3, 0.5)}
    with console.capture() as capture:
        console.print(_relation_table({"mean features": Relation(**figures)}))
    assert "none: all sets are equal" in capture.get().splitlines()[-1]
