"""Losses of soft labels and weights of images, worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from d4m.settings import (
    MatchingSettings,
    OptimizerSettings,
)
from d4m.training.augment import draw_views, replay_views
from d4m.training.losses import class_loss, kl_loss
from d4m.training.train import Training, train_with_hard_labels, train_with_soft_labels
from tests.training.toys import (
    FROZEN,
    MIXED,
    STILL,
    VIEWS,
    label,
    linear_model,
    toy_images,
    train_convnet,
    weights_of,
)


def _expected_kl(model, images, labels, temperature):
    """Return the loss of every image, without training the model."""
    with torch.inference_mode():
        logits = model(replay_views(images.pixels, labels.views, np.arange(len(images))))
    return kl_loss(logits, torch.from_numpy(labels.logits), temperature)


def _expected_class_loss(model, images, views):
    with torch.inference_mode():
        logits = model(replay_views(images.pixels, views, np.arange(len(images))))
    shares = torch.from_numpy(views.own_shares(8)).float()
    return class_loss(logits, images.class_ids, images.class_ids[views.partners], shares)


def _soft_losses(images, labels, *, epochs=1, optimizer=FROZEN, **matching):
    """Return the losses of a model whose weights do not change."""
    return train_with_soft_labels(
        linear_model(),
        images,
        labels,
        Training(epochs=epochs, optimizer=optimizer, seed=4),
        matching=MatchingSettings(**matching),
    ).losses


@pytest.mark.parametrize("augmentation", [VIEWS, MIXED])
def test_the_curves_loss_is_the_mean_over_images_also_in_unequal_batches(augmentation):
    images = toy_images(images=13)  # batches of 5, 4 and 4
    model = linear_model()
    curve = train_with_hard_labels(
        model, images, Training(epochs=2, optimizer=FROZEN, seed=4), augmentation=augmentation
    )
    for epoch, found in enumerate(curve.losses):
        views = draw_views(augmentation, seed=4, epoch=epoch, images=13, size_px=8)
        expected = _expected_class_loss(model, images, views).mean()
        assert found == pytest.approx(float(expected), rel=1e-5)


def test_soft_labels_stay_with_their_images_when_the_order_is_shuffled():
    images = toy_images(images=13)
    labels = label(images, epochs=1)
    expected = float(_expected_kl(linear_model(), images, labels[0], 2.0).mean())
    assert _soft_losses(images, labels, temperature=2.0) == [pytest.approx(expected, rel=1e-5)]


def test_labels_are_reused_if_there_are_more_epochs():
    images = toy_images(images=13)
    labels = label(images, epochs=3)
    expected = [float(_expected_kl(linear_model(), images, each, 4.0).mean()) for each in labels]
    assert len({round(loss, 4) for loss in expected}) == 3
    again = [expected[epoch % 3] for epoch in range(8)]
    assert _soft_losses(images, labels, epochs=8, temperature=4.0) == pytest.approx(again, rel=1e-5)


def test_labels_of_later_epochs_are_not_used():
    images = toy_images(images=13)
    losses = _soft_losses(images, label(images, epochs=5), epochs=2)
    assert losses == _soft_losses(images, label(images, epochs=2), epochs=2)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
def test_kl_t2_is_kl_times_the_temperature_squared(temperature):
    images = toy_images(images=13)
    labels = label(images, epochs=2)
    plain, scaled = (
        _soft_losses(images, labels, epochs=2, loss=loss, temperature=temperature)
        for loss in ("kl", "kl_t2")
    )
    assert min(plain) > 0
    # Scaling by a power of two has no rounding error; scaling by 20 has.
    assert scaled == pytest.approx([temperature**2 * loss for loss in plain], rel=1e-6)


@pytest.mark.parametrize("ce_weight", [0.0, 0.025, 2.0])
@pytest.mark.parametrize("augmentation", [STILL, MIXED])
def test_mse_ce_by_hand(augmentation, ce_weight):
    images = toy_images(images=13)
    (labels,) = label(images, epochs=1, views=augmentation)
    with torch.inference_mode():
        logits = linear_model()(replay_views(images.pixels, labels.views, np.arange(13))).double()
    teacher_logits = torch.from_numpy(labels.logits).double()
    # With two classes, centred logits are plus and minus half of the difference.
    halves = [(each[:, 0] - each[:, 1]) / 2 for each in (logits, teacher_logits)]
    by_logits = (halves[0] - halves[1]) ** 2
    own = F.one_hot(images.class_ids, 2).double()
    shares = torch.from_numpy(labels.views.own_shares(8))[:, None]
    mixed = shares * own + (1 - shares) * own[labels.views.partners]
    by_class = -(mixed * logits.log_softmax(1)).sum(1)
    expected = float((by_logits + ce_weight * by_class).mean())
    # Our losses are computed in float32.
    assert _soft_losses(images, [labels], loss="mse_ce", ce_weight=ce_weight) == [
        pytest.approx(expected, rel=1e-5)
    ]


def test_an_image_of_weight_zero_does_not_count():
    images = toy_images(images=13)
    labels = label(images, epochs=1, views=STILL)
    of_each = _expected_kl(linear_model(), images, labels[0], 4.0)
    for image in (0, 5, 12):
        weights = torch.zeros(13)
        weights[image] = 13.0
        losses = _soft_losses(replace(images, weights=weights), labels, temperature=4.0)
        assert losses == [pytest.approx(float(of_each[image]), rel=1e-5)]


def test_weights_scale_the_gradient_as_they_scale_the_loss():
    # One step of plain gradient descent on all images at once.
    images = toy_images(images=13, weights=torch.linspace(0, 2, 13))
    settings = OptimizerSettings(name="sgd", momentum=0, weight_decay=0, learning_rate=0.5)
    ours, theirs = linear_model(), linear_model()
    train_with_hard_labels(
        ours, images, Training(epochs=1, optimizer=settings, seed=0), augmentation=STILL
    )
    losses = F.cross_entropy(theirs(images.pixels), images.class_ids, reduction="none")
    ((losses * images.weights).sum() / 13).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in theirs.parameters()])
    # The sum over images is in another order: float32 rounding.
    assert torch.allclose(weights_of(ours), weights_of(theirs) - 0.5 * gradient, rtol=0, atol=1e-6)


def test_weights_of_one_change_nothing():
    images = toy_images(images=13)
    labels = label(images, epochs=3)
    weighted = replace(images, weights=torch.ones(13))
    first, second = (train_convnet(0, labels=labels, images=each) for each in (images, weighted))
    assert torch.equal(first, second)
    doubled = replace(images, weights=torch.linspace(0, 2, 13))
    assert not torch.equal(first, train_convnet(0, labels=labels, images=doubled))
