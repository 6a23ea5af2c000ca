"""Accuracy against pruning ratio, and measured speed-up against the theoretical maximum."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sadp_bench.core.text import percent
from sadp_bench.reports.plots import style
from sadp_bench.reports.plots.style import FULL, QUIET, Style, Styles, draw_points, drawing, interval_ends
from sadp_bench.reports.rows import RatioRow

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_DODGE = 1.0  # points of the ratio between neighbouring methods
MIN_ACCURACIES = 2.0  # points of accuracy that an axis spans
MIN_SPEEDUPS = 1.25  # factor that an axis spans
MAX_NAMES = 90  # characters of names below an axis
MIN_DIFFERENCE = 0.01  # share of the nominal maximum by which a ceiling must differ to be drawn


@drawing()
def accuracy_figure(rows: Sequence[RatioRow], styles: Styles) -> Figure | None:
    """Draws accuracy in % (mean and 95 % interval) against pruning ratio in %; None where nothing was pruned.

    Ticks stand at the true ratios; methods stand slightly beside them, so that none hides another. With a single ratio
    the methods' names are the ticks.
    """
    rows = [row for row in rows if row.n]
    lines = style.by_label(rows)
    if not lines:
        return None
    figure, [axes] = style.panels(rows[0].group)
    handles = [_draw_full(axes, row) for row in rows if row.is_full]
    ratios = sorted({100 * row.ratio for points in lines.values() for row in points})
    gap = min([after - before for before, after in itertools.pairwise(ratios)], default=10)
    step = min(0.5 * gap / len(lines), MAX_DODGE)
    places = {label: step * (number - (len(lines) - 1) / 2) for number, label in enumerate(lines)}
    bars = {id(row): interval_ends(row.accuracy, 100) for row in rows}
    methods = []
    for label, points in lines.items():
        at = [(100 * row.ratio + places[label], 100 * row.accuracy.mean) for row in points]
        name = points[0].display_label
        methods.append(draw_points(axes, at, name, styles[label], y_bars=[bars[id(row)] for row in points]))
    axes.set_ylim(style.limits([100 * row.accuracy.mean for row in rows], bars.values(), MIN_ACCURACIES))
    axes.set_ylabel(f"{rows[0].settings['evaluate_on']} accuracy (%)")
    if len(ratios) == 1:
        at_ratio = {lines[label][0].display_label: ratios[0] + place for label, place in places.items()}
        named = _name_ticks(axes, at_ratio, ratios[0] / 100)
    else:
        named = False
        axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
        axes.set_xlabel("pruning ratio: share of example visits saved (%)")
    handles += [] if named else methods
    style.legend(
        figure, handles, style.seeds_note([row.n for row in rows], *(row.accuracy for row in rows)), below=named
    )
    return figure


@drawing()
def speedup_figure(rows: Sequence[RatioRow], styles: Styles) -> Figure | None:
    """Draws measured speed-up over full (mean and 95 % interval) against 1/(1-ratio), beside the theoretical maximum.

    The maximum is the diagonal under equal epochs, and 1 under equal updates. Both axes are logarithmic, so equal
    shares of the maximum lie equally far below it. Methods stand slightly beside their ratio; the maximum spreads as
    a bar over each such cluster, so that each point is read against it. A method's ceiling, where its visits give it
    another, is a short bar of its color. None where nothing was both pruned and timed.
    """
    left_out = "Without disturbed runs." if any(row.mark for row in rows) else ""
    lines = style.by_label(row for row in rows if row.prunes and row.n and row.speedup.n)
    rows = [row for points in lines.values() for row in points]
    if not rows:
        return None
    figure, [axes] = style.panels(rows[0].group)
    axes.set(xscale="log", yscale="log")
    maximum = {1.0: 1.0} | {1 / (1 - row.ratio): row.nominal_maximum for row in rows}
    nominal = sorted(maximum)
    gap = min((math.log(after / before) for before, after in itertools.pairwise(nominal)), default=0.0)
    step = math.exp(min(0.75 * gap, 0.2 * math.log(nominal[-1] / nominal[0])) / len(lines))
    places = {label: step ** (number - (len(lines) - 1) / 2) for number, label in enumerate(lines)}
    handles, methods = _draw_maximum(axes, maximum, step ** (len(lines) / 2)), []
    for label, points in lines.items():
        at = [(places[label] / (1 - row.ratio), row.speedup.mean) for row in points]
        line_style = {**styles[label], "linestyle": "", "markersize": 5}
        bars = [interval_ends(row.speedup) for row in points]
        methods.append(draw_points(axes, at, points[0].display_label, line_style, y_bars=bars))
        handles += _draw_ceilings(axes, points, places[label], step**0.45, styles[label])
    heights = [mean for row in rows for mean in (row.speedup.mean, row.ceiling.mean)] + list(maximum.values())
    axes.set_ylim(style.log_limits(heights, [interval_ends(row.speedup) for row in rows], MIN_SPEEDUPS))
    style.log_ticks(axes.yaxis, axes.get_ylim())
    axes.set_ylabel("measured speed-up over full (×)")
    if len(nominal) == 2 and len({row.ratio for row in rows}) == 1:
        at_ratio = {lines[label][0].display_label: place * nominal[-1] for label, place in places.items()}
        named = _name_ticks(axes, at_ratio, rows[0].ratio)
    else:
        named = False
        ticks = style.spaced(nominal, axes.get_xlim())
        axes.set_xticks(ticks, [f"{x:.2f}\n{percent(round(1 - 1 / x, 6))}" for x in ticks])
        axes.set_xlabel("1 / (1 − pruning ratio); below it the ratio")
    axes.minorticks_off()
    handles += [] if named else methods
    speedups = [row.speedup for row in rows]
    seeds = style.seeds_note((speedup.n for speedup in speedups), *speedups)
    style.legend(figure, handles, seeds, left_out, below=named)
    return figure


def _name_ticks(axes: Axes, places: dict[str, float], ratio: float) -> bool:
    """Sets the methods' names as ticks and lets the axis span the cluster; False where names are too long."""
    at = list(places.values())
    log = axes.get_xscale() == "log"
    room = (at[1] / at[0] if log else at[1] - at[0]) if len(at) > 1 else (1.02 if log else 1.0)
    axes.set_xlim((at[0] / room, at[-1] * room) if log else (at[0] - room, at[-1] + room))
    names = [textwrap.fill(label, 16, break_long_words=False) for label in places]
    short = max(len(line) for name in names for line in name.splitlines()) * len(names) <= MAX_NAMES
    named = short or max(map(len, places)) <= style.MAX_LABEL
    labels = (names if short else list(places)) if named else [""] * len(at)
    axes.set_xticks(at, labels, **({} if short else style.TILTED))
    axes.set_xlabel(f"at a pruning ratio of {percent(ratio)}")
    return named


def _draw_full(axes: Axes, row: RatioRow) -> Artist:
    ends = interval_ends(row.accuracy, 100)
    if ends is not None:
        axes.axhspan(*ends, color=FULL["color"], alpha=0.1, linewidth=0)
    return axes.axhline(100 * row.accuracy.mean, **FULL, label=row.display_label)


def _draw_maximum(axes: Axes, maximum: dict[float, float], width: float) -> list[Artist]:
    nominal = sorted(maximum)
    line: Style = {"color": "black", "linewidth": 1, "label": "theoretical maximum"}
    even = axes.axhline(1, color=QUIET, linewidth=0.8, linestyle=":", label="as fast as full")
    if len(nominal) == 2:  # The axis spans the cluster alone.
        return [even, axes.axhline(maximum[nominal[-1]], **line)]
    clusters = nominal[1:]
    axes.hlines([maximum[x] for x in clusters], [x / width for x in clusters], [x * width for x in clusters],
                color="black", linewidth=1.3, zorder=1.5)  # fmt: skip
    return [even, axes.plot(nominal, [maximum[x] for x in nominal], **line)[0]]


def _draw_ceilings(
    axes: Axes, points: Sequence[RatioRow], place: float, width: float, line_style: Style
) -> list[Artist]:
    """Draws the ceilings that differ from the nominal maximum, and returns a handle if there are any."""
    points = [row for row in points if abs(row.ceiling.mean / row.nominal_maximum - 1) > MIN_DIFFERENCE]
    if not points:
        return []
    x = [place / (1 - row.ratio) for row in points]
    y = [row.ceiling.mean for row in points]
    axes.hlines(
        y, [at / width for at in x], [at * width for at in x], color=line_style["color"], linewidth=2, zorder=1.6
    )
    return [axes.plot([], [], color=QUIET, linewidth=2, label="ceiling of its visits")[0]]
