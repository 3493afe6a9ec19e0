"""Every training that is stopped between two steps goes on to the same bits."""

import numpy as np
import pytest
import torch
from torch import nn

from d4m.classifiers.convnet import ConvNet
from d4m.generators import compact_model as compact
from d4m.images.image_set import ImageSet
from d4m.prototypes.refinement import Alternating, refine_prototypes
from d4m.prototypes.student_regression import StudentRegression
from d4m.prototypes.teacher_ridge_regression import TeacherRidgeRegression
from d4m.prototypes.towards_classes import TowardsClasses
from d4m.prototypes.towards_teacher import TowardsTeacher
from d4m.settings import (
    AugmentationSettings,
    AutoencoderSettings,
    ClassifierSettings,
    DenoiserSettings,
    MatchingSettings,
    OptimizerSettings,
    RefinementSettings,
    SoftLabelSettings,
)
from d4m.store.checkpoints import Checkpoint
from d4m.store.open_storage import open_storage
from d4m.training.soft_labels import TeacherLabels
from d4m.training.train import Training, train_with_hard_labels, train_with_soft_labels
from tests.object_stores import BUCKET, environment, make_bucket, moto

VIEWS = AugmentationSettings(crop_scale=(0.5, 1.0), cutmix=0.5)
PIXELS = torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
SMALL, LARGER = (ClassifierSettings(options={"width": width}) for width in (8, 16))
IMAGES = ImageSet(PIXELS, torch.arange(24) % 2)


class Killed(BaseException):
    """The end of a training in the middle, as by a kill."""


class StoppingCheckpoint(Checkpoint):
    """A checkpoint that is due after every step, and stops the training after some savings."""

    def __init__(self, root, savings):
        super().__init__(open_storage(root), "teacher", "ab" * 32, every_s=0.0)
        self.savings, self.resumed = savings, None

    def resume(self, parts):
        self.resumed = super().resume(parts)
        return self.resumed

    def save(self, progress, parts):
        super().save(progress, parts)
        self.wait()
        self.savings -= 1
        if self.savings == 0:
            raise Killed


def assert_same_when_stopped(train, root, *, after, move=lambda: None):
    """Assert that a training that is stopped twice ends as one that is not.

    It may move to another machine whenever it is stopped.
    """
    undisturbed = train(Checkpoint())
    for _ in range(2):
        move()
        stopping = StoppingCheckpoint(root, after)
        with pytest.raises(Killed):
            train(stopping)
    assert stopping.resumed is not None
    move()
    last = StoppingCheckpoint(root, 1000)
    torch.rand(7)  # wherever the global generator is
    for ours, theirs in zip(train(last), undisturbed, strict=True):
        assert torch.equal(torch.as_tensor(ours), torch.as_tensor(theirs))
    assert last.resumed is not None


def _student(dropout=0.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return nn.Sequential(ConvNet(1, 8, 4, width=8), nn.Dropout(dropout), nn.Linear(4, 2))


def _first_logit(model):
    with torch.inference_mode():
        return float(model(PIXELS[:4])[0, 0]), 0.5


def _result(model, curve):
    return [*model.state_dict().values(), torch.tensor([curve.losses, curve.top1, curve.balanced])]


@pytest.mark.parametrize("name", ["muon", "adamw", "sgd"])
def test_a_teacher(tmp_path, name):
    optimizer = OptimizerSettings(name=name, batch_size=8, learning_rate=0.01, warmup=0.2)

    def train(checkpoint):
        model = _student(dropout=0.5)
        training = Training(5, optimizer, seed=4, probe=_first_logit, checkpoint=checkpoint)
        return _result(model, train_with_hard_labels(model, IMAGES, training, augmentation=VIEWS))

    assert_same_when_stopped(train, tmp_path, after=5)  # in the middle of epochs 2 and 4 of 5


@pytest.fixture
def student():
    """Return a function that trains a student."""
    optimizer = OptimizerSettings(batch_size=8, learning_rate=0.01)
    settings = SoftLabelSettings(epochs=4, augmentation=VIEWS)
    labels = TeacherLabels(IMAGES, _student().eval(), settings, seed=1)[:]

    def train(checkpoint):
        model, matching = _student(), MatchingSettings(loss="kl", temperature=2)
        training = Training(4, optimizer, seed=4, checkpoint=checkpoint)
        curve = train_with_soft_labels(model, IMAGES, labels, training, matching=matching)
        return [*model.state_dict().values(), torch.tensor(curve.losses)]

    return train


def test_a_student(tmp_path, student):
    assert_same_when_stopped(student, tmp_path, after=4)


def test_a_student_on_another_machine_each_time(tmp_path, student, monkeypatch):
    machines = iter("abc")

    def move():
        monkeypatch.setenv("D4M_CACHE", str(tmp_path / next(machines)))

    with moto() as address, environment(address, tmp_path):
        make_bucket(address)
        assert_same_when_stopped(student, f"s3://{BUCKET}/resume", after=4, move=move)


def test_an_autoencoder(tmp_path):
    settings = AutoencoderSettings(channels=(8, 16), steps=7, batch_size=8)

    def train(checkpoint):
        vae = compact.train_autoencoder(PIXELS, settings, seed=1, checkpoint=checkpoint)
        return [*vae.state_dict().values(), vae.config["scaling_factor"]]

    assert_same_when_stopped(train, tmp_path, after=3)


def test_a_denoiser_with_its_averaged_weights(tmp_path):
    settings = DenoiserSettings(channels=(8, 16), text_width=16, steps=7, batch_size=8)
    latents = torch.randn(24, 4, 4, 4, generator=torch.Generator().manual_seed(2))

    def train(checkpoint):
        parts = compact.train_denoiser(
            latents, IMAGES.class_ids, ("left", "right"), settings, seed=1, checkpoint=checkpoint
        )
        return [*parts.unet.state_dict().values(), *parts.text_encoder.state_dict().values()]

    assert_same_when_stopped(train, tmp_path, after=3)


def _teacher():
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    nn.init.normal_(teacher[1].weight, generator=torch.Generator().manual_seed(1))
    nn.init.zeros_(teacher[1].bias)
    return teacher.eval()


def _by_students(labels, *, networks=(SMALL,), regressions=1):
    return StudentRegression(
        np.arange(4) % 2,
        IMAGES,
        labels,
        augmentation=VIEWS,
        precision="float32",
        seed=0,
        refined=RefinementSettings(students=networks, regressions=regressions),
    )


def _towards_classes():
    return _by_students(TowardsClasses(IMAGES.class_ids))


def _towards_teacher(**more):
    return _by_students(TowardsTeacher(_teacher(), IMAGES, "float32"), **more)


def _towards_teacher_by_ridge():
    return TeacherRidgeRegression(
        np.arange(4) % 2, IMAGES, _teacher(), augmentation=VIEWS, precision="float32", seed=0
    )


OBJECTIVES = {
    "class": _towards_classes,
    "teacher": lambda: _towards_teacher(networks=(SMALL, LARGER), regressions=2),
    "both": lambda: Alternating(_towards_classes(), _towards_teacher()),
    "both, teacher by ridge": lambda: Alternating(_towards_classes(), _towards_teacher_by_ridge()),
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_refinement(tmp_path, monkeypatch, objective):
    monkeypatch.setattr("d4m.prototypes.teacher_ridge_regression._STUDENT_VIEWS", (8, 16))
    monkeypatch.setattr("d4m.prototypes.teacher_ridge_regression._STEPS_PER_STUDENT", 4)
    for labels in (TowardsClasses, TowardsTeacher):  # students of a few steps at most
        monkeypatch.setattr(labels, "oldest", 16)
        monkeypatch.setattr(labels, "steps_per_use", 2)
    prototypes = PIXELS[:4].numpy()

    def train(checkpoint):
        return [
            torch.from_numpy(
                refine_prototypes(
                    prototypes,
                    torch.arange(4) % 2,
                    lambda latents, _: torch.tanh(latents),
                    OBJECTIVES[objective](),
                    steps=8,
                    checkpoint=checkpoint,
                )
            )
        ]

    assert_same_when_stopped(train, tmp_path, after=3)
