"""SRe2L: the distance of batch-norm statistics by hand, and that the objective falls."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from d4m.baselines.pixels import Standard
from d4m.baselines.statistics_matching import batch_statistics, fit_statistics
from d4m.classifiers.convnet import ConvNet
from d4m.errors import ClassifierError
from d4m.images.statistics import ChannelStatistics
from d4m.settings import Sre2lSettings

STANDARD = Standard(ChannelStatistics((0.25,), (0.125,)))
CLASS_IDS = torch.arange(6) % 2


def test_the_distance_is_that_of_means_and_variances_and_tenfold_for_the_first():
    first, second = nn.BatchNorm2d(1), nn.BatchNorm2d(2)
    first.running_mean.fill_(1.0)
    second.running_mean.copy_(torch.tensor([3.0, 4.0]))
    network = nn.Sequential(first, nn.Conv2d(1, 2, 1, bias=False), second).eval()
    pixels = torch.tensor([1.0, 5.0])[:, None, None, None]
    with torch.inference_mode(), batch_statistics(network) as distance:
        network[1].weight.zero_()
        network(pixels)
        # First: mean 3 and variance 4 against 1 and 1; second: zeros against (3, 4) and (1, 1).
        wanted = 10 * (2 + 3) + 5 + 2**0.5
        assert float(distance()) == pytest.approx(wanted)
    assert not any(each._forward_hooks for each in network.modules())


def test_a_teacher_without_batch_norm_is_refused():
    with pytest.raises(ClassifierError, match="wanted a teacher with batch norm, found none"):
        _fit(ConvNet(1, 8, 2, width=4), 1)


@pytest.fixture(scope="module")
def teacher():
    """Return a network with the statistics of images whose left or right half is bright."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ConvNet(1, 8, 2, width=8, norm="batch")
        real = torch.randn(64, 1, 8, 8) * 0.1 - 0.5
    class_ids = torch.arange(64) % 2
    real[class_ids == 0, :, :, :4] += 0.5
    real[class_ids == 1, :, :, 4:] += 0.5
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(network(real), class_ids).backward()
        optimizer.step()
    return network.eval()


def _fit(teacher, steps, seed=0, size_px=8):
    settings = Sre2lSettings(steps=steps)
    shape = (1, size_px)
    return fit_statistics(teacher, CLASS_IDS, shape, STANDARD, settings=settings, seed=seed)


def _objective(teacher, pixels):
    with torch.inference_mode(), batch_statistics(teacher) as distance:
        loss = F.cross_entropy(teacher(pixels), CLASS_IDS)
        return float(loss), float(distance())


def test_fitted_images_show_their_class_and_have_the_statistics_of_the_real_ones(teacher):
    first, fitted = _fit(teacher, 1), _fit(teacher, 40)
    early, late = _objective(teacher, first), _objective(teacher, fitted)
    assert late[0] < 0.1 < early[0]
    assert late[1] < 0.5 * early[1]
    assert float(fitted.abs().max()) <= 1 + 1e-6
    assert torch.equal(first, _fit(teacher, 1))
    assert not torch.equal(first, _fit(teacher, 1, seed=1))


def test_the_teacher_stays_as_it_is(teacher):
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    _fit(teacher, 2)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert not any(each._forward_hooks for each in teacher.modules())
