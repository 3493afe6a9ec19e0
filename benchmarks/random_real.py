"""Random real images of Fashion-MNIST under `preset: [dc, hard]`, and DC's published figures.

The students are units of `evaluation_scores`, made by the pipeline's own stage; no generator is
trained. Published: Zhao et al., "Dataset condensation with gradient matching" (ICLR 2021), table 1,
column Random.
"""

import argparse
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory

from d4m.environment import compute
from d4m.pipeline import Pipeline
from d4m.recipe.recipe import load_recipe
from d4m.stages.evaluation_scores import EvaluationScores
from d4m.stages.student_runs import run_inputs, student_runs

PUBLISHED = {1: "51.4 ± 3.8", 10: "73.8 ± 0.7", 50: "82.5 ± 0.7"}
RECIPE = """\
preset: [dc, hard]
dataset: {{source: fashion_mnist}}
prototypes: {{ipc: {ipc}}}
evaluation: {{seeds: {seeds}, baselines: [random_real]}}
"""


def main() -> None:
    """Train the students and print their accuracy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ipc", nargs="*", type=int, default=[1, 10], help="1, 10 or 50")
    parser.add_argument("--seeds", type=int, default=5, help="draws, with a student each")
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        for ipc in asked.ipc:
            file = Path(folder) / f"random_{ipc}.yaml"
            file.write_text(RECIPE.format(ipc=ipc, seeds=asked.seeds), encoding="utf-8")
            pipeline = Pipeline(load_recipe(file), Path(folder) / "store", compute())
            pipeline.run_stage("real_images")
            context, stage = pipeline.open_context(), EvaluationScores()
            runs = student_runs(context.recipe.settings)
            units = [
                stage.unit(context, run.unit_name, run_inputs(context, run))
                for run in runs
                if run.training_set == "random_real"
            ]
            found = [float(made["top1"]) for _, made in stage.compute(context, units)]
            mean, deviation = fmean(found), stdev(found) if len(found) > 1 else 0.0
            print(
                f"{ipc} per class: {100 * mean:.1f} ± {100 * deviation:.1f} over {len(found)} "
                f"draws with a student each; published {PUBLISHED[ipc]}",
                flush=True,
            )


if __name__ == "__main__":
    main()
