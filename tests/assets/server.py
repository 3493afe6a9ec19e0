"""A live Dagster over a workspace, asked as its own UI asks."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from d4m.pipeline import STAGES
from tests.conftest import Workspace

SHIPPED = Path(__file__).parents[2] / "dagster_home" / "dagster.yaml"
_PATIENCE_S = 300

STALE = """query($keys: [AssetKeyInput!]!, $partition: String!) {
  assetNodes(assetKeys: $keys) { assetKey { path } staleStatus(partition: $partition) } }"""
LAUNCH = """mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
LAUNCH_RUN = """mutation($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { id } } ... on PythonError { message } } }"""
RUNS = """{ runsOrError { ... on Runs { results {
  id status startTime endTime tags { key value } stepStats { stepKey status } } } } }"""
COMPUTED = """query($keys: [AssetKeyInput!]!, $partition: String!) { assetNodes(assetKeys: $keys) {
  assetKey { path } latestMaterializationByPartition(partitions: [$partition]) { runId
    metadataEntries { label ... on IntMetadataEntry { intValue } } } } }"""
START_SENSOR = """mutation($selector: SensorSelector!) { startSensor(sensorSelector: $selector) {
  __typename ... on PythonError { message } } }"""
START_SCHEDULE = """mutation($selector: ScheduleSelector!) {
  startSchedule(scheduleSelector: $selector) { __typename ... on PythonError { message } } }"""
REPORT = """mutation($params: ReportRunlessAssetEventsParams!) {
  reportRunlessAssetEvents(eventParams: $params) { __typename
    ... on PythonError { message } } }"""
TICKS = """query($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) {
  ... on Sensor { sensorState { ticks(limit: 200) { status
    logEvents { events { message level } } } } } } }"""
_LOCATION = {"repositoryLocationName": "d4m_assets", "repositoryName": "__repository__"}
SENSOR = _LOCATION | {"sensorName": "changed_recipes"}
SCHEDULE = _LOCATION | {"scheduleName": "nightly"}
KEYS = [{"path": [stage.name]} for stage in STAGES]


class Server:
    """`dagster dev` over a workspace: web server, daemon and code location.

    A second one over the same workspace finds what the first has left.
    """

    def __init__(self, workspace: Workspace, **environment: str) -> None:
        self.workspace = workspace
        home = workspace.folder / "dagster_home"
        home.mkdir(exist_ok=True)
        # As shipped, but for how soon a dead run is noticed.
        text = SHIPPED.read_text(encoding="utf-8").replace("_seconds: 30", "_seconds: 5")
        (home / "dagster.yaml").write_text(text, encoding="utf-8")
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}/graphql"
        command = [str(Path(sys.executable).with_name("dagster")), "dev", "-m", "d4m_assets"]
        self.log = (workspace.folder / "dagster.log").open("ab")
        self.process = subprocess.Popen(
            [*command, "-h", "127.0.0.1", "-p", str(self.port)],
            cwd=workspace.folder,
            env=workspace.environment() | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

        try:
            wait_until(lambda: self.process.poll() is None and self.answers())
        except BaseException:
            self.stop()
            raise

    def answers(self) -> bool:
        try:
            repositories = self.ask("{ repositoriesOrError { __typename } }")
        except OSError:
            return False
        return repositories["repositoriesOrError"]["__typename"] == "RepositoryConnection"

    def start_sensor(self) -> None:
        started = self.ask(START_SENSOR, selector=SENSOR)["startSensor"]
        assert started["__typename"] == "Sensor", started

    def start_schedule(self) -> None:
        started = self.ask(START_SCHEDULE, selector=SCHEDULE)["startSchedule"]
        assert started["__typename"] == "ScheduleStateResult", started

    def ticks(self) -> list[dict[str, Any]]:
        """The sensor's ticks, the newest first."""
        return self.ask(TICKS, selector=SENSOR)["sensorOrError"]["sensorState"]["ticks"]

    def wait_for_tick(self) -> None:
        """Wait until the sensor has begun to look once more, and has ended."""
        begun = len(self.ticks())
        wait_until(lambda: sum(tick["status"] != "STARTED" for tick in self.ticks()) > begun)

    def everything(self) -> list[dict[str, list[str]]]:
        """Return the keys of all assets, sections of recipes included."""
        nodes = self.ask("{ assetNodes { assetKey { path } } }")["assetNodes"]
        return [node["assetKey"] for node in nodes]

    def report_made(self, asset: str, partitions: list[str]) -> None:
        """Tell Dagster that an asset was made for some recipes, as a person can in the UI."""
        params = {
            "eventType": "ASSET_MATERIALIZATION",
            "assetKey": {"path": [asset]},
            "partitionKeys": partitions,
        }
        reported = self.ask(REPORT, params=params)["reportRunlessAssetEvents"]
        assert reported["__typename"] == "ReportRunlessAssetEventsSuccess", reported

    def processes(self, text: str = "") -> list[int]:
        """Ids of the processes that work in this workspace, with a text in their command."""
        home = f"DAGSTER_HOME={self.workspace.folder / 'dagster_home'}\0".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it may have ended meanwhile
                if home in (folder / "environ").read_bytes() + b"\0":
                    command = (folder / "cmdline").read_text(encoding="utf-8", errors="replace")
                    found += [int(folder.name)] * (text in command)
        return found

    def kill(self, text: str = "") -> None:
        """SIGKILL, without a warning, for processes that work in this workspace."""
        for process in self.processes(text):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.kill()  # what a daemon that was stopped half-way leaves
        self.log.close()

    def ask(self, query: str, **variables: object) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url, body, headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            content = json.load(answer)
        assert "errors" not in content, content["errors"]
        return content["data"]

    def stale(self, partition: str = "tiny") -> set[str]:
        nodes = self.ask(STALE, keys=KEYS, partition=partition)["assetNodes"]
        return {"/".join(n["assetKey"]["path"]) for n in nodes if n["staleStatus"] == "STALE"}

    def computed(self, partition: str) -> dict[str, int]:
        counts = {}
        for node in self.ask(COMPUTED, keys=KEYS, partition=partition)["assetNodes"]:
            entries = node["latestMaterializationByPartition"][0]["metadataEntries"]
            values = {entry["label"]: entry.get("intValue") for entry in entries}
            counts["/".join(node["assetKey"]["path"])] = values["computed"]
        return counts

    def launch(self, keys: list[dict[str, list[str]]], partition: str = "tiny") -> None:
        """Run assets of one partition without waiting for the backfill daemon's next tick."""
        before = len(self.runs())
        tags = [{"key": "dagster/partition", "value": partition}]
        params = {
            "selector": _LOCATION | {"pipelineName": "__ASSET_JOB", "assetSelection": keys},
            "runConfigData": {},
            "mode": "default",
            "executionMetadata": {"tags": tags},
        }
        launched = self.ask(LAUNCH_RUN, params=params)["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        wait_until(lambda: len(self.runs()) > before and self.idle())

    def materialize(self, keys: list[dict[str, list[str]]], partition: str = "tiny") -> None:
        """Backfill assets of one partition, as the UI asks for it."""
        before = len(self.runs())
        params = {"assetSelection": keys, "partitionNames": [partition]}
        launched = self.ask(LAUNCH, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        wait_until(lambda: len(self.runs()) > before and self.idle())

    def runs(self) -> list[dict[str, Any]]:
        return self.ask(RUNS)["runsOrError"]["results"]

    def idle(self) -> bool:
        states = [run["status"] for run in self.runs()]
        assert "FAILURE" not in states
        return bool(states) and set(states) == {"SUCCESS"}


def wait_until(
    condition: Callable[[], bool],
    patience_s: float = _PATIENCE_S,
    *,
    shown: Callable[[], object] = lambda: "",
) -> None:
    """Wait for a condition; where it never comes, the failure shows what is there."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {shown()}"
        time.sleep(1)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
