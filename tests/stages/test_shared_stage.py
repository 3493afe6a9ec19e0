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
    """Units of which the first run is in the midst of one until all others are there."""

    made = 0

    def compute(self, context, missing):
        for unit, product in super().compute(context, missing):
            if unit.name == "00":
                wait_until(lambda: self.made == self.count - 1)
            self.made += 1
            yield unit, product


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
    [(Meeting, [1, 11]), (Together, [0, 12])],
)
def test_two_runs_make_every_unit_once(run, tmp_path, kind, shares):
    stage = kind(tmp_path / "seen", count=12, seconds=0.01)
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(run, [stage, stage])
    assert one.manifest == two.manifest
    computed = (*one.computed, *two.computed)
    assert sorted(computed) == [f"{number:02d}" for number in range(12)]
    assert sorted(len(each.computed) for each in (one, two)) == shares
