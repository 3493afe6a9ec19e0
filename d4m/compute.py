"""The device that arrays are computed on, batch sizes, memory mode, compiler, workers and process.

None of them changes a result beyond rounding. The number format does, so it is a recipe's.
"""

import ctypes
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from d4m.errors import D4MError

if TYPE_CHECKING:
    import torch

Memory = Literal["full", "slicing", "offload"]
Compiler = Literal["inductor", "cudagraphs", "eager"]
_BATCH_PIXELS = 16 * 512**2
_LARGEST_BATCH = 256
_MOST_TOGETHER = 32  # students on a GPU
_WORKERS = re.compile(r"serial|ray|auto|ray://[^\s/]+:[0-9]+")
_ALLOCATOR_CHOICES = (
    "LD_PRELOAD",
    "GLIBC_TUNABLES",
    "MALLOC_ARENA_MAX",
    "MALLOC_MMAP_MAX_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_TOP_PAD_",
)
# Parameters of glibc's `mallopt`, with their numbers in malloc.h.
_KEEPING = {
    "M_MMAP_MAX": (-4, 0),  # no block has a mapping of its own
    "M_TRIM_THRESHOLD": (-1, 2**31 - 1),  # free bytes at the heap's end that are kept
    "M_TOP_PAD": (-2, 64 * 2**20),  # bytes by which the heap grows at least
    "M_ARENA_MAX": (-8, 1),  # threads share a heap, and so what any of them has freed
}
_DEVICE = re.compile(r"auto|cpu|mps|(cuda|xpu)(:[0-9]+)?")


@dataclass(frozen=True)
class Compute:
    """The device, batch sizes, memory mode and compiler that stages compute with.

    These settings belong to the machine, not to a recipe. They enter a cache key in one case only:
    the device decides what precision `auto` means for a pretrained generator.

    Attributes:
        requested_device: `auto` (CUDA if there is such a device, else the CPU), `cpu`, `cuda:1`,
            ...
        batch_size: how many images a generator computes at a time, and of how many the gradients
            of a classifier are computed at a time; None: as many as fit.
        memory: `full` keeps the generator on the device; `slicing` computes attention and the
            decoder piece by piece; `offload` does so too, and keeps only the part that is running
            on the device.
        compiler: the backend of `torch.compile` for classifiers that are trained; None: they are
            not compiled.
        students_together: how many students are trained at once; None: on a CUDA device as many
            as it has use for, elsewhere one.

    Raises:
        D4MError: a value is not one of these.
    """

    requested_device: str = "auto"
    batch_size: int | None = None
    memory: Memory = "full"
    compiler: Compiler | None = None
    students_together: int | None = None

    def __post_init__(self) -> None:
        """Check the values, which come from the environment."""
        if not _DEVICE.fullmatch(self.requested_device):
            msg = (
                f"D4M_DEVICE: wanted auto, cpu, cuda, cuda:<number>, mps, xpu or xpu:<number>, "
                f"found {self.requested_device!r}"
            )
            raise D4MError(msg)
        if self.memory not in get_args(Memory):
            msg = f"D4M_MEMORY: wanted one of {get_args(Memory)}, found {self.memory!r}"
            raise D4MError(msg)
        if self.compiler not in (None, *get_args(Compiler)):
            msg = f"D4M_COMPILE: wanted one of {get_args(Compiler)}, found {self.compiler!r}"
            raise D4MError(msg)
        _check_count("D4M_BATCH_SIZE", self.batch_size)
        _check_count("D4M_STUDENTS_TOGETHER", self.students_together)

    @cached_property
    def device(self) -> str:
        """The device's name in torch."""
        if self.requested_device != "auto":
            return self.requested_device
        return "cuda" if _has_cuda_device() else "cpu"

    def check_device(self) -> None:
        """Refuse a device that this machine does not have, before anything is computed on it.

        Raises:
            D4MError: there is no such device.
        """
        kind, _, number = self.device.partition(":")
        if kind == "cpu":
            return
        import torch

        count = torch.get_device_module(kind).device_count()
        if int(number or 0) >= count:
            msg = (
                f"D4M_DEVICE: wanted a device of this machine, found {self.device!r}; torch sees "
                f"{count} devices of kind {kind!r} here. Choose another, or auto"
            )
            raise D4MError(msg)

    @property
    def most_together(self) -> int:
        """The most students that are trained at once."""
        on_gpu = self.device.startswith("cuda")
        return self.students_together or (_MOST_TOGETHER if on_gpu else 1)

    def encode_batch_size(self, size_px: int) -> int:
        """Return how many images to encode at a time: `batch_size`, else about 4 million pixels."""
        return self.batch_size or min(_LARGEST_BATCH, max(1, _BATCH_PIXELS // size_px**2))


@dataclass(frozen=True)
class WorkerSettings:
    """Who computes the units of a stage: this process, or the workers of Ray.

    Attributes:
        address: `serial` (this process); `ray` (a Ray of its own, with all CPUs and GPUs of this
            machine); `auto` (the running Ray that `$RAY_ADDRESS` names, or that of this machine);
            or `ray://<host>:<port>`, the client server of a cluster.
        count: how many workers compute at a time; None: as many as the CPUs or GPUs suffice for.
        cpus: CPU cores of each worker; None: the cores divided by `count`, or by the number of
            workers that the GPUs suffice for; 1 without either.
        gpus: GPUs of each worker, where there are any; several workers share one GPU below 1.

    Raises:
        D4MError: a value is not one of these.
    """

    address: str = "serial"
    count: int | None = None
    cpus: int | None = None
    gpus: float = 1.0

    def __post_init__(self) -> None:
        """Check the values, which come from the environment."""
        if not _WORKERS.fullmatch(self.address):
            msg = (
                f"D4M_WORKERS: wanted serial, ray, auto or ray://<host>:<port>, found "
                f"{self.address!r}"
            )
            raise D4MError(msg)
        for name, value in (("D4M_WORKER_COUNT", self.count), ("D4M_WORKER_CPUS", self.cpus)):
            _check_count(name, value)
        if not 0 < self.gpus <= 1:
            msg = f"D4M_WORKER_GPUS: wanted a share of a GPU in (0, 1], found {self.gpus:g}"
            raise D4MError(msg)


def _check_count(variable: str, value: int | None) -> None:
    if value is not None and value < 1:
        msg = f"{variable}: wanted a whole number of at least 1, found {value}"
        raise D4MError(msg)


def computing_in(
    precision: Literal["float32", "bfloat16"], device: "torch.device"
) -> "torch.autocast":
    """Return a context in which convolutions and matrix products use this number format.

    Weights stay float32.

    Args:
        precision: the number format; `float32` changes nothing.
        device: the device of the network and of what it sees.
    """
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def spin_briefly() -> None:
    """Let idle GNU OpenMP threads sleep sooner, unless the environment sets a wait policy.

    By default, idle threads spin for milliseconds. If a second process is busy on the machine, this
    makes small networks several times slower (benchmarks/README.md). Results do not change. Call
    this before torch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def keep_freed_memory() -> None:
    """Let the C library hand freed memory out again, in place of returning it to the system.

    By default, glibc maps every block above 32 MB by itself and unmaps it when it is freed, so each
    training step waits for the kernel to fill the same pages with zeros: half of a student's time
    on a CPU (benchmarks/README.md). Results do not change. Nothing happens where the environment
    chooses an allocator or its settings, or where there is no glibc.

    Source:
        The manual page mallopt(3); `mallopt` has an effect on what is allocated later.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is not None:
        for parameter, value in _KEEPING.values():
            mallopt(parameter, value)


def return_freed_memory() -> None:
    """Return to the system what is free in the C library's heap, also between blocks in use.

    Call this between stages: the large blocks of one stage leave gaps that the next one's do not
    fit, and the memory of both would add up. Nothing happens where `keep_freed_memory` does
    nothing.

    Source:
        The manual page malloc_trim(3).
    """
    malloc_trim = _of_glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _of_glibc(function: str) -> Callable[..., Any] | None:
    """Return a function of glibc's allocator; None without glibc or with another choice of it."""
    if any(name in os.environ for name in _ALLOCATOR_CHOICES) or sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), function, None)


def _has_cuda_device() -> bool:
    """Return whether there is a CUDA device, without importing torch, which would slow planning."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()
    hidden = first in ("", "-1", "NoDevFiles")  # values that hide every device from CUDA
    return Path("/proc/driver/nvidia/version").exists() and not hidden
