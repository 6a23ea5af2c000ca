"""Accuracy and its difference to random sampling against pruning ratio, and measured speed-up against its maximum."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sadp_bench.core.text import percent
from sadp_bench.records.statistics import Estimate
from sadp_bench.reports.plots import legends, scales, style
from sadp_bench.reports.plots.look import current_look
from sadp_bench.reports.plots.palette import REGISTERED
from sadp_bench.reports.plots.style import FULL, QUIET, Style, Styles, draw_points, drawing, interval_ends
from sadp_bench.reports.rows import RatioRow

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Lines = dict[str, list[RatioRow]]

MAX_DODGE = 1.0  # points of the ratio between neighbouring methods
MIN_ACCURACIES = 2.0  # points of accuracy that an axis spans
MIN_SPEEDUPS = 1.25  # factor that an axis spans
STEPS = 60  # straight pieces of a curve
LEVEL: Style = {"color": REGISTERED["random"][0], "linewidth": 1.0, "linestyle": "--"}
EVEN: Style = {"color": QUIET, "linewidth": 0.8, "linestyle": ":"}
MAXIMUM: Style = {"color": "black", "linewidth": 0.9}
DIFFERENCE = "over random (points)"
FAR = 5.0  # points: from this difference on, the axis is logarithmic beyond one point
DIFFERENCES = (-50, -20, -10, -5, -2, -1, 0, 1, 2, 5, 10, 20, 50)
FEW_DIFFERENCES = (-20, -5, -1, 0, 1, 5, 20)  # ticks of a horizontal axis
RATIO = "pruning ratio (%)"


@drawing()
def accuracy_figure(rows: Sequence[RatioRow], styles: Styles) -> Figure | None:
    """Draws accuracy in % (mean and 95 % interval) against pruning ratio, and beside it the paired difference to random.

    Ticks mark the true ratios. Points of methods stand slightly beside them, so that none hides another. With a single ratio
    each method has its own line. The second panel is left out where there is no such difference. None where nothing was
    pruned.
    """
    rows = [row for row in rows if row.n]
    lines = style.by_label(rows)
    if not lines:
        return None
    compared = any(row.random_difference.n for points in lines.values() for row in points)
    single = len({row.ratio for points in lines.values() for row in points}) == 1
    figure, panels = _beside(rows[0].group, 1 + compared, len(lines) if single else 0)
    what = f"{rows[0].settings['evaluate_on']} accuracy (%)"
    full = [row for row in rows if row.is_full]
    handles = [_draw_full(panels[0], row, upright=single) for row in full]
    handles += _draw_estimates(panels[0], lines, styles, "accuracy", single)
    _limit(panels[0], lines, "accuracy", [100 * row.accuracy.mean for row in full], single)
    if compared:
        draw_line = panels[1].axvline if single else panels[1].axhline
        draw_line(0, **LEVEL)
        _draw_estimates(panels[1], lines, styles, "random_difference", single)
        _limit(panels[1], lines, "random_difference", [0.0], single)
        far = _spread_near_zero(panels[1], upright=single)
    for axes, label in zip(panels, (what, DIFFERENCE), strict=False):
        narrow = current_look().inches < style.NARROW
        folded = label.replace(" (", "\n(") if narrow else label
        above = narrow and axes is not panels[-1]
        axes.set(**({"xlabel": folded} if single else {"xlabel": "" if above else RATIO, "ylabel": label}))
    if single:
        _name_lines(panels[0], [points[0].display_label for points in lines.values()])
        handles = handles[: len(full)]
    estimates = [estimate for row in rows for estimate in (row.accuracy, row.random_difference)]
    notes = [legends.seeds_note([row.n for row in rows], *estimates)]
    notes += [f"At a pruning ratio of {percent(next(iter(lines.values()))[0].ratio)}."] if single else []
    notes += ["Over random: the difference paired by seed; dashed: random itself."] if compared else []
    notes += ["Its axis is logarithmic beyond a point."] if compared and far else []
    legends.legend(figure, handles, *notes, below=True)
    return figure


def _beside(title: str, number: int, lines: int) -> tuple[Figure, list[Axes]]:
    """Returns a figure with panels beside each other, or one below the other in a narrow figure.

    Args:
        title: The figure's title.
        number: The number of panels.
        lines: The number of methods, where each has its own line of a panel; else 0.
    """
    narrow = current_look().inches < style.NARROW
    columns = 1 if narrow and not lines else number
    height = 0.75 + 0.19 * lines if lines else (1.5 if narrow else 1.8) if current_look().paper else 3.1
    shared = {"sharey": True} if lines else {"sharex": True}
    return style.panels(title, number, columns, height, "x" if lines else "y", **shared)


def _draw_estimates(axes: Axes, lines: Lines, styles: Styles, name: str, single: bool) -> list[Artist]:
    """Draws an estimate of each method in points, against the ratio, or on a line of its own at a single ratio."""
    ratios = sorted({100 * row.ratio for points in lines.values() for row in points})
    gap = min([after - before for before, after in itertools.pairwise(ratios)], default=10)
    step = min(0.5 * gap / len(lines), MAX_DODGE)
    handles = []
    for number, (label, points) in enumerate(lines.items()):
        known = [row for row in points if getattr(row, name).n]
        if not known:
            continue
        means = [100 * getattr(row, name).mean for row in known]
        bars = [interval_ends(getattr(row, name), 100) for row in known]
        if single:
            line_style = {**styles[label], "linestyle": "", "markersize": 5}
            at = [(mean, float(number)) for mean in means]
            handles.append(draw_points(axes, at, points[0].display_label, line_style, x_bars=bars))
        else:
            beside = step * (number - (len(lines) - 1) / 2)
            at = [(100 * row.ratio + beside, mean) for row, mean in zip(known, means, strict=True)]
            line_style = {**styles[label], "markersize": 4.5}
            handles.append(draw_points(axes, at, points[0].display_label, line_style, y_bars=bars))
    if not single:
        axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
    return handles


def _limit(axes: Axes, lines: Lines, name: str, also: list[float], single: bool) -> None:
    """Sets the limits of the axis of an estimate."""
    found: list[Estimate] = [getattr(row, name) for points in lines.values() for row in points]
    known = [estimate for estimate in found if estimate.n]
    values = [100 * estimate.mean for estimate in known] + also
    limits = scales.limits(values, [interval_ends(estimate, 100) for estimate in known], MIN_ACCURACIES)
    axes.set(**({"xlim": limits} if single else {"ylim": limits}))


def _spread_near_zero(axes: Axes, upright: bool) -> bool:
    """Makes an axis of large differences logarithmic beyond one point, so that small ones can be read.

    Returns:
        Whether the axis is logarithmic.
    """
    from matplotlib.ticker import NullLocator

    axis = axes.xaxis if upright else axes.yaxis
    low, high = axis.get_view_interval()
    if max(-low, high) < FAR:
        return False
    (axes.set_xscale if upright else axes.set_yscale)("symlog", linthresh=1.0, linscale=0.8)
    ticks = [tick for tick in (FEW_DIFFERENCES if upright else DIFFERENCES) if low <= tick <= high]
    axis.set_ticks(ticks, [f"{tick:+d}".replace("-", "−") if tick else "0" for tick in ticks])
    axis.set_minor_locator(NullLocator())
    (axes.set_xlim if upright else axes.set_ylim)(low, high)
    return True


def _name_lines(axes: Axes, names: Sequence[str]) -> None:
    """Writes the methods' names at the left, from the top."""
    axes.set_yticks(range(len(names)), [legends.fold(name, 34) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _draw_full(axes: Axes, row: RatioRow, upright: bool) -> Artist:
    ends = interval_ends(row.accuracy, 100)
    if ends is not None:
        draw_span = axes.axvspan if upright else axes.axhspan
        draw_span(*ends, color=FULL["color"], alpha=0.1, linewidth=0)
    draw_line = axes.axvline if upright else axes.axhline
    return draw_line(100 * row.accuracy.mean, **FULL, label=row.display_label)


@drawing()
def speedup_figure(rows: Sequence[RatioRow], styles: Styles) -> Figure | None:
    """Draws measured speed-up over full (mean and 95 % interval) against pruning ratio, a panel for each method.

    Markers stand at their true ratio. The line above them is the method's own maximum: the speed-up if the dropped examples
    cost nothing. The axis of speed-ups is logarithmic, so equal shares of the maximum lie equally far below it. With a
    single ratio each method is a line, from 1 to its maximum. None where no pruned run was timed.
    """
    left_out = "Without disturbed runs." if any(row.mark for row in rows) else ""
    lines = style.by_label(row for row in rows if row.prunes and row.n and row.speedup.n)
    rows = [row for points in lines.values() for row in points]
    if not rows:
        return None
    single = len({row.ratio for row in rows}) == 1
    values = [mean for row in rows for mean in (row.speedup.mean, row.ceiling.mean)] + [1.0]
    limits = scales.log_limits(values, [interval_ends(row.speedup) for row in rows], MIN_SPEEDUPS)
    figure, handles = (_speedup_lines if single else _speedup_panels)(lines, styles, limits)
    speedups = [row.speedup for row in rows]
    seeds = legends.seeds_note((speedup.n for speedup in speedups), *speedups)
    at = f"At a pruning ratio of {percent(rows[0].ratio)}." if single else ""
    meaning = "Maximum: the speed-up if dropped examples cost nothing."
    legends.legend(figure, handles, seeds, at, meaning, left_out, below=True)
    return figure


def _speedup_panels(lines: Lines, styles: Styles, limits: style.Interval) -> tuple[Figure, list[Artist]]:
    look = current_look()
    columns = min(len(lines), 2 if look.inches < style.NARROW else 4)
    height = (1.35, 1.9)[not look.paper] if len(lines) > 2 else (1.9, 3.0)[not look.paper]
    title = next(iter(lines.values()))[0].group
    figure, panels = style.panels(title, len(lines), columns, height, "y", sharex=True, sharey=True)
    last = max(row.ratio for points in lines.values() for row in points)
    ratios = sorted({100 * row.ratio for points in lines.values() for row in points})
    handles: list[Artist] = []
    for axes, (label, points) in zip(panels, lines.items(), strict=True):
        axes.set(yscale="log", xlim=(0, 100 * last + 6), ylim=limits)
        even = axes.axhline(1, **EVEN, label="as fast as full data")
        curve = [(100 * ratio, maximum(points, ratio)) for ratio in _steps(last)]
        line = axes.plot(*zip(*curve, strict=True), **MAXIMUM, label="maximum")[0]
        at = [(100 * row.ratio, row.speedup.mean) for row in points]
        line_style = {**styles[label], "markersize": 4.5, "linewidth": 0.8}
        draw_points(
            axes, at, points[0].display_label, line_style, y_bars=[interval_ends(row.speedup) for row in points]
        )
        axes.set_title(legends.fold(points[0].display_label, int(12 * look.inches / columns)), fontsize=8)
        axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
        handles = [line, even]
    scales.log_ticks(panels[0].yaxis, limits, 6)
    style.outer_labels(panels, columns, RATIO, "speed-up (×)")
    return figure, handles


def _steps(last: float) -> list[float]:
    return [last * step / STEPS for step in range(STEPS + 1)]


def maximum(points: Sequence[RatioRow], ratio: float) -> float:
    """Returns a method's maximal speed-up at a ratio: its ceiling at its own ratios.

    Between its own ratios the quotient of ceiling and nominal maximum is interpolated linearly, from 1 at ratio 0.
    """
    known = [(0.0, 1.0), *((row.ratio, row.ceiling.mean / row.nominal_maximum) for row in points)]
    equal_updates = points[0].nominal_maximum == 1
    nominal = 1.0 if equal_updates else 1 / (1 - ratio)
    for (left, low), (right, high) in itertools.pairwise(known):
        if ratio <= right:
            return nominal * (low + (high - low) * (ratio - left) / (right - left))
    return nominal * known[-1][1]


def _speedup_lines(lines: Lines, styles: Styles, limits: style.Interval) -> tuple[Figure, list[Artist]]:
    title = next(iter(lines.values()))[0].group
    figure, [axes] = style.panels(title, height=0.75 + 0.19 * len(lines), grid="x")
    axes.set(xscale="log", xlim=limits)
    handles: list[Artist] = [axes.axvline(1, **EVEN, label="as fast as full data")]
    for number, (label, [row]) in enumerate(lines.items()):
        axes.plot((1, row.ceiling.mean), (number, number), color=style.PALE, linewidth=3, zorder=1, label="_to maximum")
        end = axes.plot(
            [row.ceiling.mean], [number], **MAXIMUM, marker="|", markersize=9, linestyle="", label="maximum"
        )
        line_style = {**styles[label], "linestyle": "", "markersize": 5}
        at = [(row.speedup.mean, float(number))]
        draw_points(axes, at, row.display_label, line_style, x_bars=[interval_ends(row.speedup)])
        handles = [handles[0], end[0]]
    scales.log_ticks(axes.xaxis, limits)
    axes.minorticks_off()
    axes.set_xlabel("speed-up over full data (×)")
    _name_lines(axes, [points[0].display_label for points in lines.values()])
    return figure, handles
