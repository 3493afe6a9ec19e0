"""Compare a student's last layer with regressions on its features, as class labels are learnt.

    python benchmarks/last_layers.py fashion_mnist_class_labels_ipc10 --epochs 100 400

The first student of the recipe's row of synthetic images with class labels is trained by the
recipe's protocol. After some epochs its features of eight changed views of each image are given to
the ridge regression and to the logistic one that a refinement can use, and all three are scored on
validation images. Stages up to the synthetic images run first, or are found in the store.
"""

import argparse
from dataclasses import replace

import numpy as np
import torch
from class_labels import STAGES, with_evaluation
from torch import nn
from torch.nn.functional import one_hot

from d4m.classifiers.predict import penultimate_features, predict_logits
from d4m.compute import keep_freed_memory
from d4m.environment import compute, find_recipe, store_root
from d4m.images.image_set import ImageSet
from d4m.pipeline import Pipeline
from d4m.prototypes.kernel_regression import regress, regress_logistically
from d4m.settings import AugmentationSettings
from d4m.stages.evaluation_scores import EvaluationScores
from d4m.stages.laboratory import Laboratory
from d4m.stages.student_runs import read_scored_set, run_inputs, student_runs
from d4m.training.together import Learner
from d4m.training.train import train_with_hard_labels

VIEWS = 8
HEAD = "| epochs | ridge regression | logistic regression | own last layer |\n|---|---|---|---|"


def main() -> None:
    """Print a row of top-1 accuracies for each number of epochs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--epochs", type=int, nargs="+", default=[100, 400])
    asked = parser.parse_args()
    keep_freed_memory()
    recipe = with_evaluation(find_recipe(asked.recipe), {"split": "validation"})
    pipeline = Pipeline(recipe, store_root(), compute())
    for stage in STAGES:
        pipeline.run_stage(stage)
    context = pipeline.open_context()
    run = next(
        run
        for run in student_runs(recipe.settings)
        if (run.training_set, run.labels) == ("synthetic", "hard")
    )
    unit = EvaluationScores().unit(context, run.unit_name, run_inputs(context, run))
    learner = Laboratory(context).learner(unit)
    scored, done = read_scored_set(context, unit.settings), 0
    print(HEAD)

    def watch(model: nn.Module) -> None:
        nonlocal done
        done += 1
        if done in asked.epochs:
            found = _accuracies(model, learner, scored)
            print(f"| {done} | {' | '.join(f'{each:.2%}' for each in found)} |", flush=True)

    training = replace(learner.training, epochs=max(asked.epochs), watch=watch, probe=None)
    train_with_hard_labels(
        learner.model,
        learner.images,
        training,
        augmentation=AugmentationSettings.among(unit.settings["augmentation"]),
        changes=learner.changes,
    )


def _accuracies(model: nn.Module, learner: Learner, scored: ImageSet) -> list[float]:
    """Return the top-1 of both regressions and of the network itself."""
    assert learner.changes is not None, "wanted a recipe with `evaluation.hard.batch_changes`"
    images, rows = learner.images, np.arange(len(learner.images))
    pixels = images.pixels[torch.from_numpy(rows)]
    views = [
        learner.changes.change_singly(pixels, rows, epoch=learner.training.epochs + number)
        for number in range(VIEWS)
    ]
    own = penultimate_features(model, torch.cat(views)).float()
    known = penultimate_features(model, scored.pixels).float()
    labels = one_hot(images.class_ids.repeat(VIEWS)).float()
    answers = [
        regress(known, own, labels - labels.mean(dim=1, keepdim=True)),
        regress_logistically(known, own, labels),
        predict_logits(model, scored.pixels),
    ]
    return [float((each.argmax(1) == scored.class_ids).float().mean()) for each in answers]


if __name__ == "__main__":
    main()
