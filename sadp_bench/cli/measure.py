"""`sadp-bench speed` and `sadp-bench study`: measurements that no record contains."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from sadp_bench.cli.help import OUTPUT, WHAT, WHERE
from sadp_bench.cli.options import COUNT, FILE, FOLDER, NAME, NUMBER, AsJson, Data, Plots, Quiet, option
from sadp_bench.cli.output import Result, say
from sadp_bench.cli.spec_options import registered, with_spec_options
from sadp_bench.cli.waiting import loading
from sadp_bench.core.errors import BadInput


@with_spec_options
def speed(
    methods: Annotated[
        str,
        option(WHAT, "Methods, with commas between them.", "LIST", autocompletion=registered("method")),
    ] = "random,sadp",
    ratios: Annotated[str, option(WHAT, "Pruning ratios, with commas between them.", "LIST")] = "0.3,0.5,0.7",
    request: Any = None,
    rounds: Annotated[int, option(WHERE, "Stop after this many timed epochs of each method and ratio.", COUNT)] = 30,
    half_width: Annotated[
        float,
        option(WHERE, "Stop when no 95 % interval reaches farther than this from its median.", NUMBER),
    ] = 0.01,
    minutes: Annotated[float, option(WHERE, "Stop after about this many minutes.", NUMBER)] = 10,
    data: Data = None,
    plots: Plots = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> Result:
    """Measure training speed-ups on a noisy machine.

    Epochs of all methods and ratios alternate with epochs of full data. Full data against itself gives the noise floor.
    Only training epochs are timed, not the scoring before training.

    Examples:
      sadp-bench speed --dataset cifar10 --train-examples 2000 --minutes 5
    """
    with loading(quiet):
        from sadp_bench.cli import run_view, speed_view
        from sadp_bench.measure import speed
        from sadp_bench.runs import environment

    environment.keep_freed_memory()
    names = [name.strip() for name in methods.split(",")]
    progress = run_view.reporter(quiet)
    result = speed.measure_speed(request, names, _numbers(ratios), rounds, data, progress, half_width, 60 * minutes)
    if plots is not None:
        from sadp_bench.reports.plots.speed import draw_speed

        _print_drawn(draw_speed(result, plots))
    return Result(result if as_json else lambda: run_view.print_result(speed_view.speed_table(result)))


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise BadInput(f"--ratios takes numbers separated by commas, not '{text}'") from None


@with_spec_options
def study(
    method: Annotated[
        str | None,
        option(WHAT, "Train with this method.", NAME, "full data", autocompletion=registered("method")),
    ] = None,
    ratio: Annotated[float | None, option(WHAT, "Its pruning ratio.", NUMBER)] = None,
    at: Annotated[
        str | None,
        option(WHAT, "Epochs to measure after, with commas between them.", "LIST", "1, a quarter, half, all"),
    ] = None,
    examples: Annotated[int, option(WHAT, "Number of training examples to measure: a fixed random part.", COUNT)] = 512,
    bias: Annotated[
        bool,
        option(
            WHAT,
            "Also measure the bias of drawn batches: their expected gradient against full data's.",
            None,
            True,
            "--bias",
        ),
    ] = False,
    from_: Annotated[Path | None, option(WHAT, "Show this study file; train nothing.", FILE, True, "--from")] = None,
    request: Any = None,
    data: Data = None,
    out: Annotated[Path, option(OUTPUT, "Folder for the studies.", FOLDER)] = Path("studies"),
    plots: Plots = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> Result:
    """Compare every score with exact gradient norms while a network trains.

    For each score it shows the correlation with the norms, the variance of the gradient, and the cost.

    Examples:
      sadp-bench study --dataset cifar10 --train-examples 1000 --epochs 3
    """
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
    with loading(quiet):
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
