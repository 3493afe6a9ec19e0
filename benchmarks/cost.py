"""Compare the estimated cost of a run with the run that follows, stage by stage.

    python benchmarks/cost.py recipes/digits.yaml

The run has a store of its own, which is removed. Seconds are those of all CPU threads, which other
processes change little; on a GPU look at the seconds of the clock.
"""

import argparse
import tempfile
import time
from pathlib import Path

from d4m.environment import compute
from d4m.pipeline import Pipeline
from d4m.recipe.recipe import load_recipe
from d4m.reports.cost.estimate import estimate_cost


def main() -> None:
    """Print a row per stage."""
    parser = argparse.ArgumentParser(description="Compare a run's estimated cost with the run.")
    parser.add_argument("recipe", type=Path)
    with tempfile.TemporaryDirectory(prefix="d4m-cost-") as folder:
        pipeline = Pipeline(load_recipe(parser.parse_args().recipe), Path(folder), compute())
        estimate = estimate_cost(pipeline.look_ahead())
        costs = {cost.stage: cost for cost in estimate.stages}
        print(f"{'':20} {'CPU s':>17} {'':7} {'clock s':>17}")
        print(f"{'stage':20} {'estimate':>8} {'run':>8} {'ratio':>7} {'estimate':>8} {'run':>8}")
        worked = time.process_time()
        for report in pipeline.run():
            cost, now = costs[report.manifest.asset], time.process_time()
            spent, worked = now - worked, now
            ratio = f"{cost.cpu_seconds / spent:7.2f}" if spent > 0.01 else f"{'-':>7}"
            print(
                f"{cost.stage:20} {cost.cpu_seconds:8.2f} {spent:8.2f} {ratio} "
                f"{cost.seconds:8.2f} {report.seconds:8.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
