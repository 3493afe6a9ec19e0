"""All stages of a recipe, without Dagster."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from d4m.compute import Compute
from d4m.errors import DamagedUnitError, MissingUpstreamError, SourceChangedError, StoreError
from d4m.recipe.recipe import Recipe
from d4m.reports.checks import Check, CheckResult, checks_of
from d4m.reports.image_changes import verify_images
from d4m.reports.plan_ahead import Outlook, PlannedUnit, look_ahead
from d4m.reports.preflight.check import check_recipe
from d4m.reports.present import ShownDataset, find_shown
from d4m.stages.base import Stage, is_known
from d4m.stages.baseline_images import BaselineImages
from d4m.stages.context import StageContext
from d4m.stages.distilled_dataset import DistilledDataset
from d4m.stages.evaluation_scores import EvaluationScores
from d4m.stages.generator import Generator
from d4m.stages.image_fidelity import ImageFidelity
from d4m.stages.latents import Latents
from d4m.stages.prototypes import Prototypes
from d4m.stages.real_images import RealImages
from d4m.stages.run import StageReport, StageRun
from d4m.stages.soft_labels import SoftLabels
from d4m.stages.synthesis_choice import SynthesisChoice
from d4m.stages.synthetic_images import SyntheticImages
from d4m.stages.teacher import Teacher
from d4m.store.claims import wait_for_any
from d4m.store.open_storage import StoreRoot
from d4m.store.reference import Reference
from d4m.store.store import ArtifactStore
from d4m.workers.base import Workers
from d4m.workers.serial import SerialWorkers

_log = logging.getLogger(__name__)
_MOST_REPAIRS = 100

STAGES: tuple[Stage, ...] = (
    RealImages(),
    Generator(),
    Latents(),
    Teacher(),
    SynthesisChoice(),
    Prototypes(),
    SyntheticImages(),
    SoftLabels(),
    BaselineImages(),
    EvaluationScores(),
    ImageFidelity(),
    DistilledDataset(),
)
_BY_NAME = {stage.name: stage for stage in STAGES}


@dataclass(frozen=True)
class Pipeline:
    """The stages of one recipe, over the place where its artifacts are kept.

    Attributes:
        recipe: the distillation to make.
        store_root: folder or address of the store.
        compute: the device, and what fits on it.
        workers: who computes the units of a stage.
        fallbacks: stores that are only read, for units that the store lacks.
    """

    recipe: Recipe
    store_root: StoreRoot
    compute: Compute = field(default_factory=Compute)
    workers: Workers = field(default_factory=SerialWorkers)
    fallbacks: Sequence[StoreRoot] = ()

    def open_context(self) -> StageContext:
        """Open the store, with the current manifests of all stages; images when they are read."""
        store = ArtifactStore(self.store_root, self.fallbacks)
        context = StageContext.open(self.recipe, store, self.compute)
        return _with_manifests(context)

    def preflight(self) -> list[str]:
        """Look through the whole recipe for what would fail later; return warnings.

        Raises:
            RecipeError: the recipe is wrong; each problem has file, line and key.
        """
        return check_recipe(self.open_context())

    def run(self, look: Callable[[Outlook], None] | None = None) -> Iterator[StageReport]:
        """Run every stage in order; each report comes when its stage is done.

        Where other runs compute all that a stage lacks, those stages that do not read it go first.

        Args:
            look: looks at what will be computed, before anything is.

        Raises:
            RecipeError: the recipe is wrong; nothing was computed.
            D4MError: a stage cannot do what the recipe asks.
        """
        context = self._checked_context()
        ahead = {} if look is None else _look_through(context, look)
        left, begun = dict(_BY_NAME), dict[str, StageRun]()
        while left:
            ready = [each for each in left.values() if left.keys().isdisjoint(each.upstream)]
            for stage in ready:
                if stage.name not in begun:
                    begun[stage.name] = self._begin(stage.name, ahead.get(stage.name))
                report = self._go_on(begun[stage.name], context)
                if report is None or report.computed:  # time in which others may replace units
                    ahead.clear()
                if report is not None:
                    del left[stage.name]
                    yield report
                    break
            else:
                wait_for_any([begun[stage.name].held for stage in ready])

    def run_stage(self, name: str) -> StageReport:
        """Compute what one artifact lacks; a damaged upstream unit is computed again on the way.

        Raises:
            RecipeError: the recipe is wrong; nothing was computed.
            MissingUpstreamError: an upstream artifact has not been made, or not as the recipe says.
            D4MError: the stage cannot do what the recipe asks.
        """
        return self._finish(name, self._checked_context())

    def _checked_context(self) -> StageContext:
        context = self.open_context()
        check_recipe(context)
        return context

    def _begin(self, name: str, ahead: Mapping[str, Reference] | None = None) -> StageRun:
        return StageRun(_BY_NAME[name], self.workers.compute, ahead)

    def _finish(self, name: str, opened: StageContext) -> StageReport:
        run = self._begin(name)
        while (report := self._go_on(run, opened)) is None:
            wait_for_any([run.held])
        return report

    def _go_on(self, run: StageRun, opened: StageContext) -> StageReport | None:
        """Go on with a stage, and make units again on the way that turn out to be damaged."""
        stage = run.stage
        for _ in range(_MOST_REPAIRS):
            try:
                context = _with_manifests(opened)
                self._check_upstream(stage.name, context)
                return run.go_on(_seen_by(stage, context))
            except DamagedUnitError as damage:
                _log.warning("%s", damage)
                if damage.stage != stage.name:
                    self._finish(damage.stage, opened)
        msg = (
            f"{stage.name}: units were damaged again after {_MOST_REPAIRS} repairs; check the disk"
        )
        raise StoreError(msg)

    def _check_upstream(self, name: str, context: StageContext) -> None:
        """Refuse artifacts of another recipe: of one edited since, or of a run at the same time.

        Real images are not listed again: stages compare their contents when they read them.
        """
        wanted = {name}
        for stage in reversed(STAGES):
            current = context.upstream.get(stage.name)
            if stage.name not in wanted or stage.name == RealImages.name:
                continue
            wanted.update(stage.upstream)
            if stage.name == name or current is None:  # the stage itself names one that is missing
                continue
            planned = stage.plan(context)
            keys = {unit: record.key for unit, record in current.items() if record}
            strange = any(is_known(unit) and unit.key != keys.get(unit.name) for unit in planned)
            if strange or {unit.name for unit in planned} != keys.keys():
                msg = (
                    f"recipe {self.recipe.name} has no {stage.name} for its present settings, only "
                    f"for others; make it first, with `d4m run {self.recipe.name}` or by "
                    f"materializing {stage.name}"
                )
                raise MissingUpstreamError(msg)

    def plan(self) -> dict[str, tuple[PlannedUnit, ...]]:
        """Return what a run would compute, and why.

        Raises:
            RecipeError: the recipe is wrong.
        """
        return self.look_ahead().explain()

    def look_ahead(self, *, refuse: bool = True) -> Outlook:
        """Plan all stages once, for several questions about what is stored and what is missing.

        Args:
            refuse: whether a wrong recipe is an error; reports about what was made do without.

        Raises:
            RecipeError: the recipe is wrong.
            SourceError: its images cannot be listed.
        """
        return look_ahead(STAGES, self._checked_context() if refuse else self.open_context())

    def check(
        self, artifact: str, context: StageContext, *, running: bool = False
    ) -> list[tuple[Check, CheckResult]]:
        """Examine an artifact by the checks that look at it.

        If a check meets an image that has changed since it was indexed, the next run reads all
        images again.

        Args:
            artifact: its name.
            context: with the artifact's units.
            running: whether a run goes on from here, which must not use images that have changed.

        Raises:
            SourceChangedError: a check of a run has met an image that has changed.
        """
        results = [(check, check.examine(context)) for check in checks_of(artifact)]
        changed = [result.summary for _, result in results if result.changed]
        if changed:
            context.forget_images()
        if changed and running:
            raise SourceChangedError(changed[0])
        return results

    def present_context(self) -> StageContext:
        """Open the store, with those artifacts only that are whole for the present recipe."""
        return self.look_ahead(refuse=False).present

    def shown(self) -> ShownDataset:
        """Find the data set to show: that of the present recipe, or the last one made.

        Raises:
            MissingUpstreamError: none has been made.
        """
        return find_shown(STAGES, self.open_context())

    def verify(self) -> Iterator[tuple[str, str, str]]:
        """Read every unit of the current manifests.

        Yields:
            Stage, unit, and the damage that was found, or "".
        """
        context = self.open_context()
        for stage, units in context.upstream.items():
            for name, record in units.items():
                assert record is not None, "manifests name units that exist"
                try:
                    context.store.verify(stage, record.key)
                except DamagedUnitError as damage:
                    yield stage, name, damage.reason
                else:
                    yield stage, name, ""

    def verify_images(self) -> Iterator[tuple[str, str, str]]:
        """Read every real image of the current index, and compare its bytes with the index.

        If one has changed, the next run reads all images again.

        Yields:
            Split, image, and how it has changed, or "".

        Raises:
            MissingUpstreamError: the images have not been indexed.
            SourceError: the recipe's images cannot be found.
        """
        yield from verify_images(self.open_context())


def _look_through(
    context: StageContext, look: Callable[[Outlook], None]
) -> dict[str, Mapping[str, Reference]]:
    """Show what will be computed; return the stored units alone, not the plans of all others."""
    outlook = look_ahead(STAGES, context)
    look(outlook)
    return {name: stage.stored for name, stage in outlook.planned.items()}


def _with_manifests(context: StageContext) -> StageContext:
    """Return a context with the current manifests of all stages."""
    manifests = context.manifests.current_of(_BY_NAME)
    return replace(context, upstream={name: each.units for name, each in manifests.items()})


def _seen_by(stage: Stage, context: StageContext) -> StageContext:
    """Return a context with the manifests of a stage's upstream only."""
    upstream = {n: units for n, units in context.upstream.items() if n in stage.upstream}
    return replace(context, upstream=upstream)
