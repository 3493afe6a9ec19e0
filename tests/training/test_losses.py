"""Losses worked by hand, and compared with torch's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from d4m.training.losses import class_loss, kl_loss, mse_loss


def _logits(seed, images=7, classes=5):
    return torch.randn(images, classes, generator=torch.Generator().manual_seed(seed)) * 3


def test_kl_loss_by_hand():
    # Teacher (3/4, 1/4), student (1/2, 1/2) at temperature 2: KL = 3/4 ln 3/2 + 1/4 ln 1/2.
    teacher = torch.tensor([[2 * np.log(3.0), 0.0], [0.0, 0.0]], dtype=torch.float64)
    student = torch.tensor([[5.0, 5.0], [1.0, 1.0]], dtype=torch.float64)
    expected = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert kl_loss(student, teacher, 2.0).tolist() == pytest.approx([expected, 0.0], abs=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
def test_the_mean_kl_loss_equals_torchs_batchmean_kl_of_softened_logits(temperature):
    student, teacher = _logits(0), _logits(1)
    theirs = torch.nn.KLDivLoss(reduction="batchmean")(
        torch.log_softmax(student / temperature, dim=1), torch.softmax(teacher / temperature, dim=1)
    )
    # torch's target is probabilities, ours log-probabilities: a few float32 rounding errors.
    assert float(kl_loss(student, teacher, temperature).mean()) == pytest.approx(
        float(theirs), rel=1e-4, abs=1e-7
    )


def test_kl_loss_is_zero_for_the_teachers_own_logits_up_to_a_shift():
    teacher = _logits(2)
    shifted = teacher + torch.arange(7.0)[:, None]
    assert kl_loss(shifted, teacher, 4.0).tolist() == pytest.approx([0.0] * 7, abs=1e-6)
    assert float(kl_loss(_logits(3), teacher, 4.0).min()) > 0


def test_kl_loss_has_no_factor_of_temperature_squared():
    # Without a factor of T^2 (D4M, equation 7), the loss falls as 1 / T^2 at high temperatures.
    student, teacher = _logits(0).double(), _logits(1).double()
    low, high = (kl_loss(student, teacher, t).numpy() for t in (1000.0, 2000.0))
    assert low / high == pytest.approx(np.full(7, 4.0), rel=1e-2)


def test_mse_loss_by_hand():
    # Centred logits: (1, -1) against (0, 0), and (-2, 1, 1) against (1, 1, -2).
    pair = mse_loss(torch.tensor([[3.0, 1.0]]), torch.tensor([[7.0, 7.0]]))
    assert pair.tolist() == [1.0]
    three = mse_loss(torch.tensor([[0.0, 3.0, 3.0]]), torch.tensor([[9.0, 9.0, 6.0]]))
    assert three.tolist() == [(9 + 0 + 9) / 3]


def test_mse_loss_does_not_change_if_either_sides_rows_are_shifted():
    student, teacher = _logits(0).double(), _logits(1).double()
    shifts = torch.linspace(-9, 9, 7, dtype=torch.float64)[:, None]
    plain = mse_loss(student, teacher).tolist()
    assert min(plain) > 0.5
    assert mse_loss(student + shifts, teacher).tolist() == pytest.approx(plain, rel=1e-12)
    assert mse_loss(student, teacher + shifts).tolist() == pytest.approx(plain, rel=1e-12)
    assert mse_loss(teacher + shifts, teacher).tolist() == pytest.approx([0.0] * 7, abs=1e-24)


@pytest.mark.parity
def test_mse_loss_equals_torchs_on_centred_logits():
    student, teacher = _logits(0), _logits(1)
    centred = [logits - logits.mean(dim=1, keepdim=True) for logits in (student, teacher)]
    # The same sums, possibly in another order: float32 rounding.
    rows = F.mse_loss(*centred, reduction="none").mean(dim=1)
    assert mse_loss(student, teacher).tolist() == pytest.approx(rows.tolist(), rel=1e-6)
    mean = float(mse_loss(student, teacher).mean())
    assert mean == pytest.approx(float(torch.nn.MSELoss()(*centred)), rel=1e-6)


def test_class_loss_by_hand():
    # The logits (ln 3, 0) are the probabilities (3/4, 1/4).
    logits = torch.tensor([[np.log(3.0), 0.0], [np.log(3.0), 0.0]], dtype=torch.float64)
    own, partner = torch.tensor([0, 1]), torch.tensor([1, 0])
    shares = torch.tensor([0.25, 1.0], dtype=torch.float64)
    first = 0.25 * -np.log(0.75) + 0.75 * -np.log(0.25)
    second = -np.log(0.25)
    losses = class_loss(logits, own, partner, shares)
    assert losses.tolist() == pytest.approx([first, second], abs=1e-12)


@pytest.mark.parity
def test_class_loss_equals_torchs_cross_entropy_with_mixed_probabilities():
    logits = _logits(4)
    own, partner = torch.tensor([0, 1, 2, 3, 4, 0, 1]), torch.tensor([4, 1, 0, 2, 2, 3, 0])
    shares = torch.tensor([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
    mixed = shares[:, None] * F.one_hot(own, 5) + (1 - shares[:, None]) * F.one_hot(partner, 5)
    losses = class_loss(logits, own, partner, shares)
    # The same sums in another order: float32 rounding.
    theirs = F.cross_entropy(logits, mixed, reduction="none")
    assert losses.tolist() == pytest.approx(theirs.tolist(), rel=1e-5)
    assert float(losses.mean()) == pytest.approx(float(F.cross_entropy(logits, mixed)), rel=1e-5)


def test_the_partner_of_an_unmixed_image_does_not_matter():
    logits, own, shares = _logits(5), torch.arange(7) % 5, torch.ones(7)
    expected = F.cross_entropy(logits, own, reduction="none")
    for partner in (own, own.flip(0)):
        assert torch.equal(class_loss(logits, own, partner, shares), expected)


@pytest.mark.parametrize(
    "loss",
    [
        lambda rows: kl_loss(_logits(0)[rows], _logits(1)[rows], 4.0),
        lambda rows: mse_loss(_logits(0)[rows], _logits(1)[rows]),
        lambda rows: class_loss(
            _logits(0)[rows],
            (torch.arange(7) % 5)[rows],
            (torch.arange(7) % 3)[rows],
            torch.linspace(0, 1, 7)[rows],
        ),
    ],
    ids=["kl", "mse", "class"],
)
def test_an_images_loss_does_not_depend_on_other_images_in_the_batch(loss):
    together = loss(torch.arange(7)).tolist()
    assert len(set(together)) == 7
    # A sum over one row may be vectorised differently from one over many: float32 rounding.
    alone = [loss(torch.tensor([row])).item() for row in range(7)]
    assert alone == pytest.approx(together, rel=1e-6)
