"""Commands as processes that import nothing: each is forked from one process that has it all.

Such a process has its own session, environment, folder and output, and is killed as any other. What
it spares is the import of torch, diffusers and Dagster, which takes longer than most of what tests
let a command do. `make test-faults` starts every command as a user does.
"""

import importlib
import json
import multiprocessing
import os
import pkgutil
import signal
import socket
import socketserver
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PATIENCE_S = 300
_COMMANDS = ("d4m", "dagster")
# Stages take these from libraries that load their parts on demand.
_PARTS = {
    "diffusers": (
        "AutoencoderKL",
        "DDPMScheduler",
        "PNDMScheduler",
        "StableDiffusionImg2ImgPipeline",
        "UNet2DConditionModel",
    ),
    "transformers": ("CLIPTextModel", "CLIPTokenizer"),
}


class WarmProcess:
    """A command that runs, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, address: Path, request: dict[str, object]) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(address))
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        with self._socket.makefile("rb", buffering=0) as answers:
            self.pid = int(answers.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, -9 of a killed process, or None while it runs."""
        with suppress(BlockingIOError):
            return self.wait(0)
        return None

    def wait(self, timeout: float) -> int:
        """Return the exit status as soon as the process has ended."""
        if self.returncode is None:
            self._socket.settimeout(timeout)
            answer = self._socket.recv(16)
            assert answer, "the process that forks commands is gone"
            self.returncode = int(answer)
            self._socket.close()
        return self.returncode

    def kill(self) -> None:
        """Send SIGKILL to a process that runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def start_server(address: Path, owner: int) -> None:
    """Start the process that forks commands, unless it runs; it ends when its owner has ended."""
    with socket.socket(socket.AF_UNIX) as client:
        if client.connect_ex(str(address)) == 0:
            return
    address.unlink(missing_ok=True)
    with address.with_suffix(".log").open("wb") as log:
        command = [sys.executable, "-m", "tests.warm", str(address), str(owner)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=log, stderr=log, timeout=_PATIENCE_S)


class _Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    """Forks a process per connection, which forks the command and waits for it."""

    owner = 0

    def service_actions(self) -> None:
        super().service_actions()
        try:
            os.kill(self.owner, 0)
        except ProcessLookupError:
            raise SystemExit from None


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        line = self.rfile.readline()
        if not line:  # somebody asks whether the server is there
            return
        request = json.loads(line)
        command = multiprocessing.get_context("fork").Process(target=_run, kwargs=request)
        command.start()
        self.wfile.write(f"{command.pid}\n".encode())
        command.join()
        self.wfile.write(f"{command.exitcode}".encode())


def _run(command: Sequence[str], environment: dict[str, str], folder: str, output: str) -> None:
    """Become a command."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream, file in ((0, os.open(os.devnull, os.O_RDONLY)), (1, written), (2, written)):
        os.dup2(file, stream)
    sys.argv = [*command]
    [entry] = entry_points(group="console_scripts", name=command[0])
    entry.load()()


def _import_all() -> None:
    import d4m

    for module in pkgutil.walk_packages(d4m.__path__, "d4m."):
        importlib.import_module(module.name)
    for library, parts in _PARTS.items():
        module = importlib.import_module(library)
        for part in parts:
            getattr(module, part)
    for name in _COMMANDS:
        for entry in entry_points(group="console_scripts", name=name):
            entry.load()


def _serve(address: str, owner: int) -> None:
    """Import everything, listen, and go on in the background."""
    _import_all()
    with _Server(address, _Handler) as server:
        server.owner = owner
        if os.fork() == 0:
            os.setsid()
            server.serve_forever()


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
