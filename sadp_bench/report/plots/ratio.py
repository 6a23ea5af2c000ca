"""Accuracy against pruning ratio, and measured speed-up against the theoretical maximum."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sadp_bench.report.plots.style import (
    FULL,
    LABEL_WIDTH,
    QUIET,
    TURNED,
    Styles,
    by_label,
    draw_intervals,
    finished,
    interval,
    key,
    limits,
    log_limits,
    one_axes,
    seeds_told,
    spaced,
    styled,
)
from sadp_bench.report.tables import Row, percent

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_DODGE = 1.0  # points of the ratio between neighbouring methods
MIN_ACCURACIES, MIN_SPEEDUPS = 2.0, 1.25  # that an axis spans: points, and a factor
SIDE_BY_SIDE = 90  # characters of names below an axis
SAME = 0.01  # a ceiling this near to the nominal maximum, in shares of it, is not drawn
# In the order in which a tick is worth having.
SPEEDUPS = (1, 2, 5, 10, 0.5, 0.2, 0.1, 20, 50, 100, 3, 1.5, 7, 0.7, 1.2, 0.8, 0.9, 1.1, 1.3, 1.7, 2.5, 4, 0.3, 15, 30)


@styled
def accuracy_figure(own: Sequence[Row], styles: Styles) -> Figure | None:
    """Accuracy in % (mean and 95 % interval) against pruning ratio in %. None where nothing was pruned.

    Ticks stand at the true ratios; methods stand slightly beside them, so that none hides another. Of a single ratio
    the methods' names are the ticks.
    """
    own = finished(own)
    lines = by_label(own)
    if not lines:
        return None
    figure, axes = one_axes(own[0]["group"])
    handles: list[Artist] = [_draw_full(axes, row) for row in own if row["method"] == "full"]
    ratios = sorted({100 * row["ratio"] for points in lines.values() for row in points})
    gap = min([after - before for before, after in itertools.pairwise(ratios)], default=10)
    step = min(0.5 * gap / len(lines), MAX_DODGE)
    places = {label: step * (number - (len(lines) - 1) / 2) for number, label in enumerate(lines)}
    for label, points in lines.items():
        at = [(100 * row["ratio"] + places[label], 100 * row["accuracy_mean"]) for row in points]
        handles.append(_draw_points(axes, at, [interval(row, "accuracy", 100) for row in points], label, styles[label]))
    means = [100 * row["accuracy_mean"] for row in own]
    axes.set_ylim(limits(means, [interval(row, "accuracy", 100) for row in own], MIN_ACCURACIES))
    axes.set_ylabel(f"{own[0]['evaluate_on']} accuracy (%)")
    named = False
    if len(ratios) == 1:
        named = _name_ticks(axes, {label: ratios[0] + place for label, place in places.items()}, ratios[0] / 100)
    else:
        axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
        axes.set_xlabel("pruning ratio: share of example visits saved (%)")
    key(figure, handles[: -len(lines)] if named else handles, seeds_told(own, "accuracy"), below=named)
    return figure


@styled
def speedup_figure(own: Sequence[Row], styles: Styles) -> Figure | None:
    """Measured speed-up over full (mean and 95 % interval) against 1/(1-ratio), beside the theoretical maximum: the
    diagonal under equal epochs, 1 under equal updates. None where nothing was both pruned and timed.

    Both axes are logarithmic, so equal shares of the maximum lie equally far below it. Methods stand slightly beside
    their ratio; the maximum spreads as a bar over each such cluster, so that each point is read against its own, and a
    method's ceiling, where its visits give it another, is a short bar of its color.
    """
    timed = [row for row in finished(own) if row["speedup_mean"] is not None]
    lines = by_label(timed)
    if not lines:
        return None
    timed = [row for points in lines.values() for row in points]
    figure, axes = one_axes(timed[0]["group"])
    axes.set(xscale="log", yscale="log")
    maximum = {1.0: 1.0} | {1 / (1 - row["ratio"]): row["nominal_maximum"] for row in timed}
    nominal = sorted(maximum)
    step = _log_step(nominal, len(lines))
    places = {label: step ** (number - (len(lines) - 1) / 2) for number, label in enumerate(lines)}
    handles, ceilings = _draw_maximum(axes, maximum, step ** (len(lines) / 2)), []
    for label, points in lines.items():
        at = [(places[label] / (1 - row["ratio"]), row["speedup_mean"]) for row in points]
        look = {**styles[label], "linestyle": "", "markersize": 5}
        handles.append(_draw_points(axes, at, [interval(row, "speedup") for row in points], label, look))
        ceilings += _draw_ceilings(axes, points, places[label], step**0.45, styles[label])
    heights = [row["speedup_mean"] for row in timed] + [row["ceiling_mean"] for row in timed] + list(maximum.values())
    axes.set_ylim(log_limits(heights, [interval(row, "speedup") for row in timed], MIN_SPEEDUPS))
    y_ticks = spaced(SPEEDUPS, axes.get_ylim())
    axes.set_yticks(y_ticks, [f"{y:g}" for y in y_ticks])
    axes.set_ylabel("measured speed-up over full (×)")
    ratios, named = {row["ratio"] for row in timed}, False
    if len(ratios) == 1 and nominal[-1] > 1:
        named = _name_ticks(axes, {label: place * nominal[-1] for label, place in places.items()}, max(ratios))
    else:
        _ratio_ticks(axes, nominal)
    axes.minorticks_off()
    shown = [*handles[:2], *ceilings, *([] if named else handles[2:])]
    key(figure, shown, seeds_told(timed, "speedup", count="n_timed"), below=named)
    return figure


def _log_step(nominal: Sequence[float], methods: int) -> float:
    """The factor between neighbouring methods of one cluster."""
    gap = min((math.log(after / before) for before, after in itertools.pairwise(nominal)), default=0.0)
    return math.exp(min(0.75 * gap, 0.2 * math.log(nominal[-1] / nominal[0])) / methods)


def _ratio_ticks(axes: Axes, nominal: Sequence[float]) -> None:
    ticks = spaced(nominal, axes.get_xlim())
    axes.set_xticks(ticks, [f"{x:.2f}\n{percent(round(1 - 1 / x, 6))}" for x in ticks])
    axes.set_xlabel("1 / (1 − pruning ratio); below it the ratio")


def _name_ticks(axes: Axes, places: dict[str, float], ratio: float) -> bool:
    """The names of the methods, where all stand at one ratio: the axis spans their cluster. False where they are too long
    for that, and nothing is named."""
    at = list(places.values())
    log = axes.get_xscale() == "log"
    room = (at[1] / at[0] if log else at[1] - at[0]) if len(at) > 1 else (1.02 if log else 1.0)
    axes.set_xlim((at[0] / room, at[-1] * room) if log else (at[0] - room, at[-1] + room))
    names = [textwrap.fill(label, 16, break_long_words=False) for label in places]
    short = max(len(line) for name in names for line in name.splitlines()) * len(names) <= SIDE_BY_SIDE
    named = short or max(map(len, places)) <= LABEL_WIDTH
    axes.set_xticks(at, (names if short else list(places)) if named else [""] * len(at), **({} if short else TURNED))
    axes.set_xlabel(f"at a pruning ratio of {percent(ratio)}")
    return named


def _draw_full(axes: Axes, row: Row) -> Artist:
    line = axes.axhline(100 * row["accuracy_mean"], **FULL, label=row["label"])
    ends = interval(row, "accuracy", 100)
    if ends is not None:
        axes.axhspan(*ends, color=FULL["color"], alpha=0.1, linewidth=0)
    return line


def _draw_maximum(axes: Axes, maximum: dict[float, float], width: float) -> list[Artist]:
    nominal = sorted(maximum)
    even = axes.axhline(1, color=QUIET, linewidth=0.8, linestyle=":", label="as fast as full")
    if len(nominal) == 2:  # the axis spans the cluster alone
        return [even, axes.axhline(maximum[nominal[-1]], color="black", linewidth=1, label="theoretical maximum")]
    line = axes.plot(nominal, [maximum[x] for x in nominal], color="black", linewidth=1, label="theoretical maximum")[0]
    axes.hlines([maximum[x] for x in nominal[1:]], [x / width for x in nominal[1:]], [x * width for x in nominal[1:]],
                color="black", linewidth=1.3, zorder=1.5)  # fmt: skip
    return [even, line]


def _draw_ceilings(axes: Axes, points: Sequence[Row], place: float, width: float, look: dict[str, Any]) -> list[Artist]:
    """Where they differ from the nominal maximum."""
    own = [row for row in points if abs(row["ceiling_mean"] / row["nominal_maximum"] - 1) > SAME]
    if not own:
        return []
    x = [place / (1 - row["ratio"]) for row in own]
    y = [row["ceiling_mean"] for row in own]
    axes.hlines(y, [at / width for at in x], [at * width for at in x], color=look["color"], linewidth=2, zorder=1.6)
    return [axes.plot([], [], color=QUIET, linewidth=2, label="ceiling of its visits")[0]]


def _draw_points(
    axes: Axes, at: Sequence[tuple[float, float]], ends: Sequence[Any], label: str, look: dict[str, Any]
) -> Artist:
    draw_intervals(axes, at, ends, ecolor=look["color"])
    x, y = zip(*at, strict=True)
    return axes.plot(x, y, **{"label": label, "markersize": 6, **look})[0]
