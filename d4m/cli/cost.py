"""Print what a run will cost."""

from rich.markup import escape
from rich.table import Table

from d4m.cli.app import console
from d4m.errors import D4MError
from d4m.reports.cost.estimate import CostEstimate, estimate_cost
from d4m.reports.cost.text import LONG_S, cost_lines, cost_rows
from d4m.reports.plan_ahead import Outlook


def print_cost(estimate: CostEstimate) -> None:
    """Print the cost of every stage, and of the whole run."""
    if rows := cost_rows(estimate):
        table = Table(*rows[0], box=None)
        for row in rows:
            table.add_row(*row.values())
        console.print(table)
    for line in cost_lines(estimate):
        console.print(escape(line), soft_wrap=True)


def estimate_here(outlook: Outlook) -> CostEstimate | None:
    """Estimate the cost of a run; where nothing can be measured here, say so in place of it.

    Only its workers may have the device, and no disk may have room for the files of a probe.
    """
    try:
        return estimate_cost(outlook)
    except (D4MError, OSError) as failure:
        console.print(escape(f"no estimate: {failure}"), soft_wrap=True)
        return None


def print_long_cost(outlook: Outlook) -> None:
    """Print the cost of a run that takes more than ten minutes."""
    estimate = estimate_here(outlook)
    if estimate is not None and estimate.seconds > LONG_S:
        print_cost(estimate)
