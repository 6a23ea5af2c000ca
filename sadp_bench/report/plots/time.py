"""Accuracy against charged time with its Pareto front, and where the time goes: prepare, select, train."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sadp_bench.core.phases import CHARGED_PHASES
from sadp_bench.report.cells import Cell, timed_together
from sadp_bench.report.plots.style import (
    FULL,
    QUIET,
    Style,
    Styles,
    by_label,
    draw_intervals,
    finished,
    halo,
    interval,
    key,
    limits,
    means_told,
    one_axes,
    seeds_told,
    styled,
    wrapped,
)
from sadp_bench.report.tables import Row, percent

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

UNITS = (
    (2 * 86_400.0, 86_400.0, "days"),
    (2 * 3600.0, 3600.0, "hours"),
    (600.0, 60.0, "minutes"),
    (0.0, 1.0, "seconds"),
)
MIN_ACCURACIES = 2.0  # points that an axis spans
MIN_TIMES = 0.1  # of the longest: that the axis spans
STAR: Style = {"color": FULL["color"], "marker": "*", "linestyle": "", "markersize": 13, "zorder": 4}
FRONT: Style = {"color": "#999999", "marker": "o", "markersize": 14, "markerfacecolor": "none", "linestyle": "--"}
FRONT |= {"linewidth": 0.9, "drawstyle": "steps-post", "zorder": 1.2}
PHASES: dict[str, Style] = {
    "prepare": {"color": "#E69F00"},
    "select": {"color": "#D55E00"},
    "train": {"color": "#0072B2"},
    "evaluate": {"facecolor": "white", "edgecolor": "#AAAAAA", "hatch": "/////", "linewidth": 0.5},
}
RING = 10.0  # pixels around a point that the front's ring takes
SPOT = 5.0  # pixels between the places that stand for a line
# Where a text may stand beside its point: offsets in points, then how it is aligned.
SIDES: tuple[tuple[int, int, str, str], ...] = (
    (8, 4, "left", "bottom"),
    (8, -4, "left", "top"),
    (-8, 4, "right", "bottom"),
    (-8, -4, "right", "top"),
    (0, 8, "center", "bottom"),
    (0, -8, "center", "top"),
)


def unit(seconds: float) -> tuple[float, str]:
    """In which such a duration is read: seconds in it, and its name."""
    return next((size, name) for least, size, name in UNITS if seconds >= least)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """The places of the (seconds, accuracy) that no other beats: none is as fast and as good, and better in one. By time."""
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1])):
        if not front or points[place][1] > points[front[-1]][1] or points[place] == points[front[-1]]:
            front.append(place)
    return front


@styled
def time_figure(own: Sequence[Row], styles: Styles) -> Figure | None:
    """Accuracy in % against charged time: a point a (method, ratio), means with 95 % intervals both ways, full as a star,
    and the Pareto front. None where nothing was pruned. The ratio stands beside a point where it fits.
    """
    own, left_out = timed_together(finished(own))
    lines = by_label(own)
    if not lines:
        return None
    size, name = unit(max(row["seconds_mean"] for row in own))
    figure, axes = one_axes(own[0]["group"])
    axes.grid(axis="x")
    handles: list[Artist] = []
    for label, points in {**{row["label"]: [row] for row in own if row["method"] == "full"}, **lines}.items():
        handles.append(_draw_line(axes, points, size, STAR if label not in lines else styles[label], label))
    at = [_place(row, size) for row in own]
    front = [at[place] for place in pareto(at)]
    handles.append(axes.plot(*zip(*front, strict=True), **FRONT, label="Pareto front")[0])
    x_ends, y_ends = ([interval(row, *of) for row in own] for of in (("seconds", 1 / size), ("accuracy", 100.0)))
    least, most = limits([x for x, _ in at], x_ends, MIN_TIMES * max(x for x, _ in at))
    axes.set_xlim(max(0, least), most)  # an interval may reach below 0, a time can't
    axes.set_ylim(limits([y for _, y in at], y_ends, MIN_ACCURACIES))
    axes.set_xlabel(f"charged time: prepare + select + train ({name})")
    axes.set_ylabel(f"{own[0]['evaluate_on']} accuracy (%)")
    ratios = sorted({100 * row["ratio"] for points in lines.values() for row in points})
    told = f"All at a pruning ratio of {ratios[0]:g} %." if len(ratios) == 1 else "Beside a point: its pruning ratio."
    fewer = any(row["n_seconds"] < row["n"] for row in own)
    timed = f"Seconds: {means_told(row['n_seconds'] for row in own).lower()}." if fewer else ""
    key(figure, handles, seeds_told(own, "accuracy", "seconds"), timed, told, left_out)
    if len(ratios) > 1:
        _label_points(figure, axes, own, size, styles)
    return figure


def _place(row: Row, size: float) -> tuple[float, float]:
    return row["seconds_mean"] / size, 100 * row["accuracy_mean"]


def _draw_line(axes: Axes, points: Sequence[Row], size: float, look: Style, label: str) -> Artist:
    at = [_place(row, size) for row in points]
    for direction, name, scale in (("x", "seconds", 1 / size), ("y", "accuracy", 100.0)):
        ends = [interval(row, name, scale) for row in points]
        draw_intervals(axes, at, ends, direction=direction, ecolor=look["color"], alpha=0.6, capsize=2)
    return axes.plot(*zip(*at, strict=True), **{"markersize": 6, "linewidth": 0.7, **look, "label": label})[0]


def _label_points(figure: Figure, axes: Axes, own: Sequence[Row], size: float, styles: Styles) -> None:
    """Each ratio beside its point, on the first side where it covers neither a point, a bar, a line nor another ratio."""
    figure.draw_without_rendering()  # so that places on the page are known
    taken = [box for row in own for box in _taken(axes, row, size)]
    taken += [box for points in by_label(own).values() for box in _taken_between(axes, points, size)]
    for row in own:
        if row["method"] == "full":
            continue
        for x, y, ha, va in SIDES:
            text = axes.annotate(
                percent(row["ratio"]), _place(row, size), (x, y), textcoords="offset points", ha=ha, va=va,
                fontsize=7, color=styles[row["label"]]["color"], path_effects=halo(),
            )  # fmt: skip
            box = text.get_window_extent()
            if axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1) and not box.count_overlaps(taken):
                taken.append(box)
                break
            text.remove()


def _taken(axes: Axes, row: Row, size: float) -> list[Bbox]:
    """What a point and its bars cover, on the page."""
    from matplotlib.transforms import Bbox

    x, y = _place(row, size)
    x_ends, y_ends = interval(row, "seconds", 1 / size) or (x, x), interval(row, "accuracy", 100) or (y, y)
    corners = [((x, y), (x, y), RING), ((x_ends[0], y), (x_ends[1], y), 1), ((x, y_ends[0]), (x, y_ends[1]), 1)]
    return [Bbox(axes.transData.transform(ends)).padded(pad) for *ends, pad in corners]


def _taken_between(axes: Axes, points: Sequence[Row], size: float) -> list[Bbox]:
    """What the line through the points covers, on the page: a chain of spots."""
    from matplotlib.transforms import Bbox

    at = [axes.transData.transform(_place(row, size)) for row in points]
    boxes = []
    for start, end in itertools.pairwise(at):
        count = 1 + int(math.dist(start, end) / SPOT)
        boxes += [Bbox((spot, spot)).padded(1) for spot in (start + (end - start) * n / count for n in range(count))]
    return boxes


@styled
def phases_figure(own: Sequence[Cell]) -> Figure | None:
    """Seconds by phase, means over seeds: a bar a (method, ratio), full on top and its charged time as a line; evaluation,
    which is not charged, hatched. None where nothing was pruned. The whisker is the charged time's 95 % interval.
    """
    kept, left_out = timed_together([cell.row for cell in own])
    shown = sorted((cell for cell in own if cell.row in kept), key=lambda cell: not cell.is_full)
    if all(cell.is_full for cell in shown):
        return None
    size, name = unit(max(cell.row["seconds_mean"] for cell in shown))
    names = [wrapped(cell.name, 34) for cell in shown]
    places = _bar_places(shown, names)
    figure, axes = one_axes(shown[0].row["group"], 1.3 + 0.21 * (places[-1] + 1), "x")
    handles, ends = _stack(axes, shown, places, size)
    for cell in shown:
        if cell.is_full:
            charged = cell.row["seconds_mean"] / size
            handles.append(axes.axvline(charged, **FULL, linestyle=":", label=f"{cell.name}, charged"))
    right = _finish_bars(axes, shown, places, ends, size)
    axes.set_yticks(places, names)
    axes.set(ylim=(places[-1] + 0.6, -0.6), xlim=(0, min(1.1 * max(right), 1.5 * max(ends))))
    axes.set_xlabel(f"mean time ({name})")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    beside = "Beside a bar: the mean speed-up over full." if any(cell.row["speedup_mean"] for cell in shown) else ""
    key(
        figure,
        handles,
        seeds_told([cell.row for cell in shown], "seconds", count="n_seconds"),
        beside,
        left_out,
        below=True,
    )
    return figure


def _bar_places(shown: Sequence[Cell], names: Sequence[str]) -> list[float]:
    """From the top: a long name takes more room, and so does the next method, where one has several bars."""
    grouped = any(before.row["label"] == after.row["label"] for before, after in itertools.pairwise(shown))
    places = [0.0]
    for (before, after), name in zip(itertools.pairwise(shown), names[1:], strict=True):
        apart = 0.5 if grouped and before.row["label"] != after.row["label"] else 0.0
        places.append(places[-1] + 1 + apart + 0.6 * name.count("\n"))
    return places


def _stack(axes: Axes, shown: Sequence[Cell], places: Sequence[float], size: float) -> tuple[list[Any], list[float]]:
    """(a handle for each phase, where each bar ends)."""
    handles, ends = [], [0.0] * len(shown)
    for phase, look in PHASES.items():
        told = phase if phase in CHARGED_PHASES else f"{phase} (not charged)"
        widths = [statistics.fmean(run.seconds[phase] for run in cell.timed) / size for cell in shown]
        handles.append(axes.barh(places, widths, 0.74, ends, **look, label=told))
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    return handles, ends


def _finish_bars(
    axes: Axes, shown: Sequence[Cell], places: Sequence[float], ends: Sequence[float], size: float
) -> list[float]:
    """The interval of the charged time, and the speed-up beside the bar. Returns where each ends."""
    points = [(cell.row["seconds_mean"] / size, place) for place, cell in zip(places, shown, strict=True)]
    across = [interval(cell.row, "seconds", 1 / size) for cell in shown]
    draw_intervals(axes, points, across, direction="x", ecolor="black", capsize=2)
    right = [max(end, high[1] if high else 0.0) for end, high in zip(ends, across, strict=True)]
    for cell, place, end in zip(shown, places, right, strict=True):
        if cell.row["speedup_mean"] is not None and not cell.is_full:
            axes.annotate(f"{cell.row['speedup_mean']:.2f}×", (end, place), (3, 0), textcoords="offset points",
                          va="center", fontsize=7, color=QUIET, path_effects=halo())  # fmt: skip
    return right
