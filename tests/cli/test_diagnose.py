"""Diagnose: the tables are what the library measures."""

from d4m.reports.diagnostics import measure_redundancy, relate_objectives
from tests.cli.commands import call


def test_diagnose_prints_redundancy_and_the_worth_of_objectives(finished_once):
    options = ("--parts", 3, "--sets", 3, "--steps", 1)
    lines = call(finished_once, "diagnose", "tiny", *options)
    context = finished_once.pipeline().present_context()
    for name in ("synthetic", "random_real"):
        between = measure_redundancy(context, name, parts=3).between
        assert [line.split() for line in lines if line.split()[:1] == [name]][-1] == [
            name,
            *f"mean of the others: {100 * between:.1f}".split(),
        ]
    for name, relation in relate_objectives(context, sets=3, steps=1).items():
        shown = [f"{relation.spearman:+.2f}", f"{relation.chance:.3f}"]
        assert [line.split() for line in lines if line.strip().startswith(name)] == [
            [*name.split(), *shown]
        ]
