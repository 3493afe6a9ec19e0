"""The seconds of a piece: measured by a short probe, and remembered per device and versions."""

import json
import logging
import math
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from d4m.errors import D4MError
from d4m.recipe.paths import user_cache
from d4m.reports.cost import (
    baseline_probes,
    choice_probes,
    data_probes,
    generator_probes,
    student_probes,
)
from d4m.reports.cost.bench import Bench, Trial
from d4m.reports.cost.pieces import Piece
from d4m.stages.context import StageContext
from d4m.stages.provenance import conditions, record_provenance
from d4m.store.digest import digest_json
from d4m.store.durable import write_atomically

_log = logging.getLogger(__name__)

PROBES = {
    **generator_probes.PROBES,
    **student_probes.PROBES,
    **data_probes.PROBES,
    **choice_probes.PROBES,
    **baseline_probes.PROBES,
}
_AIM_S = 0.4  # of a probe, long enough for a clock and short enough for a user
_LITTLE_S = 1.0  # work that is shorter than this is measured roughly
_LOADED_S = 0.05  # what was imported already is imported faster than this
_LONG_S = 2.0  # a piece that takes longer is repeated only if there are many of them
_MANY = 50  # pieces, of which a few more are a small part of the run


@dataclass(frozen=True)
class Rate:
    """The time of pieces of one kind: `start_s + each_s * count`, on a machine that is idle.

    Attributes:
        start_s: seconds of a beginning.
        each_s: seconds per piece.
        first_s: seconds that the very first piece of a process takes in addition.
        start_cpu_s: seconds of all CPU threads of a beginning.
        each_cpu_s: seconds of all CPU threads per piece.
        first_cpu_s: seconds of all CPU threads of the very first piece, in addition.
        kept_bytes: of the network that a training makes.
        memory_bytes: the most memory that this process has had.
        rough: whether it was measured for little work only.
    """

    start_s: float
    each_s: float
    first_s: float
    start_cpu_s: float
    each_cpu_s: float
    first_cpu_s: float
    kept_bytes: int = 0
    memory_bytes: int = 0
    rough: bool = False


class Rates:
    """The rates of a recipe's pieces on this device; each is measured when it is first needed.

    Rates are kept in `d4m/rates.json` of the user's cache folder, by device, number of threads and
    versions of libraries. The file changes no result, and may be deleted.

    Args:
        context: the recipe and its images, with the artifacts that are wholly stored.
    """

    def __init__(self, context: StageContext) -> None:
        """Read what is remembered; measure nothing yet."""
        self._context = context
        self._file = rates_file()
        self._folder = tempfile.TemporaryDirectory(prefix="d4m-probe-")
        self._bench = Bench(context, Path(self._folder.name))
        self._known = _read(self._file)
        self._fresh = False

    def __enter__(self) -> Self:
        """Return these rates."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remember what was measured, and remove the files of probes."""
        self._folder.cleanup()
        if self._fresh:
            text = json.dumps(_read(self._file) | self._known, indent=1)
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self._file, text)
            except OSError as failure:  # they are measured again next time
                _log.info("cannot keep rates in %s: %s", self._file, failure)

    def find(self, piece: Piece, count: float) -> Rate | None:
        """Return the rate of a kind of piece; None where nothing can measure it.

        Args:
            piece: the kind.
            count: how many are needed, which decides how exactly they are measured.
        """
        name = f"{piece.name} {_conditions_digest(self._context)}"
        stored = self._known.get(name)
        if stored is not None:
            known = Rate(**stored)
            if not known.rough or known.each_s * count < _LITTLE_S:
                return known
        if piece.kind not in PROBES:
            return None
        try:
            trial = PROBES[piece.kind](self._bench, piece.settings)
            measured = measure(trial, count, device=self._context.device)
        except (D4MError, RuntimeError, OSError) as failure:  # such as too little memory
            _log.info("cannot measure %s: %s", piece.kind, failure)
            return None
        if not trial.once or measured.each_s > _LOADED_S:
            self._known[name], self._fresh = asdict(measured), True
        return measured


def rates_file() -> Path:
    """Return the file of all rates: in `$XDG_CACHE_HOME`, else in `~/.cache`."""
    return user_cache() / "rates.json"


def measure(trial: Trial, needed: float, *, device: str = "cpu") -> Rate:
    """Measure the seconds of a piece: once to warm up, once alone, and then several together.

    A piece of some seconds is done once more only if a run does so many that this hardly counts.

    Args:
        trial: does some pieces.
        needed: how many pieces a run does; if these are a second's work, one time is enough.
        device: where it computes.
    """
    first, pieces = _spend(trial, 1, device), needed / trial.step
    if trial.once or (first.seconds > _LONG_S and pieces < _MANY):
        return _rate(trial, _NOTHING, first)
    one = _spend(trial, 1, device)
    extra = _Spent(max(0.0, first.seconds - one.seconds), max(0.0, first.cpu_s - one.cpu_s))
    if one.seconds * pieces < _LITTLE_S:
        return _rate(trial, _NOTHING, one, extra, rough=True)
    times = max(2, min(math.ceil(_AIM_S / one.seconds), math.ceil(pieces)))
    trials = 1 if one.seconds > _LONG_S else 2
    several = (_spend(trial, times, device) for _ in range(trials))
    many = min(several, key=lambda spent: spent.seconds)
    further = _Spent(
        (many.seconds - one.seconds) / (times - 1), (many.cpu_s - one.cpu_s) / (times - 1)
    )
    if further.seconds <= 0 or further.cpu_s < 0:  # less than the noise of the measurement
        even = _Spent(many.seconds / times, many.cpu_s / times, one.kept_bytes)
        return _rate(trial, _NOTHING, even, extra)
    start = _Spent(max(0.0, one.seconds - further.seconds), max(0.0, one.cpu_s - further.cpu_s))
    return _rate(trial, start, replace(further, kept_bytes=one.kept_bytes), extra)


@dataclass(frozen=True)
class _Spent:
    """Seconds of an idle machine and of all CPU threads, and the bytes that a stage would keep."""

    seconds: float
    cpu_s: float
    kept_bytes: int = 0


_NOTHING = _Spent(0.0, 0.0)


def _spend(trial: Trial, times: int, device: str) -> _Spent:
    """Do some pieces, and return what they took."""
    clock, worked, queued = time.perf_counter(), time.process_time(), _queued_s()
    kept = trial.run(times * trial.step)
    if device != "cpu":
        _wait_for(device)
    seconds, cpu_s = time.perf_counter() - clock, time.process_time() - worked
    if device == "cpu" and not trial.waits:
        seconds = idle_seconds(seconds, cpu_s, _queued_s() - queued)
    return _Spent(seconds, cpu_s, kept)


def idle_seconds(seconds: float, cpu_s: float, queued_s: float) -> float:
    """Return the seconds that work would have taken on a machine with nothing else to do.

    Where the CPU computes, other processes make the clock run on while threads wait for their turn.
    The work is as much faster without them as its threads were ready to run and did not.

    Args:
        seconds: by the clock.
        cpu_s: for which its threads ran, added up.
        queued_s: for which its threads were ready to run but waited for a CPU, added up; 0 where
            the system does not say so.

    Example:
        >>> idle_seconds(10, cpu_s=8, queued_s=12)  # two threads, each two fifths of the time
        4.0
        >>> idle_seconds(10, cpu_s=5, queued_s=0)  # unknown, and at most one thread's work
        5
    """
    ready_s = cpu_s + max(0.0, queued_s)
    return min(seconds * cpu_s / ready_s, cpu_s) if queued_s > 0 else min(seconds, cpu_s)


def _queued_s() -> float:
    """Return for how long this process's threads have waited for a CPU; 0 where nobody counts."""
    waited = 0
    for task in Path("/proc/self/task").glob("*/schedstat"):  # Linux: ran, waited, turns
        with suppress(OSError, ValueError, IndexError):  # the thread has ended
            waited += int(task.read_text(encoding="ascii").split()[1])
    return waited / 1e9


def _wait_for(device: str) -> None:
    """Wait until a device has done all that it was asked to do."""
    import torch

    if device.startswith("cuda"):  # one of several
        torch.cuda.synchronize(device)
    else:
        torch.get_device_module(device).synchronize()


def _rate(
    trial: Trial, start: _Spent, step: _Spent, extra: _Spent = _NOTHING, *, rough: bool = False
) -> Rate:
    return Rate(
        start_s=start.seconds,
        each_s=step.seconds / trial.step,
        first_s=extra.seconds,
        start_cpu_s=start.cpu_s,
        each_cpu_s=step.cpu_s / trial.step,
        first_cpu_s=extra.cpu_s,
        kept_bytes=step.kept_bytes,
        memory_bytes=_memory(),
        rough=rough,
    )


def _memory() -> int:
    """Return the most memory that this process has had, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # which counts in other units


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _conditions_digest(context: StageContext) -> str:
    import torch  # noqa: F401  # pyright: ignore[reportUnusedImport]  # for the number of threads

    found: Mapping[str, str] = conditions(record_provenance(context))
    layout = [field.name for field in fields(Rate)]  # of this version's rates
    return digest_json({"conditions": dict(found), "layout": layout})[:16]
