"""`sadp-bench report`, `power`, `list` and `doctor`: the commands that train nothing."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sadp_bench.cli.help import OUTPUT
from sadp_bench.cli.listing import KINDS, listed
from sadp_bench.cli.options import COUNT, FILE, NAME, NUMBER, AsJson, Data, Plots, choice, completing, option
from sadp_bench.cli.output import Result, say
from sadp_bench.cli.spec_options import OF_DATA, names, numbers, registered
from sadp_bench.cli.waiting import loading, waiting
from sadp_bench.core.errors import BadInput

if TYPE_CHECKING:
    from sadp_bench.reports.paper import Paper
    from sadp_bench.reports.selection import Wanted

SHOWN, LEAKS = "What to show", "Examples that training and test set share"
PAPER = "For a paper"
Folders = Annotated[
    list[Path] | None,
    typer.Argument(help="Folders of records.", show_default="runs", metavar="DIR"),
]


def report(
    folders: Folders = None,
    dataset: Annotated[
        Any, option(SHOWN, "Only these data sets, with commas between them.", NAME, "all", parser=names)
    ] = None,
    backbone: Annotated[Any, option(SHOWN, "Only these networks.", NAME, "all", parser=names)] = None,
    method: Annotated[
        Any,
        option(
            SHOWN,
            "Only these methods, and full, random and ceiling, which they are compared with.",
            NAME,
            "all",
            parser=names,
            autocompletion=registered("method"),
        ),
    ] = None,
    ratio: Annotated[
        Any, option(SHOWN, "Only these pruning ratios, and full data.", NUMBER, "all", parser=numbers(float))
    ] = None,
    seed: Annotated[Any, option(SHOWN, "Only these seeds.", COUNT, "all", parser=numbers(int))] = None,
    summary: Annotated[
        bool, option(SHOWN, "Show only the verdicts, and the findings in words.", None, True, "--summary")
    ] = False,
    compare: Annotated[
        str,
        option(
            SHOWN,
            "Compare this method with every other, and show no other tables.",
            NAME,
            autocompletion=registered("method"),
        ),
    ] = "",
    margin: Annotated[
        float, option(SHOWN, "Points of accuracy that a method may lose and still be called lossless.", NUMBER)
    ] = 0.5,
    correct: Annotated[
        str, choice(SHOWN, "Correct the verdicts for their number in a table, by Holm's method.", ("none", "holm"))
    ] = "none",
    pictures: Annotated[
        bool,
        option(
            SHOWN,
            "Also show the most and the least chosen images, with --plots or --format html. It reads the data set.",
            None,
            True,
            "--pictures",
        ),
    ] = False,
    format: Annotated[
        str, choice(OUTPUT, "Format of the report.", ("text", "markdown", "latex", "csv", "json", "html"))
    ] = "text",
    to: Annotated[Path | None, option(OUTPUT, "Write to this file instead of stdout.", FILE)] = None,
    check: Annotated[
        bool, option(OUTPUT, "Write nothing; fail if the file of --to is out of date.", None, True, "--check")
    ] = False,
    plots: Plots = None,
    data: Data = None,
    style: Annotated[
        str, choice(PAPER, "Look of the plots: paper has no titles, and letters of 8 pt.", ("page", "paper"))
    ] = "page",
    width: Annotated[
        float | None, option(PAPER, "Width of the plots in inches, such as 5.5 or 3.25.", NUMBER, "7.2, on paper 5.5")
    ] = None,
    caption: Annotated[str | None, option(PAPER, "Caption of the LaTeX table, as LaTeX source.", "TEXT")] = None,
    label: Annotated[str | None, option(PAPER, "Label of the LaTeX table.", NAME, "tab:results")] = None,
    names: Annotated[
        list[str] | None,
        option(
            PAPER,
            "Names of methods in LaTeX and plots, such as sadp=Ours,random=Uniform. May be repeated.",
            "METHOD=NAME",
        ),
    ] = None,
    methods: Annotated[
        str | None, option(PAPER, "Methods in LaTeX and plots, in this order, such as random,sadp.", "NAMES")
    ] = None,
    cells: Annotated[
        str | None, choice(PAPER, "What the LaTeX table shows.", ("accuracy", "speedup", "both"), "both")
    ] = None,
    spread: Annotated[
        str | None,
        choice(
            PAPER,
            "Number after ± in LaTeX: half of the 95 % interval (ci), or the standard deviation (std).",
            ("ci", "std"),
            "ci",
        ),
    ] = None,
) -> Result | None:
    """Show the table of all runs: accuracy, speed-up, differences.

    A row has the runs of a method and ratio. Differences are paired by seed, with 95 % intervals.

    Examples:
      sadp-bench report results --summary
      sadp-bench report results --method sadp,infobatch --ratio 0.5
      sadp-bench report results --format html --to report.html
    """
    if check and (to is None or plots is not None):
        raise BadInput("--check reads the file of --to and writes nothing: give --to, and leave --plots out")
    if pictures and plots is None and format != "html":
        raise BadInput("--pictures is for --plots and --format html: give one of them")
    paper = _paper(
        format,
        plots is not None,
        caption=caption,
        label=label,
        names=names,
        methods=methods,
        cells=cells,
        spread=spread,
    )
    if plots is None and (style != "page" or width is not None):
        raise BadInput("--style and --width are for --plots: give that, or leave them out")
    from sadp_bench.records.store import atomic, read_all, read_notes
    from sadp_bench.records.trials import sorted_out
    from sadp_bench.reports import render, stale
    from sadp_bench.reports.plots.look import Look
    from sadp_bench.reports.plots.pictures import at_hand
    from sadp_bench.reports.selection import Wanted, selected

    look = Look(style, width)
    folders = folders or [Path("runs")]
    wanted = Wanted(
        dataset=dataset or (), backbone=backbone or (), method=method or (), ratio=ratio or (), seed=seed or ()
    )
    with waiting("reading records"):
        found = read_all(folders)
    for problem in found.problems:
        _complain(f"skipped {problem}")
    with waiting("reading records") as doing:
        records, failures, searches = sorted_out(found.records, found.failures, folders)
        records, failures = selected(records, failures, wanted)
        columns, styled = _terminal() if to is None else (120, False)
        images = at_hand(data) if pictures else None
        text = render(
            records,
            found.problems,
            format,
            failures=failures,
            margin_points=margin,
            width=columns,
            styled=styled,
            images=images,
            remarks=read_notes(folders),
            searches=searches,
            correction=correct,
            compare=compare,
            summary=summary,
            again=_again(folders, to, margin, correct, wanted, pictures),
            doing=doing,
            paper=paper if format == "latex" else None,
        )
    if check and to is not None:
        if (why := stale(to, text)) is not None:
            _complain(why)
            raise typer.Exit(1)
        return None
    if plots is not None:
        from sadp_bench.reports.plots import draw

        reasons: list[str] = []
        with waiting("drawing plots"):
            drawn = draw(
                records, plots, images, reasons.append, failures=failures, searches=searches, look=look, paper=paper
            )
        for reason in reasons:
            _complain(reason)
        for path in drawn:
            say(f"drew {path}")
    if to is None:
        return Result(lambda: print(text, end=""))
    with atomic(to) as file:
        file.write(text.encode())
    return None


def _paper(format: str, plots: bool, **given: Any) -> Paper:
    """Returns an author's choices among the options. Options that are not given have their defaults."""
    from sadp_bench.reports.paper import Paper, names_of, words

    chosen = {name: value for name, value in given.items() if value is not None}
    for name in chosen:
        if format != "latex" and not (plots and name in ("names", "methods")):
            also = " and --plots" if name in ("names", "methods") else ""
            raise BadInput(f"--{name} is for --format latex{also}: give that, or leave --{name} out")
    if "names" in chosen:
        chosen["names"] = names_of(chosen["names"])
    if "methods" in chosen:
        chosen["methods"] = words(chosen["methods"])
    return Paper(**chosen)


def _again(folders: list[Path], to: Path | None, margin: float, correct: str, wanted: Wanted, pictures: bool) -> str:
    """Returns the command that makes this page, with all options that differ from their defaults."""
    words = ["sadp-bench", "report", *map(str, folders)]
    for name, values in wanted.given().items():
        words += [f"--{name}", ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)]
    words += ["--margin", f"{margin:g}"] if margin != 0.5 else []
    words += ["--correct", correct] if correct != "none" else []
    words += ["--pictures"] if pictures else []
    return shlex.join([*words, "--format", "html", "--to", str(to or "report.html")])


def power(
    folders: Folders = None,
    difference: Annotated[float, option(SHOWN, "Difference of accuracy to decide, in points.", NUMBER)] = 0.3,
    margin: Annotated[
        float, option(SHOWN, "Points of accuracy that a method may lose and still be called lossless.", NUMBER)
    ] = 0.5,
    as_json: AsJson = False,
) -> Result:
    """Show how many seeds decide a difference, and what they cost.

    The numbers come from the paired spreads of the records.

    Examples:
      sadp-bench power results/cifar10 --difference 0.5
    """
    from sadp_bench.records.store import read_all
    from sadp_bench.records.trials import sorted_out
    from sadp_bench.reports.formats.text import sheets_text
    from sadp_bench.reports.grouping import rows
    from sadp_bench.reports.tables.power import power_notes, power_rows, power_sheets

    for name, points in (("difference", difference), ("margin", margin)):
        if not 0 < points < 100:
            raise BadInput(f"--{name} is a number of points above 0 and below 100, not {points:g}")
    folders = folders or [Path("runs")]
    with waiting("reading records"):
        found = read_all(folders)
    for problem in found.problems:
        _complain(f"skipped {problem}")
    with waiting("reading records"):
        records, failures, searches = sorted_out(found.records, found.failures, folders)
        shares = difference / 100, margin / 100
        needs = power_rows(rows(records, failures, searches=searches), *shares)
    if not any(need.has_spread for need in needs):
        raise BadInput("no paired spread in these records: it needs two seeds of a method, and of full or random too")
    if as_json:
        return Result([need.to_json() for need in needs])
    text = sheets_text(power_sheets(needs), power_notes(needs, *shares), *_terminal())
    return Result(lambda: print(text, end=""))


def _terminal() -> tuple[int, bool]:
    """Returns the width of stdout in columns, and whether it is a terminal."""
    from rich.console import Console

    console = Console()
    return console.width, console.is_terminal and not console.is_dumb_terminal


def _complain(reason: str) -> None:
    say(f"sadp-bench: {reason}")


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="methods, backbones, datasets, backprop, sparsity or recipes.",
            metavar="KIND",
            autocompletion=completing(lambda: KINDS),
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Argument(help="A name of this kind, to show its details.", metavar="NAME")
    ] = None,
    as_json: AsJson = False,
) -> Result:
    """List methods, networks, data sets and recipes, and their settings.

    Without KIND it lists the names of all kinds. With NAME it shows the settings, their defaults and meanings, and the
    source. For a method it also shows the BibTeX entry.

    Examples:
      sadp-bench list
      sadp-bench list methods
      sadp-bench list methods sadp
    """
    return listed([word for word in (kind, name) if word is not None], as_json)


def doctor(
    data: Data = None,
    leaks: Annotated[
        str,
        option(
            LEAKS,
            "Look in this data set for test examples that are nearly equal to training examples.",
            NAME,
            autocompletion=registered("dataset"),
        ),
    ] = "",
    set: Annotated[
        list[str] | None,
        option(LEAKS, "A setting of that data set: dataset.KEY=VALUE. May be repeated.", "KEY=VALUE"),
    ] = None,
    timesteps: Annotated[int | None, option(LEAKS, "Time steps of its recordings.", COUNT, OF_DATA)] = None,
    as_json: AsJson = False,
) -> Result:
    """Show what works here, what is missing, and what to do about it.

    Examples:
      sadp-bench doctor
      sadp-bench doctor --leaks cifar10
    """
    from sadp_bench.cli import doctor

    if leaks:
        return _leaks(leaks, data, set, timesteps, as_json)
    if set or timesteps is not None:
        raise BadInput("--set and --timesteps are for --leaks DATASET")
    with loading():
        found = doctor.examine(data)
    return Result(found if as_json else lambda: print(doctor.doctor_text(found)))


def _leaks(name: str, data: Path | None, words: list[str] | None, timesteps: int | None, as_json: bool) -> Result:
    from sadp_bench.cli.leaks_view import leaks_json, leaks_text
    from sadp_bench.cli.options import settings_of
    from sadp_bench.core import registry
    from sadp_bench.datasets import expanded
    from sadp_bench.datasets.base import data_root
    from sadp_bench.datasets.leaks import find_leaks
    from sadp_bench.datasets.loading import load

    plain, of_name = expanded(name)
    kind, given = registry.resolve("dataset", plain), settings_of(words)
    if foreign := next((key for key in given if not key.startswith("dataset.")), None):
        raise BadInput(f"--set takes dataset.KEY=VALUE here, not '{foreign}'")
    table = of_name | {key.removeprefix("dataset."): value for key, value in given.items()}
    settings = registry.settle(f"dataset {name}", registry.options(kind), table)
    steps = kind.timesteps if timesteps is None else timesteps
    if not 1 <= steps <= 10_000:
        raise BadInput(f"--timesteps is a number from 1 to 10,000, not {steps}")
    dataset = load(kind, name, data_root(data), steps, settings)
    found = find_leaks(dataset)
    if as_json:
        return Result(leaks_json(name, dataset, found))
    text = leaks_text(name, dataset, found)
    return Result(lambda: print(text))
