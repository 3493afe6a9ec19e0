"""Select the number format in which classifiers compute."""

import torch

from d4m.settings import Precision


def computing_in(precision: Precision, device: torch.device) -> torch.autocast:
    """Return a context in which convolutions and matrix products use this format.

    Weights stay float32.

    Args:
        precision: the number format; `float32` changes nothing.
        device: the device of the classifier and its images.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
