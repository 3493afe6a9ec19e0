"""Optimizers and the schedules of their rates equal torch's, and what is worked by hand."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from d4m.classifiers.convnet import ConvNet
from d4m.seeds import stream_generator
from d4m.settings import (
    OptimizerSettings,
)
from d4m.training.augment import draw_views, replay_views
from d4m.training.train import Training, train_with_hard_labels
from tests.training.toys import STILL, linear_model, toy_images, weights_of

SGD = {"lr": 0.01, "weight_decay": 0.1, "momentum": 0.7}


PLAIN = {"lr": 0.01, "weight_decay": 0.1}


@pytest.mark.parity
@pytest.mark.parametrize(
    ("settings", "build"),
    [
        ({"name": "adamw"}, lambda model: torch.optim.AdamW(model.parameters(), **PLAIN)),
        ({"name": "adam"}, lambda model: torch.optim.Adam(model.parameters(), **PLAIN)),
        (
            {"name": "sgd", "momentum": 0.7},
            lambda model: torch.optim.SGD(model.parameters(), **SGD),
        ),
    ],
    ids=["adamw", "adam", "sgd"],
)
@pytest.mark.parametrize(
    ("schedule", "share"),
    [
        ("cosine", lambda step: (1 + np.cos(np.pi * step / 9)) / 2),
        ("smoothed_cosine", lambda step: (1 + np.cos(np.pi * step / 18)) / 2),
        (
            "step",
            lambda step: 0.1 if step >= 5 else 1.0,
        ),  # of 9 steps, counted from 0, step 5 is the first past the midpoint
    ],
    ids=["cosine", "smoothed_cosine", "step"],
)
def test_training_equals_a_plain_loop_with_torchs_optimizer(settings, build, schedule, share):
    images = toy_images(images=10)
    ours, theirs = linear_model(), linear_model()
    ours_settings = OptimizerSettings(
        batch_size=4, learning_rate=0.01, weight_decay=0.1, schedule=schedule, **settings
    )
    train_with_hard_labels(
        ours, images, Training(epochs=3, optimizer=ours_settings, seed=2), augmentation=STILL
    )
    optimizer = build(theirs)
    step = 0
    for epoch in range(3):
        views = draw_views(STILL, seed=2, epoch=epoch, images=10, size_px=8)
        order = stream_generator(2, "order", epoch).permutation(10)
        for rows in (order[:4], order[4:7], order[7:]):
            optimizer.param_groups[0]["lr"] = 0.01 * share(step)
            pixels = replay_views(images.pixels, views, rows)
            loss = F.cross_entropy(theirs(pixels), images.class_ids[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    assert float((weights_of(ours) - weights_of(linear_model())).abs().max()) > 1e-3
    # Losses are averaged, and rates computed, in another order: float32 rounding.
    assert torch.allclose(weights_of(ours), weights_of(theirs), rtol=0, atol=1e-6)


class _Decaying(nn.Module):
    """A model whose loss does not depend on its weight, so that AdamW only decays the weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, pixels):
        return pixels.flatten(1)[:, :2] + 0 * self.weight


def _rates(epochs=10, **settings):
    """Return the rate of each step as a share of the peak rate; an epoch has one step."""
    seen = [1.0]
    train_with_hard_labels(
        _Decaying(),
        toy_images(images=10),
        Training(
            epochs=epochs,
            optimizer=OptimizerSettings(learning_rate=0.5, weight_decay=0.1, **settings),
            seed=0,
            probe=lambda model: (seen.append(float(model.weight.detach())) or 0.0, 0.0),
        ),
        augmentation=STILL,
    )
    assert len(seen) == epochs + 1
    return [(1 - after / before) / 0.05 for before, after in pairwise(seen)]


def test_muon_moves_hidden_layers_by_the_orthogonal_factor_of_their_gradient():
    """Compare with the orthogonal factor from a singular value decomposition."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = ConvNet(1, 8, 2, width=16)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    rate = 0.01
    optimizer = OptimizerSettings(
        name="muon", batch_size=20, learning_rate=rate, weight_decay=0.0, schedule="step"
    )
    train_with_hard_labels(
        model, toy_images(20), Training(epochs=1, optimizer=optimizer, seed=0), augmentation=STILL
    )
    hidden = {"features.4.weight", "features.8.weight"}
    for name, weight in model.named_parameters():
        moved, gradient = weight.detach() - before[name], weight.grad
        if name in hidden:
            left, _, right = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
            # Steps have the root mean square of AdamW's, 0.2 per weight (Liu et al., 2025).
            wanted = -rate * 0.2 * max(gradient.flatten(1).shape) ** 0.5 * left @ right
            error = (moved.flatten(1) - wanted).norm() / wanted.norm()
            # Muon approximates the factor by five iterations in bfloat16. The plain gradient,
            # scaled to the same norm, is three times as far off.
            bare = -gradient.flatten(1) * wanted.norm() / gradient.norm()
            assert error < 0.2, name
            assert (bare - wanted).norm() / wanted.norm() > 0.6, name
        elif gradient.abs().min() > 1e-6:
            # NAdam's first step is rate * sign(gradient), apart from Nesterov's look-ahead.
            assert torch.equal(moved.sign(), -gradient.sign()), name
            assert float(moved.abs().max() / moved.abs().min()) < 1.1, name


def test_schedules_by_hand():
    # With four steps, a cosine advances by 1/8 of a turn per step, a smoothed one by 1/16.
    half, quarter, eighth = np.sqrt(0.5), np.cos(np.pi / 8), np.cos(3 * np.pi / 8)
    assert _rates(4, schedule="cosine") == pytest.approx(
        [1.0, (1 + half) / 2, 0.5, (1 - half) / 2], abs=1e-12
    )
    assert _rates(4, schedule="smoothed_cosine") == pytest.approx(
        [1.0, (1 + quarter) / 2, (1 + half) / 2, (1 + eighth) / 2], abs=1e-12
    )
    assert _rates(4, schedule="step") == pytest.approx([1.0, 1.0, 0.1, 0.1], abs=1e-12)
    assert _rates(5, schedule="step") == pytest.approx([1.0, 1.0, 1.0, 0.1, 0.1], abs=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("schedule", "build", "end"),
    [
        ("cosine", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=10), 0.0),
        ("smoothed_cosine", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=20), 0.5),
        ("step", lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=5, gamma=0.1), 0.01),
    ],
)
def test_schedules_equal_torchs(schedule, build, end):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = build(optimizer)
    theirs = list[float]()
    for _ in range(10):
        theirs += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    # torch computes each cosine from the previous one: a few rounding errors.
    assert _rates(schedule=schedule) == pytest.approx(theirs, abs=1e-10)
    assert scheduler.get_last_lr() == [pytest.approx(end, abs=1e-10)]  # after the last step


def test_a_warmup_raises_the_rate_from_zero_to_the_schedules():
    rise = np.array([0, 1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1, 1, 1])
    for schedule in ("cosine", "smoothed_cosine", "step"):
        cold = np.array(_rates(schedule=schedule))
        assert _rates(schedule=schedule, warmup=0.4) == pytest.approx(rise * cold, abs=1e-12)


def test_the_schedule_advances_per_step_and_not_per_epoch():
    # 10 epochs of 2 steps: per epoch, the weight is multiplied by both steps' decay factors.
    shares = (1 + np.cos(np.pi * np.arange(20) / 20)) / 2
    kept = (1 - 0.05 * shares).reshape(10, 2).prod(axis=1)
    assert _rates(batch_size=5) == pytest.approx((1 - kept) / 0.05, abs=1e-12)
