"""The contract of a stage: plan units, compute the missing ones."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from d4m.stages.context import Inputs, StageContext
from d4m.store.manifest import UnitRecord
from d4m.store.pieces import ArrayPieces
from d4m.store.reference import Reference, Unit

Product = Mapping[str, np.ndarray] | ArrayPieces | Callable[[Path], None]
"""A computed unit: its arrays, whole or in pieces, or a function that writes its files."""


class Stage(ABC):
    """One artifact: the units that it consists of, and how they are computed.

    ```python
    units, stored = plan_stage(stage, context)
    missing = [unit for unit in units if unit.name not in stored]
    for unit, product in stage.compute(context, missing):
        ...  # publish it
    stage.check(context)
    ```

    Attributes:
        name: the artifact's name.
        version: raised when the stage's code gives other results for the same inputs.
        upstream: the artifacts it reads.
        sections: the parts of the recipe it reads, by their names in `d4m.settings.parts.PARTS`.
        divisible: whether each unit can be computed apart from the others, by another worker.
        uses_device: whether a worker that computes it needs a GPU where there is one.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    upstream: ClassVar[tuple[str, ...]] = ()
    sections: ClassVar[tuple[str, ...]]
    divisible: ClassVar[bool] = False
    uses_device: ClassVar[bool] = True

    @abstractmethod
    def plan(self, context: StageContext) -> list[Unit]:
        """Return the artifact's units; reads settings and digests, never arrays."""

    @abstractmethod
    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Make the missing units, in any order, each as soon as it is done.

        All settings come from the units, as `Unit.settings`: what `plan` did not put into a unit's
        key must not change what the unit holds.
        """

    def pieces(self, context: StageContext, missing: Sequence[Unit]) -> list[list[Unit]]:
        """Divide missing units into pieces that can be computed apart, in the order to do so.

        Pieces that share what they read come one after the other, as a worker takes several. The
        units of a piece may be made at the same time, so a run that leaves work to another one does
        so between pieces.
        """
        del context
        return [[unit] for unit in missing] if self.divisible else [list(missing)]

    def needs_worker(self, missing: Sequence[Unit]) -> bool:
        """Return whether workers are of use; else the process that plans computes the units."""
        return bool(missing) and (self.divisible or self.uses_device)

    def check(self, context: StageContext) -> None:
        """Refuse an artifact, once it is made, that later stages could not use.

        Args:
            context: with this artifact's units in `upstream`.
        """
        del context

    def unit(
        self, context: StageContext, name: str, inputs: Inputs, *, place: Path | None = None
    ) -> Unit:
        """Return a unit that depends on these inputs.

        Args:
            context: where the digests of upstream units are looked up.
            name: of the unit.
            inputs: its settings, and the units that it reads. A unit of this very stage may be
                among these; its digest is None until it is made.
            place: a file of the user's whose digest is among the settings.
        """
        own = context.upstream.get(self.name, {})
        upstream = {
            f"{artifact}/{unit}": context.digest(artifact, unit)
            if artifact != self.name or unit in own
            else None
            for artifact, unit in inputs.reads
        }
        content = {"settings": dict(inputs.settings), "upstream": upstream}
        return Unit(self.name, self.version, name, content, place)


def is_known(unit: Unit) -> bool:
    """Return whether all that a planned unit reads is known, and with it the unit's key."""
    return None not in unit.inputs["upstream"].values()


def plan_stage(
    stage: Stage, context: StageContext, ahead: Mapping[str, Reference] | None = None
) -> tuple[list[Unit], dict[str, Reference]]:
    """Plan a stage's units, and find those that are stored.

    Units that read other units of the same stage are planned again once those are found.

    Args:
        stage: what to plan.
        context: what the stage reads.
        ahead: units of it that were found a moment ago, which are not looked up again.

    Returns:
        All units, in order; and by name the references of the stored ones.
    """
    stored = dict[str, Reference]()
    while True:
        units = stage.plan(context.seeing(stage.name, records(stored)))
        known = [unit for unit in units if is_known(unit)]
        now = _find(context, known, ahead or {})
        waits = any(unit.reads(stage.name) for unit in units if not is_known(unit))
        if not waits or now.keys() == stored.keys():
            return units, now
        stored = now


def _find(
    context: StageContext, units: Sequence[Unit], ahead: Mapping[str, Reference]
) -> dict[str, Reference]:
    """Find units by name; those that were found a moment ago are not looked up again."""
    seen = {
        unit.name: ahead[unit.name]
        for unit in units
        if unit.name in ahead and ahead[unit.name].key == unit.key
    }
    stored = seen | context.store.find_all(unit for unit in units if unit.name not in seen)
    return {unit.name: stored[unit.name] for unit in units if unit.name in stored}


def records(references: Mapping[str, Reference]) -> dict[str, UnitRecord]:
    """Return what a manifest says about these units."""
    return {name: UnitRecord(each.key, each.digest) for name, each in references.items()}
