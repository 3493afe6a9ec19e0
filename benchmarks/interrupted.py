"""The work that a kill costs while a VAE, a denoiser, a teacher or a refinement is trained.

`d4m run` makes a recipe of the digits, whose four trainings take minutes, undisturbed in one store.
In another one it is killed with -9 at random moments, and started again until it completes, with
checkpoints as by default. Lost is what is younger than the last thing that the store keeps, a
checkpoint or a unit, and at most the time since the command began. Stops with an error if digests
differ.

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

from d4m.compute import Compute
from d4m.pipeline import Pipeline
from d4m.recipe.recipe import load_recipe

D4M = str(Path(sys.executable).with_name("d4m"))
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
    rng, lost = np.random.default_rng(0), dict[str, list[float]]()
    with tempfile.TemporaryDirectory() as name:
        recipe, quiet, disturbed = (
            Path(name, each) for each in ("long.yaml", "quiet", "disturbed")
        )
        recipe.write_text(text, encoding="utf-8")
        began = time.time()
        _start(recipe, quiet).wait()
        print(f"undisturbed: {time.time() - began:.0f} s", file=sys.stderr, flush=True)
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
        assert _digests(recipe, quiet) == _digests(recipe, disturbed)
    print("| killed while it makes | kills | most seconds of work lost |\n|---|---|---|")
    for training, each in lost.items():
        print(f"| {training} | {len(each)} | {max(each):.1f} |")
    print("\nAll digests are those of the undisturbed run.")


def _start(recipe: Path, store: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if "CHECKPOINT" not in name}
    return subprocess.Popen(
        [D4M, "run", str(recipe)],
        env=environment | {"D4M_STORE": str(store), "D4M_DEVICE": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


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
