"""Where another run computes a stage, a run goes on with those that do not read it."""

import subprocess
import threading

import pytest

from d4m.pipeline import STAGES
from d4m.store.claims import Claims
from d4m.store.folder_storage import FolderStorage
from tests.cli.commands import D4M
from tests.conftest import MADE

NAMES = [stage.name for stage in STAGES]
FIRST = ["real_images", "teacher", "baseline_images"]
"""The stages that need neither the generator nor latents."""
PATIENCE_S = 300


@pytest.fixture
def lose(finished):
    """Return what takes units of an artifact away, as if they had never been made."""
    context, planned = finished.pipeline().open_context(), finished.pipeline().look_ahead().planned

    def take_away(stage, count):
        units = list(planned[stage].units[:count])
        for unit in units:
            context.store.set_aside(stage, unit.key)
        return units

    return take_away


def _claimed(finished, units):
    return Claims(FolderStorage(finished.store), units[0].stage).take(units)


def test_what_does_not_read_a_held_stage_goes_first(finished, lose):
    digests = finished.digests()
    vae, teacher = lose("generator", 1), lose("teacher", 1)
    run = finished.pipeline().run()
    with _claimed(finished, vae):
        first = [next(run) for _ in FIRST]
    assert [report.manifest.asset for report in first] == FIRST
    assert [report.computed for report in first] == [(), (teacher[0].name,), ()]
    rest = {report.manifest.asset: report.computed for report in run}
    assert list(rest) == [name for name in NAMES if name not in FIRST]
    assert rest["generator"] == (vae[0].name,)
    assert finished.digests() == digests


def test_a_stage_counts_what_it_computed_before_it_was_held_and_after(finished, lose):
    lost = lose("latents", 3)
    run = finished.pipeline().run()
    with _claimed(finished, lost[2:]):
        first = [next(run).manifest.asset for _ in range(4)]
        assert first == ["real_images", "generator", *FIRST[1:]]
        context = finished.pipeline().open_context()
        assert context.store.find_all(lost).keys() == {unit.name for unit in lost[:2]}
    report = next(run)
    assert report.computed == tuple(unit.name for unit in lost)
    assert len(report.reused) == 7


def test_a_run_says_that_it_waits(finished, lose):
    vae, said = lose("generator", 1), "waiting for units that another run computes: generator (1)"
    with _claimed(finished, vae):
        run = subprocess.Popen(
            [D4M, "run", "tiny"],
            env=finished.environment() | {"COLUMNS": "120"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        patience = threading.Timer(PATIENCE_S, run.kill)
        patience.start()
        assert any(said in line for line in run.stderr)
    run.communicate()
    patience.cancel()
    assert run.returncode in MADE
