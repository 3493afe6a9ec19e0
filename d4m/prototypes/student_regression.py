"""The error with which images predict labels of real images, by the features of eight students.

"Predict" means: a regression from views of the images, with their labels, to real images.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from d4m.classifiers.predict import features_of
from d4m.classifiers.standardised import Standardised
from d4m.compute import computing_in
from d4m.images.image_set import ImageSet
from d4m.prototypes.kernel_regression import kernel_network
from d4m.prototypes.labels import Labels
from d4m.seeds import stream_generator, stream_seed
from d4m.settings import AugmentationSettings, OptimizerSettings, Precision, RefinementSettings
from d4m.training.augment import replay_views
from d4m.training.dsa import BatchChanges
from d4m.training.optimizers import build_optimizer
from d4m.training.soft_labels import draw_epoch

_PLAIN = RefinementSettings()
_STUDENTS = 8
_OPTIMIZER = OptimizerSettings(name="muon", learning_rate=2e-3, weight_decay=0.01)
_CLASSES = 25  # classes per regression
_TARGETS = 400  # real images per regression
_FEATURES_AT_ONCE = 50


class StudentRegression:
    """The error of a regression on the features of students of every age.

    Each regression draws one of eight students and views of the images, and is fitted from the
    views' features to their labels. The student is then trained for some steps, on views of the
    images with the same kind of labels. Students begin at unlike ages, and a new one takes the
    place of the oldest, so that features of every age take part.

    A regression looks at up to 25 classes and a number of views, so its size does not grow with the
    number of images.

    Args:
        class_ids: the class of each image.
        targets: real images, on the device of the students.
        labels: of the images' views and of the targets.
        augmentation: how views are drawn, in the regression and in the training of students. With
            DSA's changes, of which each view has one, students see standardised pixels; the seed
            of the changes is not used.
        precision: number format of the students.
        seed: the stream of views, students and targets.
        refined: the students' architectures, of which each student takes the next one; how many
            regressions a step has, each with a student and views of its own; and how many views.
        tiles: images that are drawn of each prototype.

    Source:
        FRePo (Zhou et al., NeurIPS 2022): the regression, and the pool of students that are trained
        when they are used. Views as in DSA (Zhao & Bilen, ICML 2021).

    Differs:
        Labels are not learnt: they are those that a student of the data set is trained with.
    """

    betas = (0.9, 0.99)

    def __init__(
        self,
        class_ids: Int64[np.ndarray, "image"],
        targets: ImageSet,
        labels: Labels,
        *,
        augmentation: AugmentationSettings | BatchChanges,
        precision: Precision,
        seed: int,
        refined: RefinementSettings = _PLAIN,
        tiles: int = 1,
    ) -> None:
        """Group images and targets by class; build no student yet."""
        self._own = _by_class(class_ids)
        self._targets = targets
        self._labels = labels
        self._real = _by_class(targets.class_ids.cpu().numpy())
        self._augmentation = augmentation
        self._precision: Precision = precision
        self._optimizer = _OPTIMIZER.model_copy(update={"precision": precision})
        self._seed = seed
        self._refined = refined
        self._tiles = tiles
        self._pool = list[_Student]()
        self._used: _Student | None = None
        self._saved: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return every student of the pool, and the place of the one that the last step used."""
        if not self._pool:
            return {}
        used = next((n for n, each in enumerate(self._pool) if each is self._used), None)
        return {"pool": [each.state_dict() for each in self._pool], "used": used}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state of a pool, which is built once the size of the images is known."""
        self._saved = state_dict

    def rows(self, step: int) -> Int64[np.ndarray, "row"]:
        """Return some images of some classes, or all where these are few."""
        draw = stream_generator(self._seed, "rows", step)
        classes = np.sort(draw.permutation(len(self._own))[:_CLASSES])
        most = max(1, self._refined.views // (len(classes) * self._tiles))
        return np.concatenate([_some(draw, self._own[each], most) for each in classes])

    def gradient(
        self,
        pixels: Float[Tensor, "row channel height width"],
        class_ids: Int64[Tensor, "row"],
        step: int,
    ) -> Float[Tensor, "row channel height width"]:
        """Return the gradient of the mean error of the step's regressions."""
        pixels = pixels.detach().requires_grad_()
        total = torch.zeros_like(pixels)
        for number in range(
            step * self._refined.regressions, (step + 1) * self._refined.regressions
        ):
            (own,) = torch.autograd.grad(self.error(pixels, class_ids, number), pixels)
            total += own / self._refined.regressions
        return total

    def error(
        self,
        pixels: Float[Tensor, "row channel height width"],
        class_ids: Int64[Tensor, "row"],
        number: int,
    ) -> Float[Tensor, ""]:
        """Return the error of one regression from these images, on a sample of the targets.

        Args:
            pixels: of the images.
            class_ids: of the images.
            number: of the regression, counted from the first step's first.
        """
        draw = stream_generator(self._seed, "step", number)
        student = self._next_student(ImageSet(pixels.detach(), class_ids), number, draw)
        classes = class_ids.unique()
        real = np.concatenate(
            [
                _some(draw, self._real[each], max(1, _TARGETS // len(classes)))
                for each in classes.tolist()
            ]
        )
        rows = torch.from_numpy(real)
        # One-channel pixels that were NHWC keep channels-last strides, which make norms slow.
        plain = self._targets.pixels[rows].clone(memory_format=torch.contiguous_format)
        with torch.no_grad():
            known = self._features(student, plain)
        views, shown = self._views(
            ImageSet(pixels, class_ids), "support", number, self._refined.views
        )
        return self._labels.error(known, self._features(student, views), rows, views, shown)

    def _next_student(self, images: ImageSet, number: int, draw: np.random.Generator) -> nn.Module:
        """Train the student of the last regression, then draw the student of this one."""
        if not self._pool:
            ages = (self._labels.oldest * (place + 1) // _STUDENTS for place in range(_STUDENTS))
            self._pool = [
                self._new_student(images, slot, slot, left) for slot, left in enumerate(ages)
            ]
        if self._saved:
            for student, saved in zip(self._pool, self._saved["pool"], strict=True):
                student.load_state_dict(saved)
            self._used = self._pool[self._saved["used"]]
            self._saved = {}
        if self._used is not None:
            steps = self._labels.steps_per_use
            for step in range(number * steps, (number + 1) * steps):
                self._train(self._used, images, step)
        slot = int(draw.integers(_STUDENTS))
        if self._pool[slot].steps_left <= 0:
            self._pool[slot] = self._new_student(
                images, slot, _STUDENTS + number, self._labels.oldest
            )
        self._used = self._pool[slot]
        return self._used.network

    def _new_student(self, images: ImageSet, slot: int, number: int, steps_left: int) -> "_Student":
        """Build a student of the architecture of its place in the pool."""
        network = kernel_network(
            images,
            classes=len(self._own),
            seed=stream_seed(self._seed, "student", number),
            settings=self._refined.students[slot % len(self._refined.students)],
        )
        if isinstance(self._augmentation, BatchChanges):
            statistics = self._augmentation.statistics
            network = Standardised(network, statistics.mean, statistics.deviation)
            network.to(images.class_ids.device).eval()
        return _Student(network, build_optimizer(network, self._optimizer), steps_left)

    def _train(self, student: "_Student", images: ImageSet, step: int) -> None:
        """Train a student by one step on views of the images as they are now."""
        views, shown = self._views(images, "training", step, self._labels.batch)
        student.network.train()
        student.optimizer.zero_grad(set_to_none=True)
        for part, classes in zip(
            views.split(_FEATURES_AT_ONCE), shown.split(_FEATURES_AT_ONCE), strict=True
        ):
            with computing_in(self._precision, part.device):
                logits = student.network(part).float()
            (self._labels.loss(logits, part, classes) / len(shown)).backward()
        student.optimizer.step()
        student.network.eval()
        student.steps_left -= 1

    def _views(
        self, images: ImageSet, stream: str, step: int, most: int
    ) -> tuple[Float[Tensor, "_view channel height width"], Int64[Tensor, "_view"]]:
        """Make views of images: several of each where images are few, else of some."""
        seed = stream_seed(self._seed, stream)
        each = max(1, most // len(images))
        rows = _some(stream_generator(seed, "images", step), np.arange(len(images)), most)
        epochs = range(step * each, (step + 1) * each)
        views = [self._view(images, rows, seed=seed, epoch=epoch) for epoch in epochs]
        return torch.cat(views), images.class_ids[torch.from_numpy(rows)].repeat(each)

    def _view(
        self, images: ImageSet, rows: Int64[np.ndarray, "_view"], *, seed: int, epoch: int
    ) -> Float[Tensor, "_view channel height width"]:
        """Make one view of each of some images."""
        if isinstance(self._augmentation, BatchChanges):
            changes = replace(self._augmentation, seed=seed)
            return changes.change_singly(images.pixels[torch.from_numpy(rows)], rows, epoch=epoch)
        drawn = draw_epoch(images, self._augmentation, seed=seed, epoch=epoch)
        return replay_views(images.pixels, drawn, rows)

    def _features(
        self, student: nn.Module, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image feature"]:
        with computing_in(self._precision, pixels.device):
            parts = [features_of(student, part) for part in pixels.split(_FEATURES_AT_ONCE)]
        return torch.cat(parts).float()


@dataclass
class _Student:
    """A network of the pool, and how many training steps it still has."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    steps_left: int

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps_left": self.steps_left,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.network.load_state_dict(state_dict["network"])
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.steps_left = state_dict["steps_left"]


def _by_class(class_ids: Int64[np.ndarray, "image"]) -> list[Int64[np.ndarray, "_row"]]:
    return [np.flatnonzero(class_ids == each) for each in range(int(class_ids.max()) + 1)]


def _some(
    draw: np.random.Generator, rows: Int64[np.ndarray, "_row"], most: int
) -> Int64[np.ndarray, "_row"]:
    return np.sort(draw.permutation(rows)[:most])
