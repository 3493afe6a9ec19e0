"""Compare the estimated cost of a run with the run that follows, stage by stage.

    python benchmarks/cost.py recipes/digits.yaml

The run has a store of its own, which is removed. Seconds are those of all CPU threads, which other
processes change little; on a GPU look at the seconds of the clock. Stages that are estimated to
take less than a second are added up in one row, as `d4m status --cost` does.
"""

import argparse
import tempfile
import time
from pathlib import Path

from d4m.environment import compute
from d4m.pipeline import Pipeline
from d4m.recipe.recipe import load_recipe
from d4m.reports.cost.estimate import estimate_cost
from d4m.reports.cost.text import is_short


def main() -> None:
    """Print a row per stage."""
    parser = argparse.ArgumentParser(description="Compare a run's estimated cost with the run.")
    parser.add_argument("recipe", type=Path)
    with tempfile.TemporaryDirectory(prefix="d4m-cost-") as folder:
        pipeline = Pipeline(load_recipe(parser.parse_args().recipe), Path(folder), compute())
        estimate = estimate_cost(pipeline.look_ahead())
        costs = {cost.stage: cost for cost in estimate.stages if cost.units}
        print(f"{'':20} {'CPU s':>17} {'':7} {'clock s':>17}")
        print(f"{'stage':20} {'estimate':>8} {'run':>8} {'ratio':>7} {'estimate':>8} {'run':>8}")
        short, all_ = [0.0] * 4, [0.0] * 4
        worked = time.process_time()
        for report in pipeline.run():
            now = time.process_time()
            spent, worked = now - worked, now
            if (cost := costs.get(report.manifest.asset)) is None:
                continue
            row = [cost.cpu_seconds, spent, cost.seconds, report.seconds]
            all_ = [one + more for one, more in zip(all_, row, strict=True)]
            if is_short(cost):
                short = [one + more for one, more in zip(short, row, strict=True)]
            else:
                _print(cost.stage, row)
        _print("short stages", short)
        _print("all", all_)


def _print(name: str, row: list[float]) -> None:
    estimated, spent, *clock = row
    ratio = f"{estimated / spent:7.2f}" if spent else f"{'-':>7}"
    print(
        f"{name:20} {estimated:8.2f} {spent:8.2f} {ratio} {clock[0]:8.2f} {clock[1]:8.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
