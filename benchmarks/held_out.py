"""Students of recipes, scored on training images that no refinement has among its targets.

Settings of a refinement are chosen so where a recipe has no validation images. Generator and
teacher may have seen the images, as they have for every recipe that is compared.

    python benchmarks/held_out.py RECIPE [RECIPE ...] --rows synthetic random_real --students 2
"""

import argparse
import sys
from collections.abc import Callable
from itertools import takewhile

import numpy as np

from d4m.compute import keep_freed_memory
from d4m.environment import compute, find_recipe, store_root
from d4m.images.evenly import spread_evenly
from d4m.pipeline import STAGES, Pipeline
from d4m.recipe.recipe import Recipe
from d4m.stages.context import StageContext
from d4m.stages.evaluation_scores import EvaluationScores
from d4m.stages.laboratory import Laboratory
from d4m.stages.refined_prototypes import CLASSIFIED, EXPLAINED
from d4m.stages.student_runs import run_inputs, student_runs
from d4m.stages.training_sets import real_set, view_size_px


def main() -> None:
    """Print a line per row, as its students are done; no score is stored."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="+", help="names of recipes, or paths")
    parser.add_argument("--rows", nargs="+", default=["synthetic"], help="training sets")
    parser.add_argument("--students", type=int, default=2, help="of each row, at most")
    parser.add_argument("--images", type=int, default=5000, help="to score on, of all classes")
    asked = parser.parse_args()
    keep_freed_memory()
    for name in asked.recipes:
        _show(find_recipe(name), asked.rows, asked.students, asked.images)


def _show(recipe: Recipe, rows: list[str], students: int, images: int) -> None:
    pipeline = Pipeline(recipe, store_root(), compute())
    for stage in takewhile(lambda stage: stage.name != EvaluationScores.name, STAGES):
        report = pipeline.run_stage(stage.name)
        print(f"{recipe.name}: {stage.name}, {report.seconds:.0f} s", flush=True)
    context, scores = pipeline.open_context(), EvaluationScores()
    choose = _untargeted(context, images)
    scored = real_set(context, "train", size_px=view_size_px(context), choose=choose)
    laboratory = Laboratory(context, scored=scored)
    found = dict[tuple[str, str, str], list[float]]()
    for run in student_runs(context.recipe.settings):
        own = found.setdefault((run.training_set, run.labels, str(run.student)), [])
        if run.training_set in rows and len(own) < students:
            unit = scores.unit(context, run.unit_name, run_inputs(context, run))
            [arrays] = laboratory.train_and_score([unit])
            own.append(100 * float(arrays["top1"]))
            print(f"{recipe.name}: {run.unit_name}, {own[-1]:.2f} %", flush=True)
    print(
        f"\n| {recipe.name}: training set | labels | student | top-1 % of {len(scored):,} images |"
    )
    print("|---|---|---|---|")
    for key, own in found.items():
        if own:
            print(f"| {' | '.join(key)} | {', '.join(f'{each:.2f}' for each in own)} |")


def _untargeted(context: StageContext, images: int) -> Callable[[int], np.ndarray]:
    """Return which training images of each class may be scored on."""
    classes = len(context.class_ids)

    def choose(class_id: int) -> np.ndarray:
        count = len(context.image_index("train", class_id).image_ids)
        targets = [spread_evenly(count, -(-most // classes)) for most in (EXPLAINED, CLASSIFIED)]
        free = np.setdiff1d(np.arange(count), np.concatenate(targets))
        if not free.size:
            name = context.source.class_table.names[class_id]
            sys.exit(f"a refinement has all {count} training images of {name} among its targets")
        return free[spread_evenly(len(free), -(-images // classes))]

    return choose


if __name__ == "__main__":
    main()
