"""The command line, without Dagster: every module adds its commands to the application."""

import errno
import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from d4m.cli import adopt as adopt
from d4m.cli import diagnose as diagnose
from d4m.cli import export as export
from d4m.cli import init as init
from d4m.cli import list as list  # noqa: A004 - the module of the command `list`
from d4m.cli import report as report
from d4m.cli import run as run
from d4m.cli import scores as scores
from d4m.cli import store as store
from d4m.cli import versions as versions
from d4m.cli.app import app as app
from d4m.compute import keep_freed_memory, spin_briefly
from d4m.errors import D4MError

# No room where the output goes, and names that no file system takes.
_EXPECTED = {errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG}
_NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"  # torch, which has no class for it


def main() -> None:
    """Run the command line, and print expected errors without a traceback.

    Warnings go to stderr. So does a line when another run has to be waited for, and a line of
    progress per minute where no terminal shows a bar.
    """
    if sys.stderr is None:  # it was closed; a file that is opened later must not take its place
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    spin_briefly()
    keep_freed_memory()
    handler = RichHandler(console=Console(stderr=True), show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("d4m.store.claims").setLevel(logging.INFO)
    if not sys.stderr.isatty():
        logging.getLogger("d4m.progress").setLevel(logging.INFO)
    try:
        app()
    except D4MError as failure:
        _end(failure)
    except OSError as failure:
        if failure.errno not in _EXPECTED:
            raise
        _end(failure)
    except RuntimeError as failure:
        if _NO_MEMORY not in str(failure):
            raise
        _end(D4MError(f"not enough memory for a network or its batch: {failure}"))


def _end(failure: Exception) -> NoReturn:
    """Print an error and end with code 1."""
    Console(stderr=True).print(f"[red]error:[/red] {escape(str(failure))}", soft_wrap=True)
    raise SystemExit(1) from None
