"""The error with which images predict a teacher, by a ridge regression on students' features.

"Predict" means: a kernel regression from the images to the teacher's logits on real images. It is
what `d4m.prototypes.towards_teacher` was before it asked for the students' own last layer.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from d4m.classifiers.predict import features_of, predict_logits
from d4m.compute import computing_in
from d4m.images.image_set import ImageSet
from d4m.prototypes.class_groups import group_classes
from d4m.prototypes.kernel_regression import kernel_network, regress
from d4m.seeds import stream_generator, stream_seed
from d4m.settings import (
    AugmentationSettings,
    MatchingSettings,
    OptimizerSettings,
    Precision,
    SoftLabelSettings,
)
from d4m.training.augment import replay_views
from d4m.training.losses import kl_loss
from d4m.training.soft_labels import TeacherLabels, draw_epoch
from d4m.training.train import Training, train_with_soft_labels

_STEPS_PER_STUDENT = 25
_STUDENT_VIEWS = (2500, 10000, 40000)  # training views of each student: new, older, oldest, new ...
_MATCHING = MatchingSettings(temperature=4)
STUDENT_OPTIMIZER = OptimizerSettings(name="muon", batch_size=40, learning_rate=3e-3)
"""How the students are trained."""

_VIEWS = 200  # views of prototypes per regression
_VIEWS_EACH = 8
_TARGETS = 400
_TEMPERATURE = 2.0


def student_views(steps: int, *, groups: int = 1) -> list[int]:
    """Return the views that each student is trained on in so many steps, at most.

    Args:
        steps: of the refinement.
        groups: of classes that take turns; each has a student of every age before any has a second.

    Example:
        >>> student_views(60)
        [2500, 10000, 40000]
        >>> student_views(60, groups=2)
        [2500, 2500, 10000]
    """
    students = -(-steps // _STEPS_PER_STUDENT)
    return [_STUDENT_VIEWS[number // groups % len(_STUDENT_VIEWS)] for number in range(students)]


class TeacherRidgeRegression:
    """The error with which images predict a teacher, by the features of students of several ages.

    Each step draws views of the images, has the teacher label those views, and fits a kernel
    regression to them. The kernel is the inner product of a student's features. Every 25 steps a
    new student is trained on the current images: briefly, longer, longest, and then briefly again.
    The age of a student is the number of views it was trained on.

    More than 2,000 images do not take part in one regression: the classes are divided into groups,
    and each student looks at the images and targets of one of them. The groups take turns, so with
    twice as many groups an image is moved in half as many steps.

    Args:
        class_ids: the class of each image, as many of each class.
        targets: real images, on the teacher's device.
        teacher: a classifier in evaluation mode.
        augmentation: how views are drawn, in the regression and in the training of students.
        precision: number format of the teacher and the students.
        seed: the stream of views, students and targets.

    Source:
        FRePo (Zhou et al., NeurIPS 2022): regression from the features of networks of several ages.

    Differs:
        Labels are not learnt: the teacher labels each view again as the images move. FRePo trains
        each network of a pool by one step when it is used; here each student is trained at once.
    """

    betas = (0.9, 0.999)

    def __init__(
        self,
        class_ids: Int64[np.ndarray, "image"],
        targets: ImageSet,
        teacher: nn.Module,
        *,
        augmentation: AugmentationSettings,
        precision: Precision,
        seed: int,
    ) -> None:
        """Label the targets; train no student yet."""
        self._groups = group_images(class_ids)
        self._targets = targets
        self._target_classes = targets.class_ids.cpu().numpy()
        self._teacher = teacher
        self._target_logits = predict_logits(teacher, targets.pixels, precision).clone()
        self._augmentation = augmentation
        self._precision: Precision = precision
        self._optimizer = STUDENT_OPTIMIZER.model_copy(update={"precision": precision})
        self._seed = seed
        self._student: nn.Module | None = None
        self._saved: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the weights of the present student, if there is one."""
        return {} if self._student is None else self._student.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the weights of a student, which is built once the size of the images is known."""
        self._saved = state_dict

    def rows(self, step: int) -> Int64[np.ndarray, "image"]:
        """Return every image of the group whose turn it is; without groups, every image."""
        return self._groups[step // _STEPS_PER_STUDENT % len(self._groups)]

    def gradient(
        self,
        pixels: Float[Tensor, "row channel height width"],
        class_ids: Int64[Tensor, "row"],
        step: int,
    ) -> Float[Tensor, "row channel height width"]:
        """Return the gradient of the step's error."""
        pixels = pixels.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.error(pixels, class_ids, step), pixels)
        return gradient

    def error(
        self,
        pixels: Float[Tensor, "row channel height width"],
        class_ids: Int64[Tensor, "row"],
        step: int,
    ) -> Float[Tensor, ""]:
        """Return how far the regression's predictions on the targets are from the teacher.

        With y_t the teacher's logits on a sample of the targets, p their prediction by `regress`
        from views of the images, labelled with the teacher's centred logits, and
        T = `_TEMPERATURE`:

            error = mean KL(softmax(y_t / T) || softmax(p / T))

        Source:
            FRePo (Zhou et al., NeurIPS 2022), whose loss is |y_t - p|^2 / 2.
        """
        still = ImageSet(pixels.detach(), class_ids)
        if self._saved:
            self._student = self._build_student(still, seed=0)
            self._student.load_state_dict(self._saved)
            self._saved = {}
        if self._student is None or step % _STEPS_PER_STUDENT == 0:
            self._student = self._train_student(still, step // _STEPS_PER_STUDENT)
        student = self._student
        draw = stream_generator(self._seed, "step", step)
        among = self._targets_of(class_ids)
        targets = torch.from_numpy(among)[_some(draw, len(among), _TARGETS)]
        plain = self._targets.pixels[targets]
        with torch.no_grad():
            # One-channel pixels that were NHWC keep channels-last strides, which make norms slow.
            known = self._features(student, plain.clone(memory_format=torch.contiguous_format))
        views = torch.cat(list(self._views(ImageSet(pixels, class_ids), step, draw)))
        own = self._features(student, views)
        with computing_in(self._precision, views.device):
            logits = self._teacher(views).float()
        labels = logits - logits.mean(dim=1, keepdim=True)
        predicted = regress(known, own, labels)
        return kl_loss(predicted, self._target_logits[targets], _TEMPERATURE).mean()

    def _targets_of(self, class_ids: Int64[Tensor, "row"]) -> Int64[np.ndarray, "target"]:
        """Return the targets that images of these classes have to explain."""
        if len(self._groups) == 1:
            return np.arange(len(self._targets))
        shown = class_ids.unique().cpu().numpy()
        return np.flatnonzero(np.isin(self._target_classes, shown))

    def _train_student(self, images: ImageSet, number: int) -> nn.Module:
        """Train a new student on the images; its age cycles through `_STUDENT_VIEWS`."""
        seed = stream_seed(self._seed, "student", number)
        model = self._build_student(images, seed=seed)
        age = number // len(self._groups) % len(_STUDENT_VIEWS)
        epochs = max(1, _STUDENT_VIEWS[age] // len(images))
        labels = SoftLabelSettings(mode="online", epochs=epochs, augmentation=self._augmentation)
        train_with_soft_labels(
            model,
            images,
            TeacherLabels(images, self._teacher, labels, seed=seed, precision=self._precision),
            Training(epochs=epochs, optimizer=self._optimizer, seed=seed),
            matching=_MATCHING,
        )
        return model

    def _build_student(self, images: ImageSet, *, seed: int) -> nn.Module:
        return kernel_network(images, classes=self._target_logits.shape[1], seed=seed)

    def _views(
        self, images: ImageSet, step: int, draw: np.random.Generator
    ) -> Iterator[Float[Tensor, "_view channel height width"]]:
        rows = _some(draw, len(images), _VIEWS)
        for number in range(max(1, min(_VIEWS_EACH, _VIEWS // len(images)))):
            epoch = step * _VIEWS_EACH + number
            views = draw_epoch(images, self._augmentation, seed=self._seed, epoch=epoch)
            yield replay_views(images.pixels, views, rows.numpy())

    def _features(
        self, student: nn.Module, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image feature"]:
        with computing_in(self._precision, pixels.device):
            return features_of(student, pixels).float()


def group_images(class_ids: Int64[np.ndarray, "image"]) -> list[Int64[np.ndarray, "_row"]]:
    """Return the images of each group of classes that one regression can hold.

    Args:
        class_ids: the class of each image, as many of each class.
    """
    classes = np.unique(class_ids)
    groups = group_classes(len(classes), -(-len(class_ids) // len(classes)))
    return [np.flatnonzero(np.isin(class_ids, classes[group])) for group in groups]


def _some(draw: np.random.Generator, count: int, most: int) -> Int64[Tensor, "row"]:
    return torch.from_numpy(np.sort(draw.permutation(count)[:most]))
