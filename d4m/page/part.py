"""Everything that a page says about one recipe, read from the store; nothing is computed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from d4m.errors import D4MError, SourceError, StoreError
from d4m.page.steps import ClassSteps, show_steps
from d4m.page.work import Change, Work, list_changes, list_missing, list_work
from d4m.pipeline import Pipeline
from d4m.recipe.private_paths import hide_folders
from d4m.recipe.yaml_text import plain
from d4m.reports.checks import Check, CheckResult
from d4m.reports.conditions import describe_device, find_conditions
from d4m.reports.diagnostics import Redundancy
from d4m.reports.memorisation import Memorisation, find_nearest_real
from d4m.reports.near_copies import TooManyImagesError
from d4m.reports.plan_ahead import Outlook
from d4m.reports.present import ShownDataset, scores_so_far, shown_dataset
from d4m.stages.chosen_settings import describe_choice
from d4m.stages.context import StageContext
from d4m.stages.score_table import ScoreRow

_FOR_STEPS = {"real_images", "prototypes", "synthetic_images"}
_FOR_REDUNDANCY = {*_FOR_STEPS, "generator"}


@dataclass(frozen=True)
class Part:
    """Everything that a page says about one recipe.

    Attributes:
        name: the recipe, as commands take it.
        title: the recipe, as a reader may call it.
        text: the recipe's file.
        present: its artifacts that are whole; None where its images cannot be listed.
        shown: scores of the present recipe or of the last version; None where there are none.
        notes: by section of the page, why it is empty and what to run.
        steps: images of the first classes.
        memorisation: the nearest training images.
        work: what each artifact weighs and took.
        changes: versions of the distilled data set, the newest first.
        missing: each artifact that a run would work on: units, and reasons.
        checks: of all artifacts that are whole.
        redundancy: by training set; empty where it was not measured.
    """

    name: str
    title: str
    text: str
    present: StageContext | None
    shown: ShownDataset | None
    notes: dict[str, str]
    steps: Sequence[ClassSteps] = ()
    memorisation: Memorisation | None = None
    work: Sequence[Work] = ()
    changes: Sequence[Change] = ()
    missing: Sequence[tuple[str, int, Sequence[str]]] = ()
    checks: Sequence[tuple[Check, CheckResult]] = ()
    redundancy: dict[str, Redundancy] = field(default_factory=dict[str, Redundancy])

    @property
    def scores(self) -> Sequence[ScoreRow]:
        """The rows of its score table; empty where there is none."""
        return self.shown.scores if self.shown else ()

    def note(self, *sections: str) -> str:
        """Return the first note on these sections, or what makes everything."""
        found = (self.notes[section] for section in sections if section in self.notes)
        return next(found, f"There is nothing to show yet; `d4m run {self.name}` makes it.")

    @property
    def sheet(self) -> Path | None:
        """The contact sheet of an earlier version, whose steps are not shown."""
        if self.shown is None or not self.shown.version or self.shown.folder is None:
            return None
        return self.shown.folder / "contact_sheet.png"

    @property
    def device(self) -> str:
        """Where its students were trained, in words."""
        return describe_device(find_conditions({row.label: row for row in self.scores}))

    @property
    def chosen(self) -> str:
        """The synthesis settings that were chosen by measurement, in words."""
        return describe_choice(self.present) if self.present else ""


def open_part(
    pipeline: Pipeline, name: str, *, most_bytes: int, redundancy: int | None = None
) -> Part:
    """Read what there is of a recipe.

    Args:
        pipeline: the recipe's.
        name: the recipe as commands take it.
        most_bytes: how large its images may become in the page.
        redundancy: number of parts that sets of images are cut into, to train a student on each;
            None: redundancy is not measured.
    """
    notes, recipe = dict[str, str](), pipeline.recipe
    sections = plain(recipe.document.sections) if recipe.document else {}
    text = hide_folders(recipe.document.text, sections) if recipe.document else ""
    try:
        outlook = pipeline.look_ahead(refuse=False)
    except SourceError as failure:
        notes["images"] = f"The images cannot be listed: {hide_folders(str(failure), sections)}."
        return Part(name, recipe.name, text, None, _shown(pipeline, None, name, notes), notes)
    present = outlook.present
    shown = _shown(pipeline, outlook, name, notes)
    memorisation = _memorisation(present, name, notes)
    return Part(
        name,
        recipe.name,
        text,
        present,
        shown,
        notes,
        steps=_steps(present, memorisation, most_bytes, notes),
        memorisation=memorisation,
        work=list_work(present),
        changes=list_changes(outlook.context),
        missing=list_missing(outlook),
        checks=[
            each for artifact in present.upstream for each in pipeline.check(artifact, present)
        ],
        redundancy=_redundancy(present, name, redundancy, notes),
    )


def _shown(
    pipeline: Pipeline, outlook: Outlook | None, name: str, notes: dict[str, str]
) -> ShownDataset | None:
    try:
        shown = shown_dataset(outlook) if outlook else pipeline.shown()
    except StoreError:
        made = scores_so_far(outlook) if outlook else None
        if made is None:
            notes["scores"] = f"There are no scores yet; `d4m run {name}` makes them."
            return None
        shown, how_many = made
        notes["so far"] = f"{how_many} so far; `d4m run {name}` makes the others."
    if not shown.fidelity:
        earlier = " of the present recipe" if shown.version else ""
        notes["fidelity"] = f"Not measured{earlier} yet; `d4m run {name}` does."
    return shown


def _memorisation(present: StageContext, name: str, notes: dict[str, str]) -> Memorisation | None:
    lacks = sorted(_FOR_STEPS - present.upstream.keys())
    if lacks:
        notes["images"] = (
            f"There are no {' and no '.join(lacks)} for the present recipe yet; `d4m run {name}` "
            "makes them."
        )
        return None
    try:
        return find_nearest_real(present)
    except (SourceError, TooManyImagesError) as failure:
        notes["memorisation"] = f"Not compared with all real images: {failure}."
        return None


def _steps(
    present: StageContext,
    memorisation: Memorisation | None,
    most_bytes: int,
    notes: dict[str, str],
) -> list[ClassSteps]:
    if not present.upstream.keys() >= _FOR_STEPS:
        return []
    try:
        return show_steps(present, memorisation, most_bytes=most_bytes)
    except SourceError as failure:
        notes["images"] = f"The real images cannot be read: {failure}."
        return []


def _redundancy(
    present: StageContext, name: str, parts: int | None, notes: dict[str, str]
) -> dict[str, Redundancy]:
    """Measure how much images repeat one another, if asked to."""
    if parts is None:
        notes["redundancy"] = (
            f"Not measured; `d4m report {name} --redundancy` trains a student on each part of the "
            "images for it."
        )
        return {}
    if not present.upstream.keys() >= _FOR_REDUNDANCY:
        notes["redundancy"] = f"There are no images to measure yet; `d4m run {name}` makes them."
        return {}
    from d4m.reports.diagnostics import measure_redundancy

    try:
        return {
            each: measure_redundancy(present, each, parts=parts)
            for each in ("synthetic", "random_real")
        }
    except D4MError as failure:
        notes["redundancy"] = f"Not measured: {failure}."
        return {}
