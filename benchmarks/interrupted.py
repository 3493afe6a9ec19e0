"""The work that a kill costs while a VAE, a denoiser, a teacher or a refinement is trained.

A recipe of the digits, whose four trainings take minutes, runs undisturbed in one store. In
another one its run is killed with -9 at random moments, and started again until it completes, with
checkpoints every 60 seconds, as by default. Lost is what is younger than the last thing that the
store keeps, a checkpoint or a unit, and at most the time since the run began. Stops with an error
if digests differ.

    python benchmarks/interrupted.py
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from d4m.compute import Compute, keep_freed_memory
from d4m.pipeline import STAGES, Pipeline
from d4m.recipe.recipe import load_recipe

RECIPE = """\
dataset: {source: digits}
generator:
  compact: {autoencoder: {steps: 5000}, denoiser: {steps: 4000}}
prototypes: {ipc: 10, representative: explaining, refinement: {steps: 300, labels: both}}
teacher: {epochs: 400}
"""
LAST = "prototypes"


def main() -> None:
    """Run the recipe undisturbed and disturbed; print a row per training."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--least", type=float, default=65, help="seconds from start to kill")
    parser.add_argument("--most", type=float, default=125, help="seconds from start to kill")
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        _run_stages(*asked.child)
        return
    rng, lost = np.random.default_rng(0), dict[str, list[float]]()
    with tempfile.TemporaryDirectory() as name:
        recipe, quiet, disturbed = (
            Path(name, each) for each in ("long.yaml", "quiet", "disturbed")
        )
        recipe.write_text(RECIPE, encoding="utf-8")
        assert _start(recipe, quiet).wait() == 0
        process, began = _start(recipe, disturbed), time.time()
        while not _ends_within(process, rng.uniform(asked.least, asked.most)):
            os.killpg(process.pid, signal.SIGKILL)
            killed = time.time()
            process.wait()
            seconds = killed - max([began, *_kept(disturbed)])
            training = _unfinished(disturbed)
            lost.setdefault(training, []).append(seconds)
            print(f"{training}: {seconds:.1f} s lost", file=sys.stderr, flush=True)
            process, began = _start(recipe, disturbed), time.time()
        assert process.returncode == 0
        assert _digests(recipe, quiet) == _digests(recipe, disturbed)
    print("| killed in the training of | kills | most seconds of work lost |\n|---|---|---|")
    for training, seconds in lost.items():
        print(f"| {training} | {len(seconds)} | {max(seconds):.1f} |")
    print("\nAll digests are those of the undisturbed run.")


def _start(recipe: Path, store: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if "CHECKPOINT" not in name}
    command = [sys.executable, __file__, "--child", str(recipe), str(store)]
    return subprocess.Popen(command, env=environment, start_new_session=True)


def _run_stages(recipe: Path, store: Path) -> None:
    keep_freed_memory()
    pipeline = Pipeline(load_recipe(recipe), store, Compute("cpu"))
    for stage in STAGES:
        pipeline.run_stage(stage.name)
        if stage.name == LAST:
            return


def _ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.poll() is not None


def _kept(store: Path) -> Iterator[float]:
    """Yield when every checkpoint and every unit was made."""
    for pattern in ("*.checkpoint", "*.json"):
        for path in (store / "objects").glob(f"*/*/{pattern}"):
            yield path.stat().st_mtime


def _unfinished(store: Path) -> str:
    """Return the first of the four trainings whose unit is missing."""
    for training, unit in (
        ("the VAE", "generator/*/*/vae"),
        ("the denoiser", "generator/*/*/unet"),
    ):
        if not any((store / "objects").glob(unit)):
            return training
    teacher = any((store / "objects" / "teacher").glob("*/*.json"))
    return "the refinement, or what comes before it" if teacher else "the teacher"


def _digests(recipe: Path, store: Path) -> dict[str, str]:
    context = Pipeline(load_recipe(recipe), store, Compute("cpu")).open_context()
    return {
        f"{stage}/{name}": record.digest
        for stage, units in context.upstream.items()
        for name, record in units.items()
        if record is not None
    }


if __name__ == "__main__":
    main()
