"""Two runs of one recipe divide a stage between them, and no unit is computed twice."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from d4m.compute import Compute
from d4m.stages.context import StageContext
from d4m.stages.run import run_stage
from d4m.store import claims
from d4m.store.store import ArtifactStore
from tests.workers.stages import Squares, Together, wait_until


class Meeting(Squares):
    """Units of which the first run makes one, and no second one before the other run has begun."""

    calls = 0

    def compute(self, context, missing):
        self.calls += 1
        call, folder = self.calls, context.store.storage.root / "claims" / self.name
        for number, (unit, product) in enumerate(super().compute(context, missing)):
            if call == 1 and number == 0:
                wait_until(lambda: list(folder.glob("*.wish")))
                for _ in range(2):  # the wish is seen between two renewals
                    wait_until(_changes(folder.glob("*.json")))
            if call == 2:
                wait_until(lambda: self.calls > 2)
            yield unit, product


def _changes(files):
    """Return what says whether the only one of these files has been written since."""
    [file] = files
    before = file.read_text()
    return lambda: file.read_text() != before


@pytest.fixture
def run(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "_PULSE_S", 0.01)
    monkeypatch.setattr(claims, "_LOOK_S", 0.01)
    (tmp_path / "seen").mkdir()
    recipe = workspace.pipeline().recipe

    def start(stage):
        context = StageContext.open(recipe, ArtifactStore(workspace.store), Compute("cpu"))
        return run_stage(stage, context)

    return start


@pytest.mark.parametrize(
    ("kind", "shares"),
    [(Meeting, [5, 7]), (Together, [0, 12])],  # 7: one unit, and half of the eleven that are left
)
def test_two_runs_make_every_unit_once(run, tmp_path, kind, shares):
    stage = kind(tmp_path / "seen", count=12, seconds=0.01)
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(run, [stage, stage])
    assert one.manifest == two.manifest
    computed = (*one.computed, *two.computed)
    assert sorted(computed) == [f"{number:02d}" for number in range(12)]
    assert sorted(len(each.computed) for each in (one, two)) == shares
