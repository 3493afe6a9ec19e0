"""Move all prototypes by gradient descent, so that their images predict the teacher better.

"Predict" means: a kernel regression from the decoded images to the teacher's logits on real images.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from d4m.classifiers.convnet import ConvNet
from d4m.classifiers.precision import computing_in
from d4m.classifiers.predict import predict_logits
from d4m.errors import PrototypeError
from d4m.images.image_set import ImageSet
from d4m.images.spool import ranges
from d4m.progress import track
from d4m.prototypes.kernel_choice import RIDGE, kernel_network
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

Decode = Callable[
    [Float[Tensor, "image latent_channel latent_height latent_width"]],
    Float[Tensor, "image channel height width"],
]

_STEPS_PER_STUDENT = 25
_STUDENT_VIEWS = (2500, 10000, 40000)  # training views of each student: new, older, oldest, new ...
_MATCHING = MatchingSettings(temperature=4)
_OPTIMIZER = OptimizerSettings(name="muon", batch_size=40, learning_rate=3e-3)
_RATE = 0.02  # initial learning rate, for latents with a standard deviation of about 1
_VIEWS = 200  # views of prototypes per regression
_VIEWS_EACH = 8
_TARGETS = 400
_TEMPERATURE = 2.0
_DECODED_AT_ONCE = 64


def refine_prototypes(
    prototypes: Float32[np.ndarray, "image latent_channel latent_height latent_width"],
    class_ids: Int64[Tensor, "image"],
    decode: Decode,
    targets: ImageSet,
    teacher: nn.Module,
    *,
    steps: int,
    augmentation: AugmentationSettings,
    precision: Precision,
    seed: int,
) -> Float32[np.ndarray, "image latent_channel latent_height latent_width"]:
    """Move prototypes slightly so that a regression on their images predicts the teacher better.

    Each step draws views of the decoded images, has the teacher label those views, and fits a
    kernel regression to them. The step lowers the error of the regression's prediction of the
    teacher's logits on some of the targets (`_RegressionLoss.error`). The kernel is the inner
    product of a student's features. Every 25 steps a new student is trained on the current images:
    briefly, longer, longest, and then briefly again.

    Args:
        prototypes: scaled latents.
        class_ids: the class of each prototype, on the teacher's device.
        decode: a differentiable function from scaled latents to the pixels that the teacher sees.
        targets: real images, on the teacher's device.
        teacher: a classifier in evaluation mode.
        steps: number of Adam steps; the learning rate decays to zero along a cosine.
        augmentation: how views are drawn, in the regression and in the training of students.
        precision: number format of the teacher and the students.
        seed: the stream of views, students and targets.

    Raises:
        PrototypeError: a gradient is NaN or infinite.

    Source:
        FRePo (Zhou et al., NeurIPS 2022): regression from the features of networks of several ages.
        GLaD (Cazenavette et al., CVPR 2023): images optimised in the latents of a generator.

    Differs:
        Labels are not learnt: the teacher labels each view again as the images move. FRePo trains
        each network of a pool by one step when it is used; here each student is trained at once.
    """
    latents = torch.from_numpy(prototypes.copy()).to(class_ids.device).requires_grad_()
    adam = torch.optim.Adam([latents], lr=_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=steps)
    loss = _RegressionLoss(targets, teacher, augmentation, precision, seed)
    student = None
    for step in track(steps, "refine prototypes", unit="step"):
        pixels = _decoded(decode, latents)
        images = ImageSet(pixels, class_ids)
        if student is None or step % _STEPS_PER_STUDENT == 0:
            student = loss.student(images, step // _STEPS_PER_STUDENT)
        pixels.requires_grad_()
        (gradient,) = torch.autograd.grad(loss.error(student, images, step), pixels)
        adam.zero_grad()
        for rows in ranges(len(latents), _DECODED_AT_ONCE):
            torch.autograd.backward(decode(latents[rows]), gradient[rows])
        _check_finite(latents, step)
        adam.step()
        schedule.step()
    return latents.detach().cpu().numpy()


class _RegressionLoss:
    """The error with which images predict a teacher, by the features of students of several ages.

    The age of a student is the number of views it was trained on.
    """

    def __init__(
        self,
        targets: ImageSet,
        teacher: nn.Module,
        augmentation: AugmentationSettings,
        precision: Precision,
        seed: int,
    ) -> None:
        self._targets = targets
        self._teacher = teacher
        self._target_logits = predict_logits(teacher, targets.pixels, precision).clone()
        self._augmentation = augmentation
        self._precision: Precision = precision
        self._optimizer = _OPTIMIZER.model_copy(update={"precision": precision})
        self._seed = seed

    def student(self, images: ImageSet, number: int) -> ConvNet:
        """Train a new student on the images; its age cycles through `_STUDENT_VIEWS`."""
        seed = stream_seed(self._seed, "student", number)
        model = kernel_network(images, classes=self._target_logits.shape[1], seed=seed)
        epochs = max(1, _STUDENT_VIEWS[number % len(_STUDENT_VIEWS)] // len(images))
        labels = SoftLabelSettings(mode="online", epochs=epochs, augmentation=self._augmentation)
        train_with_soft_labels(
            model,
            images,
            TeacherLabels(images, self._teacher, labels, seed=seed, precision=self._precision),
            Training(epochs=epochs, optimizer=self._optimizer, seed=seed),
            matching=_MATCHING,
        )
        return model

    def error(self, student: ConvNet, images: ImageSet, step: int) -> Float[Tensor, ""]:
        """Return how far the regression's predictions on the targets are from the teacher.

        With X_s the features of views of the images, y_s the teacher's centred logits on those
        views, X_t the features of a sample of the targets, y_t the teacher's logits on that sample,
        lambda = `RIDGE`, and T = `_TEMPERATURE`:

            error = mean KL(softmax(y_t / T) || softmax(p / T))
            p = K_ts (K_ss + lambda I)^-1 y_s,  where K_ab = X_a X_b'

        Features are shifted and scaled so that X_t has mean 0 and mean squared norm 1.

        Source:
            FRePo (Zhou et al., NeurIPS 2022), whose loss is |y_t - p|^2 / 2.
        """
        draw = stream_generator(self._seed, "step", step)
        targets = _some(draw, len(self._targets), _TARGETS)
        plain = self._targets.pixels[targets]
        with torch.no_grad():
            # One-channel pixels that were NHWC keep channels-last strides, which make norms slow.
            known = self._features(student, plain.clone(memory_format=torch.contiguous_format))
        views = torch.cat(list(self._views(images, step, draw)))
        centre = known.mean(dim=0)
        scale = (known - centre).square().sum(dim=1).mean().sqrt()
        own = (self._features(student, views) - centre) / scale
        with computing_in(self._precision, views.device):
            logits = self._teacher(views).float()
        labels = logits - logits.mean(dim=1, keepdim=True)
        kernel = own @ own.T + RIDGE * torch.eye(len(own), device=own.device)
        predicted = (known - centre) / scale @ own.T @ torch.linalg.solve(kernel, labels)
        return kl_loss(predicted, self._target_logits[targets], _TEMPERATURE).mean()

    def _views(
        self, images: ImageSet, step: int, draw: np.random.Generator
    ) -> Iterator[Float[Tensor, "_view channel height width"]]:
        rows = _some(draw, len(images), _VIEWS)
        for number in range(max(1, min(_VIEWS_EACH, _VIEWS // len(images)))):
            epoch = step * _VIEWS_EACH + number
            views = draw_epoch(images, self._augmentation, seed=self._seed, epoch=epoch)
            yield replay_views(images.pixels, views, rows.numpy())

    def _features(
        self, student: ConvNet, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image feature"]:
        with computing_in(self._precision, pixels.device):
            return student.features(pixels).flatten(1).float()


def _check_finite(latents: Tensor, step: int) -> None:
    if latents.grad is None or torch.isfinite(latents.grad).all():
        return
    msg = (
        f"step {step + 1} of the prototype refinement produced NaN or infinite gradients; set "
        "`generator.pretrained.precision` to float32, or `prototypes.refinement_steps` to 0"
    )
    raise PrototypeError(msg)


def _some(draw: np.random.Generator, count: int, most: int) -> Int64[Tensor, "row"]:
    return torch.from_numpy(np.sort(draw.permutation(count)[:most]))


def _decoded(
    decode: Decode, latents: Float[Tensor, "image latent_channel latent_height latent_width"]
) -> Float[Tensor, "image channel height width"]:
    with torch.no_grad():
        return torch.cat([decode(latents[rows]) for rows in ranges(len(latents), _DECODED_AT_ONCE)])
