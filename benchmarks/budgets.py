"""Where synthetic images are ahead of random real ones: accuracy by the number of views trained on.

Both are labelled by the same teacher and train the same students by the same protocol. Run it with
`make budgets`, and again after it was stopped: what is stored is not computed twice.
"""

import argparse
import math

from variants import cell, score_variant

EPOCHS = (60, 125, 250, 500, 1000)
IMAGES = 100


def main() -> None:
    """Print a row per budget as Markdown, with the difference and its standard error."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, nargs="+", default=EPOCHS)
    arguments = parser.parse_args()
    print("| views | synthetic | random real | ahead by |\n|---|---|---|---|")
    for epochs in arguments.epochs:
        found = score_variant(
            {"soft_labels.epochs": epochs}, baselines=["random_real"], seeds=arguments.seeds
        )
        ours, theirs = found["synthetic"], found["random_real"]
        ahead = f"{100 * (ours.top1 - theirs.top1):+.2f}"
        if arguments.seeds > 1:
            spread = math.hypot(ours.top1_std, theirs.top1_std)
            ahead += f" ± {100 * spread / math.sqrt(arguments.seeds):.2f}"
        print(f"| {epochs * IMAGES:,} | {cell(ours)} | {cell(theirs)} | {ahead} |", flush=True)


if __name__ == "__main__":
    main()
