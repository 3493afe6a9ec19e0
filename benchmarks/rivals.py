"""The digits' rivals: real images and images fitted by other methods, with class labels.

Students are units of `evaluation_scores`, made by the pipeline's own stage. No generator
is trained.
"""

import argparse
from itertools import groupby
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory

from d4m.environment import compute
from d4m.pipeline import Pipeline
from d4m.recipe.recipe import load_recipe
from d4m.stages.evaluation_scores import EvaluationScores
from d4m.stages.laboratory import Laboratory
from d4m.stages.student_runs import run_inputs, student_runs

ROWS = ("random_real", "mosaic_real", "herding", "medoids", "forgetting", "el2n", "dm", "sre2l")
RECIPE = """\
dataset: {{source: digits}}
prototypes: {{ipc: {ipc}}}
teacher:
  options: {{norm: batch}}
  augmentation: {{crop_scale: [0.6, 1], flip: 0, rotation_degrees: 12, cutmix: 0}}
soft_labels: {{epochs: 200, augmentation: {{crop_scale: [0.5, 1], flip: 0, cutmix: 0.5}}}}
evaluation:
  labels: [hard]
  optimizer: {{batch_size: 50, learning_rate: 1.0e-2}}
  seeds: {seeds}
  baselines: [{rows}]
  coresets: {{keep: {keep}}}
  dm: {{steps: {steps}, changes: [color, crop, cutout, scale, rotate]}}
"""


def main() -> None:
    """Make the sets, train the students and print their accuracy as Markdown."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3, help="students per row")
    parser.add_argument("--steps", type=int, default=2000, help="of distribution matching")
    parser.add_argument("--keep", choices=("easiest", "hardest"), default="easiest")
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "rivals.yaml"
        file.write_text(RECIPE.format(**vars(asked), rows=", ".join(ROWS)), encoding="utf-8")
        pipeline = Pipeline(load_recipe(file), Path(folder) / "store", compute())
        for stage in ("real_images", "teacher", "baseline_images"):
            report = pipeline.run_stage(stage)
            print(f"{stage}: {report.seconds:.0f} s", flush=True)
        context, scores = pipeline.open_context(), EvaluationScores()
        runs = [run for run in student_runs(context.recipe.settings) if run.training_set in ROWS]
        laboratory = Laboratory(context)
        print("| training set | top-1 |\n|---|---|")
        for name, each in groupby(runs, lambda run: run.training_set):
            units = [scores.unit(context, run.unit_name, run_inputs(context, run)) for run in each]
            found = [
                float(made["top1"]) for unit in units for made in laboratory.train_and_score([unit])
            ]
            deviation = stdev(found) if len(found) > 1 else 0.0
            print(f"| {name} | {100 * fmean(found):.2f} ± {100 * deviation:.2f} |", flush=True)


if __name__ == "__main__":
    main()
