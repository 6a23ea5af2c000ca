"""The completion of commands, options and names in a shell."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
import typer.completion

from sadp_bench.cli.parsing import COMMAND, bare_typer
from sadp_bench.core.errors import BadInput

SHELLS = ("bash", "zsh", "fish")


def complete(functions: Mapping[str, Any], variable: str) -> None:
    """Prints the completions that a shell requests, and exits.

    Args:
        functions: The functions of the commands, by name.
        variable: The environment variable that contains the shell's request.
    """
    app = bare_typer("sadp-bench")
    for name, function in functions.items():
        app.command(name, **COMMAND)(function)
    typer.completion.completion_init()
    typer.main.get_command(app)(prog_name="sadp-bench", complete_var=variable)


def script(option: str, words: list[str], variable: str) -> str:
    """Returns the script of a shell's completion, or a message with the place where it was installed.

    Args:
        option: "--show-completion" or "--install-completion".
        words: The name of a shell; [] for the shell that runs the command.
        variable: The environment variable for the shell's requests.

    Raises:
        BadInput: The shell is unknown.
    """
    shell = words[0] if words else _shell()
    if len(words) > 1 or shell not in SHELLS:
        raise BadInput(f"{option} takes one of {', '.join(SHELLS)}, not '{' '.join(words) or shell}'")
    if option == "--show-completion":
        return typer.completion.get_completion_script(prog_name="sadp-bench", complete_var=variable, shell=shell)
    try:
        _, path = typer.completion.install(shell=shell, prog_name="sadp-bench", complete_var=variable)
    except OSError as error:
        raise BadInput(f"can't install the completion: {error}; --show-completion prints it") from None
    return f"installed in {path}; a new terminal has it"


def _shell() -> str:
    """Returns the name of the shell that runs this process; else that of $SHELL."""
    import shellingham  # type: ignore[import-untyped]  # comes with Typer

    try:
        name: str = shellingham.detect_shell()[0]
    except shellingham.ShellDetectionFailure:
        name = Path(os.environ.get("SHELL", "")).name
    return name
