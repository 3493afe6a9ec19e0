"""Where and how arrays are computed: the device, and what fits on it. Never what comes out."""

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from d4m.errors import D4MError

Memory = Literal["full", "slicing", "offload"]
_BATCH_PIXELS = 16 * 512**2
_LARGEST_BATCH = 256
_DEVICE = re.compile(r"auto|cpu|mps|(cuda|xpu)(:[0-9]+)?")


@dataclass(frozen=True)
class Compute:
    """The machine as stages see it; no part of a recipe, and of no cache key but a precision.

    Attributes:
        requested_device: `auto` (CUDA where there is a device, else the CPU), `cpu`, `cuda:1`, ...
        batch_size: images at a time through a generator; None: as many as are found to fit.
        memory: `full` keeps the generator on the device; `slicing` computes attention and the
            decoder piece by piece; `offload` also keeps on the device only the part that runs.

    Raises:
        D4MError: a value is none of these.
    """

    requested_device: str = "auto"
    batch_size: int | None = None
    memory: Memory = "full"

    def __post_init__(self) -> None:
        """Check the values, which come from the environment."""
        if not _DEVICE.fullmatch(self.requested_device):
            msg = (
                f"D4M_DEVICE: wanted auto, cpu, cuda, cuda:<number>, mps or xpu, found "
                f"{self.requested_device!r}"
            )
            raise D4MError(msg)
        if self.memory not in get_args(Memory):
            msg = f"D4M_MEMORY: wanted one of {get_args(Memory)}, found {self.memory!r}"
            raise D4MError(msg)
        if self.batch_size is not None and self.batch_size < 1:
            msg = f"D4M_BATCH_SIZE: wanted a whole number of at least 1, found {self.batch_size}"
            raise D4MError(msg)

    @cached_property
    def device(self) -> str:
        """The device's name for torch."""
        if self.requested_device != "auto":
            return self.requested_device
        return "cuda" if _has_cuda_device() else "cpu"

    def encode_batch_size(self, size_px: int) -> int:
        """Images encoded at a time: those asked for, else about 4 million pixels of them."""
        return self.batch_size or min(_LARGEST_BATCH, max(1, _BATCH_PIXELS // size_px**2))


def _has_cuda_device() -> bool:
    """Whether the driver shows a device; asked of the system, so that planning loads no torch."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()
    hidden = first in ("", "-1", "NoDevFiles")  # what CUDA takes for none
    return Path("/proc/driver/nvidia/version").exists() and not hidden
