"""Two plots: accuracy against charged time with its Pareto front, and the time of each phase."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sadp_bench.core.phases import CHARGED_PHASES
from sadp_bench.core.text import percent
from sadp_bench.records.comparison import TIMED_TOGETHER
from sadp_bench.records.statistics import Estimate
from sadp_bench.reports.plots import legends, scales, style
from sadp_bench.reports.plots.look import current_look
from sadp_bench.reports.plots.ratio import MIN_ACCURACIES
from sadp_bench.reports.plots.style import FULL, QUIET, Style, Styles, draw_points, drawing, interval_ends
from sadp_bench.reports.rows import RatioRow

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# For each unit: the seconds from which it is used, its length in seconds, and its name.
UNITS = ((172_800.0, 86_400.0, "days"), (7200.0, 3600.0, "hours"), (600.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))
MIN_TIMES = 0.1  # share of the longest time that the axis spans
STAR: Style = {"color": FULL["color"], "marker": "*", "linestyle": "", "markersize": 13, "zorder": 4}
FRONT: Style = {"color": "#777777", "linestyle": "-", "linewidth": 0.9, "drawstyle": "steps-post", "zorder": 1.2}
PALE_SHARE = 0.35  # opacity of points that another surely beats (`surely_beaten`)
PHASE_STYLES: dict[str, Style] = {
    "prepare": {"color": "#E69F00"},
    "select": {"color": "#D55E00"},
    "train": {"color": "#0072B2"},
    "evaluate": {"facecolor": "white", "edgecolor": "#AAAAAA", "hatch": "/////", "linewidth": 0.5},
}
RING = 10.0  # pixels around a point that a text must not cover
SPOT = 5.0  # pixels between two boxes along a line
SIDES = ((8, 4), (8, -4), (-8, 4), (-8, -4), (0, 8), (0, -8))  # offsets in points of a text from its point


def unit(seconds: float) -> tuple[float, str]:
    """Returns the length in seconds and the name of the unit that suits a duration."""
    return next((size, name) for least, size, name in UNITS if seconds >= least)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Returns the places of the points (seconds, accuracy) that no other point beats, in the order of time.

    A point beats another if it is at least as fast and as accurate, and better in one of both.
    """
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1])):
        if not front or points[place][1] > points[front[-1]][1] or points[place] == points[front[-1]]:
            front.append(place)
    return front


Span = tuple[float, float, float]  # (low, mean, high); all three are the mean where there is no interval


def span_of(estimate: Estimate, scale: float = 1.0) -> Span:
    """Returns the lower end of the interval, the mean and the upper end."""
    low, high = interval_ends(estimate, scale) or (scale * estimate.mean,) * 2
    return low, scale * estimate.mean, high


def surely_beaten(points: Sequence[tuple[Span, Span]]) -> list[bool]:
    """Returns for each point (seconds, accuracy) whether another beats it even at the least favorable ends of both."""
    return [
        any(
            other is not own and other[0][2] <= own[0][0] and other[1][0] >= own[1][2]
            and (other[0][2] < own[0][0] or other[1][0] > own[1][2])
            for other in points
        )
        for own in points
    ]  # fmt: skip


def front_band(points: Sequence[tuple[Span, Span]]) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Returns the steps (seconds, accuracy) of the worst and the best front within the intervals, in the order of time.

    The worst front takes the slowest and least accurate corner of each point, the best front the opposite corner.
    """
    worst = [(seconds[2], accuracy[0]) for seconds, accuracy in points]
    best = [(seconds[0], accuracy[2]) for seconds, accuracy in points]
    return [worst[place] for place in pareto(worst)], [best[place] for place in pareto(best)]


def timed_together(rows: Sequence[RatioRow]) -> tuple[list[RatioRow], str]:
    """Returns the rows whose seconds may be compared, and a sentence that names the others.

    Disturbed rows are left out, and rows that are not entirely from one environment (machine and versions). This environment
    is full's, or that of most pruned rows where no pruned row has full's.
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
    """Returns 'SADP 50 %' or 'Full data'."""
    return row.display_label if row.is_full else f"{row.display_label} {percent(row.ratio)}"


@drawing()
def time_figure(rows: Sequence[RatioRow], styles: Styles) -> Figure | None:
    """Draws accuracy in % against charged time: a point for each method and ratio, full as a star, the Pareto front.

    Points are means with 95 % intervals of both coordinates. The band shows where the front may lie by these intervals.
    Points that another surely beats are pale. The ratio stands beside a point where it fits. None where nothing was pruned.
    """
    rows, left_out = timed_together([row for row in rows if row.n])
    lines = style.by_label(rows)
    if not lines:
        return None
    size, name = unit(max(row.seconds.mean for row in rows))
    figure, [axes] = style.panels(rows[0].group, height=2.2 if current_look().paper else 4.2, grid="both")
    spans = [(span_of(row.seconds, 1 / size), span_of(row.accuracy, 100)) for row in rows]
    beaten = {id(row): lost for row, lost in zip(rows, surely_beaten(spans), strict=True)}
    bars = {id(row): (interval_ends(row.seconds, 1 / size), interval_ends(row.accuracy, 100)) for row in rows}
    at = [_place(row, size) for row in rows]
    (x, y), (x_bars, y_bars) = zip(*at, strict=True), zip(*bars.values(), strict=True)
    low, high = scales.limits(x, x_bars, MIN_TIMES * max(x))
    low = max(0, low)  # the room below an interval may extend below 0
    bottom, top = scales.limits(y, y_bars, MIN_ACCURACIES)
    handles: list[Artist] = []
    for label, points in ({row.label: [row] for row in rows if row.is_full} | lines).items():
        line_style = {"linewidth": 0.7, **styles.get(label, STAR)}
        for lost in (True, False):
            shown = [row for row in points if beaten[id(row)] == lost]
            if shown:
                own_bars = zip(*(bars[id(row)] for row in shown), strict=True)
                alpha = PALE_SHARE if lost else 1.0
                seen = {**line_style, "linestyle": "", "alpha": alpha}
                own = [_place(row, size) for row in shown]
                draw_points(axes, own, "_points", seen, *own_bars, alpha=0.6 * alpha, capsize=2)
        handles += axes.plot(
            [], [], **{**line_style, "linestyle": "", "markersize": 6, "label": points[0].display_label}
        )
        axes.plot(*zip(*(_place(row, size) for row in points), strict=True), color=line_style["color"], linewidth=0.5,
                  linestyle=line_style["linestyle"] or "-", alpha=0.5, zorder=1.5, label=points[0].display_label)  # fmt: skip
    front = [at[place] for place in pareto(at)]
    handles += axes.plot(*zip(*front, (high, front[-1][1]), strict=True), **FRONT, label="Pareto front of the means")
    if any(ends is not None for ends in (*x_bars, *y_bars)):
        handles.append(_draw_band(axes, spans, high, bottom))
    axes.set(xlim=(low, high), ylim=(bottom, top))
    axes.set_xlabel(f"charged time: prepare + select + train ({name})")
    axes.set_ylabel(f"{rows[0].settings['evaluate_on']} accuracy (%)")
    ratios = sorted({row.ratio for row in rows if not row.is_full})
    at_ratio = (
        f"At a pruning ratio of {percent(ratios[0])}." if len(ratios) == 1 else "Beside a point: the pruning ratio."
    )
    lost_note = "Pale: another is faster and better by the intervals." if any(beaten.values()) else ""
    seeds = legends.seeds_note([row.n for row in rows], *(row.accuracy for row in rows), *(row.seconds for row in rows))
    legends.legend(figure, handles, seeds, at_ratio, lost_note, left_out)
    if len(ratios) > 1:
        _label_ratios(figure, axes, rows, size, styles)
    return figure


def _draw_band(axes: Axes, spans: Sequence[tuple[Span, Span]], right: float, bottom: float) -> Artist:
    """Shades the region where the front may lie, between the right end and the bottom of the axes."""
    worst, best = front_band(spans)
    x = sorted({point[0] for point in (*worst, *best)} | {right})
    above = [max(accuracy for seconds, accuracy in best if seconds <= at) if at >= best[0][0] else bottom for at in x]
    below = [max((accuracy for seconds, accuracy in worst if seconds <= at), default=bottom) for at in x]
    return axes.fill_between(x, below, above, step="post", color=FRONT["color"], alpha=0.16, linewidth=0, zorder=1,
                             label="where it may lie")  # fmt: skip


def _place(row: RatioRow, size: float) -> tuple[float, float]:
    return row.seconds.mean / size, 100 * row.accuracy.mean


def _label_ratios(figure: Figure, axes: Axes, rows: Sequence[RatioRow], size: float, styles: Styles) -> None:
    """Writes each ratio beside its point, on the first side where it covers no point, bar, line or other ratio."""
    figure.draw_without_rendering()  # the layout determines places in pixels
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
    """Returns boxes in pixels that cover the points, bars and lines.

    Args:
        axes: The axes with the points, after the layout.
        rows: The row of each point.
        size: Seconds in the unit of the time axis.
    """
    from matplotlib.transforms import Bbox

    segments = [(_place(row, size), _place(row, size), RING) for row in rows]
    for row in rows:
        x, y = _place(row, size)
        # A bar may be thousands of times as long as its axis. Only the part within the axis gets boxes.
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
    """Draws mean seconds by phase: a bar for each method and ratio, with full on top. A line marks full's charged time.

    Evaluation is not charged, and hatched. The whisker is the 95 % interval of the charged time. Rows whose seconds may not
    be compared are pale. Their phases have the measured shares, scaled so that a training visit takes as long as full's.
    None where nothing was pruned, or where no row's seconds may be compared.
    """
    kept, _ = timed_together(rows)
    if not kept or all(row.is_full for row in rows):
        return None
    full = next((row for row in kept if row.is_full), None)
    shown = [row for row in rows if row in kept or full is not None and row.n]
    rows = sorted(shown, key=lambda row: not row.is_full)
    if all(row.is_full for row in rows):
        return None
    seconds = {id(row): _phase_seconds(row, None if row in kept else full) for row in rows}
    size, name = unit(max(sum(of[phase] for phase in CHARGED_PHASES) for of in seconds.values()))
    names = [legends.fold(f"{row_name(row)}{'' if row in kept else ' *'}", 34) for row in rows]
    places = _bar_places(rows, names)
    each = 0.13 if current_look().paper else 0.21
    figure, [axes] = style.panels(rows[0].group, height=0.9 + each * (places[-1] + 1), grid="x")
    if current_look().paper:
        axes.tick_params(axis="y", labelsize=6.5)
    handles: list[Artist] = []
    for row, place in zip(rows, places, strict=True):
        end = 0.0
        for phase, line_style in PHASE_STYLES.items():
            label = phase if phase in CHARGED_PHASES else f"{phase} (not charged)"
            width = seconds[id(row)][phase] / size
            if row not in kept and "color" in line_style:
                line_style = {**line_style, "color": style.paler(line_style["color"], 0.45)}
            bar = axes.barh([place], [width], 0.74, [end], **line_style, label=label)
            handles += [bar] if row in kept else []  # type: ignore[list-item]
            end += width
    charged = {id(row): sum(seconds[id(row)][phase] for phase in CHARGED_PHASES) / size for row in rows}
    ends = [sum(seconds[id(row)].values()) / size for row in rows]
    if full is not None and full in rows:
        handles.append(axes.axvline(charged[id(full)], **FULL, linestyle=":", label=f"{full.display_label}, charged"))
    timed = [(row, place) for row, place in zip(rows, places, strict=True) if row in kept]
    bars = [interval_ends(row.seconds, 1 / size) for row, _ in timed]
    at = [(charged[id(row)], place) for row, place in timed]
    draw_points(axes, at, "_", {"color": "black", "linestyle": ""}, bars, capsize=1.5)
    reach = {id(row): bar[1] for (row, _), bar in zip(timed, bars, strict=True) if bar}
    right = [max(end, reach.get(id(row), 0.0)) for row, end in zip(rows, ends, strict=True)]
    for row, place, end in zip(rows, places, right, strict=True):
        if row in kept and row.speedup.n and not row.is_full:
            axes.annotate(f"{row.speedup.mean:.2f}×", (end, place), (3, 0), textcoords="offset points",
                          va="center", fontsize=7, color=QUIET, path_effects=style.halo())  # fmt: skip
    axes.set_yticks(places, names)
    axes.set(ylim=(places[-1] + 0.6, -0.6), xlim=(0, min(1.1 * max(right), 1.5 * max(ends))))
    axes.set_xlabel(f"mean time ({name})")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    beside = "Beside a bar: the mean speed-up over full." if any(row.speedup.n for row, _ in timed) else ""
    star = (
        "* and pale: runs that were disturbed or in another environment. Their phases have the measured shares, scaled so "
        "that a training visit takes as long as full's."
    )
    seeds = legends.seeds_note([row.seconds.n for row, _ in timed], *(row.seconds for row, _ in timed))
    legends.legend(figure, handles, seeds, beside, star if len(timed) < len(rows) else "", below=True)
    return figure


def _phase_seconds(row: RatioRow, like: RatioRow | None) -> dict[str, float]:
    """Returns mean seconds by phase. With `like`, they are scaled so that a training visit takes as long as in that row."""
    runs = row.runs if like is not None else row.timed
    found = {phase: statistics.fmean(run.seconds[phase] for run in runs) for phase in PHASE_STYLES}
    if like is None:
        return found
    of_visit = statistics.fmean(run.seconds["train"] / run.examples_seen for run in like.timed)
    factor = of_visit * statistics.fmean(run.examples_seen for run in runs) / found["train"] if found["train"] else 0.0
    return {phase: factor * spent for phase, spent in found.items()}


def _bar_places(rows: Sequence[RatioRow], names: Sequence[str]) -> list[float]:
    """Returns the bars' places from the top, with more room for a folded name and between methods of several bars."""
    grouped = any(before.label == after.label for before, after in itertools.pairwise(rows))
    places = [0.0]
    for (before, after), name in zip(itertools.pairwise(rows), names[1:], strict=True):
        apart = 0.5 if grouped and before.label != after.label else 0.0
        places.append(places[-1] + 1 + apart + 0.6 * name.count("\n"))
    return places
