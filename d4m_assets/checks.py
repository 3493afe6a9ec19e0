"""The library's checks as Dagster's: each belongs to an artifact of one recipe."""

import warnings
from typing import Any

import dagster as dg

from d4m.reports.checks import Check, CheckResult, checks_of
from d4m_assets.partitions import recipe_partitions
from d4m_assets.tables import MOST_ROWS, plain_table

BLOCKING = ("readable_files", "no_blank_image", "ipc_images_per_class")
"""Checks without which an artifact is useless: where one fails, nothing is made of the artifact."""

_SEVERITIES = {"error": dg.AssetCheckSeverity.ERROR, "warning": dg.AssetCheckSeverity.WARN}
_DIGITS = 6
_SETTINGS = ("limit", "wanted")  # among the figures; as text, because Dagster plots every number


def check_specs(artifact: str) -> list[dg.AssetCheckSpec]:
    """Return the checks of an artifact, with a result per recipe."""
    with warnings.catch_warnings():  # checks with partitions are a preview in Dagster 1.13
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(
                check.name,
                asset=artifact,
                description=check.promise,
                blocking=check.name in BLOCKING,
                partitions_def=recipe_partitions,
            )
            for check in checks_of(artifact)
        ]


def check_result(recipe: str, check: Check, found: CheckResult) -> dg.AssetCheckResult:
    """Return the outcome of a check as Dagster shows it.

    The description begins with the recipe, as an asset's overview shows the last result of any.
    """
    figures = {name: _rounded(value) for name, value in found.figures.items()}
    shown: dict[str, Any] = {
        name.replace("_", " "): str(value) if name in _SETTINGS else value
        for name, value in figures.items()
    }
    if found.rows:
        whole = len(found.rows) < MOST_ROWS  # checks list no more
        shown["rows" if whole else f"the first {MOST_ROWS} rows"] = plain_table(found.rows)
    return dg.AssetCheckResult(
        check_name=check.name,
        passed=found.passed,
        severity=_SEVERITIES[found.severity],
        description=f"{recipe}: {found.summary}",
        metadata=shown,
    )


def _rounded(value: Any) -> Any:
    return round(value, _DIGITS) if isinstance(value, float) else value
