"""Workers that are this very process: one unit after the other."""

from collections.abc import Sequence

from d4m.stages.base import Stage
from d4m.stages.context import StageContext
from d4m.stages.run import Begin, compute_here
from d4m.store.reference import Unit
from d4m.workers.base import Workers


class SerialWorkers(Workers):
    """This process, which computes one unit after the other."""

    def compute(
        self, stage: Stage, context: StageContext, missing: Sequence[Unit], begin: Begin
    ) -> list[str]:
        """Compute and publish units here."""
        context.compute.check_device()
        return compute_here(stage, context, missing, begin)
