"""Accuracy against charged time with its Pareto front, and where the time goes: prepare, select, train."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sadp_bench.core.phases import CHARGED_PHASES
from sadp_bench.core.text import percent
from sadp_bench.records.metrics import TIMED_TOGETHER
from sadp_bench.reports.plots import style
from sadp_bench.reports.plots.ratio import MIN_ACCURACIES
from sadp_bench.reports.plots.style import FULL, QUIET, Style, Styles, draw_points, drawing, interval_ends
from sadp_bench.reports.rows import RatioRow

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Seconds from which a unit is used, seconds in it, and its name.
UNITS = ((172_800.0, 86_400.0, "days"), (7200.0, 3600.0, "hours"), (600.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))
MIN_TIMES = 0.1  # share of the longest time that the axis spans
STAR: Style = {"color": FULL["color"], "marker": "*", "linestyle": "", "markersize": 13, "zorder": 4}
FRONT: Style = {"color": "#999999", "marker": "o", "markersize": 14, "markerfacecolor": "none", "linestyle": "--"}
FRONT |= {"linewidth": 0.9, "drawstyle": "steps-post", "zorder": 1.2}
PHASE_STYLES: dict[str, Style] = {
    "prepare": {"color": "#E69F00"},
    "select": {"color": "#D55E00"},
    "train": {"color": "#0072B2"},
    "evaluate": {"facecolor": "white", "edgecolor": "#AAAAAA", "hatch": "/////", "linewidth": 0.5},
}
RING = 10.0  # pixels around a point that the front's ring covers
SPOT = 5.0  # pixels between the places that stand for a line
SIDES = ((8, 4), (8, -4), (-8, 4), (-8, -4), (0, 8), (0, -8))  # offsets in points of a text from its point


def unit(seconds: float) -> tuple[float, str]:
    """Returns the unit in which a duration is read: the seconds in it, and its name."""
    return next((size, name) for least, size, name in UNITS if seconds >= least)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Returns the places of the (seconds, accuracy) that no point beats, by time.

    A point beats another if it is as fast and as good, and better in one of them.
    """
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1])):
        if not front or points[place][1] > points[front[-1]][1] or points[place] == points[front[-1]]:
            front.append(place)
    return front


def timed_together(rows: Sequence[RatioRow]) -> tuple[list[RatioRow], str]:
    """Returns the rows whose seconds may be compared, and a sentence that names those left out.

    Left out are rows that were disturbed, and those of other machines or versions or with runs of several. The
    environment is that of full, or, where no pruned row shares it, that of most pruned rows.
    """
    calm = {row.label for row in rows if not row.disturbed}
    disturbed = dict.fromkeys(
        row_name(row) if row.label in calm else row.display_label for row in rows if row.disturbed
    )
    void = f"Left out, as their seconds were disturbed: {', '.join(disturbed)}." if disturbed else ""
    rows = [row for row in rows if not row.disturbed]
    places = [[row.environment(name) for name in TIMED_TOGETHER] for row in rows]
    whole = [all(len(values) == 1 for values in place) for place in places]
    pruned = [place for place, row, alike in zip(places, rows, whole, strict=True) if alike and not row.is_full]
    full = [place for place, row in zip(places, rows, strict=True) if row.is_full]
    wanted = next((place for place in full if place in pruned), max(pruned, key=pruned.count, default=None))
    kept = [row for row, place in zip(rows, places, strict=True) if place == wanted]
    others = [row_name(row) for row, place in zip(rows, places, strict=True) if place != wanted]
    also = f"Left out, as timed in other environments: {', '.join(others)}." if others else ""
    return kept, " ".join(filter(None, [void, also]))


def row_name(row: RatioRow) -> str:
    """Returns 'SADP 50 %', and 'Full data'."""
    return row.display_label if row.is_full else f"{row.display_label} {percent(row.ratio)}"


@drawing()
def time_figure(rows: Sequence[RatioRow], styles: Styles) -> Figure | None:
    """Draws accuracy in % against charged time: a point for each method and ratio, full as a star, the Pareto front.

    Points are means with 95 % intervals both ways. The ratio stands beside a point where it fits. None where nothing
    was pruned.
    """
    rows, left_out = timed_together([row for row in rows if row.n])
    lines = style.by_label(rows)
    if not lines:
        return None
    size, name = unit(max(row.seconds.mean for row in rows))
    figure, [axes] = style.panels(rows[0].group, grid="both")
    bars = {id(row): (interval_ends(row.seconds, 1 / size), interval_ends(row.accuracy, 100)) for row in rows}
    handles = []
    for label, points in ({row.label: [row] for row in rows if row.is_full} | lines).items():
        x_bars, y_bars = zip(*(bars[id(row)] for row in points), strict=True)
        line_style = {"linewidth": 0.7, **styles.get(label, STAR)}
        at = [_place(row, size) for row in points]
        handles.append(draw_points(axes, at, points[0].display_label, line_style, x_bars, y_bars, alpha=0.6, capsize=2))
    at = [_place(row, size) for row in rows]
    handles += axes.plot(*zip(*(at[place] for place in pareto(at)), strict=True), **FRONT, label="Pareto front")
    (x, y), (x_bars, y_bars) = zip(*at, strict=True), zip(*bars.values(), strict=True)
    low, high = style.limits(x, x_bars, MIN_TIMES * max(x))
    axes.set_xlim(max(0, low), high)  # The room below an interval may reach below 0; a time can't.
    axes.set_ylim(style.limits(y, y_bars, MIN_ACCURACIES))
    axes.set_xlabel(f"charged time: prepare + select + train ({name})")
    axes.set_ylabel(f"{rows[0].settings['evaluate_on']} accuracy (%)")
    ratios = sorted({row.ratio for points in lines.values() for row in points})
    beside = (
        f"All at a pruning ratio of {percent(ratios[0])}." if len(ratios) == 1 else "Beside a point: its pruning ratio."
    )
    fewer = any(row.seconds.n < row.n for row in rows)
    timed = f"Seconds: {style.means_note(row.seconds.n for row in rows).lower()}." if fewer else ""
    seeds = style.seeds_note(
        [row.n for row in rows], *(estimate for row in rows for estimate in (row.accuracy, row.seconds))
    )
    style.legend(figure, handles, seeds, timed, beside, left_out)
    if len(ratios) > 1:
        _label_ratios(figure, axes, rows, size, styles)
    return figure


def _place(row: RatioRow, size: float) -> tuple[float, float]:
    return row.seconds.mean / size, 100 * row.accuracy.mean


def _label_ratios(figure: Figure, axes: Axes, rows: Sequence[RatioRow], size: float, styles: Styles) -> None:
    """Writes each ratio beside its point, on the first side where it covers no point, bar, line or other ratio."""
    figure.draw_without_rendering()  # Places on the page are known only now.
    taken = covered(axes, rows, size)
    for row in rows:
        if row.is_full:
            continue
        for x, y in SIDES:
            text = axes.annotate(
                percent(row.ratio), _place(row, size), (x, y), textcoords="offset points",
                ha=("center", "left", "right")[(x > 0) - (x < 0)], va="bottom" if y > 0 else "top",
                fontsize=7, color=styles[row.label]["color"], path_effects=style.halo(),
            )  # fmt: skip
            box = text.get_window_extent()
            if axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1) and not box.count_overlaps(taken):
                taken.append(box)
                break
            text.remove()


def covered(axes: Axes, rows: Sequence[RatioRow], size: float) -> list[Any]:
    """Returns boxes on the page, in pixels, that stand for the points, bars and lines.

    Args:
        axes: Of the points, laid out.
        rows: The points.
        size: Seconds in the unit of the axis.
    """
    from matplotlib.transforms import Bbox

    segments = [(_place(row, size), _place(row, size), RING) for row in rows]
    for row in rows:
        x, y = _place(row, size)
        # A bar may be thousands of times as long as its axis: only the part on the axis counts.
        segments += [((end, y), (x, y), 1.0) for end in _within(axes.get_xlim(), interval_ends(row.seconds, 1 / size))]
        segments += [((x, end), (x, y), 1.0) for end in _within(axes.get_ylim(), interval_ends(row.accuracy, 100))]
    for points in style.by_label(rows).values():
        segments += [(*ends, 1.0) for ends in itertools.pairwise(_place(row, size) for row in points)]
    boxes = []
    for *ends, pad in segments:
        start, end = axes.transData.transform(ends)
        count = 1 + int(math.dist(start, end) / SPOT)
        spots = (start + (end - start) * number / count for number in range(count))
        boxes += [Bbox((spot, spot)).padded(pad) for spot in spots]
    return boxes


def _within(limits: style.Interval, ends: style.Interval | None) -> list[float]:
    """Returns the ends of a bar, moved onto the axis; none without a bar."""
    return [min(max(end, limits[0]), limits[1]) for end in ends or ()]


@drawing()
def phases_figure(rows: Sequence[RatioRow]) -> Figure | None:
    """Draws mean seconds by phase: a bar for each method and ratio, full on top with its charged time as a line.

    Evaluation, which is not charged, is hatched. The whisker is the charged time's 95 % interval. None where nothing
    was pruned.
    """
    kept, left_out = timed_together(rows)
    rows = sorted((row for row in rows if row in kept), key=lambda row: not row.is_full)
    if all(row.is_full for row in rows):
        return None
    rows = rows
    size, name = unit(max(row.seconds.mean for row in rows))
    names = [style.fold(row_name(row), 34) for row in rows]
    places = _bar_places(rows, names)
    figure, [axes] = style.panels(rows[0].group, height=1.3 + 0.21 * (places[-1] + 1), grid="x")
    handles: list[Artist] = []
    ends = [0.0] * len(rows)
    for phase, line_style in PHASE_STYLES.items():
        label = phase if phase in CHARGED_PHASES else f"{phase} (not charged)"
        widths = [statistics.fmean(run.seconds[phase] for run in row.timed) / size for row in rows]
        handles.append(axes.barh(places, widths, 0.74, ends, **line_style, label=label))  # type: ignore[arg-type]
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    charged = [row.seconds.mean / size for row in rows]
    for row, seconds in zip(rows, charged, strict=True):
        if row.is_full:
            handles.append(axes.axvline(seconds, **FULL, linestyle=":", label=f"{row.display_label}, charged"))
    bars = [interval_ends(row.seconds, 1 / size) for row in rows]
    draw_points(
        axes, list(zip(charged, places, strict=True)), "_", {"color": "black", "linestyle": ""}, bars, capsize=2
    )
    right = [max(end, bar[1] if bar else 0.0) for end, bar in zip(ends, bars, strict=True)]
    for row, place, end in zip(rows, places, right, strict=True):
        if row.speedup.n and not row.is_full:
            axes.annotate(f"{row.speedup.mean:.2f}×", (end, place), (3, 0), textcoords="offset points",
                          va="center", fontsize=7, color=QUIET, path_effects=style.halo())  # fmt: skip
    axes.set_yticks(places, names)
    axes.set(ylim=(places[-1] + 0.6, -0.6), xlim=(0, min(1.1 * max(right), 1.5 * max(ends))))
    axes.set_xlabel(f"mean time ({name})")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    beside = "Beside a bar: the mean speed-up over full." if any(row.speedup.mean for row in rows) else ""
    seeds = style.seeds_note([row.seconds.n for row in rows], *(row.seconds for row in rows))
    style.legend(figure, handles, seeds, beside, left_out, below=True)
    return figure


def _bar_places(rows: Sequence[RatioRow], names: Sequence[str]) -> list[float]:
    """Returns the bars' places from the top: a long name takes more room, as does a new method with several bars."""
    grouped = any(before.label == after.label for before, after in itertools.pairwise(rows))
    places = [0.0]
    for (before, after), name in zip(itertools.pairwise(rows), names[1:], strict=True):
        apart = 0.5 if grouped and before.label != after.label else 0.0
        places.append(places[-1] + 1 + apart + 0.6 * name.count("\n"))
    return places
