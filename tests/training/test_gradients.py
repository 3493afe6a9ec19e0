"""Gradients added up over parts are those of the whole batch, also where memory runs out."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

from d4m.classifiers.convnet import ConvNet
from d4m.errors import ClassifierError
from d4m.images.image_set import ImageSet
from d4m.settings import AugmentationSettings, OptimizerSettings
from d4m.training.gradients import Gradients, looks_at_batches
from d4m.training.train import Training, train_with_hard_labels

FITS = 3


class _Small(nn.Module):
    """A network on a device whose memory fits `FITS` images, and not one where `most` is 0."""

    def __init__(self, network, most=FITS):
        super().__init__()
        self.network, self.most, self.sizes = network, most, []

    def forward(self, pixels):
        self.sizes.append(len(pixels))
        features = self.network(pixels)  # changes what it changes before memory runs out
        if len(pixels) > self.most:
            msg = "CUDA out of memory"
            raise torch.OutOfMemoryError(msg)
        return features


def _convnet():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return ConvNet(1, 8, 4, width=8).train()


def _normed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)
        return nn.Sequential(*layers).train()


def _plain():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))


def _batch(count=10):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand((count, 1, 8, 8), generator=generator) * 2 - 1
    return pixels, torch.arange(count) % 4


def _flat(model):
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def _gradient(model):
    return torch.cat([weight.grad.flatten() for weight in model.parameters()])


def _add(gradients, pixels, class_ids):
    return gradients.add(
        pixels,
        lambda logits, rows: nn.functional.cross_entropy(logits, class_ids[rows], reduction="none"),
    )


def _whole(model, pixels, class_ids):
    model.zero_grad()
    losses = nn.functional.cross_entropy(model(pixels), class_ids, reduction="none")
    losses.mean().backward()
    return _gradient(model), losses.detach().sum()


@pytest.mark.parametrize("at_once", [1, 3, 5, 9, 10, 64, None])
def test_gradients_of_parts_are_those_of_the_whole_batch(at_once):
    pixels, class_ids = _batch()
    wanted, total = _whole(_convnet(), pixels, class_ids)
    model = _convnet()
    gradients = Gradients(model, "float32", at_once=at_once)
    for _ in range(2):  # gradients of an earlier batch are gone
        found = _add(gradients, pixels, class_ids)
    assert torch.allclose(_gradient(model), wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())
    assert found.item() == pytest.approx(total.item(), rel=1e-6)
    if at_once in (10, 64, None):
        assert torch.equal(_gradient(model), wanted)


@pytest.mark.parametrize(("build", "sizes"), [(_convnet, [4, 4, 2]), (_normed, [10])])
def test_a_cpu_has_parts_of_so_many_pixels_unless_a_network_looks_at_the_batch(
    monkeypatch, build, sizes
):
    monkeypatch.setattr("d4m.training.gradients._PIXELS_ON_CPU", 4 * 8**2 + 1)
    pixels, class_ids = _batch()
    wanted, _ = _whole(build(), pixels, class_ids)
    model = _Small(build(), most=10)
    _add(Gradients(model, "float32"), pixels, class_ids)
    assert model.sizes == sizes
    assert torch.allclose(_gradient(model), wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


def test_parts_are_halved_until_they_fit_and_the_size_is_kept(caplog):
    pixels, class_ids = _batch(16)
    wanted, _ = _whole(_convnet(), pixels, class_ids)
    model = _Small(_convnet())
    gradients = Gradients(model, "float32")
    with caplog.at_level(logging.WARNING):
        _add(gradients, pixels, class_ids)
    assert model.sizes == [16, 8, 4, *[2] * 8]
    assert torch.allclose(_gradient(model), wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())
    assert "a batch of 4 images does not fit" in caplog.text
    assert "batch norm" not in caplog.text
    model.sizes.clear()
    _add(gradients, pixels, class_ids)
    assert model.sizes == [2] * 8


def test_batch_norm_is_split_only_where_it_must_be_and_by_parts_statistics(caplog):
    pixels, class_ids = _batch(4)
    whole = _normed()
    wanted, _ = _whole(whole, pixels, class_ids)
    model = _normed()
    _add(Gradients(model, "float32", at_once=2), pixels, class_ids)
    assert torch.equal(_gradient(model), wanted)

    parts = _normed()
    parts.zero_grad()
    for rows in (slice(0, 2), slice(2, 4)):
        losses = nn.functional.cross_entropy(parts(pixels[rows]), class_ids[rows], reduction="sum")
        (losses / 4).backward()
    small = _Small(_normed())
    with caplog.at_level(logging.WARNING):
        _add(Gradients(small, "float32"), pixels, class_ids)
    assert torch.equal(_gradient(small), _gradient(parts))
    assert not torch.allclose(_gradient(small), wanted, atol=1e-3)
    # Running statistics know nothing of the attempt that failed.
    assert torch.equal(small.network[1].running_mean, parts[1].running_mean)
    assert int(small.network[1].num_batches_tracked) == 2
    assert "its own statistics of batch norm" in caplog.text


def test_a_batch_of_1024_trains_on_a_device_that_fits_64():
    """A convnet whose layers look at one image at a time, as D4M's own students are."""
    pixels, class_ids = _batch(1024)
    wanted, total = _whole(_convnet(), pixels, class_ids)
    for model, at_once in ((_Small(_convnet(), 64), None), (_Small(_convnet(), 64), 64)):
        found = _add(Gradients(model, "float32", at_once=at_once), pixels, class_ids)
        tried = [] if at_once else [1024, 512, 256, 128]
        assert model.sizes == [*tried, *[64] * 16]
        largest = wanted.abs().max().item()
        assert torch.allclose(_gradient(model), wanted, rtol=0, atol=1e-5 * largest)
        assert found.item() == pytest.approx(total.item(), rel=1e-6)

    model = _Small(_convnet(), 64)
    settings = OptimizerSettings(name="sgd", batch_size=1024, learning_rate=0.1)
    curve = train_with_hard_labels(
        model,
        ImageSet(pixels, class_ids),
        Training(epochs=3, optimizer=settings, seed=2),
        augmentation=AugmentationSettings(crop_scale=(1.0, 1.0), flip=0.0, cutmix=0.0),
    )
    assert model.sizes == [1024, 512, 256, 128, *[64] * 48]
    assert curve.losses[-1] < curve.losses[0]


def test_batch_norm_of_1024_has_the_statistics_of_16_parts_where_64_fit(caplog):
    pixels, class_ids = _batch(1024)
    parts = _normed()
    parts.zero_grad()
    for start in range(0, 1024, 64):
        rows = slice(start, start + 64)
        losses = nn.functional.cross_entropy(parts(pixels[rows]), class_ids[rows], reduction="sum")
        (losses / 1024).backward()
    small = _Small(_normed(), 64)
    with caplog.at_level(logging.WARNING):
        _add(Gradients(small, "float32", at_once=64), pixels, class_ids)
    # The size that was asked for is used only after the whole batch did not fit.
    assert small.sizes == [1024, *[64] * 16]
    assert torch.equal(_gradient(small), _gradient(parts))
    whole, _ = _whole(_normed(), pixels, class_ids)
    gap = (_gradient(small) - whole).abs().max() / whole.abs().max()
    assert 1e-5 < gap < 0.2
    assert "its own statistics of batch norm" in caplog.text


def test_dropout_draws_after_a_failed_attempt_what_it_draws_without_one():
    pixels, class_ids = _batch(4)

    def gradient(most):
        torch.manual_seed(1)
        layers = nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 4)
        model = _Small(nn.Sequential(*layers).train(), most)
        gradients = Gradients(model, "float32", at_once=2)
        if most == 4:
            gradients._at_once = 2  # parts from the start
        with torch.random.fork_rng(devices=[]):
            _add(gradients, pixels, class_ids)
        return _gradient(model)

    assert torch.equal(gradient(2), gradient(4))


def test_networks_that_look_at_batches_are_told_from_those_that_do_not():
    assert not looks_at_batches(_convnet())
    assert looks_at_batches(_normed())
    assert looks_at_batches(nn.Sequential(nn.Dropout(0.1)))
    assert not looks_at_batches(nn.Sequential(nn.Dropout(0.0), nn.LayerNorm(3)))


def test_a_device_that_fits_no_image_is_an_error_that_names_what_to_do():
    with pytest.raises(ClassifierError, match=r"not even one image fits .* \(`dataset.size_px`\)"):
        _add(Gradients(_Small(_convnet(), most=0), "float32"), *_batch(2))


@pytest.mark.parametrize("more", [{"channels_last": True}, {"backend": "eager"}])
def test_layout_and_compilation_change_rounding_only(more):
    pixels, class_ids = _batch()
    wanted, _ = _whole(_plain(), pixels.expand(-1, 3, -1, -1), class_ids)
    model, layouts = _plain(), list[bool]()
    gradients = Gradients(model, "float32", **more)
    channels_last = {"memory_format": torch.channels_last}
    if "backend" not in more:  # which would trace the hook
        model[0].register_forward_pre_hook(
            lambda layer, pixels: layouts.append(
                layer.weight.is_contiguous(**channels_last)
                and pixels[0].is_contiguous(**channels_last)
            )
        )
    _add(gradients, pixels.expand(-1, 3, -1, -1), class_ids)
    assert all(layouts)
    assert len(layouts) == len(more.keys() - {"backend"})
    assert torch.allclose(_gradient(model), wanted, rtol=0, atol=1e-5)
    gradients.finish()
    assert all(weight.is_contiguous() for weight in model.parameters())


def test_a_student_trained_in_parts_equals_one_trained_in_whole_batches():
    pixels, class_ids = _batch(20)
    weights = np.linspace(0.5, 1.5, 20, dtype=np.float32)
    images = ImageSet(pixels, class_ids, torch.from_numpy(weights / weights.mean()))

    def train(at_once):
        model = _convnet()
        settings = OptimizerSettings(name="sgd", batch_size=8, learning_rate=0.1)
        training = Training(epochs=2, optimizer=settings, seed=2, at_once=at_once)
        curve = train_with_hard_labels(
            model, images, training, augmentation=AugmentationSettings(crop_scale=(0.5, 1.0))
        )
        return _flat(model), curve.losses

    whole, losses = train(None)
    parts, same_losses = train(3)
    assert torch.allclose(whole, parts, rtol=0, atol=1e-5)
    assert not torch.allclose(whole, _flat(_convnet()), rtol=0, atol=1e-2)
    assert losses == pytest.approx(same_losses, rel=1e-4)
