"""Plan, look up, compute what is missing, publish."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from d4m.compute import Compute
from d4m.errors import D4MError, MissingUpstreamError
from d4m.stages.base import Stage
from d4m.stages.context import Inputs, StageContext
from d4m.stages.provenance import seconds_of_work
from d4m.stages.run import run_stage
from d4m.store.manifest import UnitRecord
from d4m.store.reference import Unit
from d4m.store.store import ArtifactStore


class Squares(Stage):
    """Ten units in the layout of latents; the numbers in them are the squares of their names."""

    name = "latents"
    sections = ()

    def __init__(self, *, names=range(10), breaks_at=None, backwards=False):
        self.names = names
        self.breaks_at = breaks_at
        self.backwards = backwards
        self.asked = []
        self.there_before = []

    def plan(self, context):
        return [
            self.unit(context, f"{number:02d}", Inputs({"number": number})) for number in self.names
        ]

    def compute(self, context, missing):
        self.asked.append([unit.name for unit in missing])
        for unit in reversed(missing) if self.backwards else missing:
            if int(unit.name) == self.breaks_at:
                msg = f"no square of {unit.name}"
                raise D4MError(msg)
            self.there_before.append(
                sum(context.store.find(u.stage, u.key) is not None for u in missing)
            )
            yield unit, {"latents": np.full((1, 4, 2, 2), int(unit.name) ** 2, "float16")}


class Pair(Squares):
    """The second unit reads the first, which another process stores once it was looked for."""

    def plan(self, context):
        first = self.unit(context, "01", Inputs({"number": 1}))
        second = self.unit(context, "02", Inputs({"number": 2}, (("latents", "01"),)))
        if not context.store.find(self.name, first.key):
            arrays = {"latents": np.ones((1, 4, 2, 2), "float16")}
            context.store.publish_arrays(first, arrays, {})
        return [first, second]


class Broken(Squares):
    """Touches no unit: planning is all that may happen."""

    def compute(self, context, missing):  # noqa: ARG002
        msg = "nothing was missing"
        raise AssertionError(msg)


class Reader(Squares):
    """A stage that reads latents."""

    name = "prototypes"


@pytest.fixture
def context(workspace):
    recipe = workspace.pipeline().recipe
    return StageContext.open(recipe, ArtifactStore(workspace.store), Compute("cpu"))


def _value(context, record):
    return context.store.read_arrays("latents", record.key)["latents"].max()


def test_a_stage_gets_the_list_of_missing_units_and_its_manifest_keeps_their_order(context):
    report = run_stage(Squares(backwards=True), context)
    assert report.computed == tuple(report.manifest.units) == tuple(f"{n:02d}" for n in range(10))
    assert report.reused == ()
    assert [_value(context, r) for r in report.manifest.units.values()] == [
        n * n for n in range(10)
    ]
    assert context.manifests.current("latents") == report.manifest


def test_every_unit_is_published_before_the_next_one_is_asked_for(context):
    stage = Squares()
    run_stage(stage, context)
    assert stage.there_before == list(range(10))


def test_only_missing_units_are_computed_all_in_one_call(context):
    run_stage(Squares(names=[2, 5]), context)
    stage = Squares()
    report = run_stage(stage, context)
    assert stage.asked == [["00", "01", "03", "04", "06", "07", "08", "09"]]
    assert report.reused == ("02", "05")
    assert list(report.manifest.units) == [f"{n:02d}" for n in range(10)]


def test_a_unit_that_another_process_has_just_made_is_read_by_the_next(context):
    report = run_stage(Pair(), context)
    assert (report.reused, report.computed) == (("01",), ("02",))


def test_a_hit_computes_nothing_but_still_makes_the_manifest(context):
    first = run_stage(Squares(), context)
    other = replace(context.recipe, name="other")
    elsewhere = StageContext.open(other, context.store, Compute("cpu"))
    report = run_stage(Broken(), elsewhere)
    assert report.computed == ()
    assert len(report.reused) == 10
    assert elsewhere.manifests.current("latents") == first.manifest


def test_a_stage_that_fails_keeps_what_it_had_published_and_its_earlier_manifest(context):
    earlier = run_stage(Squares(names=[1]), context)
    with pytest.raises(D4MError, match="no square of 06"):
        run_stage(Squares(breaks_at=6), context)
    assert context.manifests.current("latents") == earlier.manifest
    stage = Squares()
    report = run_stage(stage, context)
    assert stage.asked == [["06", "07", "08", "09"]]
    assert len(report.manifest.units) == 10


def test_another_version_of_a_stage_computes_everything_anew(context):
    run_stage(Squares(), context)
    stage = Squares()
    stage.version = "2"
    report = run_stage(stage, context)
    assert len(report.computed) == 10
    assert report.manifest.version == "2"


def test_reading_what_was_never_made_says_what_to_do(context):
    with pytest.raises(MissingUpstreamError, match=r"recipe tiny has no latents yet; .*`d4m run"):
        Reader().unit(context, "x", Inputs(reads=(("latents", "00"),)))
    with pytest.raises(MissingUpstreamError, match="recipe tiny has no latents yet"):
        context.read("latents", "00")


def test_reading_a_unit_that_was_made_for_other_settings_says_what_to_do(context):
    made = replace(context, upstream={"latents": {}})
    for read in (
        made.read,
        made.open_files,
        lambda *names: Reader().unit(made, "x", Inputs(reads=(names,))),
    ):
        with pytest.raises(
            MissingUpstreamError, match=r"latents of recipe tiny has no unit 00: .*"
        ):
            read("latents", "00")


def test_keys_use_the_digest_of_what_is_read_and_not_its_key(context):
    def unit(key, digest):
        upstream = {"prototypes": {"00": UnitRecord(key, digest)}}
        made = replace(context, upstream=upstream)
        return Squares().unit(made, "00", Inputs({"number": 0}, (("prototypes", "00"),)))

    assert unit("a" * 64, "d" * 64).key == unit("b" * 64, "d" * 64).key
    assert unit("a" * 64, "d" * 64).key != unit("a" * 64, "e" * 64).key
    assert unit("a" * 64, "d" * 64) == Unit(
        "latents", "1", "00", {"settings": {"number": 0}, "upstream": {"prototypes/00": "d" * 64}}
    )


class Sleeps(Squares):
    """Takes a while for its second unit only."""

    def compute(self, context, missing):
        for unit, product in super().compute(context, missing):
            time.sleep(0.05 * (unit.name == "02"))
            yield unit, product


def test_seconds_are_those_of_all_units_in_whichever_runs(context):
    """At least the time that was slept; a hit has the seconds of the run that did the work."""
    report = run_stage(Sleeps(names=[1, 2]), context)
    made = seconds_of_work(report.context, "latents")
    each = [
        report.context.reference("latents", unit).provenance["seconds"] for unit in ("01", "02")
    ]
    assert made == sum(each)
    assert each[1] >= 0.05
    hit = run_stage(Broken(names=[1, 2]), context)
    assert seconds_of_work(hit.context, "latents") == made


def test_seconds_are_not_known_where_a_unit_of_an_earlier_release_lacks_them(context):
    report = run_stage(Pair(), context)  # whose first unit was stored without provenance
    assert seconds_of_work(report.context, "latents") is None


def test_provenance_tells_recipe_device_and_versions(context):
    report = run_stage(Squares(names=[3]), context)
    provenance = context.store.find("latents", report.manifest.units["03"].key).provenance
    assert provenance["recipe"] == "tiny"
    assert provenance["device"] == "cpu"
    assert {"d4m", "torch", "diffusers", "zarr", "numpy"} <= set(provenance["libraries"])
    assert provenance["threads"] == torch.get_num_threads()
    assert provenance["computed_at"].endswith("+00:00")
