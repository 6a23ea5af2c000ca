"""Options that several commands share, and the functions that make options.

Each option names its panel of the help (`help.WHAT` and others). The options of a run's spec are in `spec_options`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from sadp_bench.cli.help import OUTPUT, WHERE
from sadp_bench.core.errors import BadInput
from sadp_bench.training.loggers import LOGGERS

COUNT, NUMBER, NAME, FILE, FOLDER, SECONDS = "N", "X", "NAME", "FILE", "DIR", "SECONDS"  # stand for values in the help


def option(
    panel: str, help: str, metavar: str | None = None, default: str | bool = True, *names: str, **more: Any
) -> Any:
    """Returns an option of Typer.

    Args:
        panel: The panel of the help.
        help: The meaning of the option, in plain words.
        metavar: The word that stands for the value; None for a flag.
        default: The default in words; True to show its value.
        names: The option's names, where the parameter's name is not enough.
        more: Further arguments of Typer.
    """
    return Option(*names, help=help, metavar=metavar, show_default=default, rich_help_panel=panel, **more)


def choice(panel: str, help: str, allowed: Iterable[str], default: str | bool = True) -> Any:
    """Returns an option with the allowed values in its help, such as '[sgd|adamw]', and in the shell's completion."""
    values = tuple(allowed)
    return option(panel, help, f"[{'|'.join(values)}]", default, autocompletion=completing(lambda: values))


def completing(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Returns a function that completes a value of an option in a shell.

    Args:
        names: Returns the values. It is called only for a completion.
    """

    def completed(incomplete: str) -> list[str]:
        *before, begun = incomplete.split(",")  # lists: `--method random,sa`
        return [",".join([*before, name]) for name in names() if name.startswith(begun)]

    return completed


Data = Annotated[
    Path | None, option(WHERE, "Folder of the data sets.", FOLDER, "$SADP_BENCH_DATA, or a cache in your home")
]
CheckpointSeconds = Annotated[
    float,
    option(
        WHERE,
        "Save a checkpoint at the first end of an epoch after this time; 0: after every epoch. The same command continues "
        "from it.",
        SECONDS,
    ),
]
Minutes = Annotated[
    float | None,
    option(
        WHERE,
        "Stop at the end of an epoch after about this many minutes, with exit code 75. The same command continues.",
        NUMBER,
        "no limit",
    ),
]
AsJson = Annotated[bool, option(OUTPUT, "Print the result as JSON, and nothing else, on stdout.", None, True, "--json")]
AllowImports = Annotated[
    bool,
    option(
        WHERE,
        "Allow package.module:Class in the file. Its code then runs: use it only for files that you trust.",
        None,
        True,
        "--allow-imports",
    ),
]
Quiet = Annotated[bool, option(OUTPUT, "Show no progress.", None, True, "--quiet", "-q")]
Plots = Annotated[Path | None, option(OUTPUT, "Also draw the plots, as files in this folder.", FOLDER)]
Log = Annotated[
    str | None,
    option(
        OUTPUT,
        "Also log every epoch, in the folder logs of the records (wandb: in ./wandb). Separate several by commas.",
        f"[{'|'.join(LOGGERS)}]",
        "none",
        autocompletion=completing(lambda: LOGGERS),
    ),
]
Records = Annotated[Path, option(OUTPUT, "Folder for the records, a file for each run.", FOLDER)]


def settings_of(pairs: list[str] | None, of: str = "--set") -> dict[str, str]:
    """Returns the `--set` words as a table."""
    table = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise BadInput(f"{of} takes KEY=VALUE, not '{pair}'")
        table[key.strip()] = value.strip()
    return table
