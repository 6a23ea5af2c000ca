"""`sadp-bench speed` and `sadp-bench study`: they measure what a record cannot tell."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from sadp_bench.cli.options import trains
from sadp_bench.cli.shared_options import AsJson, Data, Quiet
from sadp_bench.core.errors import BadInput


@trains
def speed(
    methods: Annotated[str, Option(help="Methods, separated by commas.")] = "random,sadp",
    ratios: Annotated[str, Option(help="Pruning ratios, separated by commas.")] = "0.3,0.5,0.7",
    rounds: Annotated[int, Option(help="Timed epochs of each arm at most, after one untimed.")] = 30,
    half_width: Annotated[float, Option(help="Stop when no 95 % interval reaches further from its median.")] = 0.01,
    minutes: Annotated[float, Option(help="Stop after about so long.")] = 10,
    plots: Annotated[Path | None, Option(help="Draw the plot into this folder.")] = None,
    asked: Any = None,
    data: Data = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure training speed-ups on a noisy machine: epochs of all arms interleaved, full data against itself as the
    noise floor. The scoring before training is not part of it."""
    from sadp_bench.cli import run_view
    from sadp_bench.measure import speed
    from sadp_bench.runs import environment

    environment.keep_freed_memory()
    wanted = [_number(ratio) for ratio in ratios.split(",")]
    names = [name.strip() for name in methods.split(",")]
    result = speed.measure(asked, names, wanted, rounds, data, run_view.reporter(quiet), half_width, 60 * minutes)
    if as_json:
        print(json.dumps(result))
    else:
        run_view.show(run_view.speed_table(result))
    if plots is not None:
        from sadp_bench.report.speed_plots import draw

        for path in draw(result, plots):
            print(f"drew {path}", file=sys.stderr)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadInput(f"--ratios takes numbers separated by commas, not '{text}'") from None


@trains
def study(
    at: Annotated[
        str | None, Option(help="Epochs to stop after, separated by commas.", show_default="1, a quarter, half, all")
    ] = None,
    examples: Annotated[int, Option(help="Training examples to study, a fixed random part.")] = 512,
    asked: Any = None,
    data: Data = None,
    out: Annotated[Path, Option(help="Folder to keep the study in.")] = Path("studies"),
    from_: Annotated[Path | None, Option("--from", help="Show a kept study instead of making one.")] = None,
    plots: Annotated[Path | None, Option(help="Draw the plots into this folder.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Hold every score against exact gradient norms while full data trains: correlation, variance of the draw, cost."""
    from sadp_bench.cli import study_view
    from sadp_bench.measure import study_file

    if from_ is not None:
        if at or any(value not in (None, {}) for value in asked.values()):
            raise BadInput("--from shows a study as it is kept; leave the options of training out")
        found, path = study_file.read(from_), from_
    else:
        found, path = _new_study(asked, at, examples, data, out, quiet)
    if as_json:
        print(json.dumps(found))
    else:
        study_view.show(found, path)
    if plots is not None:
        from sadp_bench.report.study_plots import draw

        for drawn in draw(found, plots):
            print(f"drew {drawn}", file=sys.stderr)


def _new_study(
    asked: dict[str, Any], at: str | None, examples: int, data: Path | None, out: Path, quiet: bool
) -> tuple[dict[str, Any], Path]:
    from sadp_bench.cli import run_view
    from sadp_bench.measure import study_file
    from sadp_bench.measure.study import Study
    from sadp_bench.records.store import Store
    from sadp_bench.runs import environment

    environment.keep_freed_memory()
    study = Study(asked, at, examples, data, run_view.reporter(quiet))
    Store(out).check_writable()
    found = study.measure()
    return found, study_file.write(out, found)
