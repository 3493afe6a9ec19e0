"""Two workers of Ray with a thread each, compared with one process with one thread.

Every stage that divides is computed by both, one after the other, from the same upstream units:
what a busy machine takes from one it takes from the other. Digests must be equal.

    python benchmarks/workers.py                        # 13 students of about ten seconds
    python benchmarks/workers.py --students 4 --epochs 20 --rounds 1
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from d4m.compute import Compute, WorkerSettings
from d4m.pipeline import STAGES, Pipeline
from d4m.recipe.recipe import load_recipe
from d4m.stages.run import StageReport
from d4m.workers.ray_cluster import RayCluster
from d4m.workers.registry import open_workers

RECIPE = """\
dataset: {{source: digits}}
generator: {{compact: {{autoencoder: {{steps: 100}}, denoiser: {{steps: 100}}}}}}
prototypes: {{ipc: 10}}
teacher: {{epochs: 10, members: 2}}
soft_labels: {{epochs: {epochs}, epochs_per_block: {block}}}
evaluation: {{seeds: {students}, baselines: [random_real]}}
"""
# Indexing the images takes less time than giving it to anybody.
LEFT_OUT = ("real_images", "generator")


def main() -> None:
    """Print the seconds of each stage on both sides, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--students", type=int, default=13)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipes" / "digits.yaml"
        file.parent.mkdir()
        block = max(1, arguments.epochs // 16)
        file.write_text(
            RECIPE.format(students=arguments.students, epochs=arguments.epochs, block=block)
        )
        compare(file, Path(folder) / "store", rounds=arguments.rounds)


def compare(file: Path, store: Path, *, rounds: int) -> None:
    """Run the recipe once, then every stage that divides with both kinds of workers."""
    settings = WorkerSettings("ray", count=2, cpus=1)
    alone, shared = (
        Pipeline(load_recipe(file), store, Compute("cpu"), workers=open_workers(each))
        for each in (WorkerSettings(), settings)
    )
    for report in alone.run():
        print(f"made {report.manifest.asset} in {report.seconds:.1f} s", flush=True)
    start = time.monotonic()
    RayCluster(settings)
    print(f"Ray started in {time.monotonic() - start:.1f} s")
    stages = [stage.name for stage in STAGES if stage.divisible or stage.name == "prototypes"]
    totals = {"alone": 0.0, "shared": 0.0}
    print("stage               units   serial s   2 workers s   ratio")
    for name in stages:
        first = _again(shared, name, store)  # its workers import what they need
        if name in LEFT_OUT or not first.computed:
            continue
        seconds = {"alone": 0.0, "shared": 0.0}
        for _ in range(rounds):
            for kind, pipeline in (("alone", alone), ("shared", shared)):
                report = _again(pipeline, name, store)
                assert report.manifest == first.manifest, f"{name}: other digests"
                seconds[kind] += report.seconds / rounds
                totals[kind] += report.seconds / rounds
        print(_row(name, len(first.computed), seconds), flush=True)
    print(_row("together", 0, totals))


def _again(pipeline: Pipeline, name: str, store: Path) -> StageReport:
    """Compute all units of a stage again."""
    shutil.rmtree(store / "objects" / name, ignore_errors=True)
    return pipeline.run_stage(name)


def _row(name: str, units: int, seconds: dict[str, float]) -> str:
    alone, shared = seconds["alone"], seconds["shared"]
    return f"{name:<20}{units:>5}{alone:>11.2f}{shared:>14.2f}{alone / shared:>8.2f}"


if __name__ == "__main__":
    main()
