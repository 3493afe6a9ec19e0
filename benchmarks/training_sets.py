"""Compare the default's images with every other training set, at one budget and with soft labels.

Random real images, real ones nearest the prototypes, prototypes decoded without diffusion, and
images diffused from noise without prototypes, all as many as the synthetic ones, scored on
validation images. Run it with `make training-sets`. If it was stopped, run it again: nothing that
is stored is computed twice.
"""

import argparse

from variants import SOFT, cell, score_variant

BASELINES = ["random_real", "nearest_real", "decoded_prototypes", "from_noise"]


def main() -> None:
    """Print a row per training set as Markdown."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    found = score_variant(
        {"soft_labels.epochs": arguments.epochs},
        evaluation={**SOFT, "baselines": BASELINES, "seeds": arguments.seeds},
    )
    print("| training set | top-1 |\n|---|---|")
    for row in found[: 1 + len(BASELINES)]:
        print(f"| {row.training_set} | {cell(row)} |")


if __name__ == "__main__":
    main()
