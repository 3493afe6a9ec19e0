"""Access to the stored units of a finished run, and commands that run over them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from filelock import FileLock

from tests.conftest import Workspace, shared_folder
from tests.object_stores import SeaweedFS, environment
from tests.warm import WarmProcess, start_server

Chosen = TypeVar("Chosen")


def often(short: Chosen, long: Chosen) -> Chosen:
    """Return `short` in `make test`, and `long` in `make test-faults`."""
    return long if os.environ.get("D4M_FAULTS") == "long" else short


class StoredUnits:
    """The references, folders and files of the units that the tiny recipe's manifests name."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.units = workspace.pipeline().open_context().upstream
        self.undisturbed = workspace.digests()

    def names(self, stage: str) -> list[str]:
        return list(self.units[stage])

    def reference(self, stage: str, name: str) -> Path:
        key = self.units[stage][name].key
        return self.workspace.store / "objects" / stage / key[:2] / f"{key}.json"

    def folder(self, stage: str, name: str) -> Path:
        return self.workspace.store / json.loads(self.reference(stage, name).read_text())["path"]

    def contents(self, stage: str, name: str) -> list[Path]:
        """Return the chunks of a unit made of arrays, or the files of a unit made of files."""
        folder = self.folder(stage, name)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not (folder / "zarr.json").exists():
            return files
        return [path for path in files if path.name != "zarr.json"]

    def forget(self, stage: str, *names: str) -> None:
        """Delete references, as if the units had never been made."""
        for name in names:
            self.reference(stage, name).unlink()

    def published(self, stage: str) -> set[str]:
        """Return the names of the units that have a reference."""
        return {name for name in self.names(stage) if self.reference(stage, name).exists()}


@pytest.fixture
def stored(finished: Workspace) -> StoredUnits:
    """Return the units of a copy of the finished store."""
    return StoredUnits(finished)


@pytest.fixture(scope="session")
def start(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., subprocess.Popen[bytes] | WarmProcess]:
    """Return what starts a command in a workspace, with a file for all that it prints.

    In `make test` all workers have one process that forks the commands; `make test-faults` starts
    them as a user does.
    """

    def start_cold(workspace: Workspace, output: Path, *command: str) -> subprocess.Popen[bytes]:
        environment = workspace.environment() | {"PYTHONPATH": os.pathsep.join(sys.path)}
        program = Path(sys.executable).with_name(command[0])
        with output.open("ab") as file:
            return subprocess.Popen(
                [program, *command[1:]],
                cwd=workspace.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def start_warm(workspace: Workspace, output: Path, *command: str) -> WarmProcess:
        return WarmProcess(
            address,
            {
                "command": command,
                "environment": workspace.environment(),
                "folder": str(workspace.folder),
                "output": str(output),
            },
        )

    if often(False, True):
        return start_cold
    address = shared_folder(tmp_path_factory) / "warm.socket"
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    with FileLock(address.with_suffix(".lock")):
        start_server(address, os.getppid() if is_worker else os.getpid())
    return start_warm


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """Run a real object store; this process, and those that it starts, have its credentials."""
    started = SeaweedFS(tmp_path_factory.mktemp("seaweedfs") / "server")
    started.start()
    with environment(started.address, tmp_path_factory.mktemp("cache")):
        yield started
    started.kill()
