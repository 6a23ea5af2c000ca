"""The share of examples that each epoch keeps, and accuracy against the time charged so far."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from sadp_bench.core.text import percent
from sadp_bench.records.record import Record, is_number
from sadp_bench.reports.plots import legends, style
from sadp_bench.reports.plots.look import current_look
from sadp_bench.reports.plots.style import FULL, Style, Styles, drawing
from sadp_bench.reports.plots.time import timed_together, unit
from sadp_bench.reports.rows import RatioRow

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = list[tuple[float, float]]
MAX_COLUMNS = 3
MAX_MARKERS = 12  # markers of a line


@drawing()
def kept_figure(rows: Sequence[RatioRow], styles: Styles) -> Figure | None:
    """Draws the share of the examples that each epoch keeps, in %: a line for each method, a panel for each ratio.

    A share is the mean over the seeds that reached the epoch. Each method has its markers at other epochs, so that all
    methods are visible where lines coincide. None where nothing was pruned.
    """
    ratios = by_ratio(rows)
    if not ratios:
        return None
    figure, panels = _panels(rows[0].group, ratios, "epoch", "kept examples (%)")
    handles: list[Artist] = []
    for axes, members in zip(panels, ratios.values(), strict=True):
        for number, row in enumerate(members):
            line = kept_shares(row.runs)
            step = max(1, len(members), -(-len(line) // MAX_MARKERS))
            marks = list(range(number % min(step, len(line)), len(line), step))
            handles.append(_draw_line(axes, line, row, styles, markevery=marks, markersize=5))
        axes.set_ylim(0, 104)
    seeds = legends.seeds_note(row.n for row in rows if not row.is_full)
    legends.legend(figure, handles, seeds, below=True)
    return figure


def by_ratio(rows: Iterable[RatioRow]) -> dict[float, list[RatioRow]]:
    """Returns the rows of each pruning ratio without `full`, in rising order of the ratio."""
    found: dict[float, list[RatioRow]] = {}
    for row in rows:
        if not row.is_full:
            found.setdefault(row.ratio, []).append(row)
    return dict(sorted(found.items()))


def kept_shares(runs: Sequence[Record]) -> Curve:
    """Returns (epoch, mean share of the examples kept) for each epoch; epochs count from 1."""
    shares = itertools.zip_longest(*([row["kept"] / run.num_examples for row in run.epochs] for run in runs))
    return [(epoch, statistics.fmean(share for share in of if share is not None)) for epoch, of in enumerate(shares, 1)]


@drawing()
def progress_figure(rows: Sequence[RatioRow], styles: Styles) -> Figure | None:
    """Draws accuracy in % against the time charged so far: a line for each method, a panel for each ratio.

    Every panel shows full. Lines are means over seeds by epoch; thin lines are the seeds. None where nothing was
    pruned or no epoch but the last was evaluated.
    """
    kept, left_out = timed_together(rows)
    rows = [row for row in rows if row in kept]
    ratios = by_ratio(rows)
    curves = {row.name: [line for line in map(curve, row.timed) if line] for row in rows}
    lines = list(itertools.chain(*curves.values()))
    if not ratios or all(len(line) == 1 for line in lines):
        return None
    size, name = unit(max(line[-1][0] for line in lines))
    y = f"{rows[0].settings['evaluate_on']} accuracy (%)"
    figure, panels = _panels(rows[0].group, ratios, f"charged time ({name})", y)
    handles: list[Artist] = []
    for axes, members in zip(panels, ratios.values(), strict=True):
        for row in [*(row for row in rows if row.is_full), *members]:
            seeds = [[(seconds / size, share) for seconds, share in line] for line in curves[row.name]]
            if len(seeds) > 1:
                for line in seeds:
                    _draw_line(axes, line, row, styles, linewidth=0.5, alpha=0.45, marker="", label="_seed")
            if seeds:
                handles.append(_draw_line(axes, mean_curve(seeds), row, styles))
    panels[0].set_xlim(left=0)
    thin = "Thin lines: each seed." if any(len(row.timed) > 1 for row in rows) else ""
    means = legends.seeds_note(row.seconds.n for row in rows)
    legends.legend(figure, handles, means, thin, left_out, below=True)
    return figure


def curve(run: Record) -> Curve:
    """Returns (charged seconds so far, accuracy) after each evaluated epoch; [] where an epoch lacks its seconds."""
    total, points = run.seconds["prepare"], []
    for row in run.epochs:
        if not is_number(row.get("seconds")):
            return []
        total += row["seconds"]
        if is_number(row.get("test_accuracy")):
            points.append((total, float(row["test_accuracy"])))
    return points


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Returns the means of both coordinates at each evaluated epoch that all curves have."""
    points = zip(*curves, strict=False)
    return [(statistics.fmean(x for x, _ in at), statistics.fmean(y for _, y in at)) for at in points]


def _draw_line(axes: Axes, line: Curve, row: RatioRow, styles: Styles, **changed: object) -> Artist:
    line_style: Style = {**FULL, "marker": "*", "markersize": 6} if row.is_full else styles[row.label]
    x, shares = zip(*line, strict=True)
    line_style = {"markersize": 3.5, **line_style, "label": row.display_label, **changed}
    return axes.plot(x, [100 * share for share in shares], **line_style)[0]


def _panels(title: str, ratios: Iterable[float], x: str, y: str) -> tuple[Figure, list[Axes]]:
    """Returns a figure with a panel for each ratio. All panels have the same axes."""
    ratios = list(ratios)
    look = current_look()
    columns = min(2 if look.inches < style.NARROW else MAX_COLUMNS, len(ratios))
    page, paper = (3.6, 2.0) if columns == 1 else (2.7, 1.6) if len(ratios) <= columns else (2.3, 1.4)
    height = paper if look.paper else page
    figure, panels = style.panels(title, len(ratios), columns, height, sharex=True, sharey=True)
    for axes, ratio in zip(panels, ratios, strict=True):
        axes.set_title(f"{percent(ratio)} pruned")
    style.outer_labels(panels, columns, x, y)
    return figure, panels
