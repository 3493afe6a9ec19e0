"""Small classes count as much as large ones, by sampling or by weights."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from d4m.images.image_set import ImageSet
from d4m.images.spool import Spool
from d4m.settings import AugmentationSettings, OptimizerSettings
from d4m.training.augment import draw_views, replay_views
from d4m.training.class_balance import balanced_rows, class_weights
from d4m.training.losses import class_loss
from d4m.training.train import Training, train_with_hard_labels

CLASS_IDS = np.array([0] * 9 + [2] * 2 + [3] * 2)  # 13 images of 3 classes; class 1 has none
MIXED = AugmentationSettings(crop_scale=(0.8, 1.0), flip=0.0, cutmix=0.4, mixup=0.6)
FROZEN = OptimizerSettings(batch_size=5, learning_rate=1e-30, weight_decay=0.0)
FAST = OptimizerSettings(batch_size=5, learning_rate=0.03)


def _images():
    pixels = torch.randn(13, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return ImageSet(pixels, torch.from_numpy(CLASS_IDS))


def _linear():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 5))


def _expected_loss(images, epoch, weights=None):
    views = draw_views(MIXED, seed=4, epoch=epoch, images=13, size_px=8)
    with torch.inference_mode():
        logits = _linear()(replay_views(images.pixels, views, np.arange(13)))
    shares = torch.from_numpy(views.own_shares(8)).float()
    partners = images.class_ids[views.partners]
    return float(class_loss(logits, images.class_ids, partners, shares, weights).mean())


def test_each_epoch_has_every_class_equally_often_and_each_image_in_its_turn():
    epochs = [balanced_rows(CLASS_IDS, seed=3, epoch=epoch) for epoch in range(30)]
    for rows in epochs:
        shown = np.bincount(CLASS_IDS[rows], minlength=4)
        assert len(rows) == 13
        assert sorted(shown[[0, 2, 3]]) == [4, 4, 5]
    so_far = np.bincount(np.concatenate(epochs), minlength=13)
    of_class = [so_far[class_id == CLASS_IDS] for class_id in (0, 2, 3)]
    assert [each.sum() for each in of_class] == [130, 130, 130]
    assert [int(np.ptp(each)) for each in of_class] == [1, 0, 0]  # 130 of 9 images, or of 2


def test_an_epochs_images_depend_on_its_seed_and_number_alone():
    first = balanced_rows(CLASS_IDS, seed=3, epoch=7)
    assert np.array_equal(first, balanced_rows(CLASS_IDS, seed=3, epoch=7))
    assert not np.array_equal(first, balanced_rows(CLASS_IDS, seed=4, epoch=7))
    assert not np.array_equal(first, balanced_rows(CLASS_IDS, seed=3, epoch=8))


def test_equal_classes_are_shown_whole_in_every_epoch():
    equal = np.repeat(np.arange(3), 4)
    for epoch in range(3):
        assert sorted(balanced_rows(equal, seed=0, epoch=epoch)) == list(range(12))


@pytest.mark.parity
def test_weights_are_those_of_scikit_learn():
    present = np.unique(CLASS_IDS)
    theirs = compute_class_weight("balanced", classes=present, y=CLASS_IDS)
    ours = class_weights(torch.from_numpy(CLASS_IDS))
    assert ours[present].tolist() == pytest.approx(theirs.tolist())
    assert ours[1] == 0
    assert float(ours[torch.from_numpy(CLASS_IDS)].mean()) == pytest.approx(1)


@pytest.mark.parity
def test_the_weighted_loss_is_torchs():
    logits = torch.randn(13, 5, generator=torch.Generator().manual_seed(1))
    class_ids, weights = torch.from_numpy(CLASS_IDS), torch.tensor([0.5, 1.0, 2.0, 3.0, 1.0])
    mixed = 0.3 * F.one_hot(class_ids, 5) + 0.7 * F.one_hot(class_ids.flip(0), 5)
    theirs = F.cross_entropy(logits, mixed, weight=weights, reduction="none")
    ours = class_loss(logits, class_ids, class_ids.flip(0), torch.full((13,), 0.3), weights)
    assert ours.tolist() == pytest.approx(theirs.tolist(), rel=1e-5)


@pytest.mark.parametrize("balance", ["none", "sampling", "weights"])
def test_training_takes_its_images_or_their_weights(balance):
    images = _images()
    curve = train_with_hard_labels(
        _linear(),
        images,
        Training(epochs=2, optimizer=FROZEN, seed=4),
        augmentation=MIXED,
        balance=balance,
    )
    weights = class_weights(images.class_ids) if balance == "weights" else None
    for epoch, found in enumerate(curve.losses):
        shown = images
        if balance == "sampling":
            rows = torch.from_numpy(balanced_rows(CLASS_IDS, seed=4, epoch=epoch))
            shown = ImageSet(images.pixels[rows], images.class_ids[rows])
        assert found == pytest.approx(_expected_loss(shown, epoch, weights), rel=1e-5)


def test_a_spool_trains_as_a_tensor_does():
    def train(pixels):
        model = _linear()
        train_with_hard_labels(
            model,
            ImageSet(pixels, torch.from_numpy(CLASS_IDS)),
            Training(epochs=2, optimizer=FAST, seed=4),
            augmentation=MIXED,
            balance="sampling",
        )
        return model[1].weight.detach()

    pixels = _images().pixels
    spools = [
        Spool([pixels.numpy()], torch.Tensor.float, largest_in_memory=most) for most in (1 << 20, 1)
    ]
    expected = train(pixels)
    assert not torch.equal(expected, _linear()[1].weight)
    assert all(torch.equal(train(spool), expected) for spool in spools)


def test_picked_images_keep_their_classes_and_weights():
    images = ImageSet(_images().pixels, torch.from_numpy(CLASS_IDS), torch.arange(13.0))
    rows = torch.tensor([12, 0, 12])
    picked = images.pick(rows)
    assert torch.equal(picked.pixels, images.pixels[rows])
    assert picked.class_ids.tolist() == [3, 0, 3]
    assert picked.weights.tolist() == [12, 0, 12]
