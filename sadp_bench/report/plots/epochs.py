"""How runs go on: the share that each epoch keeps, and accuracy against the time charged so far."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sadp_bench.records.record import Record, is_number
from sadp_bench.report.cells import Cell, by_ratio, timed_together
from sadp_bench.report.plots.style import FULL, Style, Styles, key, panels, seeds_told, styled
from sadp_bench.report.plots.time import unit
from sadp_bench.report.tables import percent

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = list[tuple[float, float]]
MAX_COLUMNS = 3
MAX_MARKERS = 12  # of a line


@styled
def kept_figure(own: Sequence[Cell], styles: Styles) -> Figure | None:
    """The share of the examples that each epoch keeps, in % (mean over the seeds that got that far): a line a method, a
    panel a ratio. None where nothing was pruned.

    Markers stand at other epochs for each method, so that lines which coincide show all of them.
    """
    ratios = by_ratio(own)
    if not ratios:
        return None
    figure, every = _panels(own, ratios, "kept examples (%)", "epoch")
    handles: list[Artist] = []
    for axes, members in zip(every, ratios.values(), strict=True):
        for number, cell in enumerate(members):
            line = kept_shares(cell.runs)
            step = max(1, len(members), -(-len(line) // MAX_MARKERS))
            marks = list(range(number % min(step, len(line)), len(line), step))
            look = {**styles[cell.row["label"]], "markevery": marks, "markersize": 5, "label": cell.row["label"]}
            x, y = zip(*line, strict=True)
            handles.append(axes.plot(x, [100 * share for share in y], **look)[0])
        axes.set_ylim(0, 104)
    key(figure, handles, seeds_told([cell.row for cell in own if not cell.is_full]), below=True)
    return figure


def kept_shares(runs: Sequence[Record]) -> Curve:
    """(epoch from 1, mean share of the examples kept)."""
    lines = [[row["kept"] / run.num_examples for row in run.epochs] for run in runs]
    every = itertools.zip_longest(*lines)
    return [(epoch, statistics.fmean(share for share in of if share is not None)) for epoch, of in enumerate(every, 1)]


@styled
def progress_figure(own: Sequence[Cell], styles: Styles) -> Figure | None:
    """Accuracy in % against the time charged so far: means over seeds by epoch, thin lines the seeds, a panel a ratio, full
    in each. None where nothing was pruned or no epoch but the last was evaluated.
    """
    kept, left_out = timed_together([cell.row for cell in own])
    shown = [cell for cell in own if cell.row in kept]
    ratios = by_ratio(shown)
    curves = {id(cell): [curve(run) for run in cell.timed] for cell in shown}
    if not ratios or not any(len(one) > 1 for several in curves.values() for one in several):
        return None
    size, name = unit(max(one[-1][0] for several in curves.values() for one in several if one))
    figure, every = _panels(own, ratios, f"{own[0].row['evaluate_on']} accuracy (%)", f"charged time ({name})")
    full = [cell for cell in shown if cell.is_full]
    handles: list[Artist] = []
    for axes, members in zip(every, ratios.values(), strict=True):
        for cell in [*full, *members]:
            look = {**FULL, "marker": "*", "markersize": 6} if cell.is_full else styles[cell.row["label"]]
            handles += _draw_curves(
                axes, curves[id(cell)], size, {"markersize": 3.5, **look, "label": cell.row["label"]}
            )
    told = "Thin lines: each seed." if any(len(cell.timed) > 1 for cell in shown) else ""
    every[0].set_xlim(left=0)
    seeds = seeds_told([cell.row for cell in shown], count="n_seconds")
    key(figure, handles, seeds, told, left_out, below=True)
    return figure


def curve(run: Record) -> Curve:
    """(charged seconds so far, accuracy) after each evaluated epoch; none where an epoch does not tell its seconds."""
    total, points = run.seconds["prepare"], []
    for row in run.epochs:
        if not is_number(row.get("seconds")):
            return []
        total += row["seconds"]
        if is_number(row.get("test_accuracy")):
            points.append((total, float(row["test_accuracy"])))
    return points


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Both means at each evaluated epoch, as far as all curves go."""
    return [
        (statistics.fmean(x for x, _ in at), statistics.fmean(y for _, y in at)) for at in zip(*curves, strict=False)
    ]


def _draw_curves(axes: Axes, curves: Sequence[Curve], size: float, look: Style) -> list[Artist]:
    def draw(line: Curve, **changed: Any) -> Artist:
        x, y = zip(*line, strict=True)
        return axes.plot([at / size for at in x], [100 * share for share in y], **{**look, **changed})[0]

    there = [one for one in curves if one]
    if not there:
        return []
    if len(there) > 1:
        for one in there:
            draw(one, linewidth=0.5, alpha=0.45, marker="", label="_seed")
    return [draw(mean_curve(there))]


def _panels(
    own: Sequence[Cell], ratios: Sequence[float] | dict[float, Any], y: str, x: str
) -> tuple[Figure, list[Axes]]:
    """A panel a ratio, alike in their axes."""
    columns = min(MAX_COLUMNS, len(ratios))
    height = 4.2 if columns == 1 else 3.2 if len(ratios) <= columns else 2.5
    figure, every = panels(own[0].row["group"], len(ratios), columns, height, sharex=True, sharey=True)
    for number, (axes, ratio) in enumerate(zip(every, ratios, strict=True)):
        axes.set_title(f"pruning ratio {percent(ratio)}")
        axes.set_xlabel(x if number + columns >= len(ratios) else "")
        axes.set_ylabel(y if number % columns == 0 else "")
    return figure, every
