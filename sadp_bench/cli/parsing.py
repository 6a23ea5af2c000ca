"""The parsing of a command's words by Typer, which is imported only where a command needs it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from sadp_bench.cli.help import PanelCommand
from sadp_bench.core.errors import BadInput

COMMAND: dict[str, Any] = {"cls": PanelCommand, "context_settings": {"help_option_names": ["-h", "--help"]}}


@functools.cache
def parser(name: str, function: Any) -> Any:
    """Returns the parser that Typer makes of a command.

    Args:
        name: The command's name.
        function: Its function, whose annotations are its options and whose docstring is its help.
    """
    app = bare_typer(name)
    app.command(**COMMAND)(with_whole_paths(function))
    return typer.main.get_command(app)


def bare_typer(name: str) -> typer.Typer:
    """Returns a Typer application that prints nothing of its own."""
    return typer.Typer(name=name, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def call(name: str, function: Any, words: list[str]) -> Any:
    """Parses the words of a command, calls it, and returns its result or its exit code.

    Raises:
        BadInput: The words do not fit the command.
        KeyboardInterrupt: The command was interrupted.
    """
    # The base class of Typer's usage errors (an unknown option, for example) has no public name.
    usage_error: Any = typer.BadParameter.__mro__[2]
    try:
        result = parser(name, function)(words, prog_name=f"sadp-bench {name}", standalone_mode=False)
    except usage_error as error:
        raise BadInput(f"{error.format_message()}{_given_value(error, words)} (see sadp-bench {name} -h)") from error
    except typer.Abort:
        raise KeyboardInterrupt from None
    if result == 130:  # Typer turns Ctrl-C into this code.
        raise KeyboardInterrupt
    return result


def _given_value(error: Any, words: list[str]) -> str:
    """Returns the value of the refused option, which Typer's message omits."""
    names = getattr(getattr(error, "param", None), "opts", [])
    parts = [part for word in words for part in word.split("=", 1)]
    given = [after for before, after in itertools.pairwise(parts) if before in names]
    return f": '{given[-1]}'" if given else ""


def with_whole_paths(command: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the command with a leading ~ of its paths replaced by the home folder.

    A shell does not do so in `--out=~/runs`.
    """

    @functools.wraps(command)
    def with_paths(**given: Any) -> Any:
        return command(**{name: _whole(value) for name, value in given.items()})

    return with_paths


def _whole(value: Any) -> Any:
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if not isinstance(value, Path):
        return value
    if "\0" in str(value):
        raise BadInput(f"'{value}' is not a path: it has a null byte")
    try:
        return value.expanduser()
    except RuntimeError:
        raise BadInput(f"'{value}' begins with a home folder of an unknown user; write the whole path") from None
