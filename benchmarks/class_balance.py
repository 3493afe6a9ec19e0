"""Teachers on digits of unequal classes, with each way to balance them.

    python benchmarks/class_balance.py [--ratios 3.2 10 32.5] [--cutmix 0]

Prints a row per ratio of the largest to the smallest class and per way: test top-1 of three seeds,
and that of the three smallest classes. The test images are 35 of every class.
"""

import argparse
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

from d4m.classifiers.registry import build_classifier
from d4m.images.image_set import ImageSet
from d4m.scores.accuracy import score_classifier
from d4m.settings import AugmentationSettings, ClassBalance, ClassifierSettings, OptimizerSettings
from d4m.training.train import Training, train_with_hard_labels

LARGEST, TESTED, SEEDS = 130, 35, 3


def main() -> None:
    """Train every teacher and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratios", nargs="+", type=float, default=[3.2, 10.0, 32.5])
    parser.add_argument("--ways", nargs="+", default=["none", "sampling", "weights"])
    parser.add_argument("--cutmix", type=float, default=0.0)
    asked = parser.parse_args()
    digits: Any = load_digits()
    pixels = torch.tensor(digits.images / 8 - 1, dtype=torch.float32)[:, None]
    images = ImageSet(pixels, torch.tensor(digits.target))
    shuffled = np.random.default_rng(0)
    tested = np.concatenate(
        [shuffled.permutation(np.flatnonzero(digits.target == c))[:TESTED] for c in range(10)]
    )
    views = AugmentationSettings(
        crop_scale=(0.6, 1), flip=0, rotation_degrees=12, cutmix=asked.cutmix
    )
    for ratio in asked.ratios:
        for way in asked.ways:
            runs = [_train(images, tested, ratio, way, views, s) for s in range(SEEDS)]
            top1, smallest = zip(*runs, strict=True)
            print(
                f"ratio {ratio:<5} {way:<9} top-1 {100 * np.mean(top1):.2f}   "
                f"three smallest {100 * np.mean(smallest):.2f}"
            )


def _train(
    images: ImageSet,
    tested: np.ndarray,
    ratio: float,
    way: ClassBalance,
    views: AugmentationSettings,
    seed: int,
) -> tuple[float, float]:
    """Return a teacher's top-1, and that of its three smallest classes."""
    draw = np.random.default_rng(100 + seed)
    train = np.setdiff1d(np.arange(len(images)), tested)
    order, class_ids = draw.permutation(10), images.class_ids.numpy()[train]
    counts = np.round(LARGEST * ratio ** (-np.arange(10) / 9)).astype(int)
    rows = [draw.permutation(train[class_ids == c])[:n] for c, n in zip(order, counts, strict=True)]
    model = build_classifier(
        ClassifierSettings(architecture="convnet3"), channels=1, size_px=8, classes=10, seed=seed
    )
    optimizer = OptimizerSettings(batch_size=64, learning_rate=2e-3)
    train_with_hard_labels(
        model,
        images.pick(torch.from_numpy(np.concatenate(rows))),
        Training(epochs=40, optimizer=optimizer, seed=seed),
        augmentation=views,
        balance=way,
    )
    scores = score_classifier(
        model, images.pixels[torch.from_numpy(tested)], images.class_ids[tested], "float32"
    )
    return scores.top1, float(np.mean([scores.class_hits[c] for c in order[-3:]])) / TESTED


if __name__ == "__main__":
    main()
