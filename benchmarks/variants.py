"""Variants of a recipe, scored on validation images, through the store.

Variants share artifacts through the store, and a script that was stopped can go on.
"""

import json
import logging
import tempfile
from collections.abc import Mapping
from copy import deepcopy
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

SOFT: Edits = {"students": ["convnet3"], "labels": ["soft"]}
"""The keys of `evaluation` for a convnet3 student on soft labels."""


def score_variant(
    edits: Edits, *, evaluation: Edits, of: str = "fashion_mnist_ipc10"
) -> list[ScoreRow]:
    """Return the rows of a variant's score table.

    Args:
        edits: keys of the recipe with dots between sections, and the values they get.
        evaluation: keys of `evaluation` that replace the recipe's.
        of: the recipe that is varied.
    """
    keep_freed_memory()
    spin_briefly()
    logging.basicConfig(level=logging.WARNING)
    default = find_recipe(of)
    recipe = YAML(typ="safe").load(default.folder / f"{default.name}.yaml")
    recipe["evaluation"] |= {"split": "validation", **evaluation}
    for key, value in edits.items():
        *sections, last = key.split(".")
        place = recipe
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = deepcopy(value)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "variant.yaml"
        path.write_text(json.dumps(recipe), encoding="utf-8")
        pipeline = Pipeline(load_recipe(path), store_root(), compute())
        for stage in STAGES:
            pipeline.run_stage(stage.name)
            if stage.name == EvaluationScores.name:
                break
        context = pipeline.open_context()
        return score_rows(context, context.recipe.settings)


def cell(row: ScoreRow) -> str:
    """Format a mean in percent, with the deviation if there are several students."""
    spread = f" ± {100 * row.top1_std:.2f}" if row.students > 1 else ""
    return f"{100 * row.top1:.2f}{spread}"
