"""The command line, without Dagster: every module adds its commands to the application."""

import logging
import sys

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


def main() -> None:
    """Run the command line, and print expected errors without a traceback.

    Warnings go to stderr. So does a line of progress per minute where no terminal shows a bar.
    """
    spin_briefly()
    keep_freed_memory()
    handler = RichHandler(console=Console(stderr=True), show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    if not sys.stderr.isatty():
        logging.getLogger("d4m.progress").setLevel(logging.INFO)
    try:
        app()
    except D4MError as failure:
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(failure))}", soft_wrap=True)
        raise SystemExit(1) from None
