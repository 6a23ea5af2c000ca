"""`sadp-bench speed` and `sadp-bench study`: measurements that no record contains."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from sadp_bench.cli.options import AsJson, Data, Plots, Quiet, with_spec_options
from sadp_bench.cli.output import Result, say
from sadp_bench.core.errors import BadInput


@with_spec_options
def speed(
    methods: Annotated[str, Option(help="Methods, separated by commas.")] = "random,sadp",
    ratios: Annotated[str, Option(help="Pruning ratios, separated by commas.")] = "0.3,0.5,0.7",
    rounds: Annotated[int, Option(help="Maximum number of timed epochs of each arm, after one untimed epoch.")] = 30,
    half_width: Annotated[
        float, Option(help="Stop when every 95 % interval reaches at most this far from its median.")
    ] = 0.01,
    minutes: Annotated[float, Option(help="Stop after about this time.")] = 10,
    plots: Plots = None,
    request: Any = None,
    data: Data = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> Result:
    """Measure training speed-ups on a noisy machine: interleaved epochs, and full data against itself as noise floor.

    Only training epochs are timed; the scoring before training is left out.
    """
    from sadp_bench.cli import run_view
    from sadp_bench.measure import speed
    from sadp_bench.runs import environment

    environment.keep_freed_memory()
    names = [name.strip() for name in methods.split(",")]
    progress = run_view.reporter(quiet)
    result = speed.measure_speed(request, names, _numbers(ratios), rounds, data, progress, half_width, 60 * minutes)
    if plots is not None:
        from sadp_bench.reports.plots.speed import draw_speed

        _print_drawn(draw_speed(result, plots))
    return Result(result if as_json else lambda: run_view.print_result(run_view.speed_table(result)))


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise BadInput(f"--ratios takes numbers separated by commas, not '{text}'") from None


@with_spec_options
def study(
    method: Annotated[
        str | None, Option(help="Train under the pruning of this method.", show_default="full data")
    ] = None,
    ratio: Annotated[float | None, Option(help="Its pruning ratio.", show_default="none")] = None,
    at: Annotated[
        str | None, Option(help="Epochs to stop after, separated by commas.", show_default="1, a quarter, half, all")
    ] = None,
    examples: Annotated[int, Option(help="Number of training examples to study, a fixed random part.")] = 512,
    bias: Annotated[
        bool, Option("--bias", help="Also measure how far the expected gradient of drawn batches is from full data's.")
    ] = False,
    request: Any = None,
    data: Data = None,
    out: Annotated[Path, Option(help="Folder of the studies.")] = Path("studies"),
    from_: Annotated[Path | None, Option("--from", help="Show this study file; train nothing.")] = None,
    plots: Plots = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> Result:
    """Compare every score with exact gradient norms while a network trains: correlation, variance and cost."""
    from sadp_bench.cli import study_view
    from sadp_bench.measure import study_file

    request |= {"method": method, "ratio": ratio}
    if from_ is not None:
        if at or bias or any(value not in (None, {}) for value in request.values()):
            raise BadInput("--from shows a study as it was kept; leave the options of training out")
        found, path = study_file.read_study(from_), from_
    else:
        found, path = _new_study(request, at, examples, bias, data, out, quiet)
    if plots is not None:
        from sadp_bench.reports.plots.study import draw_study

        _print_drawn(draw_study(found, plots))
    return Result(found if as_json else lambda: study_view.print_study(found, path))


def _new_study(
    request: dict[str, Any], at: str | None, examples: int, bias: bool, data: Path | None, out: Path, quiet: bool
) -> tuple[dict[str, Any], Path]:
    from sadp_bench.cli import run_view
    from sadp_bench.measure import study_file
    from sadp_bench.measure.study import Study
    from sadp_bench.records.store import Store
    from sadp_bench.runs import environment

    environment.keep_freed_memory()
    study = Study(request, at, examples, data, run_view.reporter(quiet), bias)
    Store(out).check_writable()
    found = study.measure()
    return found, study_file.write(out, found)


def _print_drawn(paths: Iterable[Path]) -> None:
    for path in paths:
        say(f"drew {path}")
