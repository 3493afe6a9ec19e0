"""The part of Ray's workers that runs in them: compute and publish one shard of units."""

import logging
import os
import secrets
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from d4m.compute import Compute, keep_freed_memory, return_freed_memory
from d4m.stages.base import Stage
from d4m.stages.context import StageContext
from d4m.stages.loaded_models import LoadedModels
from d4m.stages.run import computed_units
from d4m.store.reference import Unit
from d4m.workers.failures import Failure

_MOST_MODELS = 2  # such as the generator and a teacher
_LAST_WORDS_S = 5.0  # that an outcome waits for the notes before it
_CUDA_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Done:
    """The outcome of a shard.

    Attributes:
        names: of the units that are published.
        seconds: from the shard's beginning to its end.
        failure: what ended the shard early.
    """

    names: list[str]
    seconds: float
    failure: Failure | None = None


@dataclass(frozen=True)
class Note:
    """A message from a worker to the process that gave it the work.

    Attributes:
        shard: whose worker says so.
        unit: the name of a unit that is published; or "".
        level: of the line.
        logger: that the line was given to.
        text: a line for the log; or "", where the worker begins with its shard.
    """

    shard: int
    unit: str
    level: int = logging.INFO
    logger: str = ""
    text: str = ""


class Notes:
    """The messages of all workers, kept until they have arrived: an actor of Ray.

    Ray calls a method again if its answer is lost on the way, so an answer takes nothing away.
    """

    def __init__(self) -> None:
        """Hold none."""
        self._life = secrets.token_hex(8)  # another one after the actor was lost
        self._first = 0
        self._notes = list[Note]()

    def post(self, note: Note) -> None:
        """Add a message."""
        self._notes.append(note)

    def take(self, life: str, arrived: int) -> tuple[str, int, list[Note]]:
        """Return the messages that have not arrived, and what to say next time.

        Args:
            life: of the actor that the last answer was of.
            arrived: how many of its messages have arrived.

        Returns:
            This actor's life, how many of its messages will then have arrived, and the messages.
        """
        old = arrived - self._first if life == self._life else 0
        del self._notes[:old]
        self._first += old
        return self._life, self._first + len(self._notes), list(self._notes)


class _Worker:
    """The context of the stage, and the models, that this process keeps between shards."""

    def __init__(self) -> None:
        self._opened: tuple[str, tuple[Stage, StageContext]] | None = None
        self._models = LoadedModels(_MOST_MODELS)
        self._device = ""

    def open(self, boxed: Sequence[Any], gpus: Sequence[str]) -> tuple[Stage, StageContext]:
        """Return the stage and its context, which were sent once for all shards."""
        import ray

        name = boxed[0].hex()
        if self._opened is None or self._opened[0] != name:
            self._opened = name, ray.get(boxed[0])
        stage, context = self._opened[1]
        compute = on_device(context.compute, gpus)
        if compute.requested_device != self._device:
            self._models.forget()
            self._device = compute.requested_device
        return stage, replace(context, compute=compute, models=self._models)


_WORKER = _Worker()


def compute_shard(
    boxed: Sequence[Any], units: Sequence[Unit], shard: int, notes: Any, gpus: float
) -> Done:
    """Compute and publish a shard's units, except for those that are published already.

    Args:
        boxed: in a list, so that Ray does not unpack it for each shard: the reference of the stage
            and its context.
        units: of the stage.
        shard: its number.
        notes: the actor that gathers what is done.
        gpus: the share of a GPU that the worker has.
    """
    import ray

    keep_freed_memory()

    last = list[Any]()

    def post(note: Note) -> None:
        last[:] = [notes.post.remote(note)]

    def count(unit: Unit) -> None:
        names.append(unit.name)
        post(Note(shard, unit.name))

    start, names = time.monotonic(), list[str]()
    try:
        own = [str(each) for each in ray.get_gpu_ids()] if gpus else []
        stage, context = _WORKER.open(boxed, own)
        post(Note(shard, ""))
        missing = list[Unit]()
        for unit in units:  # a worker that was lost may have published some
            if context.store.find(unit.stage, unit.key):
                count(unit)
            else:
                missing.append(unit)
        with _lines_posted(shard, post):
            for unit in computed_units(stage, context, missing) if missing else ():
                count(unit)
    except Exception as failure:  # noqa: BLE001 - it is raised again where the work was given
        return Done(names, time.monotonic() - start, Failure.of(failure))
    finally:
        return_freed_memory()
        if last:
            ray.wait(last, timeout=_LAST_WORDS_S)  # notes arrive in order, and before the outcome
    return Done(names, time.monotonic() - start)


def on_device(compute: Compute, gpus: Sequence[str]) -> Compute:
    """Return the settings of the machine with the GPU that Ray has given to this worker.

    Args:
        compute: as the process that gave the work sees its machine.
        gpus: Ray's names of the GPUs; none for work without a GPU.

    Example:
        >>> on_device(Compute("auto"), []).device
        'cpu'
    """
    if not gpus:
        return replace(compute, requested_device="cpu") if _may_be_cuda(compute) else compute
    visible = [each for each in os.environ.get(_CUDA_VISIBLE, "").split(",") if each]
    place = visible.index(gpus[0]) if visible else int(gpus[0])
    return replace(compute, requested_device=f"cuda:{place}")


def _may_be_cuda(compute: Compute) -> bool:
    return compute.requested_device.startswith(("auto", "cuda"))


@contextmanager
def _lines_posted(shard: int, post: Callable[[Note], None]) -> Generator[None]:
    """Post what the library logs, such as a line per minute of a long training."""

    class Posting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            post(Note(shard, "", record.levelno, record.name, record.getMessage()))

    library, handler = logging.getLogger("d4m"), Posting(logging.INFO)
    before = library.level
    library.setLevel(logging.INFO)
    library.addHandler(handler)
    try:
        yield
    finally:
        library.removeHandler(handler)
        library.setLevel(before)
