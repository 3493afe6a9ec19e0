"""Start runs as Dagster does by default, but so that a dead run is noticed."""

import dagster as dg
import grpc
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value


class WatchedRunLauncher(DefaultRunLauncher):
    """A launcher of runs in processes of the code server, which knows whether they are alive.

    Dagster's own launcher answers no such question, so that after a power cut a run is `STARTED`
    for ever, keeps its place in the pool, and no later run of its recipe begins.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Return True, so that `run_monitoring` looks at the runs."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return whether the process of a run is alive; a command line's run is assumed to be."""
        client = self._get_grpc_client_for_termination(run.run_id)
        if client is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        try:
            answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id))
        except DagsterUserCodeUnreachableError as failure:
            if _is_late(failure):
                return CheckRunHealthResult(WorkerStatus.RUNNING)
            return CheckRunHealthResult(WorkerStatus.FAILED, "its code server is gone")
        if deserialize_value(answer, CanCancelExecutionResult).can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "its process is gone")


def _is_late(failure: DagsterUserCodeUnreachableError) -> bool:
    """Return whether a server exists and is only too busy to answer in time."""
    cause = failure.__cause__
    return isinstance(cause, grpc.Call) and cause.code() == grpc.StatusCode.DEADLINE_EXCEEDED
