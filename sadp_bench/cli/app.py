"""The command line application: registers the commands and reports bad input in one line."""

from __future__ import annotations

import functools
import io
import itertools
import os
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from typing import Annotated, Any

import typer

from sadp_bench import __version__
from sadp_bench.cli.check import check
from sadp_bench.cli.inspect import doctor, list_, report
from sadp_bench.cli.measure import speed, study
from sadp_bench.cli.options import with_whole_paths
from sadp_bench.cli.output import Lasting, Result, open_closed, say, show, silence
from sadp_bench.cli.train import run, sweep
from sadp_bench.core.errors import BadInput, Stopped
from sadp_bench.core.strangers import calls_of_strangers

DEBUG = "--debug"

app = typer.Typer(
    name="sadp-bench",
    help="Benchmark of data-pruning methods for training spiking neural networks.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Also print the traceback of an error; may follow the command too.")
    ] = False,
) -> None:
    """Benchmark of data-pruning methods for training spiking neural networks."""
    if version:
        print(f"sadp-bench {__version__}")
        raise typer.Exit


for command in (run, sweep, report, check, speed, study):
    app.command()(with_whole_paths(command))
app.command(name="list")(list_)
app.command()(with_whole_paths(doctor))


def main(arguments: list[str] | None = None) -> Any:
    """Runs the console script and exits: code 2 and one line for bad input, 130 for Ctrl-C, 75 when `--minutes` are over."""
    open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # A character that the terminal lacks must not end a run.
    given = sys.argv[1:] if arguments is None else arguments
    if os.environ.get("WORLD_SIZE") and DEBUG not in given:  # torch reads it when it is imported, which is later
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # else its stack traces surround our line
    with redirect_stderr(Lasting(sys.stderr)):
        code = _run([word for word in given if word != DEBUG] or ["--help"], DEBUG in given)
    sys.exit(code)


def _run(arguments: list[str], debug: bool) -> int:
    """Runs a command, prints its result or why it failed, and returns the exit code."""
    # The base class of Typer's usage errors (an unknown option, for example) has no public name.
    usage_error: Any = typer.BadParameter.__mro__[2]
    try:
        # With --json the result is alone on stdout, whatever a data set or a method of somebody else prints.
        with calls_of_strangers(), redirect_stdout(sys.stderr if "--json" in arguments else sys.stdout):
            result = _parser()(arguments, standalone_mode=False)
        if result == 130:  # Typer turns Ctrl-C into this code.
            raise KeyboardInterrupt
        if isinstance(result, Result):
            show(result)
            return _fail(result.why, result.code) if result.why else result.code
        return result if isinstance(result, int) else 0
    except (BadInput, Stopped) as error:
        if debug:
            traceback.print_exception(error)
        return _fail(str(error), error.code if isinstance(error, Stopped) else 2)
    except usage_error as error:
        return _fail(f"{error.format_message()}{_given_value(error, arguments)} (see sadp-bench --help)")
    except (KeyboardInterrupt, typer.Abort):
        resume = "; the same command continues from the last checkpoint" if arguments[0] in ("run", "sweep") else ""
        say(f"sadp-bench: interrupted{resume}")
        return 130
    except BrokenPipeError:  # `sadp-bench --help | head -1`
        silence(sys.stdout)
        return 0


@functools.cache
def _parser() -> Any:
    """Returns the commands with their options, which take a tenth of a second to make."""
    return typer.main.get_command(app)


def _given_value(error: Any, arguments: list[str]) -> str:
    """Returns the value that the refused option was given, which Typer's message omits."""
    names = getattr(getattr(error, "param", None), "opts", [])
    words = [part for word in arguments for part in word.split("=", 1)]
    given = [after for before, after in itertools.pairwise(words) if before in names]
    return f": '{given[-1]}'" if given else ""


def _fail(message: str, code: int = 2) -> int:
    """Prints why a command failed, and returns the exit code."""
    rank = os.environ.get("RANK", "0")
    sender = "sadp-bench" if rank == "0" else f"sadp-bench (rank {rank})"
    say(f"{sender}: {' '.join(message.split())}")
    return code
