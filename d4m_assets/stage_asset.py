"""A stage of the library as a Dagster asset: cached, versioned, checked, with pictures."""

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from d4m.errors import D4MError
from d4m.reports.checks import Check, CheckResult, checks_of
from d4m.stages.base import Stage
from d4m.stages.context import StageContext
from d4m.stages.run import StageReport
from d4m_assets.asset_keys import GROUPS, LAST_GROUP, section_key
from d4m_assets.partitions import recipe_partitions
from d4m_assets.resources import RecipesResource, StoreResource
from d4m_assets.retries import fail_or_retry

Metadata = Mapping[str, dg.MetadataValue[Any]]
_ROWS = 100
# An artifact may have no units, and Dagster infers columns from rows alone.
_UNITS = dg.TableSchema([dg.TableColumn(name) for name in ("unit", "cached", "digest")])
_SEVERITIES = {"error": dg.AssetCheckSeverity.ERROR, "warning": dg.AssetCheckSeverity.WARN}


def stage_asset(
    stage: Stage,
    *,
    description: str,
    describe: Callable[[StageContext], Metadata],
    pool: str | None = None,
) -> dg.AssetsDefinition:
    """Return the asset of a stage, with the library's checks of its artifact.

    The asset's body asks the library to compute what is missing, and returns the manifest's digest
    as the data version, on a cache hit too: unchanged content makes nothing downstream stale.

    Args:
        stage: what is computed.
        description: the text on its page.
        describe: metadata from the stored artifact; must load no model.
        pool: the pool whose slots it takes, `gpu` where a device is used.
    """
    checks = checks_of(stage.name)

    @dg.asset(
        name=stage.name,
        partitions_def=recipe_partitions,
        deps=[*stage.upstream, *(section_key(section) for section in stage.sections)],
        code_version=stage.version,
        group_name=GROUPS.get(stage.name, LAST_GROUP),
        description=description,
        pool=pool,
        kinds={"zarr"},
        check_specs=[
            dg.AssetCheckSpec(check.name, asset=stage.name, description=check.promise)
            for check in checks
        ],
    )
    def asset(
        context: dg.AssetExecutionContext, store: StoreResource, recipes: RecipesResource
    ) -> dg.MaterializeResult:
        try:
            pipeline = store.pipeline(recipes.of_run(context.partition_key))
            report = pipeline.run_stage(stage.name)
            context.log.info(
                f"{stage.name}[{context.partition_key}]: computed {len(report.computed)}, "
                f"reused {len(report.reused)} in {report.seconds:.1f} s"
            )
            checked = pipeline.check(stage.name, report.context, running=True)
            metadata = {**describe(report.context), **_counts(report)}
            for check, found in checked:
                if not found.passed:
                    log = context.log.error if found.severity == "error" else context.log.warning
                    log(f"{context.partition_key}, {check.name}: {found.summary}")
            return dg.MaterializeResult(
                data_version=dg.DataVersion(report.manifest.digest),
                metadata=metadata,
                check_results=[check_result(check, found) for check, found in checked],
            )
        except D4MError as failure:
            raise fail_or_retry(context, failure) from failure

    return asset


def check_result(check: Check, found: CheckResult) -> dg.AssetCheckResult:
    """Return the outcome of a check as Dagster shows it."""
    rows = [dg.TableRecord(dict(row)) for row in found.rows]
    return dg.AssetCheckResult(
        check_name=check.name,
        passed=found.passed,
        severity=_SEVERITIES[found.severity],
        description=found.summary,
        metadata={**found.figures, **({"rows": dg.MetadataValue.table(rows)} if rows else {})},
    )


def _counts(report: StageReport) -> Metadata:
    units = report.manifest.units
    rows = [
        dg.TableRecord(
            {
                "unit": name,
                "cached": "no" if name in report.computed else "yes",
                "digest": units[name].digest[:12],
            }
        )
        for name in list(units)[:_ROWS]
    ]
    return {
        "computed": dg.MetadataValue.int(len(report.computed)),
        "reused": dg.MetadataValue.int(len(report.reused)),
        "seconds": dg.MetadataValue.float(round(report.seconds, 3)),
        "units": dg.MetadataValue.table(rows, schema=_UNITS),
    }
