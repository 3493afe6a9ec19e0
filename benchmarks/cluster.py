"""Stores in a bucket and workers of Ray at length: cost of a unit, 1,000 classes, delays, kills.

A SeaweedFS server on this machine holds the bucket. Each part prints a Markdown table, and stops
with an error where digests differ or something that is stored is computed again.

    make bench-cluster                                     # all parts; hours on two cores
    PYTHONPATH=. python benchmarks/cluster.py units        # what a unit without work costs
    PYTHONPATH=. python benchmarks/cluster.py classes --classes 100 1000
    PYTHONPATH=. python benchmarks/cluster.py writers --rounds 20
    PYTHONPATH=. python benchmarks/cluster.py writers --rounds 5 --processes 2
    PYTHONPATH=. python benchmarks/cluster.py kills --kills 60
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cluster_kills import VICTIMS, measure_kills
from cluster_runs import (
    D4M,
    digests_of,
    finish,
    forget,
    open_pipeline,
    run_tiny,
    start,
    write_recipe,
)
from delay import delayed
from scale import RECIPE, write_images
from small_pipelines import save_pipeline

from d4m.pipeline import STAGES
from tests.conftest import MADE, TINY_RECIPE
from tests.object_stores import BUCKET, SeaweedFS, environment

COUNTED = re.compile(r"^(\d+) units computed in ", re.MULTILINE)
DELAY_S = 0.02
MOST_TIMES = 1.2
TWO_WORKERS = {"D4M_WORKERS": "ray", "D4M_WORKER_COUNT": "2", "D4M_WORKER_CPUS": "1"}
MEASURED = """\
import resource, subprocess, sys
from pathlib import Path
code = subprocess.call(sys.argv[2:])
Path(sys.argv[1]).write_text(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""
UNITS = """\
import sys, tempfile, time
from pathlib import Path
from d4m.compute import Compute, WorkerSettings
from d4m.recipe.recipe import load_recipe
from d4m.stages.context import StageContext
from d4m.stages.run import run_stage
from d4m.store.open_storage import parse_root
from d4m.store.store import ArtifactStore
from d4m.workers.registry import open_workers
from tests.workers.stages import Squares
recipe, root, count, workers = sys.argv[1:]
store = ArtifactStore(parse_root(root))
context = StageContext.open(load_recipe(Path(recipe)), store, Compute("cpu"))
settings = WorkerSettings() if workers == "serial" else WorkerSettings("ray", count=2, cpus=1)
compute = open_workers(settings).compute
with tempfile.TemporaryDirectory() as seen:
    warm = Squares(Path(seen), count=8)
    warm.version = "warm"
    run_stage(warm, context, compute)
    begun = time.monotonic()
    report = run_stage(Squares(Path(seen), count=int(count)), context, compute)
    assert len(report.computed) == int(count)
    print(time.monotonic() - begun)
"""


def main() -> None:
    """Run the parts that are asked for, each over a bucket of its own prefix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[])
    parser.add_argument("--units", type=int, default=1_000)
    parser.add_argument("--classes", type=int, nargs="+", default=[100, 1_000])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--processes", type=int, choices=(1, 2), default=1)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=VICTIMS, help="of kills")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = SeaweedFS(folder / "server")
        server.start()
        try:
            with environment(server.address, folder / "cache"):
                for part in arguments.parts or PARTS:
                    PARTS[part](arguments, folder / part, server)
        finally:
            server.kill()


def measure_units(arguments: argparse.Namespace, folder: Path, server: SeaweedFS) -> None:
    """Print what a unit costs of which there is nothing to compute."""
    del server
    recipe = write_recipe(folder, TINY_RECIPE)
    print("| store | workers | units | ms per unit | driver's memory, MiB |\n|---|---|---|---|---|")
    for kind in ("folder", "bucket"):
        for workers in ("serial", "two of Ray"):
            for count in (arguments.units // 10, arguments.units):
                name = f"{workers[:3]}-{count}"
                root = folder / name if kind == "folder" else f"s3://{BUCKET}/{name}"
                command = [sys.executable, "-c", UNITS, recipe, root, str(count), workers]
                printed, peak = _watched(command, {})
                each = 1000 * float(printed.split()[-1]) / count
                print(f"| {kind} | {workers} | {count:,} | {each:.1f} | {peak:.0f} |", flush=True)


def measure_classes(arguments: argparse.Namespace, folder: Path, server: SeaweedFS) -> None:
    """Run a recipe over many classes with two workers, twice, and once more with a delay."""
    save_pipeline(folder / "model", "tiny", 16)
    print(
        "| classes | units | run, s | driver's memory, MiB | nothing to do, s "
        f"| the same, {1000 * DELAY_S:.0f} ms of delay, s |\n|---|---|---|---|---|---|"
    )
    for classes in arguments.classes:
        write_images(folder / f"{classes}", classes)
        images, model = folder / f"{classes}", folder / "model"
        text = RECIPE.format(images=images, model=model, size_px=16)
        recipe = write_recipe(folder, text, f"classes_{classes}")
        root = {"D4M_STORE": f"s3://{BUCKET}/classes-{classes}", "D4M_DEVICE": "cpu"}
        begun = time.monotonic()
        printed, peak = _watched([D4M, "run", recipe], root | TWO_WORKERS)
        seconds, units = time.monotonic() - begun, _counted(printed)
        idle_s = _nothing_to_do(recipe, root)
        with delayed(server.address, DELAY_S) as slow:
            slow_s = _nothing_to_do(recipe, root | {"AWS_ENDPOINT_URL": slow})
        print(
            f"| {classes:,} | {units:,} | {seconds:.0f} | {peak:.0f} | {idle_s:.1f} "
            f"| {slow_s:.1f} |",
            flush=True,
        )


def measure_writers(arguments: argparse.Namespace, folder: Path, server: SeaweedFS) -> None:
    """Run four writers of one recipe at once, over and over, with other units lost each time.

    A writer is a `d4m run`, a process that computes with one thread and writes with several. With
    `--processes 2`, each is a driver whose units are computed and written by two workers of a Ray
    of its own. In both, runs divide the work by claims, which the driver takes. Work that is done
    more than 1.2 times ends the part with an error.
    """
    del server
    recipe, root, digests = run_tiny(folder, "writers")
    on = root | (TWO_WORKERS if arguments.processes == 2 else {})
    rng, needed, done = np.random.default_rng(4), 0, 0
    for _ in range(arguments.rounds):
        pipeline = open_pipeline(recipe, root)
        for stage in rng.choice([stage.name for stage in STAGES], 3, replace=False):
            needed += forget(pipeline, str(stage))
        command = [D4M, "run", recipe]
        writers = [start(command, on) for _ in range(4)]
        printed = [finish(writer) for writer in writers]
        done += sum(map(_counted, printed))
        assert digests_of(recipe, root) == digests
        assert done <= MOST_TIMES * needed, f"{needed} units were needed, {done} computed"
    print("| rounds of four writers | units needed | computed | times |\n|---|---|---|---|")
    print(f"| {arguments.rounds} | {needed:,} | {done:,} | {done / max(needed, 1):.2f} |")


PARTS: dict[str, Callable[[argparse.Namespace, Path, SeaweedFS], None]] = {
    "units": measure_units,
    "classes": measure_classes,
    "writers": measure_writers,
    "kills": measure_kills,
}


def _watched(command: list[Path | str], more: dict[str, str]) -> tuple[str, float]:
    """Return what a command prints, and the peak memory of its largest process in MiB.

    A small process starts it: `ru_maxrss` begins at the memory of whoever starts a process.
    """
    with tempfile.TemporaryFile("w+") as printed, tempfile.NamedTemporaryFile("r") as peak:
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, peak.name, *command],
            env=os.environ | more,
            stdout=printed,
            check=False,
        )
        assert done.returncode in MADE, "the error is printed above"
        printed.seek(0)
        return printed.read(), int(peak.read()) / 1024


def _counted(printed: str) -> int:
    found = COUNTED.search(printed)
    assert found is not None, printed
    return int(found[1])


def _nothing_to_do(recipe: Path, root: dict[str, str]) -> float:
    """Return the seconds of a run that computes nothing."""
    begun = time.monotonic()
    printed = finish(start([D4M, "run", recipe], root))
    assert _counted(printed) == 0, printed
    return time.monotonic() - begun


if __name__ == "__main__":
    main()
