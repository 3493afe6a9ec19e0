"""Variants of `recipes/fashion_mnist_ipc10.yaml`, scored on validation images, through the store.

Variants share artifacts through the store, and a script that was stopped can go on.
"""

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from d4m.compute import keep_freed_memory, spin_briefly
from d4m.environment import compute, find_recipe, store_root
from d4m.pipeline import STAGES, Pipeline
from d4m.recipe.recipe import load_recipe
from d4m.stages.evaluation_scores import EvaluationScores
from d4m.stages.score_table import ScoreRow, score_rows

Edits = Mapping[str, Any]

_ONLY = {"students": ["convnet3"], "labels": ["soft"], "split": "validation"}


def score_variant(edits: Edits, *, baselines: list[str], seeds: int) -> dict[str, ScoreRow]:
    """Return the rows of a convnet3 student on soft labels, by training set.

    Args:
        edits: keys of the recipe with dots between sections, and the values they get.
        baselines: training sets to compare with the synthetic images.
        seeds: students per row.
    """
    keep_freed_memory()
    spin_briefly()
    logging.basicConfig(level=logging.WARNING)
    default = find_recipe("fashion_mnist_ipc10")
    recipe = YAML(typ="safe").load(default.folder / f"{default.name}.yaml")
    recipe["evaluation"] |= _ONLY | {"baselines": baselines, "seeds": seeds}
    for key, value in edits.items():
        *sections, last = key.split(".")
        place = recipe
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "variant.yaml"
        path.write_text(json.dumps(recipe), encoding="utf-8")
        pipeline = Pipeline(load_recipe(path), store_root(), compute())
        for stage in STAGES:
            pipeline.run_stage(stage.name)
            if stage.name == EvaluationScores.name:
                break
        context = pipeline.open_context()
        rows = score_rows(context, context.recipe.settings)
        return {row.training_set: row for row in rows}


def cell(row: ScoreRow) -> str:
    """Format a mean in percent, with the deviation if there are several students."""
    spread = f" ± {100 * row.top1_std:.2f}" if row.students > 1 else ""
    return f"{100 * row.top1:.2f}{spread}"
