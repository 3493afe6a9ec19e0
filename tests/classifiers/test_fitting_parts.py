"""A batch that does not fit in memory is scored in parts, with the same outputs."""

import pytest
import torch

from d4m.classifiers.fitting_parts import FittingParts
from d4m.classifiers.predict import predict_logits
from d4m.errors import ClassifierError


def _network(most, sizes):
    def compute(pixels):
        sizes.append(len(pixels))
        if len(pixels) > most:
            msg = "CUDA out of memory"
            raise torch.OutOfMemoryError(msg)
        return pixels.mean((1, 2, 3))[:, None] * torch.tensor([1.0, -1.0])

    return compute


def test_a_batch_is_halved_until_it_fits_and_the_size_is_kept_for_the_next():
    sizes, pixels = list[int](), torch.arange(11.0)[:, None, None, None].expand(-1, 1, 2, 2)
    parts = FittingParts()
    for _ in range(2):
        found = parts.compute(_network(3, sizes), pixels)
        assert found.tolist() == [[value, -value] for value in range(11)]
    assert sizes == [11, 5, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 1]


def test_a_batch_that_fits_is_computed_at_once_and_an_empty_one_too():
    sizes = list[int]()
    for count in (4, 0):
        found = FittingParts().compute(_network(9, sizes), torch.zeros(count, 1, 2, 2))
        assert found.shape == (count, 2)
    assert sizes == [4, 0]


def test_an_image_that_does_not_fit_is_an_error_that_names_what_to_do():
    with pytest.raises(ClassifierError, match=r"not even one image fits .* \(`dataset.size_px`\)"):
        FittingParts().compute(_network(0, []), torch.zeros(4, 1, 2, 2))


def test_logits_are_the_same_where_memory_runs_out():
    class Network(torch.nn.Module):
        def forward(self, pixels):
            return _network(2, [])(pixels)

    pixels = torch.rand(7, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(predict_logits(Network(), pixels), _network(9, [])(pixels))
