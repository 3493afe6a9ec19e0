"""The provenance of a unit: the recipe, machine, library versions and time that it was made with.

Provenance is part of no key and of no digest. It says which units were made under the same
conditions: a number that was computed on another device, with another number of threads or another
version of a library may differ in its last digits.
"""

import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from d4m.stages.context import StageContext

SECONDS = "seconds"
"""The name in a provenance of the seconds in which the unit was made."""

TOGETHER = "students_together"
"""The name in a provenance of the number of students that were trained at once with the unit's."""

_LIBRARIES = (
    *("d4m", "torch", "torchvision", "diffusers", "transformers", "timm"),
    *("scikit-learn", "pillow", "zarr", "numpy"),
)
_CPU_FILE = Path("/proc/cpuinfo")


def record_provenance(context: StageContext) -> dict[str, Any]:
    """Return the provenance of a unit that this process makes now.

    The number of threads is that of torch, and None in a process that has not imported torch.
    """
    torch = sys.modules.get("torch")
    return {
        "recipe": context.recipe.name,
        "device": context.device,
        "processor": _processor(context.device, computed=torch is not None),
        "threads": torch.get_num_threads() if torch else None,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "libraries": dict(_versions()),
        "computed_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def seconds_of_work(context: StageContext, artifact: str) -> float | None:
    """Return the seconds in which all units of an artifact were made, in whichever runs.

    Args:
        context: with the artifact's units.
        artifact: its name.

    Returns:
        The sum, or None where a unit of an earlier release does not say.
    """
    units = context.upstream[artifact]
    made = context.store.storage.each(lambda unit: context.reference(artifact, unit), units)
    each = [reference.provenance.get(SECONDS) if reference else None for reference in made]
    known = [seconds for seconds in each if seconds is not None]
    return sum(known, 0.0) if len(known) == len(each) else None


def conditions(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return what may change the last digits of a unit's numbers, as far as it was recorded.

    Two devices of one kind count as the same. Threads count only where the CPU computes, and so
    does the number of students that were trained at once, as a GPU's last digits vary anyway.

    Example:
        >>> made = {"device": "cuda:1", "processor": "H100", "threads": 8}
        >>> conditions(made | {"libraries": {"torch": "2.9.1"}})
        {'device': 'cuda', 'processor': 'H100', 'torch': '2.9.1'}
    """
    device = str(provenance.get("device") or "").partition(":")[0]
    found = {
        "device": device,
        "processor": provenance.get("processor"),
        **{name: provenance.get(name) for name in ("threads", TOGETHER) if device == "cpu"},
        **provenance.get("libraries", {}),
    }
    return {name: str(value) for name, value in found.items() if value}


@cache
def _versions() -> Mapping[str, str]:
    """Return the versions of the libraries, which stay while a process has them loaded."""
    return {name: installed_version(name) for name in _LIBRARIES}


@cache
def _processor(device: str, *, computed: bool) -> str:
    """Return the name of the GPU, or that of the CPU if the CPU is the device or torch is unused.

    Args:
        device: its name in torch.
        computed: whether torch has been imported; asking it for a name would import it.
    """
    if computed and device.partition(":")[0] in ("cuda", "xpu"):
        import torch

        return str(torch.get_device_module(device).get_device_name(device))
    return _cpu_name()


def _cpu_name() -> str:
    try:
        lines = _CPU_FILE.read_text(encoding="utf-8").splitlines()
    except OSError:  # only Linux has this file
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
