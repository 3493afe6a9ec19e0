"""Training follows its seed, learns, and says how it learnt."""

import numpy as np
import pytest
import torch
from torch import nn

from d4m.errors import ClassifierError
from d4m.settings import MatchingSettings
from d4m.training.train import Training, train_with_hard_labels, train_with_soft_labels
from tests.training.toys import (
    FAST,
    FROZEN,
    KL,
    MIXED,
    STILL,
    VIEWS,
    accuracy_on,
    label,
    linear_model,
    make_teacher,
    toy_images,
    train_convnet,
    weights_of,
)


def test_the_same_seed_gives_the_same_weights_to_the_bit_and_another_seed_does_not():
    images = toy_images()
    labels = label(images, epochs=3)
    first = train_convnet(0, labels=labels, images=images)
    torch.rand(17)  # something else draws from the global generator
    assert torch.equal(first, train_convnet(0, labels=labels, images=images))
    assert not torch.equal(first, train_convnet(1, labels=labels, images=images))


def test_views_made_for_many_batches_at_once_equal_those_made_per_batch(monkeypatch):
    images = toy_images()

    def weights(pixels_at_once):
        monkeypatch.setattr("d4m.training.ahead._PIXELS_AT_ONCE", pixels_at_once)
        model = linear_model()
        labels = label(images, epochs=3, views=MIXED)
        train_with_soft_labels(
            model, images, labels, Training(epochs=3, optimizer=FAST, seed=2), matching=KL
        )
        return weights_of(model)

    one_batch, two_batches, an_epoch = 1, 2 * 16 * 8 * 8, 1 << 20
    assert torch.equal(weights(one_batch), weights(an_epoch))
    assert torch.equal(weights(one_batch), weights(two_batches))


def test_a_training_that_diverges_stops_and_names_the_rate():
    """Weights that are no numbers would be scored, stored and handed on like others."""
    images = toy_images()
    wild = FAST.model_copy(update={"learning_rate": 1e30})
    training = Training(epochs=3, optimizer=wild, seed=2)
    message = r"has diverged: .* Lower its `optimizer\.learning_rate`, which is 1e\+30"
    with pytest.raises(ClassifierError, match=message):
        train_with_hard_labels(linear_model(), images, training, augmentation=VIEWS)
    with pytest.raises(ClassifierError, match=message):
        train_with_soft_labels(
            linear_model(), images, label(images, epochs=3), training, matching=KL
        )


def test_hard_label_training_follows_its_seed_too():
    images = toy_images()

    def train(seed):
        model = linear_model()
        train_with_hard_labels(
            model, images, Training(epochs=2, optimizer=FAST, seed=seed), augmentation=VIEWS
        )
        return weights_of(model)

    assert torch.equal(train(0), train(0))
    assert not torch.equal(train(0), train(1))


def test_two_threads_train_a_model_that_indexes_a_table_the_same_each_time():
    class Biased(nn.Module):
        """A linear classifier with a table of biases, each used many times, as in Swin."""

        def __init__(self):
            super().__init__()
            self.linear = linear_model()
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
            model, toy_images(), Training(epochs=10, optimizer=FAST, seed=1), augmentation=VIEWS
        )
        return weights_of(model)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first, *others = (trained() for _ in range(4))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(first, other) for other in others)


def test_dropout_follows_the_seed_and_does_not_change_the_global_generator():
    images = toy_images()

    def train(seed):
        model = nn.Sequential(nn.Dropout(0.5), *linear_model())
        train_with_hard_labels(
            model, images, Training(epochs=2, optimizer=FAST, seed=seed), augmentation=STILL
        )
        return weights_of(model)

    before = torch.random.get_rng_state()
    first = train(0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(17)
    assert torch.equal(first, train(0))


@pytest.mark.parametrize("loss", ["kl", "kl_t2", "mse_ce"])
def test_a_separable_set_is_learnt_from_soft_labels(loss):
    images = toy_images()
    model = linear_model(seed=3)
    before = accuracy_on(model, toy_images())
    curve = train_with_soft_labels(
        model,
        images,
        label(images, epochs=30),
        Training(epochs=30, optimizer=FAST, seed=0),
        matching=MatchingSettings(loss=loss, temperature=4.0),
    )
    assert before < 0.9
    assert accuracy_on(model, toy_images()) == 1.0
    assert curve.losses[-1] < curve.losses[0] / 10


def test_a_separable_set_is_learnt_from_hard_labels():
    model = linear_model(seed=3)
    before = accuracy_on(model, toy_images())
    curve = train_with_hard_labels(
        model, toy_images(), Training(epochs=30, optimizer=FAST, seed=0), augmentation=STILL
    )
    assert before < 0.9
    assert accuracy_on(model, toy_images()) == 1.0
    assert curve.losses[-1] < 1e-3
    assert curve.losses[-1] < curve.losses[0]


def test_a_student_with_enough_soft_labels_becomes_equal_to_its_teacher():
    # 60 epochs of views of 60 images determine a linear map of 64 pixels: the KL goes to 0.
    images = toy_images()
    model = linear_model(seed=3)
    curve = train_with_soft_labels(
        model,
        images,
        label(images, epochs=60),
        Training(epochs=60, optimizer=FAST, seed=0),
        matching=MatchingSettings(temperature=1.0),
    )
    assert curve.losses[-1] < 2e-3
    with torch.inference_mode():
        gap = torch.softmax(model(images.pixels), 1) - torch.softmax(
            make_teacher()(images.pixels), 1
        )
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
        linear_model(),
        toy_images(images=10),
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
    images = toy_images(images=10)
    curve = train_with_soft_labels(
        linear_model(),
        images,
        label(images, 2),
        Training(epochs=2, optimizer=FAST, seed=0),
        matching=KL,
    )
    assert np.isnan([curve.top1, curve.balanced]).tolist() == [[True, True]] * 2
