"""Measure each upgrade: D4M as published, every upgrade alone, the default, and other trials.

Every row is `recipes/fashion_mnist_ipc10.yaml` with some keys changed and scored on validation
images. Rows share artifacts through the store. Run it with `make ablation`. If it was stopped, run
it again: nothing that is stored is computed twice.
"""

import argparse
from collections.abc import Iterable

from variants import SOFT, Edits, cell, score_variant

# The published values of the keys that the default changes. Sampler, number of steps, epochs and
# the teacher (a ConvNet as for the paper's small data sets) are the same in all rows.
AS_PUBLISHED: dict[str, Edits] = {
    "prototypes that explain the teacher": {
        "prototypes.method": "minibatch_kmeans",
        "prototypes.representative": "mean",
        "prototypes.refinement_steps": 0,
    },
    "less noise": {"synthesis.strength": 0.7},
    "less guidance": {"synthesis.guidance_scale": 8.0},
    "milder crops, MixUp": {
        "soft_labels.augmentation": {"crop_scale": [0.08, 1.0], "cutmix": 1.0, "mixup": 0.0}
    },
    "temperature 4": {"evaluation.matching.temperature": 20.0},
    "Muon in small batches": {
        "evaluation.optimizer.name": "adamw",
        "evaluation.optimizer.batch_size": 1024,
        "evaluation.optimizer.learning_rate": 1.0e-3,
    },
}
_UNMOVED: Edits = {"prototypes.refinement_steps": 0}
# Other trials, each in place of the default's.
TRIED: dict[str, Edits] = {
    "prototypes that explain, not refined": _UNMOVED,
    "means of exact k-means": {**_UNMOVED, "prototypes.representative": "mean"},
    "medoids": {**_UNMOVED, "prototypes.representative": "medoid"},
    "means of a Gaussian mixture": {
        **_UNMOVED,
        "prototypes.method": "gaussian_mixture",
        "prototypes.representative": "mean",
    },
    "clusters of pooled latents, not refined": {**_UNMOVED, "prototypes.pooling": 2},
    "a tenth left out as outliers, not refined": {**_UNMOVED, "prototypes.outlier_share": 0.1},
    "mode guidance 0.1": {"synthesis.mode_guidance": 0.1},
    "RSM in the denoiser's training": {"generator.compact.denoiser.rsm_weight": 0.05},
    "CGS": {"synthesis.set_guidance": {"cgs": {}}},
    "DAP": {"synthesis.set_guidance": {"dap": {}}},
    "optimal transport": {"synthesis.set_guidance": {"ot": {}}},
    "DDIM inversion (D3HR)": {"synthesis.inversion": True},
    "a group of 8 candidates chosen (D3HR)": {
        "synthesis.candidates": 8,
        "synthesis.groups": 100_000,
    },
    "8 candidates a prototype": {"synthesis.candidates": 8},
    "weights by cluster": {"evaluation.matching.cluster_weights": True},
    "MSE + CE": {"evaluation.matching.loss": "mse_ce"},
    "AdamW in small batches": {
        "evaluation.optimizer.name": "adamw",
        "evaluation.optimizer.batch_size": 10,
        "evaluation.optimizer.learning_rate": 2.0e-3,
    },
    "milder crops, CutMix alone": {
        "soft_labels.augmentation": {"crop_scale": [0.6, 1.0], "cutmix": 1.0, "mixup": 0.0}
    },
}


def main() -> None:
    """Run every row and print the table as Markdown, row by row."""
    arguments = _arguments()
    published = _together(AS_PUBLISHED.values())
    rows: dict[str, Edits] = {
        "D4M as published": published,
        "D4M as published, for its 300 epochs": {**published, "soft_labels.epochs": 300},
    }
    for name in AS_PUBLISHED:
        others = (edits for other, edits in AS_PUBLISHED.items() if other != name)
        rows[f"published, with {name}"] = _together(others)
    rows["**default**"] = {}
    rows |= {f"default, with {name}": edits for name, edits in TRIED.items()}
    evaluation = {**SOFT, "baselines": [], "seeds": arguments.seeds}
    print("| row | top-1 |\n|---|---|")
    for name, edits in rows.items():
        budget = {"soft_labels.epochs": arguments.epochs}
        found = score_variant({**budget, **edits}, evaluation=evaluation)
        print(f"| {name} | {cell(found[0])} |", flush=True)


def _together(edits: Iterable[Edits]) -> Edits:
    return {key: value for each in edits for key, value in each.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
