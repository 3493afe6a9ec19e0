"""The text of command_line.md: every command with its arguments and options."""

import inspect
from enum import Enum
from typing import Any, get_args, get_origin

from page_text import NOTE, REQUIRED, cell, line, paragraphs
from typer.models import OptionInfo

from d4m.cli import app

_METAVARS = {int: "NUMBER", float: "NUMBER", str: "TEXT"}
_COMMAND_HEAD = """# Every command

    d4m COMMAND [ARGUMENTS] [OPTIONS]

`d4m --version` prints the version, `d4m COMMAND --help` the help of a command, and
`d4m --install-completion` installs completion in a shell
([how](environment.md#completion-in-a-shell)). `--json`, where a command has it, prints one JSON
object for scripts.

"""


def command_line_page() -> str:
    """Return the text of command_line.md."""
    commands = {_command_name(each): each.callback for each in app.registered_commands}
    parts = [NOTE.format(source="d4m/cli/"), _COMMAND_HEAD, f"{line(str(app.info.help))}\n\n"]
    parts.append("| command | does |\n|---|---|\n")
    for name, command in commands.items():
        first = paragraphs(command.__doc__).partition("\n")[0].rstrip(".")
        parts.append(f"| [`d4m {name}`](#d4m-{name}) | {cell(first)} |\n")
    parts.append("\n[Environment variables and exit codes](environment.md).\n")
    for name, command in commands.items():
        parameters = list(inspect.signature(command).parameters.values())
        usage = " ".join([f"d4m {name}", *filter(None, map(_usage, parameters))])
        parts.append(f"\n## d4m {name}\n\n    {usage}\n\n{paragraphs(command.__doc__)}\n")
        parts.append("\n| argument or option | default | meaning |\n|---|---|---|\n")
        parts += [f"| {' | '.join(_parameter(each))} |\n" for each in parameters]
    return "".join(parts)


def _command_name(command: Any) -> str:
    return command.name or command.callback.__name__.replace("_", "-")


def _usage(parameter: inspect.Parameter) -> str:
    """Return a parameter as the line of usage shows it."""
    kind, info = get_args(parameter.annotation)
    name = parameter.name.upper() + ("..." if get_origin(kind) is list else "")
    if isinstance(info, OptionInfo):
        name = _option(parameter)
    return name if parameter.default is inspect.Parameter.empty else f"[{name}]"


def _option(parameter: inspect.Parameter) -> str:
    kind, info = get_args(parameter.annotation)
    # typer keeps the first name that an annotation gives in the place of a default
    given = [each for each in (info.default, *(info.param_decls or ())) if isinstance(each, str)]
    name = next(iter(given), f"--{parameter.name.replace('_', '-')}")
    kind = next((each for each in get_args(kind) if each is not type(None)), kind)
    return name if kind is bool else f"{name} {_metavar(kind)}"


def _metavar(kind: Any) -> str:
    """Return the place of a value in a line of usage: the values, where there are few."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(each.value for each in kind)
    return _METAVARS.get(kind, "PATH")


def _parameter(parameter: inspect.Parameter) -> tuple[str, str, str]:
    """Return a parameter's row: its name, default and meaning."""
    info = get_args(parameter.annotation)[1]
    is_option = isinstance(info, OptionInfo)
    shown = _option(parameter) if is_option else parameter.name.upper()
    default = parameter.default
    text = f"`{default}`" if default not in (None, "", False) else ""
    least = f" At least {info.min}." if info.min is not None else ""
    required = default is inspect.Parameter.empty
    return cell(f"`{shown}`"), REQUIRED if required else text, cell(line(info.help) + least)
