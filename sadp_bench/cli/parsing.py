"""The parsing of a command's words by Typer, which is imported only where a command needs it."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import typer

from sadp_bench.cli.options import with_whole_paths
from sadp_bench.core.errors import BadInput


@functools.cache
def parser(name: str, function: Any) -> Any:
    """Returns the parser that Typer makes of a command.

    Args:
        name: The command's name.
        function: Its function, whose annotations are its options and whose docstring is its help.
    """
    app = typer.Typer(name=name, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(with_whole_paths(function))
    return typer.main.get_command(app)


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
        raise BadInput(
            f"{error.format_message()}{_given_value(error, words)} (see sadp-bench {name} --help)"
        ) from error
    except typer.Abort:
        raise KeyboardInterrupt from None
    if result == 130:  # Typer turns Ctrl-C into this code.
        raise KeyboardInterrupt
    return result


def _given_value(error: Any, words: list[str]) -> str:
    """Returns the value that the refused option was given, which Typer's message omits."""
    names = getattr(getattr(error, "param", None), "opts", [])
    parts = [part for word in words for part in word.split("=", 1)]
    given = [after for before, after in itertools.pairwise(parts) if before in names]
    return f": '{given[-1]}'" if given else ""
