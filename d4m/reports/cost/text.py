"""The cost of a run in words, in the rows of a table, and as JSON."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from d4m.reports.cost.estimate import CostEstimate, StageCost

LONG_S = 600.0
"""Seconds of a run whose cost is printed before it begins, without anybody asking."""
SHORT_S = 1.0
"""Stages that take less are shown together, as no estimate is exact to a second."""
_SHORT = "under 1 s"
_BUSY = 1.25  # processes per CPU
_CAVEAT = (
    "An estimate from rates measured on this device; units that wait for others count as if they "
    "had to be computed."
)


def cost_rows(estimate: CostEstimate) -> list[dict[str, str]]:
    """Return a row per stage that would compute something; short ones have one row together."""
    some = [stage for stage in estimate.stages if stage.units]
    short = [stage for stage in some if is_short(stage)]
    if len(short) < 2:
        return list(map(_row, some))
    together = StageCost(
        f"{len(short)} short stages",
        sum(stage.units for stage in short),
        sum(stage.seconds for stage in short),
        sum(stage.cpu_seconds for stage in short),
        sum(stage.store_bytes for stage in short),
        max(stage.memory_bytes for stage in short),
    )
    return [*(_row(stage) for stage in some if stage not in short), _row(together)]


def is_short(stage: StageCost) -> bool:
    """Return whether a stage's time is too short to be worth a row."""
    return stage.seconds < SHORT_S and not stage.unknown


def _row(stage: StageCost) -> dict[str, str]:
    return {
        "artifact": stage.stage,
        "units": str(stage.units),
        "time": _stage_time(stage),
        "store": _bytes(stage.store_bytes),
        "memory": _bytes(stage.memory_bytes),
    }


def cost_lines(estimate: CostEstimate) -> list[str]:
    """Return the cost in all, and what the estimate leaves out."""
    if not any(stage.units for stage in estimate.stages):
        return ["everything is stored: a run would compute nothing"]
    more = "at least " if estimate.unknown else "about "
    spelt = spell_time(estimate.seconds)
    total = [
        spelt if spelt == _SHORT else f"{more}{spelt}",
        f"{_bytes(estimate.store_bytes)} of store",
        f"{_bytes(estimate.memory_bytes)} of memory",
    ]
    if estimate.device != "cpu":
        total.insert(1, f"{estimate.gpu_hours:.2f} GPU hours")
    lines = [f"estimate for {estimate.device}: {', '.join(total)}", _CAVEAT]
    if estimate.unknown:
        unknown = ", ".join(estimate.unknown)
        lines.append(f"Not known before the run, and not counted: {unknown}.")
    if estimate.load > _BUSY and estimate.device == "cpu":
        lines.append(
            f"The time is that of an idle machine, and this one is busy: {estimate.load:.1f} "
            f"processes per CPU wait or compute. A run takes longer until they are done."
        )
    return lines


def cost_json(estimate: CostEstimate) -> dict[str, Any]:
    """Return the estimate in JSON's types."""
    return {
        "device": estimate.device,
        "seconds": round(estimate.seconds, 3),
        "gpu_hours": round(estimate.gpu_hours, 5),
        "store_bytes": estimate.store_bytes,
        "memory_bytes": estimate.memory_bytes,
        "not_counted": list(estimate.unknown),
        "processes_per_cpu": round(estimate.load, 2),
        "stages": [_rounded(asdict(stage)) for stage in estimate.stages],
    }


def spell_time(seconds: float) -> str:
    """Return a time with the two units that matter.

    Example:
        >>> spell_time(0.2), spell_time(42.4), spell_time(150), spell_time(9000)
        ('under 1 s', '42 s', '2 min 30 s', '2 h 30 min')
    """
    whole = round(seconds)
    if whole < 1:
        return _SHORT
    minutes, hours = whole // 60, whole // 3600
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def _stage_time(stage: StageCost) -> str:
    spelt = spell_time(stage.seconds)
    return f"{spelt}, and more" if stage.unknown else spelt


def _bytes(count: int) -> str:
    """Return a size in the unit that suits it.

    Example:
        >>> _bytes(5_300), _bytes(7_260_000), _bytes(1_140_000_000)
        ('0.01 MB', '7.26 MB', '1.14 GB')
    """
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(v, 3) if isinstance(v, float) else v for name, v in values.items()}
