"""The contract of workers: compute and publish units, wherever that is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from d4m.stages.base import Stage
from d4m.stages.context import StageContext
from d4m.stages.run import Begin
from d4m.store.reference import Unit


class Workers(ABC):
    """Who computes the missing units of a stage.

    ```python
    report = run_stage(stage, context, open_workers(WorkerSettings("ray")).compute)
    ```
    """

    @abstractmethod
    def compute(
        self, stage: Stage, context: StageContext, missing: Sequence[Unit], begin: Begin
    ) -> list[str]:
        """Compute and publish units that do not read one another, in any order.

        Results do not depend on who computes them, nor on the order.

        Returns:
            The names of the units that are published: all of them but the pieces that `begin`
            refused.

        Raises:
            D4MError: a unit cannot be computed; those that are published stay.
            WorkerError: the workers cannot be had, or a unit loses its worker again and again.
        """
