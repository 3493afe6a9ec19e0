"""Probes of classifiers: their training, labels and scores, and what is measured in features."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from d4m.reports.cost.bench import Bench, Trial, weight_bytes
from d4m.seeds import stream_generator
from d4m.settings import AugmentationSettings, MatchingSettings, OptimizerSettings

if TYPE_CHECKING:
    from torch import nn

    from d4m.images.image_set import ImageSet

_SCORED_AT_ONCE = 128


def _training_step(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    """Train a new network for whole epochs of few steps."""
    from d4m.training.train import Training

    images = bench.image_set(settings["images"], settings)
    optimizer = OptimizerSettings.among(settings["optimizer"])
    steps = -(-len(images) // min(optimizer.batch_size, len(images)))
    soft = settings["labels"] == "soft"

    def run(count: int) -> int:
        network = bench.network(settings)
        training = Training(epochs=count // steps, optimizer=optimizer, seed=0)
        (_train_softly if soft else _train_hard)(network, images, training, settings)
        return weight_bytes(network)

    return Trial(run, steps)


def _train_softly(
    network: "nn.Module", images: "ImageSet", training: Any, settings: Mapping[str, Any]
) -> None:
    from d4m.training.soft_labels import EpochLabels, draw_epoch
    from d4m.training.train import train_with_soft_labels

    views = AugmentationSettings.among(settings["augmentation"])
    logits = stream_generator(0, "probe").standard_normal(
        (len(images), settings["classes"]), np.float32
    )

    class Labels(Sequence[EpochLabels]):
        """The same logits for the views of every epoch, which are drawn as stored labels' are."""

        def __len__(self) -> int:
            return training.epochs

        def __getitem__(self, epoch: Any) -> Any:
            return EpochLabels(draw_epoch(images, views, seed=0, epoch=epoch), logits)

    matching = MatchingSettings.among(settings["matching"])
    train_with_soft_labels(network, images, Labels(), training, matching=matching)


def _train_hard(
    network: "nn.Module", images: "ImageSet", training: Any, settings: Mapping[str, Any]
) -> None:
    from d4m.images.statistics import ChannelStatistics
    from d4m.training.dsa import BatchChanges
    from d4m.training.train import train_with_hard_labels

    changes = None
    if settings["changes"]:
        middle = (0.5,) * settings["channels"]
        changes = BatchChanges(settings["changes"], ChannelStatistics(middle, middle), 0)
    train_with_hard_labels(
        network,
        images,
        training,
        augmentation=AugmentationSettings.among(settings["augmentation"]),
        changes=changes,
    )


def _view_labelled(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    from d4m.training.soft_labels import draw_epoch, label_views

    images, teacher = bench.image_set(settings["images"], settings), bench.network(settings).eval()
    views = AugmentationSettings.among(settings["augmentation"])

    def run(count: int) -> int:
        labels = (
            label_views(
                images,
                teacher,
                draw_epoch(images, views, seed=0, epoch=epoch),
                settings["precision"],
            )
            for epoch in range(count // len(images))
        )
        return sum(each.nbytes for each in labels)

    return Trial(run, settings["images"])


def _image_scored(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    from d4m.classifiers.predict import predict_logits

    network = bench.network(settings).eval()
    pixels = bench.pixels(_SCORED_AT_ONCE, settings)

    def run(count: int) -> int:
        for _ in range(count // len(pixels)):
            predict_logits(network, pixels)
        return 0

    return Trial(run, _SCORED_AT_ONCE)


def _set_measured(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    from d4m.classifiers.predict import penultimate_features
    from d4m.stages.image_fidelity import measure_features

    network = bench.network(settings).eval()
    width = penultimate_features(network, bench.pixels(1, settings)).shape[1]
    draw = stream_generator(0, "probe")
    real = draw.standard_normal((settings["real"], width), np.float32)
    found = draw.standard_normal((settings["images"], width), np.float32)

    def run(count: int) -> int:
        for _ in range(count):
            measure_features(real, found)
        return 0

    return Trial(run)


def _set_predicted(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    from d4m.prototypes.class_prediction import ClassPredictor

    real = bench.image_set(settings["real"], settings)
    predictor = ClassPredictor(real, classes=settings["classes"], seed=0)
    images = bench.image_set(settings["images"], settings)

    def run(count: int) -> int:
        for _ in range(count):
            predictor.score(images)
        return 0

    return Trial(run)


PROBES: Mapping[str, Callable[[Bench, Mapping[str, Any]], Trial]] = {
    "training step": _training_step,
    "view labelled": _view_labelled,
    "image scored": _image_scored,
    "set measured": _set_measured,
    "set predicted": _set_predicted,
}
