"""All stages of a recipe, in one process and without Dagster."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from d4m.compute import Compute
from d4m.errors import DamagedUnitError, StoreError
from d4m.recipe import Recipe
from d4m.stages.base import Stage, StageContext, StageReport, run_stage
from d4m.stages.distilled_dataset import DistilledDataset
from d4m.stages.evaluation_scores import EvaluationScores
from d4m.stages.generator import Generator
from d4m.stages.image_fidelity import ImageFidelity
from d4m.stages.latents import Latents
from d4m.stages.plan_ahead import PlannedUnit, plan_ahead
from d4m.stages.prototypes import Prototypes
from d4m.stages.real_images import RealImages, check_class_sizes
from d4m.stages.soft_labels import SoftLabels
from d4m.stages.synthetic_images import SyntheticImages
from d4m.stages.teacher import Teacher
from d4m.store.store import ArtifactStore

_log = logging.getLogger(__name__)
_MOST_REPAIRS = 100

STAGES: tuple[Stage, ...] = (
    RealImages(),
    Generator(),
    Latents(),
    Teacher(),
    Prototypes(),
    SyntheticImages(),
    SoftLabels(),
    EvaluationScores(),
    ImageFidelity(),
    DistilledDataset(),
)
_BY_NAME = {stage.name: stage for stage in STAGES}


@dataclass(frozen=True)
class Pipeline:
    """A recipe and the place where its artifacts are kept.

    Attributes:
        recipe: what is made.
        store_root: folder of the store.
        compute: the device, and what fits on it.
    """

    recipe: Recipe
    store_root: Path
    compute: Compute = field(default_factory=Compute)

    def context(self, stage_name: str | None = None) -> StageContext:
        """What a stage sees: the current manifests of its upstream, or of all stages."""
        names = _BY_NAME[stage_name].upstream if stage_name else tuple(_BY_NAME)
        context = StageContext(self.recipe, ArtifactStore(self.store_root), self.compute)
        manifests = {name: context.manifests.current(name) for name in names}
        return replace(context, upstream={n: m.units for n, m in manifests.items() if m})

    def run(self) -> Iterator[StageReport]:
        """Run every stage in order; each report comes when its stage is done."""
        for stage in STAGES:
            yield self.run_stage(stage.name)

    def run_stage(self, name: str) -> StageReport:
        """Compute what one artifact lacks; a damaged upstream unit is computed again on the way.

        Raises:
            MissingUpstreamError: an upstream artifact has not been made.
            D4MError: the stage cannot do what the recipe asks.
        """
        for _ in range(_MOST_REPAIRS):
            try:
                report = run_stage(_BY_NAME[name], self.context(name))
                if name == RealImages.name:
                    units = report.manifest.units
                    check_class_sizes(replace(self.context(), upstream={name: units}))
            except DamagedUnitError as damage:
                _log.warning("%s", damage)
                if damage.stage != name:
                    self.run_stage(damage.stage)
            else:
                return report
        msg = f"{name}: units were damaged again after {_MOST_REPAIRS} repairs; check the disk"
        raise StoreError(msg)

    def plan(self) -> dict[str, tuple[PlannedUnit, ...]]:
        """What a run would compute, and why."""
        return plan_ahead(STAGES, self.context())

    def verify(self) -> Iterator[tuple[str, str, str]]:
        """Read every unit of the current manifests: (stage, unit, what is wrong with it or "")."""
        context = self.context()
        for stage, units in context.upstream.items():
            for name, record in units.items():
                assert record is not None, "manifests name units that exist"
                try:
                    context.store.verify(stage, record.key)
                except DamagedUnitError as damage:
                    yield stage, name, damage.reason
                else:
                    yield stage, name, ""
