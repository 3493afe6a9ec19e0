"""Training: reproducible to the bit, and able to learn what can be learnt."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from d4m.augment import draw_views, replay_views
from d4m.classifiers.convnet import ConvNet3
from d4m.matching import hard_label_loss, soft_label_loss
from d4m.seeds import stream_generator
from d4m.settings import AugmentationSettings, OptimizerSettings
from d4m.soft_labels import label_epoch
from d4m.student import train_with_hard_labels, train_with_soft_labels

VIEWS = AugmentationSettings(crop_scale=(0.8, 1.0), flip=0.0, cutmix=0.5)
STILL = AugmentationSettings(crop_scale=(1.0, 1.0), flip=0.0, cutmix=0.0)
FAST = OptimizerSettings(batch_size=16, learning_rate=0.03)
FROZEN = OptimizerSettings(batch_size=5, learning_rate=1e-30, weight_decay=0.0)


def _toy(images=60):
    """Two classes: bright above or bright below, with noise."""
    class_ids = torch.arange(images) % 2
    pixels = torch.randn(images, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.3
    pixels[:, :, :4] += torch.where(class_ids == 0, 0.5, -0.5)[:, None, None, None]
    pixels[:, :, 4:] -= torch.where(class_ids == 0, 0.5, -0.5)[:, None, None, None]
    return pixels, class_ids


def _linear(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))


def _teacher():
    """Scores the brightness above minus below."""
    teacher = _linear()
    weights = torch.cat([torch.ones(32), -torch.ones(32)]) / 8
    with torch.no_grad():
        teacher[1].weight.copy_(torch.stack([weights, -weights]))
        teacher[1].bias.zero_()
    return teacher.eval()


def _labels(pixels, epochs, views=VIEWS):
    return [label_epoch(pixels, _teacher(), views, seed=1, epoch=e) for e in range(epochs)]


def _accuracy(model, pixels, class_ids):
    with torch.inference_mode():
        return float((model(pixels).argmax(1) == class_ids).float().mean())


def _weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def _train_convnet(seed, *, labels, pixels):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = ConvNet3(1, 8, 2, width=8)
    train_with_soft_labels(model, pixels, labels, settings=FAST, temperature=4.0, seed=seed)
    return _weights(model)


def test_the_same_seed_gives_the_same_weights_to_the_bit_and_another_seed_does_not():
    pixels, _ = _toy()
    labels = _labels(pixels, epochs=3)
    first = _train_convnet(0, labels=labels, pixels=pixels)
    torch.rand(17)  # whatever else drew from the global generator
    assert torch.equal(first, _train_convnet(0, labels=labels, pixels=pixels))
    assert not torch.equal(first, _train_convnet(1, labels=labels, pixels=pixels))


def test_hard_label_training_follows_its_seed_too():
    pixels, class_ids = _toy()

    def train(seed):
        model = _linear()
        train_with_hard_labels(
            model, pixels, class_ids, epochs=2, augmentation=VIEWS, settings=FAST, seed=seed
        )
        return _weights(model)

    assert torch.equal(train(0), train(0))
    assert not torch.equal(train(0), train(1))


def test_dropout_follows_the_seed_and_leaves_the_global_generator_alone():
    pixels, class_ids = _toy()

    def train(seed):
        model = nn.Sequential(nn.Dropout(0.5), *_linear())
        train_with_hard_labels(
            model, pixels, class_ids, epochs=2, augmentation=STILL, settings=FAST, seed=seed
        )
        return _weights(model)

    before = torch.random.get_rng_state()
    first = train(0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(17)
    assert torch.equal(first, train(0))


def test_a_separable_set_is_learnt_from_soft_labels():
    pixels, class_ids = _toy()
    model = _linear(seed=3)
    before = _accuracy(model, pixels, class_ids)
    curve = train_with_soft_labels(
        model, pixels, _labels(pixels, epochs=30), settings=FAST, temperature=4.0, seed=0
    )
    assert before < 0.9
    assert _accuracy(model, pixels, class_ids) == 1.0
    assert curve.losses[-1] < curve.losses[0] / 10


def test_a_separable_set_is_learnt_from_hard_labels():
    pixels, class_ids = _toy()
    model = _linear(seed=3)
    before = _accuracy(model, pixels, class_ids)
    curve = train_with_hard_labels(
        model, pixels, class_ids, epochs=30, augmentation=STILL, settings=FAST, seed=0
    )
    assert before < 0.9
    assert _accuracy(model, pixels, class_ids) == 1.0
    assert curve.losses[-1] < 1e-3
    assert curve.losses[-1] < curve.losses[0]


def test_a_student_of_enough_soft_labels_becomes_its_teacher():
    # One linear map from 60 images of 64 pixels: the KL of its teacher's scores goes to 0.
    pixels, _ = _toy()
    model = _linear(seed=3)
    curve = train_with_soft_labels(
        model, pixels, _labels(pixels, epochs=60), settings=FAST, temperature=1.0, seed=0
    )
    assert curve.losses[-1] < 2e-3
    with torch.inference_mode():
        gap = torch.softmax(model(pixels), 1) - torch.softmax(_teacher()(pixels), 1)
    assert float(gap.abs().max()) < 0.05


@pytest.mark.parametrize(
    ("epochs", "looks"),
    [
        (1, [1]),
        (3, [1, 2, 3]),
        (10, list(range(1, 11))),
        (25, [2, 5, 7, 10, 12, 15, 17, 20, 22, 25]),
    ],
)
def test_the_curve_has_at_most_ten_points_and_ends_with_the_last_epoch(epochs, looks):
    pixels, class_ids = _toy(images=10)
    seen = list[bool]()
    curve = train_with_hard_labels(
        _linear(),
        pixels,
        class_ids,
        epochs=epochs,
        augmentation=STILL,
        settings=FROZEN,
        seed=0,
        probe=lambda model: float(seen.append(model.training) or len(seen)),
    )
    assert curve.epochs == looks
    assert curve.top1 == [float(look + 1) for look in range(len(looks))]
    assert seen == [False] * len(looks)


def test_without_a_probe_the_curve_has_no_accuracies():
    pixels, _ = _toy(images=10)
    curve = train_with_soft_labels(
        _linear(), pixels, _labels(pixels, 2), settings=FAST, temperature=1.0, seed=0
    )
    assert np.isnan(curve.top1).tolist() == [True, True]


def test_the_curves_loss_is_the_mean_over_images_also_in_unequal_batches():
    pixels, class_ids = _toy(images=13)  # batches of 5, 4 and 4
    model = _linear()
    curve = train_with_hard_labels(
        model, pixels, class_ids, epochs=2, augmentation=VIEWS, settings=FROZEN, seed=4
    )
    for epoch, found in enumerate(curve.losses):
        views = draw_views(VIEWS, seed=4, epoch=epoch, images=13, size_px=8)
        logits = model(replay_views(pixels, views, np.arange(13)))
        shares = torch.from_numpy(views.own_shares(8)).float()
        expected = hard_label_loss(logits, class_ids, class_ids[views.partners], shares)
        assert found == pytest.approx(float(expected.detach()), rel=1e-5)


def test_soft_labels_stay_with_their_own_images_when_the_order_is_shuffled():
    pixels, _ = _toy(images=13)
    labels = _labels(pixels, epochs=1)
    model = _linear()
    curve = train_with_soft_labels(model, pixels, labels, settings=FROZEN, temperature=2.0, seed=4)
    logits = model(replay_views(pixels, labels[0].views, np.arange(13)))
    teacher_logits = torch.from_numpy(labels[0].logits.astype(np.float32))
    expected = float(soft_label_loss(logits, teacher_logits, 2.0).detach())
    assert curve.losses == [pytest.approx(expected, rel=1e-5)]


@pytest.mark.parity
def test_training_is_a_plain_loop_of_adamw_with_cosine_decay():
    pixels, class_ids = _toy(images=10)
    ours, theirs = _linear(), _linear()
    settings = OptimizerSettings(batch_size=4, learning_rate=0.01, weight_decay=0.1)
    train_with_hard_labels(
        ours, pixels, class_ids, epochs=3, augmentation=STILL, settings=settings, seed=2
    )
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.1)
    step = 0
    for epoch in range(3):
        views = draw_views(STILL, seed=2, epoch=epoch, images=10, size_px=8)
        order = stream_generator(2, "order", epoch).permutation(10)
        for rows in (order[:4], order[4:7], order[7:]):
            optimizer.param_groups[0]["lr"] = 0.01 * (1 + np.cos(np.pi * step / 9)) / 2
            loss = F.cross_entropy(theirs(replay_views(pixels, views, rows)), class_ids[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    # The scheduler computes its rates recursively: relative differences of 1e-7 a step.
    assert torch.allclose(_weights(ours), _weights(theirs), rtol=0, atol=1e-6)
