"""Commands as users type them."""

import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from d4m.cli import app
from d4m.errors import D4MError
from tests.conftest import MADE

D4M = Path(sys.executable).with_name("d4m")


def call(workspace, *arguments, columns=200):
    """A command that succeeds, in this process: the lines it prints."""
    environment = workspace.environment() | {"COLUMNS": str(columns)}
    result = CliRunner().invoke(app, [*map(str, arguments)], env=environment)
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert result.exit_code in (MADE if arguments[0] == "run" else (0,)), result.output
    return [line.rstrip() for line in result.stdout.splitlines()]


def fail(workspace, *arguments, code=1):
    """A command that fails, as a process: its error text, which is no traceback."""
    done = subprocess.run(
        [D4M, *arguments],
        env=workspace.environment(),
        cwd=workspace.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "Error:" not in done.stdout
    return done.stdout, done.stderr


def refused(workspace, *arguments):
    """A command that fails, in this process: the message that `main` prints after `error:`."""
    result = CliRunner().invoke(app, [*map(str, arguments)], env=workspace.environment())
    assert isinstance(result.exception, D4MError), result.exception
    return str(result.exception)
