"""Run a stage: plan, look up, have what is missing computed. The same for every stage."""

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from d4m.compute import return_freed_memory
from d4m.errors import StoreError
from d4m.progress import progress
from d4m.stages.base import Product, Stage, is_known, plan_stage, records
from d4m.stages.context import StageContext
from d4m.stages.provenance import SECONDS, record_provenance
from d4m.store.checkpoints import NOWHERE
from d4m.store.claims import Claims, wait_for_any
from d4m.store.manifest import Manifest
from d4m.store.pieces import ArrayPieces
from d4m.store.reference import Reference, Unit

_log = logging.getLogger(__name__)

Begin = Callable[[Sequence[Unit]], bool]
"""Asked before each of a stage's pieces, in order: whether it was not given to another run."""

Computing = Callable[[Stage, StageContext, Sequence[Unit], Begin], list[str]]
"""Computes and publishes missing units; returns the names of those that it did."""


@dataclass(frozen=True)
class StageReport:
    """The outcome of one run of a stage.

    Attributes:
        manifest: the artifact as it is now.
        computed: names of the units that were computed.
        reused: names of the units that were there already.
        seconds: wall-clock time.
        context: with the artifact's units and those that the stage reads, for whoever looks at it.
    """

    manifest: Manifest
    computed: tuple[str, ...]
    reused: tuple[str, ...]
    seconds: float
    context: StageContext


def compute_here(
    stage: Stage, context: StageContext, missing: Sequence[Unit], begin: Begin
) -> list[str]:
    """Compute and publish units in this process; return their names as they were done."""
    computed = list[str]()
    with (
        progress(len(missing), stage.name, unit="unit") as counted,
        closing(computed_units(stage, context, missing)) as units,
    ):
        for piece in stage.pieces(context, missing):
            if not begin(piece):
                break
            for unit in islice(units, len(piece)):
                computed.append(unit.name)
                counted.step()
    return computed


class StageRun:
    """One run of a stage, which other runs may hold up.

    ```python
    run = StageRun(stage)
    while (report := run.go_on(context)) is None:
        ...  # something else
        wait_for_any([run.held])
    ```

    Args:
        stage: what to make.
        compute: who computes.
        ahead: units of it that a plan ahead has found, by name; they are marked as used, which
            shows whether they are still there, and whoever reads them checks them.
    """

    def __init__(
        self,
        stage: Stage,
        compute: Computing = compute_here,
        ahead: Mapping[str, Reference] | None = None,
    ) -> None:
        """Begin, and compute nothing yet."""
        self.stage = stage
        self._compute = compute
        self._ahead = ahead
        self._computed = list[str]()
        self._start = time.monotonic()
        self._held: tuple[Claims, Sequence[Unit]] | None = None

    @property
    def held(self) -> tuple[Claims, Sequence[Unit]]:
        """The units that other runs compute, after `go_on` has returned None."""
        assert self._held is not None, "asked of a stage that nothing holds up"
        return self._held

    def go_on(self, context: StageContext) -> StageReport | None:
        """Have missing units computed; once there are none, make the manifest the current one.

        Args:
            context: what the stage reads.

        Returns:
            The report; None if other runs compute all that is missing, see `held`.

        Raises:
            DamagedUnitError: an upstream unit is damaged; it was set aside.
            MissingUpstreamError: an upstream artifact has not been made.
        """
        stage, before = self.stage, len(self._computed)
        while True:
            units, stored = plan_stage(stage, context, self._ahead)
            self._ahead = None  # missing units are looked up again, as others may have made them
            used = context.store.mark_used(stored)
            missing = [unit for unit in units if unit.name not in used and _is_ready(unit, used)]
            if not missing and all(map(is_known, units)):
                return self._finish(units, used, context)
            done = {*self._computed[before:]}
            lost = [unit.name for unit in missing if unit.name in done]
            if lost:
                msg = f"{stage.name}: {lost} were stored and are gone again; check the disk"
                raise StoreError(msg)
            seen = context.seeing(stage.name, records(used))
            if not self._compute_unclaimed(seen, missing):
                return None
            return_freed_memory()

    def _finish(
        self, units: Sequence[Unit], used: Mapping[str, Reference], context: StageContext
    ) -> StageReport:
        """Publish the manifest of a stage that has all its units."""
        stage, found = self.stage, records(used)
        manifest = Manifest(stage.name, stage.version, {u.name: found[u.name] for u in units})
        context.manifests.publish(manifest)
        made = context.seeing(stage.name, manifest.units)
        stage.check(made)
        computed = {*self._computed}
        reused = tuple(unit.name for unit in units if unit.name not in computed)
        done = tuple(unit.name for unit in units if unit.name in computed)
        return StageReport(manifest, done, reused, time.monotonic() - self._start, made)

    def _compute_unclaimed(self, context: StageContext, missing: Sequence[Unit]) -> bool:
        """Have those units computed that no other run computes; return whether there were any."""
        claims = Claims(context.store.storage, self.stage.name)
        self._held = claims, missing
        with claims.take(missing) as claim:
            claimed = bool(claim.units)
            published = context.store.find_all(claim.units)  # by another run, since the plan
            left = [unit for unit in claim.units if unit.name not in published]
            if left:
                claim.divide(self.stage.pieces(context, left))
                self._computed += self._compute(self.stage, context, left, claim.begin)
        return claimed


def run_stage(
    stage: Stage,
    context: StageContext,
    compute: Computing = compute_here,
) -> StageReport:
    """Have a stage's missing units computed, and make its manifest the current one.

    Args:
        stage: what to make.
        context: what the stage reads.
        compute: who computes.

    Raises:
        DamagedUnitError: an upstream unit is damaged; it was set aside.
        MissingUpstreamError: an upstream artifact has not been made.
    """
    run = StageRun(stage, compute)
    while (report := run.go_on(context)) is None:
        wait_for_any([run.held])
    return report


def _is_ready(unit: Unit, used: Mapping[str, Reference]) -> bool:
    """Return whether all that a unit reads is there, units of its own stage included."""
    return is_known(unit) and all(own in used for own in unit.reads(unit.stage))


def computed_units(stage: Stage, context: StageContext, missing: Sequence[Unit]) -> Generator[Unit]:
    """Compute and publish units; yield each when it is published."""
    since = time.monotonic()
    for unit, product in stage.compute(context, missing):
        _publish(context, unit, product, since)
        context.checkpoints.pop(unit.key, NOWHERE).remove()
        since = time.monotonic()
        _log.debug("computed %s/%s", stage.name, unit.name)
        yield unit


def _publish(context: StageContext, unit: Unit, product: Product, since: float) -> None:
    """Store a unit, and with it the seconds since the stage began or stored the unit before.

    Where a stage makes several units together, the first one has the time of all.
    """
    provenance = record_provenance(context) | context.notes.pop(unit.key, {})
    if callable(product):

        def write(folder: Path) -> None:
            product(folder)
            provenance[SECONDS] = round(time.monotonic() - since, 3)

        context.store.publish_files(unit, write, provenance)
    elif isinstance(product, ArrayPieces):

        def pieces() -> Iterator[Mapping[str, np.ndarray]]:
            yield from product.pieces
            provenance[SECONDS] = round(time.monotonic() - since, 3)

        context.store.publish_arrays(unit, ArrayPieces(product.rows, pieces()), provenance)
    else:
        provenance[SECONDS] = round(time.monotonic() - since, 3)
        context.store.publish_arrays(unit, product, provenance)
