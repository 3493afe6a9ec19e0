"""Probes of the choice of real images that together explain the labels."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from d4m.reports.cost.bench import Bench, Trial
from d4m.seeds import stream_generator
from d4m.settings import AugmentationSettings

_SEEN_AT_ONCE = 128


def _candidate_seen(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    """Draw the views of some candidates, label them if there is a teacher, and take features."""
    from d4m.prototypes.kernel_choice import see_candidates
    from d4m.prototypes.kernel_regression import kernel_network

    images = bench.image_set(_SEEN_AT_ONCE, settings)
    teacher = bench.network(settings).eval() if settings["network"] else None
    network = kernel_network(images, classes=1, seed=0)
    views = AugmentationSettings.among(settings["augmentation"])

    def run(count: int) -> int:
        for number in range(count // len(images)):
            see_candidates(images, teacher, network, augmentation=views, seed=number)
        return 0

    return Trial(run, _SEEN_AT_ONCE)


def _cluster_visited(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    """Swap the images of some clusters, in a regression from all clusters with random features."""
    from d4m.classifiers.predict import penultimate_features
    from d4m.prototypes.kernel_choice import VIEWS
    from d4m.prototypes.kernel_regression import SwapRegression, kernel_network

    network = kernel_network(bench.image_set(1, settings), classes=1, seed=0)
    width = penultimate_features(network, bench.pixels(1, settings)).shape[1]
    classes, clusters, members = (settings[n] for n in ("classes", "clusters", "members"))
    draw = stream_generator(0, "probe")

    def some(*shape: int) -> np.ndarray:
        return draw.standard_normal(shape, np.float32) / np.float32(np.sqrt(width))

    # Clusters have candidates in common here, which takes as long as if they had their own.
    candidates = clusters + members
    regression = SwapRegression(
        some(candidates, VIEWS, width),
        some(candidates, VIEWS, classes),
        some(settings["targets"], width),
        some(settings["targets"], classes),
    )
    regression.start(np.arange(clusters))

    def run(count: int) -> int:
        for number in range(count):
            slot = number % clusters
            regression.improve(slot, np.arange(slot, slot + members))
        return 0

    return Trial(run)


PROBES: Mapping[str, Callable[[Bench, Mapping[str, Any]], Trial]] = {
    "candidate seen": _candidate_seen,
    "cluster visited": _cluster_visited,
}
