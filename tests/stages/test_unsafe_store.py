"""A server that lets two writers create the same object is refused before any unit is computed."""

import pytest

from d4m.compute import Compute
from d4m.errors import UnsafeStoreError
from d4m.stages.context import StageContext
from d4m.stages.run import run_stage
from d4m.store.store import ArtifactStore
from tests.object_stores import BUCKET, careless_moto, environment
from tests.workers.stages import Squares


def test_nothing_is_computed_for_a_server_that_creates_twice(workspace, tmp_path):
    (tmp_path / "seen").mkdir()
    stage = Squares(tmp_path / "seen")
    with careless_moto() as address, environment(address, tmp_path / "cache"):
        store = ArtifactStore(f"s3://{BUCKET}/careless-stage")
        context = StageContext.open(workspace.pipeline().recipe, store, Compute("cpu"))
        with pytest.raises(UnsafeStoreError, match="use a server that honours it"):
            run_stage(stage, context)
    assert stage.processes() == {}
