"""Students that are trained at once become what each becomes alone."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from d4m.classifiers.convnet import ConvNet
from d4m.classifiers.joined import Joined
from d4m.images.statistics import ChannelStatistics
from d4m.settings import (
    AugmentationSettings,
    MatchingSettings,
    OptimizerSettings,
    SoftLabelSettings,
)
from d4m.store.checkpoints import NOWHERE
from d4m.training.augment import Views, draw_views, replay_views
from d4m.training.dsa import BatchChanges, change_each
from d4m.training.optimizers import build_optimizer
from d4m.training.soft_labels import TeacherLabels
from d4m.training.together import (
    Learner,
    join_sets,
    join_views,
    train_together_with_hard_labels,
    train_together_with_soft_labels,
)
from d4m.training.train import Training, train_with_hard_labels, train_with_soft_labels
from tests.training.test_resume import assert_same_when_stopped
from tests.training.toys import KL, MIXED, VIEWS, make_teacher, toy_images

EPOCHS = 3
DIFFERENCE = {"sgd": 1e-4, "adam": 1e-3, "adamw": 1e-3, "muon": 0.03}
"""The largest difference of logits.

Muon orthogonalises in bfloat16: weights that differ by 1e-7 at first end 0.03 apart where each
student is trained alone.
"""
STATISTICS = ChannelStatistics((0.5,), (0.3,))
OTHERS = replace(toy_images(), pixels=toy_images().pixels.flip(0).contiguous())


def _probe(model):
    with torch.inference_mode():
        return float(model(OTHERS.pixels)[0, 0]), 0.5


def _learners(optimizer, *, epochs=EPOCHS, images=None, checkpoint=NOWHERE, views=VIEWS, **more):
    """Three students, two of which have the same images and labels."""
    first, other = images or (toy_images(), OTHERS)
    settings = SoftLabelSettings(epochs=epochs, augmentation=views)
    labels = {
        id(own): TeacherLabels(own, make_teacher(), settings, seed=seed)
        for seed, own in enumerate((first, other))
    }
    learners = list[Learner]()
    for seed, own in enumerate((first, first, other)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = ConvNet(1, 8, 2, width=8)
        training = Training(epochs, optimizer, seed=seed, probe=_probe, checkpoint=checkpoint)
        changes = BatchChanges(("crop", "flip", "color"), STATISTICS, seed)
        learners.append(Learner(model, own, replace(training, **more), labels[id(own)], changes))
    return learners


def _soft_alone(learner, matching=KL):
    return train_with_soft_labels(
        learner.model, learner.images, learner.labels, learner.training, matching=matching
    )


def _hard_alone(learner):
    return train_with_hard_labels(
        learner.model,
        learner.images,
        learner.training,
        augmentation=MIXED,
        changes=learner.changes,
    )


def _assert_same(together, alone, curves, own_curves, *, difference):
    for ours, theirs in zip(together, alone, strict=True):
        with torch.inference_mode():
            logits, expected = ours.model(OTHERS.pixels), theirs.model(OTHERS.pixels)
        assert float(expected.std()) > difference
        assert float((logits - expected).abs().max()) < difference
        assert not ours.model.training
    for curve, own in zip(curves, own_curves, strict=True):
        assert curve.epochs == own.epochs
        assert curve.losses == pytest.approx(own.losses, abs=difference)
        assert curve.top1 == pytest.approx(own.top1, abs=difference)
    losses = [tuple(curve.losses) for curve in own_curves]
    assert len(set(losses)) == len(losses)


@pytest.mark.parametrize("name", DIFFERENCE)
def test_soft_labels_teach_the_same(name):
    optimizer = OptimizerSettings(name=name, batch_size=16, learning_rate=0.01, warmup=0.2)
    together, alone = _learners(optimizer), _learners(optimizer)
    curves = train_together_with_soft_labels(together, matching=KL)
    _assert_same(together, alone, curves, [*map(_soft_alone, alone)], difference=DIFFERENCE[name])


def test_class_labels_teach_the_same_also_with_changed_batches():
    optimizer = OptimizerSettings(name="sgd", batch_size=16, learning_rate=0.03)
    together, alone = _learners(optimizer), _learners(optimizer)
    curves = train_together_with_hard_labels(together, augmentation=MIXED)
    _assert_same(together, alone, curves, [*map(_hard_alone, alone)], difference=DIFFERENCE["sgd"])


def test_images_count_by_their_weights_and_batches_may_be_cut():
    weights = torch.linspace(0.1, 1.9, 60)
    images = replace(toy_images(), weights=weights), replace(OTHERS, weights=weights.flip(0))
    optimizer = OptimizerSettings(name="sgd", batch_size=16, learning_rate=0.03)
    matching = MatchingSettings(loss="mse_ce", ce_weight=0.1)
    together, alone = (_learners(optimizer, images=images, at_once=7) for _ in range(2))
    curves = train_together_with_soft_labels(together, matching=matching)
    own_curves = [_soft_alone(each, matching) for each in alone]
    _assert_same(together, alone, curves, own_curves, difference=DIFFERENCE["sgd"])


def test_in_bfloat16_students_learn_the_same_within_its_precision():
    optimizer = OptimizerSettings(
        name="sgd", batch_size=16, learning_rate=0.01, precision="bfloat16"
    )
    together, alone = _learners(optimizer), _learners(optimizer)
    curves = train_together_with_soft_labels(together, matching=KL)
    _assert_same(together, alone, curves, [*map(_soft_alone, alone)], difference=3e-3)


def test_every_student_sees_the_views_that_it_sees_alone():
    one_of = AugmentationSettings(
        one_of=True, jitter=0.4, brightness=0.5, cutout=0.4, flip=0.5, cutmix=0.5, mixup=0.3
    )
    sets = [toy_images(), OTHERS, toy_images(60)]
    drawn = [
        draw_views(one_of, seed=seed, epoch=3, images=60, size_px=8) for seed in range(len(sets))
    ]
    at_once = draw_views(one_of, seed=range(len(sets)), epoch=3, images=60, size_px=8)
    for field in fields(Views):
        expected = getattr(join_views(drawn), field.name)
        assert np.array_equal(getattr(at_once, field.name), expected), field.name
    drawn[1] = replace(drawn[1], tints=None)  # as where no image happens to be tinted
    rows = np.arange(180)
    joined = replay_views(join_sets(sets).pixels, join_views(drawn), rows)
    for number, (own, views) in enumerate(zip(sets, drawn, strict=True)):
        alone = replay_views(own.pixels, views, np.arange(60))
        assert torch.equal(joined[60 * number :][:60], alone)


def test_batches_are_changed_as_they_are_alone():
    changes = [
        BatchChanges(("crop", "flip", "color", "cutout"), STATISTICS, seed) for seed in range(5)
    ]
    pixels = torch.rand(5 * 4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    rows = np.arange(20) % 7
    kinds = set[str]()
    for batch in range(3):
        found = change_each(changes, pixels, rows, epoch=2, batch=batch)
        for number, own in enumerate(changes):
            part = slice(4 * number, 4 * number + 4)
            alone = own.change(pixels[part], rows[part], epoch=2, batch=batch)
            assert torch.equal(found[part], alone)
            kinds.add(own.kind(epoch=2, batch=batch))
    assert len(kinds) > 2


@pytest.mark.parametrize("depth", [3, 4])
def test_muon_makes_each_matrix_an_orthogonal_step(depth):
    torch.manual_seed(0)  # with one draw in a hundred, a sum in Muon rounds to another bfloat16
    settings = OptimizerSettings(name="muon", learning_rate=0.1, weight_decay=0.5)
    networks = [ConvNet(1, 16, 3, depth=depth, width=4) for _ in range(3)]
    joined = Joined(networks)
    for step in range(2):
        for network in networks:
            for weight in network.parameters():
                weight.grad = torch.randn_like(weight)
        for name, weight in joined.network.named_parameters():
            weight.grad = torch.cat([each.get_parameter(name).grad for each in networks])
        if step == 0:
            optimizers = [build_optimizer(each, settings) for each in (joined, *networks)]
        for optimizer in optimizers:
            optimizer.step()
    for name, weight in joined.network.named_parameters():
        own = torch.cat([each.get_parameter(name) for each in networks])
        torch.testing.assert_close(weight, own, rtol=1e-5, atol=1e-6)


def test_students_that_are_stopped_go_on_to_the_same_bits(tmp_path):
    optimizer = OptimizerSettings(name="muon", batch_size=16, learning_rate=0.01)

    def train(checkpoint):
        learners = _learners(optimizer, checkpoint=checkpoint)
        curves = train_together_with_soft_labels(learners, matching=KL)
        weights = [each for own in learners for each in own.model.state_dict().values()]
        return [*weights, torch.tensor([[c.losses, c.top1, c.balanced] for c in curves])]

    assert_same_when_stopped(train, tmp_path, after=5)  # in the middle of epochs 2 and 3
