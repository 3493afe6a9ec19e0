"""The material of both loops' students: images, a teacher and its labels, in both forms."""

import argparse
from pathlib import Path

import numpy as np
import torch
from label_sizes import FORMATS, write_labels
from published_training import PublishedImages, write_pngs, write_published_labels
from torch import nn

from d4m.classifiers.registry import build_classifier
from d4m.environment import find_recipe
from d4m.images.image_set import ImageSet
from d4m.images.pixels import to_pixels
from d4m.seeds import stream_generator, stream_seed
from d4m.settings import ClassifierSettings
from d4m.sources.base import ImageSource, Split
from d4m.sources.registry import open_source
from d4m.store.layout import read_group
from d4m.training.augment import Views
from d4m.training.label_formats import unpack_logits
from d4m.training.soft_labels import EpochLabels, draw_epoch, label_views
from d4m.training.train import Training, train_with_hard_labels

PUBLISHED_PX = 224
_LABEL_SEED = stream_seed(0, "soft_labels")


class Material:
    """The images, a teacher and its labels, in both forms."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        """Train the teacher, and write images and labels."""
        self.arguments, self.folder, self.device = arguments, folder, arguments.device
        self.settings = find_recipe(arguments.recipe).settings
        self.augmentation = self.settings.soft_labels.augmentation
        self.epochs, self.batch_size = arguments.epochs, arguments.batch_size
        source = open_source(find_recipe(arguments.recipe), folder)
        arrays = _read(source, "train", arguments.images_per_class)
        self.images = _image_set(arrays, self.device)
        self.test = _image_set(_read(source, "test", arguments.test_per_class), self.device)
        self.teacher = self._train_teacher(source)
        self.logits = np.stack(
            [
                label_views(self.images, self.teacher, self._views(epoch))
                for epoch in range(self.epochs)
            ]
        )
        write_labels(folder / "labels", self.logits, FORMATS["float16"])
        self.published = self._publish(arrays, self.images.size_px)
        self.enlarged = self._publish(arrays, PUBLISHED_PX)

    def build(self, network: ClassifierSettings, seed: int) -> nn.Module:
        """Build an untrained network for the images, on their device."""
        return build_classifier(
            network,
            channels=self.images.pixels.shape[1],
            size_px=self.images.size_px,
            classes=_classes(self.images),
            seed=stream_seed(seed, "weights"),
        ).to(self.device)

    def read_labels(self, folder: Path) -> list[EpochLabels]:
        """Read stored logits, and draw their views again from the seeds."""
        blocks = [read_group(path, "soft_labels") for path in sorted(folder.iterdir())]
        logits = np.concatenate([unpack_logits(each, _classes(self.images)) for each in blocks])
        return [EpochLabels(self._views(epoch), each) for epoch, each in enumerate(logits)]

    def _publish(self, arrays: list[np.ndarray], size_px: int) -> PublishedImages:
        """Write images and labels into files, as the published code has them."""
        folder = self.folder / f"published-{size_px}"
        write_pngs(arrays, folder / "png", size_px)
        published = PublishedImages(folder / "png", folder / "labels", self.images.size_px)
        write_published_labels(
            published,
            self.teacher,
            self.augmentation,
            epochs=self.epochs,
            batch_size=self.batch_size,
        )
        return published

    def _views(self, epoch: int) -> Views:
        return draw_epoch(self.images, self.augmentation, seed=_LABEL_SEED, epoch=epoch)

    def _train_teacher(self, source: ImageSource) -> nn.Module:
        settings = self.settings.teacher
        images = _image_set(_read(source, "train", self.arguments.teacher_per_class), self.device)
        teacher = self.build(settings, seed=0)
        train_with_hard_labels(
            teacher,
            images,
            Training(epochs=self.arguments.teacher_epochs, optimizer=settings.optimizer, seed=0),
            augmentation=settings.augmentation,
        )
        return teacher


def _read(source: ImageSource, split: Split, per_class: int) -> list[np.ndarray]:
    """Read random images of every class, or all if there are too few."""
    arrays = list[np.ndarray]()
    for class_id in range(len(source.class_table)):
        index = source.index(split, class_id)
        order = stream_generator(0, split, class_id).permutation(len(index.image_ids))
        arrays.append(source.read_all(split, class_id, index.subset(order[:per_class])))
    return arrays


def _image_set(arrays: list[np.ndarray], device: str) -> ImageSet:
    class_ids = np.repeat(np.arange(len(arrays)), [len(images) for images in arrays])
    pixels = to_pixels(np.concatenate(arrays)).to(device)
    return ImageSet(pixels, torch.from_numpy(class_ids).to(device))


def _classes(images: ImageSet) -> int:
    return int(images.class_ids.max()) + 1
