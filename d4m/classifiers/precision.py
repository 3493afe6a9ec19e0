"""In which number format classifiers compute."""

import torch

from d4m.settings import Precision


def computing_in(precision: Precision, device: torch.device) -> torch.autocast:
    """A context in which convolutions and matrix products are of this format; weights stay float32.

    Args:
        precision: `float32` changes nothing.
        device: of the classifier and its images.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
