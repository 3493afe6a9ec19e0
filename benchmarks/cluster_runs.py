"""Runs of a recipe as commands, whose units are lost and made again."""

import os
import subprocess
import sys
from pathlib import Path

from d4m.compute import Compute
from d4m.pipeline import Pipeline
from d4m.recipe.recipe import load_recipe
from d4m.store.open_storage import parse_root
from tests.conftest import MADE, TINY_RECIPE
from tests.object_stores import BUCKET

D4M = Path(sys.executable).with_name("d4m")


def write_recipe(folder: Path, text: str, name: str = "tiny") -> Path:
    """Write a recipe below a folder, and return its path."""
    path = folder / "recipes" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def run_tiny(folder: Path, prefix: str) -> tuple[Path, dict[str, str], dict[str, str]]:
    """Run the tiny recipe over a bucket, undisturbed; return recipe, environment and digests."""
    recipe = write_recipe(folder, TINY_RECIPE)
    root = {"D4M_STORE": f"s3://{BUCKET}/{prefix}", "D4M_DEVICE": "cpu"}
    finish(start([D4M, "run", recipe], root))
    return recipe, root, digests_of(recipe, root)


def open_pipeline(recipe: Path, root: dict[str, str]) -> Pipeline:
    """Return the pipeline of a recipe over its store."""
    return Pipeline(load_recipe(recipe), parse_root(root["D4M_STORE"]), Compute("cpu"))


def digests_of(recipe: Path, root: dict[str, str]) -> dict[str, str]:
    """Return the digest of every unit of the artifacts that are current."""
    context = open_pipeline(recipe, root).open_context()
    digests = {
        f"{stage}/{name}": record.digest
        for stage, units in context.upstream.items()
        for name, record in units.items()
        if record is not None
    }
    assert digests, f"nothing is made in {root['D4M_STORE']}"
    return digests


def forget(pipeline: Pipeline, stage: str) -> int:
    """Set all units of a stage aside; return how many there were."""
    context = pipeline.open_context()
    units = [record for record in context.upstream.get(stage, {}).values() if record]
    for record in units:
        context.store.set_aside(stage, record.key)
    return len(units)


def start(command: list[Path | str], more: dict[str, str]) -> subprocess.Popen[str]:
    """Start a command in a session of its own, whose output is read."""
    return subprocess.Popen(
        command, env=os.environ | more, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a command that must succeed, and return what it printed."""
    printed = process.communicate()[0]
    assert process.returncode in MADE, printed
    return printed
