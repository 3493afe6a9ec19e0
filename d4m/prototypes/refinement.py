"""Prototypes moved by gradient, all together, so that their images explain the teacher better."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from d4m.classifiers.convnet import ConvNet3
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
from d4m.training.train import train_with_soft_labels

Decode = Callable[
    [Float[Tensor, "image latent_channel latent_height latent_width"]],
    Float[Tensor, "image channel height width"],
]

_STEPS_A_STUDENT = 25
_STUDENT_VIEWS = (2500, 10000, 40000)  # of the images, before each student in turn is used
_MATCHING = MatchingSettings(temperature=4)
_OPTIMIZER = OptimizerSettings(name="muon", batch_size=40, learning_rate=3e-3)
_RATE = 0.02  # at first, of latents with a spread of about 1
_VIEWS = 200  # of prototypes, in one regression
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
    """Prototypes a little aside, from whose decoded images the teacher can be told better.

    Each step draws views of the images, and lowers the error of a kernel regression that predicts,
    from the teacher's logits on those views, its logits on some of the targets. The kernel is that
    of a student's features; every 25 steps another student comes, trained on the images as they are
    by then: a little, for a while, for long, and a little again.

    Args:
        prototypes: scaled latents.
        class_ids: of each prototype, on the teacher's device.
        decode: scaled latents -> pixels that the teacher sees, differentiable.
        targets: real images, on the teacher's device.
        teacher: in evaluation mode.
        steps: of Adam, at a rate that falls to zero by a cosine.
        augmentation: the views, of the images and of the students that are trained on them.
        precision: `float32` or `bfloat16`, of teacher and students.
        seed: of views, students and targets.

    Raises:
        PrototypeError: a gradient came out as NaN or infinite.

    Source:
        The regression from the features of networks of several ages is FRePo's (Zhou et al.,
        NeurIPS 2022); images that move in the latents of a generator, GLaD's (Cazenavette et al.,
        CVPR 2023).

    Differs:
        Labels are the teacher's for each view, and follow as the images move; none are learnt.
        The networks are trained for a while at once, not a step of each in turn.
    """
    latents = torch.from_numpy(prototypes.copy()).to(class_ids.device).requires_grad_()
    adam = torch.optim.Adam([latents], lr=_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=steps)
    problem = _Problem(targets, teacher, augmentation, precision, seed)
    student = None
    for step in track(steps, "refine prototypes", unit="step"):
        pixels = _decoded(decode, latents)
        images = ImageSet(pixels, class_ids)
        if student is None or step % _STEPS_A_STUDENT == 0:
            student = problem.student(images, step // _STEPS_A_STUDENT)
        pixels.requires_grad_()
        (gradient,) = torch.autograd.grad(problem.error(student, images, step), pixels)
        adam.zero_grad()
        for rows in ranges(len(latents), _DECODED_AT_ONCE):
            torch.autograd.backward(decode(latents[rows]), gradient[rows])
        _check_finite(latents, step)
        adam.step()
        schedule.step()
    return latents.detach().cpu().numpy()


class _Problem:
    """How badly images explain a teacher, as seen by students of several ages."""

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
        self._verdicts = predict_logits(teacher, targets.pixels, precision).clone()
        self._augmentation = augmentation
        self._precision: Precision = precision
        self._optimizer = _OPTIMIZER.model_copy(update={"precision": precision})
        self._seed = seed

    def student(self, images: ImageSet, number: int) -> ConvNet3:
        """A new one, at one of several ages in turn."""
        seed = stream_seed(self._seed, "student", number)
        model = kernel_network(images, classes=self._verdicts.shape[1], seed=seed)
        epochs = max(1, _STUDENT_VIEWS[number % len(_STUDENT_VIEWS)] // len(images))
        labels = SoftLabelSettings(mode="online", epochs=epochs, augmentation=self._augmentation)
        train_with_soft_labels(
            model,
            images,
            TeacherLabels(images, self._teacher, labels, seed=seed, precision=self._precision),
            epochs=epochs,
            matching=_MATCHING,
            optimizer=self._optimizer,
            seed=seed,
        )
        return model

    def error(self, student: ConvNet3, images: ImageSet, step: int) -> Float[Tensor, ""]:
        """Divergence of the targets' predicted verdicts from the teacher's."""
        draw = stream_generator(self._seed, "step", step)
        targets = _some(draw, len(self._targets), _TARGETS)
        plain = self._targets.pixels[targets]
        with torch.no_grad():
            # One-channel pixels that once were NHWC stay so for torch, and norms are slow on them.
            known = self._features(student, plain.clone(memory_format=torch.contiguous_format))
        seen = torch.cat(list(self._views(images, step, draw)))
        centre = known.mean(dim=0)
        scale = (known - centre).square().sum(dim=1).mean().sqrt()
        own = (self._features(student, seen) - centre) / scale
        with computing_in(self._precision, seen.device):
            logits = self._teacher(seen).float()
        labels = logits - logits.mean(dim=1, keepdim=True)
        kernel = own @ own.T + RIDGE * torch.eye(len(own), device=own.device)
        predicted = (known - centre) / scale @ own.T @ torch.linalg.solve(kernel, labels)
        return kl_loss(predicted, self._verdicts[targets], _TEMPERATURE).mean()

    def _views(
        self, images: ImageSet, step: int, draw: np.random.Generator
    ) -> Iterator[Float[Tensor, "_view channel height width"]]:
        rows = _some(draw, len(images), _VIEWS)
        for number in range(max(1, min(_VIEWS_EACH, _VIEWS // len(images)))):
            epoch = step * _VIEWS_EACH + number
            views = draw_epoch(images, self._augmentation, seed=self._seed, epoch=epoch)
            yield replay_views(images.pixels, views, rows.numpy())

    def _features(
        self, student: ConvNet3, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image feature"]:
        with computing_in(self._precision, pixels.device):
            return student.features(pixels).flatten(1).float()


def _check_finite(latents: Tensor, step: int) -> None:
    if latents.grad is None or torch.isfinite(latents.grad).all():
        return
    msg = (
        f"step {step + 1} of `prototypes.refinement_steps` met NaN or infinite gradients; set "
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
