"""Training is reproducible bit for bit, and learns sets that can be learnt."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from d4m.classifiers.convnet import ConvNet
from d4m.images.image_set import ImageSet
from d4m.seeds import stream_generator
from d4m.settings import (
    AugmentationSettings,
    MatchingSettings,
    OptimizerSettings,
    SoftLabelSettings,
)
from d4m.training.augment import draw_views, replay_views
from d4m.training.losses import class_loss, kl_loss
from d4m.training.soft_labels import TeacherLabels
from d4m.training.train import Training, train_with_hard_labels, train_with_soft_labels

VIEWS = AugmentationSettings(crop_scale=(0.8, 1.0), flip=0.0, cutmix=0.5)
MIXED = AugmentationSettings(crop_scale=(0.8, 1.0), flip=0.0, cutmix=0.4, mixup=0.6)
STILL = AugmentationSettings(crop_scale=(1.0, 1.0), flip=0.0, cutmix=0.0)
FAST = OptimizerSettings(batch_size=16, learning_rate=0.03)
FROZEN = OptimizerSettings(batch_size=5, learning_rate=1e-30, weight_decay=0.0)
KL = MatchingSettings(temperature=4.0)


def _toy(images=60, **more):
    """Draw images of two classes, brighter in the upper or in the lower half, with noise."""
    class_ids = torch.arange(images) % 2
    pixels = torch.randn(images, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.3
    pixels[:, :, :4] += torch.where(class_ids == 0, 0.5, -0.5)[:, None, None, None]
    pixels[:, :, 4:] -= torch.where(class_ids == 0, 0.5, -0.5)[:, None, None, None]
    return ImageSet(pixels, class_ids, **more)


def _linear(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))


def _teacher():
    """Build a teacher whose logits are plus and minus the brightness of upper less lower half."""
    teacher = _linear()
    weights = torch.cat([torch.ones(32), -torch.ones(32)]) / 8
    with torch.no_grad():
        teacher[1].weight.copy_(torch.stack([weights, -weights]))
        teacher[1].bias.zero_()
    return teacher.eval()


def _labels(images, epochs, views=VIEWS):
    settings = SoftLabelSettings(epochs=epochs, augmentation=views)
    return TeacherLabels(images, _teacher(), settings, seed=1)[:]


def _accuracy(model, images):
    with torch.inference_mode():
        return float((model(images.pixels).argmax(1) == images.class_ids).float().mean())


def _weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


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
        _linear(),
        images,
        labels,
        Training(epochs=epochs, optimizer=optimizer, seed=4),
        matching=MatchingSettings(**matching),
    ).losses


def _train_convnet(seed, *, labels, images, **changes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = ConvNet(1, 8, 2, width=8)
    optimizer = FAST.model_copy(update=changes)
    train_with_soft_labels(
        model, images, labels, Training(epochs=3, optimizer=optimizer, seed=seed), matching=KL
    )
    return _weights(model)


def test_the_same_seed_gives_the_same_weights_to_the_bit_and_another_seed_does_not():
    images = _toy()
    labels = _labels(images, epochs=3)
    first = _train_convnet(0, labels=labels, images=images)
    torch.rand(17)  # something else draws from the global generator
    assert torch.equal(first, _train_convnet(0, labels=labels, images=images))
    assert not torch.equal(first, _train_convnet(1, labels=labels, images=images))


def test_views_made_for_many_batches_at_once_equal_those_made_per_batch(monkeypatch):
    images = _toy()

    def weights(pixels_at_once):
        monkeypatch.setattr("d4m.training.ahead._PIXELS_AT_ONCE", pixels_at_once)
        model = _linear()
        labels = _labels(images, epochs=3, views=MIXED)
        train_with_soft_labels(
            model, images, labels, Training(epochs=3, optimizer=FAST, seed=2), matching=KL
        )
        return _weights(model)

    one_batch, two_batches, an_epoch = 1, 2 * 16 * 8 * 8, 1 << 20
    assert torch.equal(weights(one_batch), weights(an_epoch))
    assert torch.equal(weights(one_batch), weights(two_batches))


def test_hard_label_training_follows_its_seed_too():
    images = _toy()

    def train(seed):
        model = _linear()
        train_with_hard_labels(
            model, images, Training(epochs=2, optimizer=FAST, seed=seed), augmentation=VIEWS
        )
        return _weights(model)

    assert torch.equal(train(0), train(0))
    assert not torch.equal(train(0), train(1))


def test_two_threads_train_a_model_that_indexes_a_table_the_same_each_time():
    class Biased(nn.Module):
        """A linear classifier with a table of biases, each used many times, as in Swin."""

        def __init__(self):
            super().__init__()
            self.linear = _linear()
            self.table = nn.Parameter(torch.zeros(8, 512))
            generator = torch.Generator().manual_seed(0)
            self.places = torch.randint(8, (512,), generator=generator)
            self.scales = torch.randn(512, 512, generator=generator)

        def forward(self, pixels):
            biases = (self.table[self.places] * self.scales).mean(0)
            return self.linear(pixels) + biases[: 2 * len(pixels)].view(-1, 2)

    def trained():
        model = Biased()
        train_with_hard_labels(
            model, _toy(), Training(epochs=10, optimizer=FAST, seed=1), augmentation=VIEWS
        )
        return _weights(model)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first, *others = (trained() for _ in range(4))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(first, other) for other in others)


def test_dropout_follows_the_seed_and_does_not_change_the_global_generator():
    images = _toy()

    def train(seed):
        model = nn.Sequential(nn.Dropout(0.5), *_linear())
        train_with_hard_labels(
            model, images, Training(epochs=2, optimizer=FAST, seed=seed), augmentation=STILL
        )
        return _weights(model)

    before = torch.random.get_rng_state()
    first = train(0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(17)
    assert torch.equal(first, train(0))


@pytest.mark.parametrize("loss", ["kl", "kl_t2", "mse_ce"])
def test_a_separable_set_is_learnt_from_soft_labels(loss):
    images = _toy()
    model = _linear(seed=3)
    before = _accuracy(model, _toy())
    curve = train_with_soft_labels(
        model,
        images,
        _labels(images, epochs=30),
        Training(epochs=30, optimizer=FAST, seed=0),
        matching=MatchingSettings(loss=loss, temperature=4.0),
    )
    assert before < 0.9
    assert _accuracy(model, _toy()) == 1.0
    assert curve.losses[-1] < curve.losses[0] / 10


def test_a_separable_set_is_learnt_from_hard_labels():
    model = _linear(seed=3)
    before = _accuracy(model, _toy())
    curve = train_with_hard_labels(
        model, _toy(), Training(epochs=30, optimizer=FAST, seed=0), augmentation=STILL
    )
    assert before < 0.9
    assert _accuracy(model, _toy()) == 1.0
    assert curve.losses[-1] < 1e-3
    assert curve.losses[-1] < curve.losses[0]


def test_a_student_with_enough_soft_labels_becomes_equal_to_its_teacher():
    # 60 epochs of views of 60 images determine a linear map of 64 pixels: the KL goes to 0.
    images = _toy()
    model = _linear(seed=3)
    curve = train_with_soft_labels(
        model,
        images,
        _labels(images, epochs=60),
        Training(epochs=60, optimizer=FAST, seed=0),
        matching=MatchingSettings(temperature=1.0),
    )
    assert curve.losses[-1] < 2e-3
    with torch.inference_mode():
        gap = torch.softmax(model(images.pixels), 1) - torch.softmax(_teacher()(images.pixels), 1)
    assert float(gap.abs().max()) < 0.05


@pytest.mark.parametrize(
    ("epochs", "expected_epochs"),
    [
        (1, [1]),
        (3, [1, 2, 3]),
        (10, list(range(1, 11))),
        (25, [2, 5, 7, 10, 12, 15, 17, 20, 22, 25]),
    ],
)
def test_the_curve_has_at_most_ten_points_and_ends_with_the_last_epoch(epochs, expected_epochs):
    seen = list[bool]()
    curve = train_with_hard_labels(
        _linear(),
        _toy(images=10),
        Training(
            epochs=epochs,
            optimizer=FROZEN,
            seed=0,
            probe=lambda model: (float(seen.append(model.training) or len(seen)), len(seen) / 2),
        ),
        augmentation=STILL,
    )
    assert curve.epochs == expected_epochs
    assert curve.top1 == [float(look + 1) for look in range(len(expected_epochs))]
    assert curve.balanced == [each / 2 for each in curve.top1]
    assert seen == [False] * len(expected_epochs)


def test_without_a_probe_the_curve_has_no_accuracies():
    images = _toy(images=10)
    curve = train_with_soft_labels(
        _linear(),
        images,
        _labels(images, 2),
        Training(epochs=2, optimizer=FAST, seed=0),
        matching=KL,
    )
    assert np.isnan([curve.top1, curve.balanced]).tolist() == [[True, True]] * 2


@pytest.mark.parametrize("augmentation", [VIEWS, MIXED])
def test_the_curves_loss_is_the_mean_over_images_also_in_unequal_batches(augmentation):
    images = _toy(images=13)  # batches of 5, 4 and 4
    model = _linear()
    curve = train_with_hard_labels(
        model, images, Training(epochs=2, optimizer=FROZEN, seed=4), augmentation=augmentation
    )
    for epoch, found in enumerate(curve.losses):
        views = draw_views(augmentation, seed=4, epoch=epoch, images=13, size_px=8)
        expected = _expected_class_loss(model, images, views).mean()
        assert found == pytest.approx(float(expected), rel=1e-5)


def test_soft_labels_stay_with_their_images_when_the_order_is_shuffled():
    images = _toy(images=13)
    labels = _labels(images, epochs=1)
    expected = float(_expected_kl(_linear(), images, labels[0], 2.0).mean())
    assert _soft_losses(images, labels, temperature=2.0) == [pytest.approx(expected, rel=1e-5)]


def test_labels_are_reused_if_there_are_more_epochs():
    images = _toy(images=13)
    labels = _labels(images, epochs=3)
    expected = [float(_expected_kl(_linear(), images, each, 4.0).mean()) for each in labels]
    assert len({round(loss, 4) for loss in expected}) == 3
    again = [expected[epoch % 3] for epoch in range(8)]
    assert _soft_losses(images, labels, epochs=8, temperature=4.0) == pytest.approx(again, rel=1e-5)


def test_labels_of_later_epochs_are_not_used():
    images = _toy(images=13)
    losses = _soft_losses(images, _labels(images, epochs=5), epochs=2)
    assert losses == _soft_losses(images, _labels(images, epochs=2), epochs=2)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
def test_kl_t2_is_kl_times_the_temperature_squared(temperature):
    images = _toy(images=13)
    labels = _labels(images, epochs=2)
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
    images = _toy(images=13)
    (labels,) = _labels(images, epochs=1, views=augmentation)
    with torch.inference_mode():
        logits = _linear()(replay_views(images.pixels, labels.views, np.arange(13))).double()
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
    images = _toy(images=13)
    labels = _labels(images, epochs=1, views=STILL)
    of_each = _expected_kl(_linear(), images, labels[0], 4.0)
    for image in (0, 5, 12):
        weights = torch.zeros(13)
        weights[image] = 13.0
        losses = _soft_losses(replace(images, weights=weights), labels, temperature=4.0)
        assert losses == [pytest.approx(float(of_each[image]), rel=1e-5)]


def test_weights_scale_the_gradient_as_they_scale_the_loss():
    # One step of plain gradient descent on all images at once.
    images = _toy(images=13, weights=torch.linspace(0, 2, 13))
    settings = OptimizerSettings(name="sgd", momentum=0, weight_decay=0, learning_rate=0.5)
    ours, theirs = _linear(), _linear()
    train_with_hard_labels(
        ours, images, Training(epochs=1, optimizer=settings, seed=0), augmentation=STILL
    )
    losses = F.cross_entropy(theirs(images.pixels), images.class_ids, reduction="none")
    ((losses * images.weights).sum() / 13).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in theirs.parameters()])
    # The sum over images is in another order: float32 rounding.
    assert torch.allclose(_weights(ours), _weights(theirs) - 0.5 * gradient, rtol=0, atol=1e-6)


def test_weights_of_one_change_nothing():
    images = _toy(images=13)
    labels = _labels(images, epochs=3)
    weighted = replace(images, weights=torch.ones(13))
    first, second = (_train_convnet(0, labels=labels, images=each) for each in (images, weighted))
    assert torch.equal(first, second)
    doubled = replace(images, weights=torch.linspace(0, 2, 13))
    assert not torch.equal(first, _train_convnet(0, labels=labels, images=doubled))


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
    images = _toy(images=10)
    ours, theirs = _linear(), _linear()
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
    assert float((_weights(ours) - _weights(_linear())).abs().max()) > 1e-3
    # Losses are averaged, and rates computed, in another order: float32 rounding.
    assert torch.allclose(_weights(ours), _weights(theirs), rtol=0, atol=1e-6)


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
        _toy(images=10),
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
        model, _toy(20), Training(epochs=1, optimizer=optimizer, seed=0), augmentation=STILL
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


def test_bfloat16_is_used_in_products_only():
    class Watching(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = _linear()
            self.seen = set[torch.dtype]()

        def forward(self, pixels):
            logits = self.linear(pixels)
            self.seen |= {pixels.dtype, logits.dtype, *(p.dtype for p in self.parameters())}
            return logits

    images = _toy()
    seen = dict[str, set[torch.dtype]]()
    for precision in ("float32", "bfloat16"):
        model = Watching()
        optimizer = FAST.model_copy(update={"precision": precision})
        train_with_hard_labels(
            model, images, Training(epochs=1, optimizer=optimizer, seed=0), augmentation=STILL
        )
        seen[precision] = model.seen
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}
    # Images and weights stay float32; results of products are bfloat16.
    assert seen == {"float32": {torch.float32}, "bfloat16": {torch.float32, torch.bfloat16}}


def test_bfloat16_learns_as_well_as_float32_but_not_bit_for_bit():
    images = _toy()
    labels = _labels(images, epochs=30)
    models, losses = [], []
    for precision in ("float32", "bfloat16"):
        model = _linear(seed=3)
        optimizer = FAST.model_copy(update={"precision": precision})
        curve = train_with_soft_labels(
            model, images, labels, Training(epochs=30, optimizer=optimizer, seed=0), matching=KL
        )
        models.append(model)
        losses.append(curve.losses)
        assert _accuracy(model, images) == 1.0
        assert curve.losses[-1] < curve.losses[0] / 10
    assert not torch.equal(*map(_weights, models))
    # bfloat16 has 8 significant bits, and the first epoch's loss follows only a few steps.
    assert losses[1][0] != losses[0][0]
    assert losses[1][0] == pytest.approx(losses[0][0], rel=0.02)


def test_bfloat16_training_follows_the_seed_to_the_bit_too():
    images = _toy()
    labels = _labels(images, epochs=3)
    first, again, exact = (
        _train_convnet(0, labels=labels, images=images, precision=precision)
        for precision in ("bfloat16", "bfloat16", "float32")
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, exact)
