"""Refinement makes the images of prototypes predict the teacher better and changes nothing else."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from d4m.errors import PrototypeError
from d4m.images.image_set import ImageSet
from d4m.images.pixels import resize_pixels
from d4m.prototypes.kernel_regression import DESCENTS, kernel_network
from d4m.prototypes.refinement import refine_prototypes
from d4m.prototypes.student_regression import StudentRegression
from d4m.prototypes.teacher_ridge_regression import TeacherRidgeRegression, student_views
from d4m.prototypes.towards_teacher import TowardsTeacher
from d4m.settings import (
    AugmentationSettings,
    ClassifierSettings,
    MatchingSettings,
    OptimizerSettings,
    RefinementSettings,
    SoftLabelSettings,
)
from d4m.training.losses import kl_loss
from d4m.training.soft_labels import TeacherLabels
from d4m.training.train import Training, train_with_soft_labels

CROPS = AugmentationSettings(crop_scale=(0.8, 1.0), cutmix=0, flip=0)
NARROW = ClassifierSettings(options={"width": 32})
BY_NARROW = RefinementSettings(students=(NARROW,))
VIEWS = CROPS.model_copy(update={"cutmix": 0.5})
PLAIN = CROPS.model_copy(update={"crop_scale": (1.0, 1.0)})


def _blobs(seed: int, count: int, size: int) -> torch.Tensor:
    """Draw smooth noise, which a network can classify."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 1, 3, 3, generator=generator)
    return torch.tanh(F.interpolate(coarse, size=(size, size), mode="bilinear") * 2)


def _decode(latents):
    return torch.tanh(F.interpolate(latents, scale_factor=2, mode="bilinear"))


@pytest.fixture(autouse=True)
def young_students(monkeypatch):
    """Train students on as few views as suit eight small images."""
    monkeypatch.setattr("d4m.prototypes.teacher_ridge_regression._STUDENT_VIEWS", (8, 500, 2000))


@pytest.fixture(scope="module")
def teacher():
    """Build a teacher that is easy to learn: a linear map of the four quarters' brightness."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 4, bias=False))
    nn.init.normal_(network[2].weight, std=8, generator=torch.Generator().manual_seed(1))
    return network.eval()


@pytest.fixture(scope="module")
def targets(teacher):
    pixels = _blobs(0, 300, 8)
    with torch.inference_mode():
        return ImageSet(pixels, teacher(pixels).argmax(1).clone())


PROTOTYPES = _blobs(1, 8, 4).numpy()


CLASS_IDS = torch.arange(4).repeat_interleave(2)


def _draw(latents, rows):
    assert len(latents) == len(rows)
    return _decode(latents)


def _refined(
    targets,
    teacher,
    *,
    steps=40,
    draw=_draw,
    rate=0.02,
    objective=TeacherRidgeRegression,
    **changed,
):
    settings = {"augmentation": VIEWS, "precision": "float32", "seed": 0} | changed
    error = objective(CLASS_IDS.numpy(), targets, teacher, **settings)
    return refine_prototypes(PROTOTYPES, CLASS_IDS, draw, error, steps=steps, learning_rate=rate)


def _as_students_learn(class_ids, targets, teacher, **settings):
    labels = TowardsTeacher(teacher, targets, "float32")
    return StudentRegression(class_ids, targets, labels, refined=BY_NARROW, **settings)


def _divergence(latents, targets, teacher, seed) -> float:
    """Train a student on the latents' images; return its divergence from the teacher on targets."""
    images = ImageSet(_decode(torch.from_numpy(latents)), CLASS_IDS)
    student = kernel_network(images, classes=4, seed=seed, settings=NARROW)
    labels = SoftLabelSettings(mode="online", epochs=300, augmentation=CROPS)
    train_with_soft_labels(
        student,
        images,
        TeacherLabels(images, teacher, labels, seed=seed),
        Training(
            epochs=300, optimizer=OptimizerSettings(batch_size=8, learning_rate=2e-3), seed=seed
        ),
        matching=MatchingSettings(temperature=4),
    )
    with torch.inference_mode():
        logits = student(targets.pixels), teacher(targets.pixels)
        return float(kl_loss(*logits, temperature=2.0).mean())


@pytest.mark.parametrize("objective", [TeacherRidgeRegression, _as_students_learn])
def test_students_learn_more_of_the_teacher_from_images_that_were_moved(
    targets, teacher, objective
):
    settings = {"augmentation": CROPS, "objective": objective}
    refined = _refined(targets, teacher, steps=30, rate=0.1, **settings)
    unseen = ImageSet(_blobs(9, 500, 8), torch.zeros(500, dtype=torch.int64))
    before, after = (
        [_divergence(latents, unseen, teacher, seed) for seed in range(2)]
        for latents in (PROTOTYPES, refined)
    )
    assert sum(after) < 0.95 * sum(before)


def test_the_error_is_that_of_a_layer_that_learns_from_the_teacher(targets, teacher, monkeypatch):
    """Train a layer with soft labels on features of the very student, in double precision."""
    monkeypatch.setattr("d4m.prototypes.student_regression._STUDENTS", 1)
    monkeypatch.setattr("d4m.prototypes.student_regression._TARGETS", 10 * len(targets))  # all
    objective = _as_students_learn(
        CLASS_IDS.numpy(), targets, teacher, augmentation=PLAIN, precision="float32", seed=0
    )
    pixels = _decode(torch.from_numpy(PROTOTYPES))
    error = float(objective.error(pixels, CLASS_IDS, 0).detach())
    student = objective._pool[0].network
    with torch.inference_mode():
        known, own = (
            torch.cat(
                [student.forward_features(images).flatten(1).double(), torch.ones(len(images), 1)],
                1,
            )
            for images in (targets.pixels, pixels)
        )
        given, wanted = (teacher(images).double() for images in (pixels, targets.pixels))
    known, own = known.clone(), own.clone()
    centre = known[:, :-1].mean(0)
    scale = (known[:, :-1] - centre).square().sum(1).mean().sqrt()
    for features in (known, own):
        features[:, :-1] = (features[:, :-1] - centre) / scale
    views = 100 // len(own)  # of each image, without any change
    weights = torch.zeros(own.shape[1], 4, dtype=torch.float64, requires_grad=True)
    rate = float(2 / torch.linalg.matrix_norm(own, 2) ** 2 / views)
    optimizer = torch.optim.SGD([weights], lr=rate, momentum=0.9)
    for _ in range(DESCENTS):
        optimizer.zero_grad()
        loss = kl_loss(4 * own @ weights, given.clone(), temperature=4.0)
        (views * loss.sum()).backward()
        optimizer.step()
    expected = kl_loss(4 * known @ weights, wanted.clone(), temperature=2.0).mean()
    assert error == pytest.approx(float(expected.detach()), rel=1e-3)


def test_the_seed_decides_and_the_given_prototypes_stay_unchanged(targets, teacher):
    kept = PROTOTYPES.copy()
    first = _refined(targets, teacher, steps=6)
    assert np.array_equal(first, _refined(targets, teacher, steps=6))
    assert not np.array_equal(first, _refined(targets, teacher, steps=6, seed=1))
    assert np.array_equal(PROTOTYPES, kept)
    assert not np.array_equal(first, kept)


def test_drawing_a_few_at_a_time_moves_prototypes_the_same(targets, teacher, monkeypatch):
    together = _refined(targets, teacher, steps=3)
    monkeypatch.setattr("d4m.prototypes.refinement._DRAWN_AT_ONCE", 3)
    assert np.allclose(_refined(targets, teacher, steps=3), together, atol=1e-5)


def test_images_that_are_drawn_again_for_the_way_back_move_prototypes_the_same(
    targets, teacher, monkeypatch
):
    drawn = list[int]()

    def draw(latents, rows):
        drawn.append(len(rows))
        return _draw(latents, rows)

    monkeypatch.setattr("d4m.prototypes.refinement._DRAWN_AT_ONCE", 3)
    kept = _refined(targets, teacher, steps=3, draw=draw)
    assert drawn == [3, 3, 2] * 3
    monkeypatch.setattr("d4m.prototypes.refinement._KEPT", 8 * 64 - 1)  # eight images of 8 px
    drawn.clear()
    np.testing.assert_array_equal(_refined(targets, teacher, steps=3, draw=draw), kept)
    assert drawn == [3, 3, 2] * 6


def test_nan_gradients_are_refused_at_once(targets, teacher):
    def draw(latents, rows):
        return _draw(latents, rows) + (latents - latents).abs().sqrt().mean()

    with pytest.raises(
        PrototypeError, match=r"step 1 of .* NaN .* `generator.pretrained.precision`"
    ):
        _refined(targets, teacher, steps=5, draw=draw)


def test_weights_of_the_teacher_do_not_change(targets, teacher):
    kept = {name: value.clone() for name, value in teacher.state_dict().items()}
    _refined(targets, teacher, steps=2)
    assert all(torch.equal(kept[name], value) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_if_a_regression_sees_only_some_prototypes_all_move_in_the_end(
    targets, teacher, monkeypatch
):
    monkeypatch.setattr("d4m.prototypes.teacher_ridge_regression._VIEWS", 3)
    one, many = (_refined(targets, teacher, steps=steps) for steps in (1, 20))
    assert 0 < (one != PROTOTYPES).any(axis=(1, 2, 3)).sum() < len(PROTOTYPES)
    assert (many != PROTOTYPES).any(axis=(1, 2, 3)).all()


def test_large_images_are_shrunk_for_the_student():
    images = ImageSet(_blobs(2, 5, 80), torch.zeros(5, dtype=torch.int64))
    network = kernel_network(images, classes=3, seed=0)
    small = F.interpolate(images.pixels, size=(32, 32), mode="area")
    direct = kernel_network(ImageSet(small, images.class_ids), classes=3, seed=0)
    with torch.inference_mode():
        assert torch.allclose(network(images.pixels), direct(small), atol=1e-5)


def test_pixels_of_another_size_are_resized_with_their_gradient():
    pixels = _blobs(3, 2, 12).requires_grad_()
    assert resize_pixels(pixels, 12) is pixels
    small = resize_pixels(pixels, 8)
    assert small.shape == (2, 1, 8, 8)
    small.sum().backward()
    assert pixels.grad is not None
    assert float(pixels.grad.sum()) == pytest.approx(2 * 64, rel=1e-4)


def test_groups_of_classes_take_turns_and_each_meets_students_of_every_age(
    targets, teacher, monkeypatch
):
    monkeypatch.setattr("d4m.prototypes.class_groups.MOST_TOGETHER", 5)
    class_ids = np.repeat(np.arange(4), 2)
    objective = TeacherRidgeRegression(
        class_ids, targets, teacher, augmentation=VIEWS, precision="float32", seed=0
    )
    shown = [set(class_ids[objective.rows(step)].tolist()) for step in range(150)]
    assert shown == ([{0, 1}] * 25 + [{2, 3}] * 25) * 3
    assert student_views(150, groups=2) == [8, 8, 500, 500, 2000, 2000]


def test_a_group_is_judged_by_its_own_classes_alone(targets, teacher, monkeypatch):
    """With one group of two classes out of four, the error is that of these classes alone."""
    pixels = _decode(torch.from_numpy(PROTOTYPES))
    settings = {"augmentation": VIEWS, "precision": "float32", "seed": 0}
    own = targets.class_ids < 2
    some = ImageSet(targets.pixels[own], targets.class_ids[own])
    alone = TeacherRidgeRegression(CLASS_IDS[:4].numpy(), some, teacher, **settings)
    monkeypatch.setattr("d4m.prototypes.class_groups.MOST_TOGETHER", 4)
    grouped = TeacherRidgeRegression(CLASS_IDS.numpy(), targets, teacher, **settings)
    rows = grouped.rows(0)
    assert rows.tolist() == [0, 1, 2, 3]
    errors = [each.error(pixels[:4], CLASS_IDS[:4], 0).item() for each in (alone, grouped)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-5)


def test_refinement_in_groups_moves_all_prototypes(targets, teacher, monkeypatch):
    monkeypatch.setattr("d4m.prototypes.class_groups.MOST_TOGETHER", 4)
    moved = np.abs(_refined(targets, teacher, steps=60) - PROTOTYPES).mean(axis=(1, 2, 3))
    assert (moved > 1e-3).all()
