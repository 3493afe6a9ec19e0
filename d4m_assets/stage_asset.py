"""A stage of the library as a Dagster asset: cached, versioned, checked, with pictures."""

import inspect
import warnings
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

import dagster as dg

from d4m.errors import D4MError
from d4m.reports.checks import CheckResult
from d4m.stages.base import Stage
from d4m.stages.context import StageContext
from d4m.stages.provenance import seconds_of_work
from d4m.stages.run import StageReport
from d4m.store.storage import Storage
from d4m_assets.asset_keys import GROUPS, LAST_GROUP, section_key
from d4m_assets.checks import check_result, check_specs
from d4m_assets.failures import chosen_recipe, fail_or_retry
from d4m_assets.partitions import recipe_partitions
from d4m_assets.resources import RecipesResource, StoreResource
from d4m_assets.sections import read_sections
from d4m_assets.tables import MOST_ROWS, described_table

Metadata = Mapping[str, dg.MetadataValue[Any]]
_UNITS = {
    "unit": "the part of the artifact that is stored and reused as a whole",
    "cached": "yes: it was found in the store; no: this run computed it",
    "digest": "of its content",
}


def stage_asset(
    stage: Stage,
    *,
    description: str,
    describe: Callable[[StageContext], Metadata],
    kinds: set[str],
    figures: Mapping[str, tuple[str, str]] | None = None,
    pool: str | None = None,
) -> dg.AssetsDefinition:
    """Return the asset of a stage, with the library's checks of its artifact.

    The asset's body asks the library to compute what is missing, and returns the manifest's digest
    as the data version, on a cache hit too: unchanged content makes nothing downstream stale.

    Args:
        stage: what is computed.
        description: the text on its page.
        describe: metadata from the stored artifact, with the numbers that are worth a history
            first; must load no model. Every number is plotted, so none is a setting.
        kinds: the icons in the graph.
        figures: shares among the checks' figures that are worth a history, in percent: name ->
            (check, figure).
        pool: the pool whose slots it takes, `gpu` where a device is used.
    """

    @dg.asset(
        name=stage.name,
        partitions_def=recipe_partitions,
        deps=[*stage.upstream, *(section_key(section) for section in stage.sections)],
        code_version=stage.version,
        group_name=GROUPS.get(stage.name, LAST_GROUP),
        description=description,
        pool=pool,
        kinds=kinds,
        metadata={"dagster/code_references": _source_of(stage)},
        check_specs=check_specs(stage.name),
    )
    def asset(
        context: dg.AssetExecutionContext, store: StoreResource, recipes: RecipesResource
    ) -> dg.MaterializeResult:
        name = chosen_recipe(context)
        try:
            recipe = recipes.of_run(name)
            pipeline = store.pipeline(recipe)
            report = pipeline.run_stage(stage.name)
            context.log.info(
                f"{stage.name}[{name}]: computed {len(report.computed)}, "
                f"reused {len(report.reused)} in {report.seconds:.1f} s"
            )
            checked = pipeline.check(stage.name, report.context, running=True)
            found = {check.name: result for check, result in checked}
            metadata = {
                **_shares(found, figures or {}),
                **describe(report.context),
                **_account(report, store.storage),
            }
            for check, result in checked:
                if not result.passed:
                    log = context.log.error if result.severity == "error" else context.log.warning
                    log(f"{name}, {check.name}: {result.summary}")
            return dg.MaterializeResult(
                data_version=dg.DataVersion(report.manifest.digest),
                metadata=metadata,
                tags=read_sections(context.instance, recipe, stage.sections),
                check_results=[check_result(name, check, result) for check, result in checked],
            )
        except D4MError as failure:
            raise fail_or_retry(context, recipes.file(name), stage.name, failure) from failure

    return asset


def _source_of(stage: Stage) -> dg.CodeReferencesMetadataValue:
    """Return the place in the library where the stage is written."""
    file = inspect.getsourcefile(type(stage))
    assert file is not None, "a stage is written in a file"
    line = inspect.getsourcelines(type(stage))[1]
    with warnings.catch_warnings():  # code references are in beta in Dagster 1.13
        warnings.simplefilter("ignore", dg.BetaWarning)
        reference = dg.LocalFileCodeReference(file_path=file, line_number=line, label=stage.name)
        return dg.CodeReferencesMetadataValue(code_references=[reference])


def _shares(
    found: Mapping[str, CheckResult], figures: Mapping[str, tuple[str, str]]
) -> dict[str, dg.MetadataValue[Any]]:
    """Return shares among the figures of the checks in percent, those that the checks have."""
    return {
        name: dg.MetadataValue.float(round(100 * found[check].figures[figure], 2))
        for name, (check, figure) in figures.items()
        if figure in found[check].figures
    }


def _account(report: StageReport, storage: Storage) -> Metadata:
    """Return what the run did and what the units cost, whenever they were made."""
    units, artifact = report.manifest.units, report.manifest.asset
    rows = [
        {
            "unit": name,
            "cached": "no" if name in report.computed else "yes",
            "digest": units[name].digest[:12],
        }
        for name in list(units)[:MOST_ROWS]
    ]
    work = seconds_of_work(report.context, artifact)
    return {
        "computed": dg.MetadataValue.int(len(report.computed)),
        "reused": dg.MetadataValue.int(len(report.reused)),
        **({} if work is None else {"seconds of work": dg.MetadataValue.float(round(work, 1))}),
        "units": described_table(_UNITS, rows, total=len(units)),
        "dagster/uri": dg.MetadataValue.text(storage.uri(PurePosixPath("objects", artifact))),
    }
