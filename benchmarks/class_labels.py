"""Synthetic and real training sets of recipes under class labels, with the spread of their scores.

The stages that the rows need run as in `d4m run`: for random real images those alone, for real
images through the generator no prototypes, for the others all up to the synthetic images. Then
students are trained on the rows, none of which needs a teacher. All units are stored, so `d4m run`
finds them again.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from d4m.compute import keep_freed_memory
from d4m.environment import compute, find_recipe, store_root
from d4m.pipeline import Pipeline
from d4m.recipe.recipe import Recipe
from d4m.scores.spread import Spread, measure_spread
from d4m.stages.evaluation_scores import EvaluationScores
from d4m.stages.provenance import record_provenance
from d4m.stages.student_runs import StudentRun, run_inputs, student_runs

STAGES = (
    "real_images",
    "generator",
    "latents",
    "synthesis_choice",
    "prototypes",
    "synthetic_images",
)
_LAST_STAGE = {
    "random_real": "real_images",
    "decoded_real": "synthesis_choice",
    "diffused_real": "synthesis_choice",
}
_ROWS = (
    "synthetic",
    "random_real",
    "nearest_real",
    "decoded_prototypes",
    "decoded_real",
    "diffused_real",
)


def main() -> None:
    """Print a table per recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="+", help="names of recipes, or paths")
    parser.add_argument("--validation", action="store_true", help="score on validation images")
    parser.add_argument("--seeds", type=int, help="students per distillation, for the recipe's")
    parser.add_argument("--rows", nargs="*", default=_ROWS, choices=_ROWS)
    asked = parser.parse_args()
    keep_freed_memory()
    for name in asked.recipes:
        changes = {"split": "validation"} if asked.validation else dict[str, Any]()
        changes |= {"seeds": asked.seeds} if asked.seeds else {}
        _show(with_evaluation(find_recipe(name), changes), asked.rows)


def with_evaluation(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return the recipe with changes of its section `evaluation`."""
    evaluation = recipe.settings.evaluation.model_copy(update=changes)
    settings = recipe.settings.model_copy(update={"evaluation": evaluation})
    return replace(recipe, settings=settings)


def _show(recipe: Recipe, rows: Sequence[str]) -> None:
    pipeline = Pipeline(recipe, store_root(), compute())
    last = max(STAGES.index(_LAST_STAGE.get(row, STAGES[-1])) for row in rows)
    for stage in STAGES[: last + 1]:
        report = pipeline.run_stage(stage)
        print(f"{recipe.name}: {stage}, {report.seconds:.0f} s", flush=True)
    runs = [
        run
        for run in student_runs(pipeline.open_context().recipe.settings)
        if run.labels == "hard" and run.training_set in rows
    ]
    of_random = dict[str, np.ndarray]()
    for (training_set, student), own in groupby(
        sorted(runs, key=lambda run: run.training_set != "random_real"),
        key=lambda run: (run.training_set, run.student),
    ):
        scores = _train(pipeline, list(own))
        text = f"{recipe.name}: {training_set}, {student}: {_describe(measure_spread(scores))}"
        if training_set == "random_real":
            of_random[student] = scores
        elif student in of_random:
            lead = measure_spread(scores - of_random[student])
            text += f"; ahead of random_real by {_describe(lead)}"
        print(text, flush=True)


def _train(pipeline: Pipeline, runs: Sequence[StudentRun]) -> np.ndarray:
    """Return the top-1 accuracy of a row's students in percent: distillation x student."""
    context, stage = pipeline.open_context(), EvaluationScores()
    units = [stage.unit(context, run.unit_name, run_inputs(context, run)) for run in runs]
    missing = [unit for unit in units if context.store.find(stage.name, unit.key) is None]
    for unit, made in stage.compute(context, missing):
        assert not callable(made), "scores are arrays"
        context.store.publish_arrays(unit, made, record_provenance(context))
    scores = [context.store.read_arrays(stage.name, unit.key)["top1"] for unit in units]
    distillations = len({run.distillation for run in runs})
    return 100 * np.array(scores, np.float64).reshape(distillations, -1)


def _describe(spread: Spread) -> str:
    error = "" if spread.error is None else f" ± {spread.error:.2f} (standard error)"
    deviation = "" if spread.deviation is None else f", deviation {spread.deviation:.2f}"
    return f"{spread.mean:.2f}{error}{deviation}"


if __name__ == "__main__":
    main()
