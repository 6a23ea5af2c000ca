"""Two figures of a study: each score against the exact gradient norm, and the variance of drawing by it as a run goes on."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sadp_bench.measure.study_file import KEEPS, LABELS, RIVALS
from sadp_bench.report.plots.style import FIXED_COLORS, MARKERS, save_all, slug, spaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Of Okabe and Ito's palette, as in the report's plots; SADP's default score has SADP's color there.
COLORS = {
    "loss": "#56B4E9",
    "el2n": "#CC79A7",
    "readout": "#0072B2",
    "spikes": "#009E73",
    "plain": "#E69F00",
    "errors": "#999933",
    "layers": "#8A5A00",
    "sadp": FIXED_COLORS["sadp"],
    "uniform": FIXED_COLORS["random"],
    "exact": "#000000",
}
OPTIMUM = "optimum"  # what the exact norm is, where variances are drawn
PALE = "#b0b0b0"
LINES = {"frozen": "-", "age 0": "--"}
SOURCES = {"frozen": "same weights, no augmentation", "age 0": "as collected in the last epoch"}
MIDDLE = f"{KEEPS[1]:g}"
EDGE = 0.003  # of a panel's numbers that may lie beyond its edge at each end, and are drawn on it
LABEL_ROOM = 0.062  # of the axis, between two labels
TICKS = (1, 2, 5, 10, 1.5, 3, 20, 50, 100, 1.2, 7, 1.1, 1.3, 1.7, 4, 1.05, 1.15, 2.5, 30, 200, 500, 1000)


def draw(study: dict[str, Any], folder: Path) -> list[Path]:
    """Writes each figure as PNG (200 dpi) and SVG. Returns what was written."""
    spec = study["spec"]
    dataset, backbone = (spec[name].rpartition(":")[2] for name in ("dataset", "backbone"))
    name = slug(f"{dataset}-{backbone}-s{spec['seed']}-{study['key']}")
    figures = {"scores": scores_figure(study), "variance": variance_figure(study)}
    return [
        path for kind, figure in figures.items() for path in save_all(figure, folder, f"{name}-{kind}", ("png", "svg"))
    ]


def scores_figure(study: dict[str, Any]) -> Figure:
    """Each studied example's score against its exact gradient norm at the last stop; a panel a score, both logarithmic.

    The scale of a score changes no probability, so each is scaled to the norms' mean: one in proportion to the norm lies
    on the line.
    """
    from matplotlib.figure import Figure

    stop = study["stops"][-1]
    norm_n = [value or math.nan for value in stop["examples"]["exact"]["frozen"]]
    clouds = {name: {at: scaled(stop["examples"][name][at], norm_n) for at in SOURCES} for name in RIVALS}
    columns = -(-len(RIVALS) // 2)
    figure = Figure(figsize=(2.4 * columns, 5.3), layout="constrained")
    panels = figure.subplots(2, columns, sharex=True, sharey=True)
    for axes in panels.flat[len(RIVALS) :]:
        axes.set_visible(False)
    x_limits, y_limits = (
        limits(norm_n),
        limits([y for both in clouds.values() for values in both.values() for y in values]),
    )
    for axes, name in zip(panels.flat, RIVALS, strict=False):
        axes.set(xscale="log", yscale="log", xlim=x_limits, ylim=y_limits)
        _frame(axes)
        axes.plot(x_limits, x_limits, color="black", linewidth=0.8, zorder=3)
        for at, color in (("age 0", PALE), ("frozen", COLORS[name])):
            y_n = [min(max(y, y_limits[0]), y_limits[1]) for y in clouds[name][at]]
            axes.scatter(norm_n, y_n, s=6, color=color, alpha=0.55, linewidth=0, rasterized=True)
        rank = stop["scores"].get(name, {}).get("frozen", {}).get("spearman")
        axes.set_title(LABELS[name], fontsize=9, loc="left", color=COLORS[name], weight="bold")
        axes.set_title("" if rank is None else f"rank correlation {rank:.2f}", fontsize=8, loc="right")
        axes.label_outer()
    _ticks(panels.flat[0].xaxis, x_limits)
    _ticks(panels.flat[0].yaxis, y_limits)
    _heading(
        figure, study, f"after epoch {stop['epoch']}", f"in color: {SOURCES['frozen']}; in gray: {SOURCES['age 0']}"
    )
    figure.supxlabel("exact gradient norm", fontsize=9)
    figure.supylabel("score, scaled to the norms' mean", fontsize=9)
    return figure


def variance_figure(study: dict[str, Any]) -> Figure:
    """V over the optimum's with half of the examples kept, at each stop; a line a score, uniform sampling as reference."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    lines = {at: {name: points(study, name, at) for name in ("uniform", *RIVALS)} for at in SOURCES}
    highest = max((y for own in lines.values() for line in own.values() for _, y in line), default=2.0)
    y_limits = (max(1.1, highest) ** -0.06, max(1.1, highest) ** 1.04)
    first, last = study["at"][0], study["at"][-1]
    width = max(1, last - first)
    for axes, (at, meaning) in zip(panels, SOURCES.items(), strict=True):
        axes.set(yscale="log", ylim=y_limits, xlim=(last - 1.05 * width, last + 0.42 * width))
        _frame(axes)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        for number, (name, line) in enumerate(lines[at].items()):
            axes.plot(
                [x for x, _ in line],
                [y for _, y in line],
                **{"color": COLORS[name], "marker": MARKERS[number], "linestyle": LINES[at], "markersize": 4.5},
            )
        axes.plot((first, last), (1, 1), color=COLORS["exact"], linewidth=0.8)
        _name_ends(axes, {name: line[-1] for name, line in lines[at].items() if line} | {"exact": (last, 1)}, y_limits)
        axes.set_title(meaning, fontsize=9, loc="left")
        axes.set_xticks(_far_apart(study["at"]))
        axes.spines["bottom"].set_bounds(axes.get_xlim()[0], last)
        axes.set_xlabel("epoch", fontsize=9)
    _ticks(panels[0].yaxis, y_limits)
    panels[0].set_ylabel(f"variance over the optimum's, {100 * float(MIDDLE):.0f} % kept", fontsize=9)
    _heading(figure, study)
    return figure


def scaled(score_n: Sequence[float | None], norm_n: Sequence[float]) -> list[float]:
    """Such that the mean is the norms'; not a number where the score is none, or is 0 (which has no place on the axis)."""
    known = [score for score in score_n if score is not None]
    norms = [norm for norm in norm_n if not math.isnan(norm)]
    if not norms or not sum(known):
        return [math.nan] * len(score_n)
    factor = statistics.fmean(norms) / statistics.fmean(known)
    return [factor * score if score else math.nan for score in score_n]


def limits(values: Sequence[float]) -> tuple[float, float]:
    """Of a logarithmic axis: all but a few of the numbers, which are drawn on its edge."""
    known = sorted(value for value in values if not math.isnan(value))
    if not known:
        return 0.5, 2.0
    beyond = int(EDGE * len(known))
    return known[beyond] / 1.15, known[-1 - beyond] * 1.15


def points(study: dict[str, Any], name: str, source: str) -> list[tuple[int, float]]:
    """(epoch, V over the optimum's) of a score, where there is such a number."""
    own = [(stop["epoch"], stop["scores"].get(name, {}).get(source)) for stop in study["stops"]]
    return [(epoch, cell["over_optimum"][MIDDLE]) for epoch, cell in own if cell and cell["over_optimum"][MIDDLE]]


def _name_ends(axes: Axes, ends: dict[str, tuple[int, float]], y_limits: tuple[float, float]) -> None:
    """Each line's name beside its end, moved apart where two would overlap."""
    leader = {"arrowstyle": "-", "linewidth": 0.5, "shrinkA": 1, "shrinkB": 3, "relpos": (0, 0.5)}
    bottom, height = math.log(y_limits[0]), math.log(y_limits[1] / y_limits[0])
    names = sorted(ends, key=lambda name: ends[name][1])
    wanted = [(math.log(ends[name][1]) - bottom) / height for name in names]
    for name, place in zip(names, apart(wanted, LABEL_ROOM), strict=True):
        axes.annotate(
            OPTIMUM if name == "exact" else LABELS[name],
            ends[name],
            xytext=(0.745, place),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=COLORS[name],
            arrowprops=leader | {"color": COLORS[name]},
        )


def apart(wanted: Sequence[float], room: float) -> list[float]:
    """Rising places from 0 on, as near to those wanted (rising) as they can be with so much room between two."""
    groups: list[list[float]] = []  # of neighbours that touch; each stands around the mean of what its members want
    for place in wanted:
        groups.append([place])
        while len(groups) > 1 and _lowest(groups[-1], room) < _lowest(groups[-2], room) + len(groups[-2]) * room:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_lowest(group, room) + number * room for group in groups for number in range(len(group))]


def _lowest(group: list[float], room: float) -> float:
    return max(0.0, statistics.fmean(group) - (len(group) - 1) * room / 2)


def _far_apart(epochs: Sequence[int]) -> list[int]:
    """The last, and before it those far enough from the later ones to be read."""
    kept: list[int] = []
    for epoch in reversed(epochs):
        if not kept or kept[-1] - epoch >= 0.05 * (epochs[-1] - epochs[0]):
            kept.append(epoch)
    return kept


def _heading(figure: Figure, study: dict[str, Any], when: str = "", below: str = "") -> None:
    spec = study["spec"]
    parts = [spec["dataset"], spec["backbone"], f"{study['num_examples']:,} examples", f"seed {spec['seed']}", when]
    lines = [textwrap.fill(line, 100) for line in (", ".join(part for part in parts if part), below) if line]
    figure.suptitle("\n".join(lines), fontsize=9, x=0.01, ha="left")


def _frame(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)


def _ticks(axis: Axis, limits: tuple[float, float]) -> None:
    """Plain numbers on a logarithmic axis."""
    from matplotlib.ticker import NullLocator

    powers = [10.0**power for power in range(-12, 13)]
    ticks = (
        powers if limits[1] > 30 * limits[0] else [*TICKS, *(tick * power for power in powers for tick in (1, 2, 5))]
    )
    chosen = spaced(ticks, limits)
    axis.set_ticks(chosen, [f"{tick:g}" for tick in chosen])
    axis.set_minor_locator(NullLocator())
