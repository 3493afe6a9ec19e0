"""Training in bfloat16: used in products only, as good as float32, and follows the seed."""

import pytest
import torch
from torch import nn

from d4m.training.train import Training, train_with_hard_labels, train_with_soft_labels
from tests.training.toys import (
    FAST,
    KL,
    STILL,
    accuracy_on,
    label,
    linear_model,
    toy_images,
    train_convnet,
    weights_of,
)


def test_bfloat16_is_used_in_products_only():
    class Watching(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = linear_model()
            self.seen = set[torch.dtype]()

        def forward(self, pixels):
            logits = self.linear(pixels)
            self.seen |= {pixels.dtype, logits.dtype, *(p.dtype for p in self.parameters())}
            return logits

    images = toy_images()
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
    images = toy_images()
    labels = label(images, epochs=30)
    models, losses = [], []
    for precision in ("float32", "bfloat16"):
        model = linear_model(seed=3)
        optimizer = FAST.model_copy(update={"precision": precision})
        curve = train_with_soft_labels(
            model, images, labels, Training(epochs=30, optimizer=optimizer, seed=0), matching=KL
        )
        models.append(model)
        losses.append(curve.losses)
        assert accuracy_on(model, images) == 1.0
        assert curve.losses[-1] < curve.losses[0] / 10
    assert not torch.equal(*map(weights_of, models))
    # bfloat16 has 8 significant bits, and the first epoch's loss follows only a few steps.
    assert losses[1][0] != losses[0][0]
    assert losses[1][0] == pytest.approx(losses[0][0], rel=0.02)


def test_bfloat16_training_follows_the_seed_to_the_bit_too():
    images = toy_images()
    labels = label(images, epochs=3)
    first, again, exact = (
        train_convnet(0, labels=labels, images=images, precision=precision)
        for precision in ("bfloat16", "bfloat16", "float32")
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, exact)
