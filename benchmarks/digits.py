"""Distil the digits from scratch, at 10 and at 1 image per class, and print times and memory.

Run it with `make bench` on an otherwise idle machine; benchmarks/README.md reports what it printed.
"""

import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from d4m.store.folder_storage import FolderStorage
from d4m.store.manifest import ManifestFolder

RECIPES = ("digits", "digits_ipc1")


def main() -> None:
    """Run both recipes in a store of their own, then again, and print Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        print(
            f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n"
        )
        for recipe in RECIPES:
            stages, seconds = _run(recipe, folder)
            print(f"## {recipe}\n\n| stage | units | s |\n|---|---|---|")
            for stage, units, taken in stages:
                print(f"| {stage} | {units} | {taken} |")
            print(f"\nfrom scratch {seconds:.0f} s, peak memory {_peak_gib():.2f} GiB")
            _, seconds = _run(recipe, folder)
            print(f"again, nothing changed: {seconds:.1f} s\n")
            print(_d4m("show", recipe, folder))
            print(f"digest of the synthetic images: {_digest(folder, recipe)}\n")


def _run(recipe: str, store: str) -> tuple[list[tuple[str, str, str]], float]:
    start = time.monotonic()
    printed = _d4m("run", recipe, store)
    found = re.findall(r"^(\w+) +(\d+) computed +\d+ reused +([\d.]+) s$", printed, re.MULTILINE)
    return found, time.monotonic() - start


def _d4m(command: str, recipe: str, store: str) -> str:
    program = str(Path(sys.executable).with_name("d4m"))
    environment = {
        "D4M_STORE": store,
        "D4M_DEVICE": "cpu",
        "COLUMNS": "120",
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(
        [program, command, recipe], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def _digest(store: str, recipe: str) -> str:
    """Return a digest of the synthetic images, to compare two runs."""
    manifest = ManifestFolder(FolderStorage(Path(store)), recipe).current("synthetic_images")
    assert manifest is not None, "the recipe has been run"
    return manifest.digest[:16]


def _peak_gib() -> float:
    """Return the most memory that any process of the benchmark has held so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
