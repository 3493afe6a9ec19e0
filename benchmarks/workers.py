"""Two workers of Ray with a thread each, compared with one process with one thread.

Every stage that divides is computed by both, one after the other, from the same upstream units.
Digests must be equal. Two ratios are printed:

- of time: the shortest of several runs of each side, as they were taken in pairs. On a machine that
  others share, this says little.
- of CPU time: that of the one process, divided by that of the busiest worker. It is what the ratio
  of time would be if each worker had a core of its own and nobody waited for anything; so it counts
  what dividing the work costs and how evenly it is divided, and not what other processes take.

    python benchmarks/workers.py                        # under three minutes on two idle cores
    python benchmarks/workers.py --students 12 --epochs 300 --rounds 5
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported

import argparse
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from d4m.compute import Compute, WorkerSettings
from d4m.pipeline import STAGES, Pipeline
from d4m.recipe.recipe import load_recipe
from d4m.store.manifest import Manifest
from d4m.workers.ray_cluster import RayCluster
from d4m.workers.ray_workers import RayWorkers
from d4m.workers.registry import open_workers

RECIPE = """\
dataset: {{source: digits}}
generator: {{compact: {{autoencoder: {{steps: 20}}, denoiser: {{steps: 20}}}}}}
prototypes: {{ipc: 10, starts: 1}}
synthesis: {{num_inference_steps: 10}}
teacher: {{epochs: 4, members: 2}}
soft_labels: {{epochs: {epochs}, epochs_per_block: {block}}}
evaluation: {{seeds: {students}, baselines: []}}
"""
# Indexing the images takes less time than giving it to anybody; the generator is two trainings.
LEFT_OUT = ("real_images", "generator")
HEAD = (
    "| stage | units | one process, s | two workers, s | ratio "
    "| CPU, s | busiest worker, s | ratio |\n"
    "|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Run:
    """One computation of a stage.

    Attributes:
        seconds: that passed.
        cpu: of the process that computed most.
    """

    seconds: float
    cpu: float


def main() -> None:
    """Print the seconds of each stage on both sides, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--students", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=2)
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
    start = time.monotonic()
    made = {report.manifest.asset: report.manifest for report in alone.run()}
    print(f"made everything in {time.monotonic() - start:.1f} s", flush=True)
    start = time.monotonic()
    RayCluster(settings)
    print(f"Ray started in {time.monotonic() - start:.1f} s", flush=True)
    start = time.monotonic()
    _again(shared, made["latents"], store)
    print(f"workers started in {time.monotonic() - start:.1f} s\n\n{HEAD}", flush=True)
    total_alone, total_shared = [Run(0.0, 0.0)], [Run(0.0, 0.0)]
    for name in [stage.name for stage in STAGES if stage.divisible or stage.name == "prototypes"]:
        if name in LEFT_OUT or name not in made or not made[name].units:
            continue
        pairs = [
            (_again(alone, made[name], store), _again(shared, made[name], store))
            for _ in range(rounds)
        ]
        one, two = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        print(_row(name, str(len(made[name].units)), _best(one), _best(two)), flush=True)
        total_alone.append(_best(one))
        total_shared.append(_best(two))
    print(_row("together", "", _sum(total_alone), _sum(total_shared)))


def _again(pipeline: Pipeline, made: Manifest, store: Path) -> Run:
    """Compute all units of a stage again; they must be what they were."""
    shutil.rmtree(store / "objects" / made.asset, ignore_errors=True)
    before, start = _cpu_times(), time.monotonic()
    report = pipeline.run_stage(made.asset)
    seconds = time.monotonic() - start
    assert report.manifest == made, f"{made.asset}: other digests"
    spent = {pid: cpu - before.get(pid, 0.0) for pid, cpu in _cpu_times().items()}
    own = spent.pop(os.getpid())
    return Run(seconds, max(spent.values()) if isinstance(pipeline.workers, RayWorkers) else own)


def _cpu_times() -> dict[int, float]:
    """Return the CPU seconds of this process and of Ray's workers."""
    this = psutil.Process()
    family = [this, *(each for each in this.children(recursive=True) if _is_worker(each))]
    times = {each.pid: each.cpu_times() for each in family}
    return {pid: each.user + each.system for pid, each in times.items()}


def _is_worker(process: psutil.Process) -> bool:
    return process.cmdline()[:1] != [] and process.cmdline()[0].startswith("ray::")


def _best(runs: list[Run]) -> Run:
    return Run(min(run.seconds for run in runs), min(run.cpu for run in runs))


def _sum(runs: list[Run]) -> Run:
    return Run(sum(run.seconds for run in runs), sum(run.cpu for run in runs))


def _row(name: str, units: str, one: Run, two: Run) -> str:
    return (
        f"| {name} | {units} | {one.seconds:.1f} | {two.seconds:.1f} "
        f"| {one.seconds / two.seconds:.2f} | {one.cpu:.1f} | {two.cpu:.1f} "
        f"| {one.cpu / two.cpu:.2f} |"
    )


if __name__ == "__main__":
    main()
