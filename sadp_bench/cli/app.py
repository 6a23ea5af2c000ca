"""The command line application: finds the command and reports bad input in one line.

Help and lists must appear at once, so this module imports neither Typer nor a command before one is called.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from typing import Any

from sadp_bench import __version__
from sadp_bench.cli.output import Lasting, Result, open_closed, say, show, silence
from sadp_bench.cli.terminal import BOLD, CYAN, columns, hanging, heading, styled
from sadp_bench.core import registry, static
from sadp_bench.core.errors import BadInput, Stopped
from sadp_bench.core.strangers import calls_of_strangers

DEBUG = "--debug"
COMPLETE = "_SADP_BENCH_COMPLETE"  # the environment variable of a shell's request for completions
# The function of each command, by panel of the help. Its docstring is the command's help; the main help shows the first line.
PANELS = {
    "Train": {
        "run": "sadp_bench.cli.train:run",
        "sweep": "sadp_bench.cli.train:sweep",
        "claim": "sadp_bench.cli.claim:claim",
    },
    "Look at runs": {
        "report": "sadp_bench.cli.inspect:report",
        "power": "sadp_bench.cli.inspect:power",
        "check": "sadp_bench.cli.check:check",
        "export": "sadp_bench.cli.export:export",
    },
    "Measure": {
        "speed": "sadp_bench.cli.measure:speed",
        "study": "sadp_bench.cli.measure:study",
    },
    "Prepare": {
        "list": "sadp_bench.cli.inspect:list_",
        "doctor": "sadp_bench.cli.inspect:doctor",
        "pack": "sadp_bench.cli.pack:pack",
    },
}
COMMANDS = {name: path for panel in PANELS.values() for name, path in panel.items()}
COMPLETIONS = ("--install-completion", "--show-completion")
OPTIONS = {
    "-h, --help": "Show this message; after a command, its options.",
    "-V, --version": "Print the version.",
    "--debug": "Also print the traceback of an error; may follow the command too.",
    COMPLETIONS[0]: "Install completion of commands, options and names for bash, zsh or fish.",
    COMPLETIONS[1]: "Print the script of this completion.",
}
EXAMPLES = (
    "sadp-bench run --method sadp --ratio 0.3   # half a minute, downloads nothing",
    "sadp-bench run -h                          # every option",
    "sadp-bench list                            # methods, networks, data sets",
)
INDENT = 25  # columns before the text of an option


def main(arguments: list[str] | None = None) -> Any:
    """Runs the console script and exits: code 2 with one line for bad input, 130 for Ctrl-C, 75 after `--minutes`."""
    open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character that the terminal lacks must not end a run
    given = sys.argv[1:] if arguments is None else arguments
    if os.environ.get("WORLD_SIZE") and DEBUG not in given:
        os.environ.setdefault(
            "TORCH_CPP_LOG_LEVEL", "FATAL"
        )  # before torch is imported: no stack traces around our line
    if os.environ.get(COMPLETE):
        from sadp_bench.cli import completion

        completion.complete({name: function(name) for name in COMMANDS}, COMPLETE)
    with redirect_stderr(Lasting(sys.stderr)):
        code = _run([word for word in given if word != DEBUG] or ["--help"], DEBUG in given)
    sys.exit(code)


def _run(arguments: list[str], debug: bool) -> int:
    """Runs a command, prints its result or why it failed, and returns the exit code."""
    try:
        # With --json only the result is on stdout. Data sets and methods of users may print other lines.
        with calls_of_strangers(), redirect_stdout(sys.stderr if "--json" in arguments else sys.stdout):
            result = _called(*arguments)
        if isinstance(result, Result):
            show(result)
            return _fail(result.why, result.code) if result.why else result.code
        return result if isinstance(result, int) else 0
    except (BadInput, Stopped) as error:
        if debug:
            traceback.print_exception(error)
        return _fail(str(error), error.code if isinstance(error, Stopped) else 2)
    except KeyboardInterrupt:
        resume = (
            "; the same command continues from the last checkpoint" if arguments[0] in ("run", "sweep", "claim") else ""
        )
        say(f"sadp-bench: interrupted{resume}")
        return 130
    except BrokenPipeError:  # `sadp-bench --help | head -1`
        silence(sys.stdout)
        return 0


def _called(name: str, *words: str) -> Any:
    """Returns the result or the exit code of the command `name`, given its words."""
    if name in ("-h", "--help"):
        return Result(lambda: print(_help()))
    if name in ("-V", "--version"):
        return Result(lambda: print(f"sadp-bench {__version__}"))
    if name in COMPLETIONS:
        from sadp_bench.cli import completion

        done = completion.script(name, list(words), COMPLETE)
        return Result(lambda: print(done))
    if name.startswith("-"):
        raise BadInput(f"No such option: {name} (see sadp-bench -h)")
    if name not in COMMANDS:
        raise BadInput(f"No such command '{name}'{registry.nearest(name, COMMANDS)} (see sadp-bench -h)")
    kinds = [word for word in words if word != "--json"]
    if name == "list" and len(kinds) <= 2 and not any(word.startswith("-") for word in kinds):
        from sadp_bench.cli.listing import listed

        return listed(kinds, "--json" in words)  # without Typer, whose import would take most of the time
    from sadp_bench.cli import parsing

    return parsing.call(name, function(name), list(words))


def function(name: str) -> Any:
    """Returns the function of a command."""
    module, _, attribute = COMMANDS[name].partition(":")
    return getattr(import_module(module), attribute)


def _help() -> str:
    """Returns the application's help."""
    width = columns()
    lines = [f"{styled('Usage:', BOLD)} sadp-bench COMMAND [OPTIONS]", ""]
    lines += hanging("Compare methods that prune the data on which spiking neural networks train.", "", 0, width)
    lines += ["", styled("Start here:", BOLD), *(f"  {example}" for example in EXAMPLES)]
    for panel, commands in PANELS.items():
        summaries = {name: static.docstring(path).partition("\n")[0] for name, path in commands.items()}
        lines += ["", heading(panel, width), *_rows(summaries, 11, width)]
    return "\n".join([*lines, "", heading("Options", width), *_rows(OPTIONS, INDENT, width)])


def _rows(texts: dict[str, str], indent: int, width: int) -> list[str]:
    """Returns names with their texts beside them."""
    lines = []
    for name, text in texts.items():
        first, *others = hanging(text, f"  {name} ", indent, width)
        lines += [first.replace(name, styled(name, CYAN), 1), *others]
    return lines


def _fail(message: str, code: int = 2) -> int:
    """Prints why a command failed, and returns the exit code."""
    rank = os.environ.get("RANK", "0")
    sender = "sadp-bench" if rank == "0" else f"sadp-bench (rank {rank})"
    say(f"{sender}: {' '.join(message.split())}")
    return code
