"""Refinement by students' features makes images better training data, and no class is left out."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from d4m.images.image_set import ImageSet
from d4m.images.statistics import ChannelStatistics
from d4m.prototypes import kernel_regression
from d4m.prototypes.kernel_regression import DESCENTS, RIDGE, kernel_network
from d4m.prototypes.refinement import Alternating, refine_prototypes
from d4m.prototypes.student_regression import StudentRegression
from d4m.prototypes.towards_classes import TowardsClasses
from d4m.settings import (
    AugmentationSettings,
    ClassifierSettings,
    OptimizerSettings,
    RefinementSettings,
)
from d4m.training.dsa import BatchChanges
from d4m.training.train import Training, train_with_hard_labels

PLAIN = AugmentationSettings(crop_scale=(1.0, 1.0), flip=0, cutmix=0)
SHIFTS = PLAIN.model_copy(update={"shift": 0.1, "rotation_degrees": 10.0})
DIGITS = load_digits()
PIXELS = torch.from_numpy(DIGITS.images / 8 - 1).float()[:, None]
TARGETS, UNSEEN = (
    ImageSet(PIXELS[rows].contiguous(), torch.from_numpy(DIGITS.target[rows]))
    for rows in (slice(0, 1200), slice(1200, None))
)
CLASS_IDS = np.arange(10)
FIRST = [int(np.flatnonzero(DIGITS.target == digit)[3]) for digit in CLASS_IDS]
PROTOTYPES = torch.atanh(0.95 * PIXELS[FIRST]).numpy()


def _draw(latents, rows):
    assert len(latents) == len(rows)
    return torch.tanh(latents)


def _objective(class_ids=CLASS_IDS, regression="logistic", **changed):
    settings = {"augmentation": SHIFTS, "precision": "float32", "seed": 0} | changed
    labels = TowardsClasses(TARGETS.class_ids, regression)
    return StudentRegression(class_ids, TARGETS, labels, **settings)


def _refined(*, steps, rate=0.05, **changed):
    class_ids = torch.from_numpy(CLASS_IDS)
    return refine_prototypes(
        PROTOTYPES, class_ids, _draw, _objective(**changed), steps=steps, learning_rate=rate
    )


def _accuracy(latents, seed) -> float:
    """Train a student on the latents' images with their classes; return its accuracy."""
    images = ImageSet(_draw(torch.from_numpy(latents), CLASS_IDS), torch.from_numpy(CLASS_IDS))
    student = kernel_network(images, classes=10, seed=seed)
    training = Training(
        epochs=100, optimizer=OptimizerSettings(batch_size=10, learning_rate=2e-3), seed=3
    )
    train_with_hard_labels(student, images, training, augmentation=SHIFTS)
    with torch.inference_mode():
        return float((student(UNSEEN.pixels).argmax(1) == UNSEEN.class_ids).float().mean())


def test_students_learn_more_of_the_classes_from_images_that_were_moved():
    refined = _refined(steps=30, rate=0.1)
    before, after = (
        np.mean([_accuracy(latents, seed) for seed in (7, 8)]) for latents in (PROTOTYPES, refined)
    )
    assert after > before + 0.04


def test_the_seed_decides_and_the_given_prototypes_stay_unchanged():
    kept = PROTOTYPES.copy()
    first = _refined(steps=10)
    assert np.array_equal(first, _refined(steps=10))
    assert not np.array_equal(first, _refined(steps=10, seed=1))
    assert np.array_equal(PROTOTYPES, kept)


@pytest.mark.parametrize("regression", ["logistic", "ridge"])
def test_the_error_is_that_of_the_regression(monkeypatch, regression):
    """Fit the regression again, on features of the very student, in double precision."""
    monkeypatch.setattr("d4m.prototypes.student_regression._STUDENTS", 1)
    monkeypatch.setattr("d4m.prototypes.student_regression._TARGETS", 10 * len(TARGETS))  # all
    objective = _objective(augmentation=PLAIN, regression=regression)
    pixels = _draw(torch.from_numpy(PROTOTYPES), CLASS_IDS)
    class_ids = torch.from_numpy(CLASS_IDS)
    error = float(objective.error(pixels, class_ids, number=0).detach())
    student = objective._pool[0].network

    def features(images):
        with torch.inference_mode():
            return student.forward_features(images).flatten(1).double()

    known, own = features(TARGETS.pixels), features(pixels)
    centre = known.mean(0)
    scale = (known - centre).square().sum(1).mean().sqrt()
    known, own = (known - centre) / scale, (own - centre) / scale
    own = own.repeat(100 // len(own), 1)  # views without any change
    labels = class_ids.repeat(100 // len(class_ids))
    if regression == "logistic":
        layer = _trained_layer(own, labels)
        expected = F.cross_entropy(layer(known), TARGETS.class_ids)
    else:
        one_hot = torch.eye(10, dtype=torch.float64) - 1 / 10
        weights = torch.linalg.solve(
            own @ own.T + RIDGE * torch.eye(len(own), dtype=torch.float64), one_hot[labels]
        )
        wrong = one_hot[TARGETS.class_ids] - known @ own.T @ weights
        expected = wrong.square().sum(1).mean()
    assert error == pytest.approx(float(expected), rel=1e-3)


def _trained_layer(features, labels):
    """Train a linear layer as a student's last one, from zero."""
    layer = torch.nn.Linear(features.shape[1], 10, dtype=torch.float64)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    with_ones = torch.cat([features, torch.ones(len(features), 1)], dim=1)
    rate = float(2 / torch.linalg.matrix_norm(with_ones, 2) ** 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=rate, momentum=0.9)
    for _ in range(DESCENTS):
        optimizer.zero_grad()
        F.cross_entropy(layer(features), labels, reduction="sum").backward()
        optimizer.step()
    return layer.requires_grad_(False)


def test_the_gradient_goes_through_all_of_a_logistic_regression(monkeypatch):
    monkeypatch.setattr(kernel_regression, "_rate", lambda _: 0.1)  # no gradient goes through it
    drawn = torch.Generator().manual_seed(4)
    known, own = (torch.randn(rows, 5, generator=drawn, dtype=torch.float64) for rows in (7, 6))
    labels = torch.eye(3, dtype=torch.float64)[torch.arange(6) % 3]
    assert torch.autograd.gradcheck(
        lambda views: kernel_regression.regress_logistically(known, views, labels),
        own.requires_grad_(),
    )


def test_a_step_looks_at_some_classes_and_at_all_in_the_end(monkeypatch):
    monkeypatch.setattr("d4m.prototypes.student_regression._CLASSES", 2)
    objective = _objective()
    seen = [CLASS_IDS[objective.rows(step)] for step in range(400)]
    assert all(len(np.unique(classes)) == 2 for classes in seen)
    counts = np.bincount(np.concatenate(seen), minlength=10)
    assert counts.min() > 0.5 * counts.max()


def test_many_images_of_a_class_take_turns():
    class_ids = np.repeat(CLASS_IDS, 3)
    objective = _objective(class_ids, refined=RefinementSettings(views=10))
    rows = [objective.rows(step) for step in range(30)]
    assert all(np.array_equal(class_ids[each], CLASS_IDS) for each in rows)
    assert np.array_equal(np.unique(np.concatenate(rows)), np.arange(30))


@pytest.mark.parametrize(("views", "shown"), [(20, 20), (30, 30), (100, 90)])
def test_a_regression_has_as_many_views_as_are_asked_for(monkeypatch, views, shown):
    """Three images of each class: some of them, each once, and each as often as there is room."""
    fitted = list[int]()

    def fit(known, own, labels):
        fitted.append(len(own))
        return kernel_regression.regress_logistically(known, own, labels)

    monkeypatch.setattr("d4m.prototypes.towards_classes.regress_logistically", fit)
    class_ids = np.repeat(CLASS_IDS, 3)
    objective = _objective(class_ids, refined=RefinementSettings(views=views))
    rows = objective.rows(0)
    pixels = _draw(torch.from_numpy(PROTOTYPES[class_ids[rows]]), rows)
    objective.gradient(pixels, torch.from_numpy(class_ids[rows]), 0)
    assert fitted == [shown]


def test_students_of_several_architectures_share_the_steps(monkeypatch):
    monkeypatch.setattr("d4m.prototypes.student_regression._STUDENTS", 4)
    networks = [ClassifierSettings(), ClassifierSettings(options={"width": 16})]
    objective = _objective(refined=RefinementSettings(students=networks))
    pixels, class_ids = _draw(torch.from_numpy(PROTOTYPES), CLASS_IDS), torch.from_numpy(CLASS_IDS)
    objective.error(pixels, class_ids, 0)
    widths = [student.network.features[0].out_channels for student in objective._pool]
    assert widths == [128, 16, 128, 16]
    latents = torch.from_numpy(PROTOTYPES).requires_grad_()
    for step in range(1, 4):
        error = objective.error(_draw(latents, CLASS_IDS), class_ids, step)
        (gradient,) = torch.autograd.grad(error, latents)
        assert (gradient.flatten(1).abs().sum(1) > 0).all()


def test_views_by_dsa_are_seen_by_students_of_standardised_pixels(monkeypatch):
    """Compare features of the pool with those of its networks on standardised pixels."""
    monkeypatch.setattr("d4m.prototypes.student_regression._STUDENTS", 2)
    statistics = ChannelStatistics((0.3,), (0.4,))
    objective = _objective(augmentation=BatchChanges(("flip",), statistics, seed=0))
    pixels, class_ids = _draw(torch.from_numpy(PROTOTYPES), CLASS_IDS), torch.from_numpy(CLASS_IDS)
    seen = list[torch.Tensor]()
    monkeypatch.setattr(
        objective,
        "_features",
        lambda student, views: seen.append(views) or features(student, views),
    )
    features = StudentRegression._features.__get__(objective)
    objective.error(pixels, class_ids, 0)
    real, views = seen
    assert len(real) == 400
    plain, mirrored = (
        [torch.allclose(view, (pixels if not turned else pixels.flip(3))[number % 10], atol=1e-6)
         for number, view in enumerate(views)]
        for turned in (False, True)
    )  # fmt: skip
    assert all(one != other for one, other in zip(plain, mirrored, strict=True))
    assert 20 < sum(plain) < 80
    student = objective._pool[0].network
    standardised = ((real + 1) / 2 - 0.3) / 0.4
    with torch.inference_mode():
        torch.testing.assert_close(student(real), student.network(standardised))


def test_several_regressions_of_a_step_are_averaged():
    pixels, class_ids = _draw(torch.from_numpy(PROTOTYPES), CLASS_IDS), torch.from_numpy(CLASS_IDS)
    alone, together = _objective(), _objective(refined=RefinementSettings(regressions=2))
    for step in range(2):
        first, second = (alone.gradient(pixels, class_ids, 2 * step + turn) for turn in range(2))
        torch.testing.assert_close(together.gradient(pixels, class_ids, step), (first + second) / 2)
        assert not torch.allclose(first, second)


def test_two_objectives_take_alternate_steps():
    """Move prototypes by a mean alone, and by a mean and a spread in turn."""
    asked = list[tuple[str, int]]()

    class Named:
        betas = (0.9, 0.99)

        def __init__(self, name):
            self.name = name

        def rows(self, step):
            asked.append((self.name, step))
            return CLASS_IDS

        def gradient(self, pixels, class_ids, step):
            assert len(pixels) == len(class_ids)
            assert asked[-1] == (self.name, step)
            pixels = pixels.requires_grad_()
            error = pixels.mean() if self.name == "mean" else pixels.var()
            return torch.autograd.grad(error, pixels)[0]

    both = Alternating(Named("mean"), Named("spread"))
    class_ids = torch.from_numpy(CLASS_IDS)
    moved = refine_prototypes(PROTOTYPES, class_ids, _draw, both, steps=4)
    assert asked == [("mean", 0), ("spread", 0), ("mean", 1), ("spread", 1)]
    alone = refine_prototypes(PROTOTYPES, class_ids, _draw, Named("mean"), steps=4)
    assert not np.array_equal(moved, alone)


def test_students_grow_old_and_are_replaced(monkeypatch):
    monkeypatch.setattr("d4m.prototypes.student_regression._STUDENTS", 2)
    monkeypatch.setattr(TowardsClasses, "oldest", 4)
    objective = _objective()
    pixels, class_ids = _draw(torch.from_numpy(PROTOTYPES), CLASS_IDS), torch.from_numpy(CLASS_IDS)
    networks = set[int]()
    kept = list[torch.nn.Module]()  # so that no address is used again
    for step in range(16):
        objective.error(pixels, class_ids, step)
        assert all(0 <= student.steps_left <= 4 for student in objective._pool)
        kept += [
            student.network for student in objective._pool if id(student.network) not in networks
        ]
        networks |= {id(student.network) for student in objective._pool}
    assert len(networks) >= 4
