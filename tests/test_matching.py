"""Losses by hand, and against torch's own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from d4m.matching import hard_label_loss, soft_label_loss


def _logits(seed, images=7, classes=5):
    return torch.randn(images, classes, generator=torch.Generator().manual_seed(seed)) * 3


def test_soft_label_loss_by_hand():
    # Teacher (3/4, 1/4), student (1/2, 1/2) at temperature 2: KL = 3/4 ln 3/2 + 1/4 ln 1/2.
    teacher = torch.tensor([[2 * np.log(3.0), 0.0], [0.0, 0.0]], dtype=torch.float64)
    student = torch.tensor([[5.0, 5.0], [1.0, 1.0]], dtype=torch.float64)
    expected = (0.75 * np.log(1.5) + 0.25 * np.log(0.5)) / 2  # the second image adds 0
    assert float(soft_label_loss(student, teacher, 2.0)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
def test_soft_label_loss_is_torchs_batchmean_kl_of_softened_scores(temperature):
    student, teacher = _logits(0), _logits(1)
    theirs = torch.nn.KLDivLoss(reduction="batchmean")(
        torch.log_softmax(student / temperature, dim=1), torch.softmax(teacher / temperature, dim=1)
    )
    # Probabilities against log-probabilities as target: a few float32 roundings.
    assert float(soft_label_loss(student, teacher, temperature)) == pytest.approx(
        float(theirs), rel=1e-4, abs=1e-7
    )


def test_soft_label_loss_is_zero_for_the_teachers_own_scores_up_to_a_shift():
    teacher = _logits(2)
    shifted = teacher + torch.arange(7.0)[:, None]
    assert float(soft_label_loss(shifted, teacher, 4.0)) == pytest.approx(0.0, abs=1e-6)
    assert float(soft_label_loss(_logits(3), teacher, 4.0)) > 0


def test_soft_label_loss_sends_no_gradient_of_its_own_scale_by_temperature():
    # No factor of T^2 (D4M, equation 7): at high temperatures the loss falls with T^2.
    student, teacher = _logits(0).double(), _logits(1).double()
    low, high = (float(soft_label_loss(student, teacher, t)) for t in (1000.0, 2000.0))
    assert low / high == pytest.approx(4.0, rel=1e-2)


def test_hard_label_loss_by_hand():
    # Scores (ln 3, 0) mean probabilities (3/4, 1/4).
    logits = torch.tensor([[np.log(3.0), 0.0], [np.log(3.0), 0.0]], dtype=torch.float64)
    own, partner = torch.tensor([0, 1]), torch.tensor([1, 0])
    shares = torch.tensor([0.25, 1.0], dtype=torch.float64)
    first = 0.25 * -np.log(0.75) + 0.75 * -np.log(0.25)
    second = -np.log(0.25)
    loss = float(hard_label_loss(logits, own, partner, shares))
    assert loss == pytest.approx((first + second) / 2, abs=1e-12)


@pytest.mark.parity
def test_hard_label_loss_is_torchs_cross_entropy_of_mixed_probabilities():
    logits = _logits(4)
    own, partner = torch.tensor([0, 1, 2, 3, 4, 0, 1]), torch.tensor([4, 1, 0, 2, 2, 3, 0])
    shares = torch.tensor([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
    mixed = shares[:, None] * F.one_hot(own, 5) + (1 - shares[:, None]) * F.one_hot(partner, 5)
    # The same sum in another order.
    assert float(hard_label_loss(logits, own, partner, shares)) == pytest.approx(
        float(F.cross_entropy(logits, mixed)), rel=1e-5
    )


def test_an_image_that_is_all_its_own_does_not_look_at_its_partner():
    logits, own, shares = _logits(5), torch.arange(7) % 5, torch.ones(7)
    losses = {
        float(hard_label_loss(logits, own, partner, shares)) for partner in (own, own.flip(0))
    }
    assert losses == {float(F.cross_entropy(logits, own, reduction="none").mean())}
