"""Find the data set that belongs to the present recipe; else the last one, and what changed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from d4m.errors import MissingUpstreamError, SourceError, StoreError
from d4m.reports.changes import setting_changes
from d4m.reports.dataset_diff import DatasetVersion
from d4m.reports.lineage import trace
from d4m.reports.plan_ahead import Outlook, look_ahead
from d4m.stages.base import Stage, records
from d4m.stages.context import StageContext
from d4m.stages.display_names import with_names
from d4m.stages.distilled_dataset import DistilledDataset
from d4m.stages.evaluation_scores import EvaluationScores
from d4m.stages.image_fidelity import FidelityRow, ImageFidelity, fidelity_rows
from d4m.stages.real_images import RealImages
from d4m.stages.score_table import ScoreRow, score_rows
from d4m.stages.set_bytes import SetBytes, set_bytes

_DATASET = DistilledDataset.name
_MOST_CHANGES = 4


@dataclass(frozen=True)
class ShownDataset:
    """A distilled data set as it is shown and handed out, with the settings that made it.

    Attributes:
        split: the images that its students were scored on.
        scores: the rows of its score table.
        fidelity: how close its images are to real ones; empty for an earlier version.
        folder: its files; None where they are not packed yet.
        weight: what its images and labels weigh; None for an earlier version, and where one of them
            is not whole.
        context: the recipe's artifacts that are whole; None for an earlier version.
        version: name of an earlier version; empty where it belongs to the present recipe.
        changes: how the present recipe differs from that version, in words.
        scored_on: digests of the images that its students were scored on; empty where the store has
            them no longer.
    """

    split: str
    scores: list[ScoreRow]
    fidelity: list[FidelityRow]
    folder: Path | None
    weight: SetBytes | None = None
    context: StageContext | None = None
    version: str = ""
    changes: tuple[str, ...] = ()
    scored_on: frozenset[str] = frozenset()

    @property
    def note(self) -> str:
        """In words, which version this is and what has changed since; empty for the present."""
        return _describe(f"version {self.version}", self.changes) if self.version else ""


def find_shown(stages: Sequence[Stage], context: StageContext) -> ShownDataset:
    """Find the data set to show: that of the present recipe, or the last one that was made.

    Args:
        stages: in the order in which they run.
        context: the recipe, and the store with its manifests.

    Raises:
        MissingUpstreamError: none has ever been made.
    """
    try:
        outlook = look_ahead(stages, context)
    except SourceError as failure:
        return _last_version(context, (f"the images cannot be listed ({failure})",))
    return shown_dataset(outlook)


def shown_dataset(outlook: Outlook) -> ShownDataset:
    """Return the data set of the present recipe, or the last one that was made.

    Raises:
        MissingUpstreamError: none has ever been made.
    """
    context, present = outlook.context, outlook.present
    if EvaluationScores.name not in present.upstream:
        return _last_version(context, tuple(_changes(outlook)))
    settings, packed = present.recipe.settings, _DATASET in present.upstream
    measured = ImageFidelity.name in present.upstream
    return ShownDataset(
        split=settings.evaluation.split,
        scores=score_rows(present, settings),
        fidelity=fidelity_rows(present, settings) if measured else [],
        folder=present.open_files(_DATASET, _DATASET) if packed else None,
        weight=set_bytes(present),
        context=present,
        scored_on=_scored_on(present),
    )


def are_scored_apart(shown: Iterable[ShownDataset]) -> bool:
    """Return whether some of these data sets were scored on other images than others."""
    return len({each.scored_on for each in shown if each.scored_on}) > 1


def earlier_note(outlook: Outlook, artifact: str) -> str:
    """Say of the last version of an artifact which one it is and what has changed since.

    Returns:
        The note, in words; empty where that version is the present recipe's, or none was made.
    """
    context = outlook.context
    current = context.manifests.current(artifact)
    present = outlook.present.upstream.get(artifact)
    if current is None or (present is not None and dict(present) == dict(current.units)):
        return ""
    versions = context.manifests.versions(artifact)
    name = versions[-1].name if versions else current.digest
    if artifact == _DATASET:
        return _describe(f"version {name}", _changes(outlook))
    return _describe(f"version {name} of {artifact}", _unit_changes(outlook, artifact))


def scores_so_far(outlook: Outlook) -> tuple[ShownDataset, str] | None:
    """Return the scores that a run has made before it was stopped; None if there are none.

    Returns:
        The data set with rows of all students so far, and how many these are, in words.
    """
    present, planned = outlook.present, outlook.planned[EvaluationScores.name]
    seen = replace(
        present, upstream={**present.upstream, EvaluationScores.name: records(planned.stored)}
    )
    settings = present.recipe.settings
    rows = score_rows(seen, settings, stored=planned.stored.keys())
    if not rows:
        return None
    split = settings.evaluation.split
    shown = ShownDataset(
        split,
        rows,
        [],
        None,
        weight=set_bytes(present),
        context=present,
        scored_on=_scored_on(present),
    )
    return shown, f"{len(planned.stored)} of {len(planned.units)} scores are there"


def _last_version(context: StageContext, changes: tuple[str, ...]) -> ShownDataset:
    versions = context.manifests.versions(_DATASET)
    if not versions:
        name = context.recipe.name
        msg = (
            f"recipe {name} has no {_DATASET} yet; make it first, with `d4m run {name}` or by "
            f"materializing {_DATASET}"
        )
        raise MissingUpstreamError(msg)
    opened = DatasetVersion.open(context, versions[-1])
    return ShownDataset(
        split=opened.settings["evaluation"]["split"],
        scores=opened.named_scores(context.recipe.settings),
        fidelity=[],
        folder=opened.folder,
        version=versions[-1].name,
        changes=changes,
        scored_on=opened.scored_on(context),
    )


def _scored_on(present: StageContext) -> frozenset[str]:
    own = f"{present.recipe.settings.evaluation.split}-"
    units = present.upstream.get(RealImages.name, {})
    return frozenset(
        record.digest for name, record in units.items() if record and name.startswith(own)
    )


def _changes(outlook: Outlook) -> list[str]:
    """Describe how the present recipe differs from the last data set: settings, else images."""
    context = outlook.context
    versions = context.manifests.versions(_DATASET)
    if not versions:
        return []
    present = context.recipe.settings
    try:
        opened = DatasetVersion.open(context, versions[-1])
    except StoreError as failure:
        return [str(failure)]
    made_with = with_names(opened.settings, present)
    now = present.model_dump(mode="json")
    now["soft_labels"] |= {"epochs_per_block": made_with["soft_labels"]["epochs_per_block"]}
    changes = setting_changes(made_with, now)
    if changes:
        return changes
    planned = (unit for units in outlook.explain().values() for unit in units)
    return [f"{unit.label}: {unit.reason}" for unit in planned if unit.state == "compute"]


def _unit_changes(outlook: Outlook, artifact: str) -> list[str]:
    """Describe how the last version of an artifact was made otherwise than a run would make it."""
    context, seen, changes = outlook.context, set[tuple[str, str]](), list[str]()
    planned = {
        (name, unit.name): unit for name, stage in outlook.planned.items() for unit in stage.units
    }
    for top in trace(context, artifact, list(context.upstream[artifact])):
        for origin in top.walk():
            place = (origin.asset, origin.unit)
            if place in seen or origin.reference is None:
                continue
            seen.add(place)
            label = f"{origin.asset}/{origin.unit}"
            if place not in planned:
                changes.append(f"{label} is gone")
                continue
            made_with, now = origin.reference.inputs["settings"], planned[place].inputs["settings"]
            changes += [f"{label}: {change}" for change in setting_changes(made_with, now)]
    lacking = (unit for unit in outlook.explain()[artifact] if unit.state != "cached")
    return changes or [f"{unit.label}: {unit.reason}" for unit in lacking]


def _describe(version: str, changes: Sequence[str]) -> str:
    """Return in words which version is shown, and what has changed since."""
    listed = "; ".join(changes[:_MOST_CHANGES])
    more = len(changes) - _MOST_CHANGES
    return f"{version}; changed since: {listed}" + (f"; and {more} more" if more > 0 else "")
