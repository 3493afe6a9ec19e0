"""The work that a kill costs while a VAE, a denoiser, a teacher or a refinement is trained.

`d4m run` makes a recipe of the digits, whose four trainings take minutes, undisturbed in one store.
In another one it is killed with -9 at random moments, and started again until it completes, with
checkpoints as by default. Lost is what is younger than the last thing that the store keeps, a
checkpoint or a unit, and at most the time since the command began. Stops with an error if digests
differ.

    PYTHONPATH=. python benchmarks/interrupted.py
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
from cluster_runs import D4M, digests_of, finish, start, write_recipe

# All that follows the refinement takes seconds.
RECIPE = """\
dataset: {source: digits}
generator:
  compact: {autoencoder: {steps: VAE_STEPS}, denoiser: {steps: DENOISER_STEPS}}
prototypes:
  ipc: 10
  representative: explaining
  refinement: {steps: REFINEMENT_STEPS, labels: both}
teacher: {epochs: TEACHER_EPOCHS}
soft_labels: {epochs: 10}
evaluation: {seeds: 1, baselines: []}
"""


def main() -> None:
    """Run the recipe undisturbed and disturbed; print a row per training."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--least", type=float, default=65, help="seconds from start to kill")
    parser.add_argument("--most", type=float, default=125, help="and at most")
    for training, count in (("vae", 1500), ("denoiser", 1200), ("refinement", 300)):
        parser.add_argument(f"--{training}-steps", type=int, default=count)
    parser.add_argument("--teacher-epochs", type=int, default=350)
    asked = parser.parse_args()
    text = RECIPE
    for name, value in vars(asked).items():
        text = text.replace(name.upper(), str(value))
    os.environ.pop("D4M_CHECKPOINT_SECONDS", None)
    rng, lost = np.random.default_rng(0), dict[str, list[float]]()
    with tempfile.TemporaryDirectory() as name:
        recipe = write_recipe(Path(name), text, "long")
        quiet, disturbed = Path(name, "quiet"), Path(name, "disturbed")
        began = time.time()
        finish(_run(recipe, quiet))
        print(f"undisturbed: {time.time() - began:.0f} s", file=sys.stderr, flush=True)
        process, began = _run(recipe, disturbed), time.time()
        while not _ends_within(process, rng.uniform(asked.least, asked.most)):
            os.killpg(process.pid, signal.SIGKILL)
            killed = time.time()
            process.wait()
            seconds = killed - max([began, *_kept(disturbed)])
            training = _unfinished(disturbed)
            lost.setdefault(training, []).append(seconds)
            print(f"{training}: {seconds:.1f} s lost", file=sys.stderr, flush=True)
            process, began = _run(recipe, disturbed), time.time()
        finish(process)
        assert digests_of(recipe, _root(quiet)) == digests_of(recipe, _root(disturbed))
    print("| killed while it makes | kills | most seconds of work lost |\n|---|---|---|")
    for training, each in lost.items():
        print(f"| {training} | {len(each)} | {max(each):.1f} |")
    print("\nAll digests are those of the undisturbed run.")


def _root(store: Path) -> dict[str, str]:
    return {"D4M_STORE": str(store), "D4M_DEVICE": "cpu"}


def _run(recipe: Path, store: Path) -> subprocess.Popen[str]:
    return start([D4M, "run", recipe], _root(store))


def _ends_within(process: subprocess.Popen[str], seconds: float) -> bool:
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.poll() is not None


def _kept(store: Path) -> Iterator[float]:
    """Yield when every checkpoint and every unit was made."""
    for pattern in ("*.checkpoint", "*.json"):
        for path in (store / "objects").glob(f"*/*/{pattern}"):
            yield path.stat().st_mtime


def _unfinished(store: Path) -> str:
    """Return the first of the four trainings whose unit is missing, or what comes after them."""
    for training, unit in (
        ("the VAE", "generator/*/*/vae"),
        ("the denoiser", "generator/*/*/unet"),
        ("the teacher", "teacher/*/*.json"),
        ("refined prototypes", "prototypes/*/*.json"),
    ):
        if not any((store / "objects").glob(unit)):
            return training
    return "the rest"


if __name__ == "__main__":
    main()
