"""A run on a terminal: a line per stage and what went wrong, without Dagster's prefixes."""

import logging
import sys

import dagster as dg
from dagster._core.log_manager import (
    get_log_record_event,
    get_log_record_metadata,
    has_log_record_event,
    has_log_record_metadata,
)

from d4m.progress import keep_terminal

_SERVER = "grpc"  # a word of the command line of Dagster's code servers


def draw_on_terminal() -> None:
    """Let a run that was started on a terminal draw its bars there.

    Dagster sends the output of a run into files. Runs of a server draw nothing: they go on at the
    same time, and their server has other things to print.
    """
    if _SERVER not in sys.argv:
        keep_terminal()


class _LinesOfStages(logging.Formatter):
    """A formatter that keeps what assets and the library say, and the reasons of failures."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a line of text, or an empty one for an event that is not to be printed."""
        if has_log_record_event(record):
            return _reason(get_log_record_event(record))
        said = record.getMessage()
        if has_log_record_metadata(record):
            said = get_log_record_metadata(record)["orig_message"]
        word = record.levelname.lower()
        return f"{word}: {said}" if record.levelno >= logging.WARNING else said


class _Lines(logging.StreamHandler):  # pyright: ignore[reportMissingTypeArgument]
    """A handler that prints no empty lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record, unless nothing of it is left."""
        if self.format(record):
            super().emit(record)


@dg.logger(
    config_schema={"log_level": dg.Field(str, default_value="INFO")},
    description="A line per stage, and what went wrong.",
)
def lines_of_stages(context: dg.InitLoggerContext) -> logging.Logger:
    """Return a logger that prints a line per stage."""
    printed = logging.getLoggerClass()("d4m_assets", context.logger_config["log_level"])
    handler = _Lines()
    handler.setFormatter(_LinesOfStages())
    printed.addHandler(handler)
    return printed


def _reason(event: dg.DagsterEvent) -> str:
    """Return the reason of a failed step in words; nothing for other events."""
    if event.event_type != dg.DagsterEventType.STEP_FAILURE:
        return ""
    data = event.step_failure_data
    described = data.user_failure_data.description if data.user_failure_data else None
    return f"error: {described or data.error_display_string}"
