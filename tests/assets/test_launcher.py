"""Whether a run's process is alive, asked without a daemon; the live tests kill real ones."""

import json
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.launcher import WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG

from d4m_assets.launcher import WatchedRunLauncher


@pytest.mark.parametrize(
    ("tags", "status"),
    [
        ({}, WorkerStatus.RUNNING),  # a command line's: nobody to ask
        ({GRPC_INFO_TAG: json.dumps({"host": "localhost", "socket": "gone"})}, WorkerStatus.FAILED),
    ],
)
def test_a_run_whose_code_server_is_gone_has_failed(tmp_path: Path, tags, status):
    overrides = {
        "run_launcher": {"module": "d4m_assets.launcher", "class": "WatchedRunLauncher"},
        "telemetry": {"enabled": False},
    }
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=overrides) as instance:
        assert isinstance(instance.run_launcher, WatchedRunLauncher)
        run = dg.DagsterRun("distill", run_id="1", status=dg.DagsterRunStatus.STARTED, tags=tags)
        instance.add_run(run)
        assert instance.run_launcher.supports_check_run_worker_health
        assert instance.run_launcher.check_run_worker_health(run).status == status
