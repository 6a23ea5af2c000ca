"""`sadp-bench report`, `list` and `doctor`: they train nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from sadp_bench.cli.shared_options import AsJson, Data
from sadp_bench.core.errors import BadInput


def report(
    folders: Annotated[list[Path] | None, typer.Argument(help="Folders of records.", show_default="runs")] = None,
    format: Annotated[str, Option(help="text, markdown, latex, csv, json or html.")] = "text",
    to: Annotated[Path | None, Option(help="Write to a file instead.")] = None,
    check: Annotated[bool, Option("--check", help="Write nothing; fail if the file of --to is out of date.")] = False,
    margin: Annotated[float, Option(help="Points of accuracy that a lossless method may lose.")] = 0.5,
    plots: Annotated[Path | None, Option(help="Draw the plots into this folder.")] = None,
    pictures: Annotated[
        bool, Option("--pictures", help="With --plots or html: the images chosen most and least; reads the data set.")
    ] = False,
    data: Data = None,
) -> None:
    """The table of all runs: accuracy, speed-up against its ceiling, and paired differences, by method and ratio."""
    if check and (to is None or plots is not None):
        raise BadInput("--check writes nothing and reads the file of --to: give --to, and leave --plots out")
    from sadp_bench.records.store import atomic, read_all, read_notes
    from sadp_bench.report import render, stale

    if pictures and plots is None and format != "html":
        raise BadInput("--pictures is for --plots and --format html: give one of them")
    found = read_all(folders or [Path("runs")])
    for problem in found.problems:
        print(f"sadp-bench: skipped {problem}", file=sys.stderr)
    records = [record for _, record in found.records]
    width, styled = 120, False
    if to is None:
        from rich.console import Console

        width, styled = Console().width, Console().is_terminal
    from sadp_bench.report.pictures import at_hand

    images = at_hand(data) if pictures else None
    text = render(
        records,
        found.problems,
        format,
        failures=found.failures,
        margin_points=margin,
        width=width,
        styled=styled,
        images=images,
        remarks=read_notes(folders or [Path("runs")]),
    )
    if check and to is not None:
        if (why := stale(to, text)) is not None:
            print(f"sadp-bench: {why}", file=sys.stderr)
            raise typer.Exit(1)
        return
    if plots is not None:
        from sadp_bench.report.plots import draw

        def tell(reason: str) -> None:
            print(f"sadp-bench: {reason}", file=sys.stderr)

        for path in draw(records, plots, images, tell, failures=found.failures):
            print(f"drew {path}", file=sys.stderr)
    if to is None:
        sys.stdout.write(text)
    else:
        with atomic(to) as file:
            file.write(text.encode())


def list_(
    kind: Annotated[str, typer.Argument(help="methods, backbones or datasets.")],
    as_json: AsJson = False,
) -> None:
    """What is registered, one line each, with its source."""
    from sadp_bench.core import registry

    kinds = {"methods": "method", "backbones": "backbone", "datasets": "dataset"}
    if kind not in kinds:
        raise BadInput(f"list what? '{kind}' is unknown{registry.nearest(kind, kinds)}")
    entries = registry.entries(kinds[kind])
    if as_json:
        print(json.dumps([{"name": e.name, "path": e.path, "summary": e.summary, "source": e.source} for e in entries]))
    else:
        for entry in entries:
            print(f"{entry.name:<14}{entry.summary}\n{'':<14}{entry.source}")


def doctor(data: Data = None, as_json: AsJson = False) -> None:
    """Versions, device, kernels, data sets on disk, and whether `baselines` is ours."""
    from sadp_bench.cli import doctor

    found = doctor.examine(data)
    if as_json:
        print(json.dumps(found))
        return
    print(doctor.text(found))
