"""After kill -9 in the middle of a stage, the next run resumes where the last one stopped."""

import signal
import time
from collections import Counter

import numpy as np
import pytest

from d4m.pipeline import STAGES
from tests.conftest import MADE, ONE_STUDENT
from tests.faults.conftest import StoredUnits, often

pytestmark = pytest.mark.faults

PATIENCE_S = 90
FIRST = ("zarr.json", "images")  # written first in a unit of arrays, and in a distilled data set
ATTEMPTS = 8  # on a busy machine, the kill may come too late

# Per stage, the units that are to be made, and how many of them are made before the kill.
HARD = ["synthetic-hard-convnet3-00", "synthetic-hard-convnet3-01", "full_data-hard-convnet3-00"]
AFTER = {
    "real_images": ("*", 7),
    "generator": (["vae", "denoiser"], 1),
    "latents": ("*", 2),
    "soft_labels": ("*", 1),
    "evaluation_scores": (["synthetic-soft-convnet3-00", *HARD], 1),
}


def _folders(stored, stage):
    return {p for p in (stored.workspace.store / "objects" / stage).glob("*/*") if p.is_dir()}


@pytest.fixture
def run_until(start):
    """Return what starts `d4m run`, and kills it with SIGKILL as soon as a moment has come."""

    def run_until(stored, moment):
        deadline = time.monotonic() + PATIENCE_S
        output = stored.workspace.folder / "output"
        process = start(stored.workspace, output, "d4m", "run", "tiny")
        try:
            while process.poll() is None and not moment() and time.monotonic() < deadline:
                time.sleep(0.0005)
        finally:
            process.kill()
            status = process.wait(PATIENCE_S)
        assert status in (*MADE, -signal.SIGKILL), output.read_text()
        assert time.monotonic() < deadline, f"the moment never came: {output.read_text()}"

    return run_until


def _kill_in_the_middle(run_until, stored: StoredUnits, stage, lost, moment):
    """Kill a run before it has made all lost units, and return those that it published."""
    for _ in range(ATTEMPTS):
        stored.forget(stage, *(lost & stored.published(stage)))
        before = _folders(stored, stage)
        run_until(stored, lambda before=before: moment(before))
        published = lost & stored.published(stage)
        if published < lost:
            return published
    pytest.fail(f"the stage was over before each of {ATTEMPTS} kills")


def _assert_the_rest_is_computed(stored, stage, lost, published):
    """Assert that a second run computes just the unpublished units, with the usual result."""
    workspace = stored.workspace
    paths = {name: stored.folder(stage, name) for name in published}
    computed = workspace.run()
    assert set(computed.pop(stage)) == lost - published
    assert not any(computed.values())
    assert {name: stored.folder(stage, name) for name in published} == paths
    assert workspace.digests() == stored.undisturbed
    assert [found for found in workspace.pipeline().verify() if found[2]] == []
    assert not any(workspace.run().values())


@pytest.mark.parametrize("stage", often(["real_images", "generator"], list(AFTER)))
def test_a_run_killed_between_units_loses_none_of_them(run_until, stored, stage):
    names, made = AFTER[stage]
    lost = set(stored.names(stage) if names == "*" else names)

    def enough_are_published(before):  # noqa: ARG001
        return len(lost & stored.published(stage)) >= made

    published = _kill_in_the_middle(run_until, stored, stage, lost, enough_are_published)
    assert len(published) >= made
    _assert_the_rest_is_computed(stored, stage, lost, published)


@pytest.mark.parametrize("stage", ["synthetic_images", "distilled_dataset"])
def test_a_run_killed_while_it_writes_a_unit_loses_that_unit_alone(run_until, stored, stage):
    lost = set(stored.names(stage))

    def one_is_half_written(before):
        new = _folders(stored, stage) - before
        begun = [folder for folder in new if any((folder / name).exists() for name in FIRST)]
        published = len(lost & stored.published(stage))
        return len(begun) > published >= min(2, len(lost) - 1)

    published = _kill_in_the_middle(run_until, stored, stage, lost, one_is_half_written)
    _assert_the_rest_is_computed(stored, stage, lost, published)


TRAINED = [
    ("teacher", "teacher"),
    ("generator", "vae"),
    ("generator", "denoiser"),
    ("evaluation_scores", "synthetic-soft-convnet3-00"),
]


@pytest.mark.parametrize(("stage", "unit"), often(TRAINED[:1], TRAINED))
def test_a_training_killed_in_the_middle_goes_on_to_the_same_bits(
    run_until, stored, stage, unit, monkeypatch, caplog
):
    monkeypatch.setenv("D4M_CHECKPOINT_SECONDS", "0")  # a checkpoint after every step
    _assert_goes_on_when_killed(run_until, stored, stage, (unit,), caplog)


REFINEMENTS = {
    "ridge": "refinement_steps: 30",
    "class": "refinement: {steps: 10}",
    "both": "refinement: {steps: 10, labels: both}",
}
"""The first objective that there was; the default one, with a pool of students; two such pools."""


@pytest.fixture(params=REFINEMENTS)
def refined(request, workspace):
    """A recipe whose prototypes are refined together, and a store in which it has been run."""
    plain = "prototypes: {ipc: 3, starts: 1}"
    more = f"representative: explaining, {REFINEMENTS[request.param]}"
    assert plain in ONE_STUDENT
    workspace.write("tiny", ONE_STUDENT.replace(plain, f"{plain[:-1]}, {more}}}"))
    workspace.run()
    return StoredUnits(workspace)


@pytest.mark.skipif(often(True, False), reason="make test-faults")
def test_a_refinement_killed_in_the_middle_goes_on_to_the_same_bits(
    run_until, refined, monkeypatch, caplog
):
    monkeypatch.setenv("D4M_CHECKPOINT_SECONDS", "0")
    names = tuple(refined.names("prototypes"))
    _assert_goes_on_when_killed(run_until, refined, "prototypes", names, caplog)


def _assert_goes_on_when_killed(run_until, stored, stage, units, caplog):
    """Kill a run that has saved a checkpoint of units; the next one goes on from there."""

    def is_saved():
        return bool(list((stored.workspace.store / "objects" / stage).glob("*/*.checkpoint")))

    for _ in range(ATTEMPTS):
        stored.forget(stage, *({*units} & stored.published(stage)))
        run_until(stored, is_saved)
        if is_saved() and not {*units} & stored.published(stage):
            break
    else:
        pytest.fail(f"the training was over before each of {ATTEMPTS} kills")
    caplog.set_level("INFO", "d4m")
    assert stored.workspace.run()[stage] == units
    assert "goes on from its checkpoint" in caplog.text
    assert stored.workspace.digests() == stored.undisturbed
    assert not list(stored.workspace.store.rglob("*.checkpoint*"))


def _idle_seconds(run_until, stored):
    """Return how long a run takes when it has nothing to compute."""
    begun = time.monotonic()
    run_until(stored, lambda: False)
    return time.monotonic() - begun


def _seconds(stored, stage):
    """Return how much longer a run takes when it must compute a stage."""
    stored.forget(stage, *stored.names(stage))
    reports = {each.manifest.asset: each for each in stored.workspace.pipeline().run()}
    return reports[stage].seconds


def test_runs_killed_at_random_moments_lose_at_most_the_current_unit(
    run_until, stored, record_property
):
    rng, wanted, kills = np.random.default_rng(7), often(1, 100), Counter()
    idle = _idle_seconds(run_until, stored)
    stages = [stage.name for stage in STAGES if stored.names(stage.name)]
    seconds, rounds = {}, 0
    while kills.total() < wanted:
        rounds += 1
        assert rounds < 10 * wanted
        stage = stages[rounds % len(stages)]
        if stage not in seconds:
            seconds[stage] = _seconds(stored, stage)
        lost = set(stored.names(stage))
        stored.forget(stage, *lost)
        moment = time.monotonic() + rng.uniform(0.3 * idle, idle + seconds[stage])
        run_until(stored, lambda moment=moment: time.monotonic() > moment)
        published = stored.published(stage)
        kills[stage] += published < lost
        _assert_the_rest_is_computed(stored, stage, lost, published)
    record_property(
        "measured", f"{kills.total()} runs killed with -9 in the middle: {dict(kills)}; all resumed"
    )
