"""The command line, without Dagster: every module adds its commands to the application."""

import logging

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from d4m.cli import diagnose as diagnose
from d4m.cli import export as export
from d4m.cli import report as report
from d4m.cli import run as run
from d4m.cli import scores as scores
from d4m.cli import store as store
from d4m.cli import versions as versions
from d4m.cli.app import app as app
from d4m.environment import spin_briefly
from d4m.errors import D4MError


def main() -> None:
    """Run the command line, and print expected errors without a traceback."""
    spin_briefly()
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(show_path=False)]
    )
    try:
        app()
    except D4MError as failure:
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(failure))}", soft_wrap=True)
        raise SystemExit(1) from None
