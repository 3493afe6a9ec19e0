"""Workers of Ray: shards of units, computed by processes on this machine or on a cluster."""

import itertools
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from d4m.compute import WorkerSettings
from d4m.errors import WorkerError
from d4m.progress import Progress, progress
from d4m.stages.base import Stage
from d4m.stages.context import StageContext
from d4m.stages.run import Begin, compute_here
from d4m.store.reference import Unit
from d4m.workers.base import Workers
from d4m.workers.ray_cluster import RayCluster
from d4m.workers.ray_task import Done
from d4m.workers.shards import Piece, Shards

_log = logging.getLogger(__name__)
_NUMBERS = itertools.count(1)
_POLL_S = 0.25
_MOST_LOSSES = 4  # of the worker of one piece
_PATIENCE = 3  # times the longest unit, after which a quiet worker counts as slow
_LEAST_PATIENCE_S = 60.0
_LAST_WORDS_S = 5.0


class RayWorkers(Workers):
    """The workers of Ray, each of which computes and publishes shards of units.

    Args:
        settings: which Ray, and what each worker has.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        """Start nothing before there is something to compute."""
        self._settings = settings
        self._cluster: RayCluster | None = None

    def compute(
        self, stage: Stage, context: StageContext, missing: Sequence[Unit], begin: Begin
    ) -> list[str]:
        """Have units computed and published by Ray's workers."""
        if not stage.needs_worker(missing):
            return compute_here(stage, context, missing, begin)
        return ShardRun(self.cluster(), stage, context, missing, begin).run()

    def cluster(self) -> RayCluster:
        """Return the Ray of the settings, which is started or joined at the first call."""
        if self._cluster is None or not self._cluster.ray.is_initialized():
            self._cluster = RayCluster(self._settings)
        return self._cluster


@dataclass
class _Given:
    """A shard that a worker has.

    Attributes:
        pieces: what it consists of.
        number: its number, unlike that of any other shard.
        since: when its worker was last heard of.
        doubled: whether another worker has been given the same units.
    """

    pieces: list[Piece]
    number: int
    since: float = field(default_factory=time.monotonic)
    doubled: bool = False


class ShardRun:
    """One stage's missing units on their way through the workers.

    Shards whose worker is lost are cut into their pieces and given to others, which compute what
    the lost worker had not published. At the end, idle workers are given what a slow one has not
    done; whoever publishes a unit first wins.

    Args:
        cluster: where the workers are.
        stage: whose units.
        context: what the stage reads; it is sent once.
        missing: the units.
        begin: asked before a piece is given out.
    """

    def __init__(
        self,
        cluster: RayCluster,
        stage: Stage,
        context: StageContext,
        missing: Sequence[Unit],
        begin: Begin,
    ) -> None:
        """Cut the work into pieces; give out none."""
        self._begin = begin
        self._cluster, self._ray = cluster, cluster.ray
        self._stage, self._missing = stage, missing
        self._boxed = [cluster.ray.put((stage, context))]
        self._share = cluster.share(context.compute, uses_device=stage.uses_device)
        self._shards = Shards(stage.pieces(context, missing))
        self._given = dict[Any, _Given]()
        self._done = dict[str, None]()  # as a set in order
        self._losses = Counter[str]()
        self._own = set[int]()
        self._longest_s = 0.0

    def run(self) -> list[str]:
        """Return the names of the published units, once all are but those that another run has.

        Raises:
            D4MError: a unit cannot be computed.
            WorkerError: a unit has lost its worker again and again.
        """
        with progress(len(self._missing), self._stage.name, unit="unit") as counted:
            try:
                while len(self._done) < len(self._missing) and self._give():
                    ready, _ = self._ray.wait(list(self._given), timeout=_POLL_S)
                    for reference in ready:
                        self._take(reference, counted)
                    self._listen(counted, _POLL_S)
                for _ in range(2):  # what was asked for before, and what has come since
                    self._listen(counted, _LAST_WORDS_S)
            finally:
                self._stop()
        return list(self._done)

    def _give(self) -> bool:
        """Give shards to free workers; return whether any worker has one."""
        slots = self._cluster.slots(self._share)
        while len(self._given) < slots and len(self._shards):
            if pieces := [piece for piece in self._shards.take(slots) if self._begin(piece)]:
                self._submit(pieces)
        if len(self._given) < slots and (slow := self._find_slow()):
            slow.doubled = True
            left = self._not_done(slow.pieces)
            _log.warning("%s: a worker is slow; others get its %d pieces", self._name, len(left))
            for piece in left:
                self._submit([piece])
        return bool(self._given)

    @property
    def _name(self) -> str:
        return self._stage.name

    def _submit(self, pieces: list[Piece]) -> None:
        number = next(_NUMBERS)
        self._own.add(number)
        units = [unit for piece in pieces for unit in piece]
        reference = self._cluster.submit(self._boxed, units, number, self._share)
        self._given[reference] = _Given(pieces, number)

    def _take(self, reference: Any, counted: Progress) -> None:
        """Take the outcome of a shard, or its pieces back."""
        given = self._given.pop(reference)
        lost = self._ray.exceptions
        try:
            done: Done = self._ray.get(reference)
        except (lost.NodeDiedError, lost.LocalRayletDiedError, lost.ObjectLostError) as failure:
            self._lose(given, failure)
        except (lost.WorkerCrashedError, lost.OutOfMemoryError) as failure:
            self._lose(given, failure, at_fault=True)
        except lost.RayError as failure:
            msg = (
                f"{self._name}: a worker could not begin its shard; the same d4m must be installed "
                f"on every machine of the cluster: {_last_line(failure)}"
            )
            raise WorkerError(msg) from failure
        else:
            for name in done.names:
                self._count(name, counted)
            if done.failure is not None:
                raise done.failure.unpack()
            # A worker's note on the last unit of a shard may arrive after the outcome of the shard.
            self._longest_s = max(self._longest_s, done.seconds / max(1, len(done.names)))
            self._shards.record(pieces=len(given.pieces), seconds=done.seconds)

    def _lose(self, given: _Given, failure: Exception, *, at_fault: bool = False) -> None:
        """Take back what a lost worker has not done.

        Raises:
            WorkerError: the same piece has lost too many workers.
        """
        left = self._not_done(given.pieces)
        for piece in left if at_fault else ():
            name = piece[0].name
            self._losses[name] += 1
            if self._losses[name] >= _MOST_LOSSES:
                msg = (
                    f"{self._name}/{name} has lost its worker {_MOST_LOSSES} times, which is what "
                    f"too little memory looks like; set a lower D4M_WORKER_COUNT, or a lower "
                    f"D4M_BATCH_SIZE: {_last_line(failure)}"
                )
                raise WorkerError(msg) from failure
        _log.warning(
            "%s: a worker was lost (%s); others get its %d pieces",
            self._name,
            type(failure).__name__,
            len(left),
        )
        self._shards.give_back(left)

    def _not_done(self, pieces: Sequence[Piece]) -> list[Piece]:
        left = ([unit for unit in piece if unit.name not in self._done] for piece in pieces)
        return [piece for piece in left if piece]

    def _listen(self, counted: Progress, patience_s: float) -> None:
        """Count the units and log the lines that workers have posted."""
        notes = self._cluster.take_notes(patience_s)
        heard = {given.number: given for given in self._given.values()}
        now = time.monotonic()
        for note in notes:
            if note.shard not in self._own:  # of an earlier stage, whose units have the same names
                continue
            if (given := heard.get(note.shard)) is not None:
                self._longest_s = max(self._longest_s, now - given.since if note.unit else 0.0)
                given.since = now
            if note.unit:
                self._count(note.unit, counted)
            elif note.text:
                logging.getLogger(note.logger).log(note.level, "%s", note.text)

    def _count(self, name: str, counted: Progress) -> None:
        if name not in self._done:
            self._done[name] = None
            counted.step()

    def _find_slow(self) -> _Given | None:
        """Return a shard whose worker has been quiet for long, if units have taken less so far."""
        if not self._longest_s or len(self._shards):
            return None
        since = time.monotonic() - max(_LEAST_PATIENCE_S, _PATIENCE * self._longest_s)
        return next((g for g in self._given.values() if g.since < since and not g.doubled), None)

    def _stop(self) -> None:
        """Stop what workers still do for this stage: after a failure, or what others have done.

        Ray ends this whole process if a task that is just ending is cancelled, and by force also if
        it has just ended. So whoever has nothing left to do is waited for, and none is cancelled
        that is known to have ended.
        """
        all_done = len(self._done) == len(self._missing)
        going = self._still_going(list(self._given), _LAST_WORDS_S if all_done else 0.0)
        for reference in going:
            self._ray.cancel(reference)
        for reference in self._still_going(going, _LAST_WORDS_S):
            self._ray.cancel(reference, force=True)

    def _still_going(self, references: list[Any], patience_s: float) -> list[Any]:
        """Return the tasks that do not end within some seconds."""
        if not references:
            return []
        return self._ray.wait(references, num_returns=len(references), timeout=patience_s)[1]


def _last_line(failure: Exception) -> str:
    return str(failure).strip().rpartition("\n")[2].strip()
