"""Two plots of a study: each score against the exact gradient norm, and the variance of draws by each score."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sadp_bench.measure.study_file import KEEPS, LABELS, RIVALS, title
from sadp_bench.reports.plots import palette, saving, scales, style
from sadp_bench.reports.plots.style import FULL, Interval, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# EL2N, SADP and uniform draws have the colors of their methods. The other scores belong to no method.
SCORE_COLORS = {
    "loss": palette.SKY,
    "el2n": palette.REGISTERED["el2n"][0],
    "readout": palette.BLUE,
    "spikes": palette.GREEN,
    "plain": palette.PINK,
    "errors": palette.VIOLET,
    "layers": palette.WINE,
    "sadp": palette.REGISTERED["sadp"][0],
    "uniform": palette.REGISTERED["random"][0],
    "exact": FULL["color"],
}
STALE = "#b0b0b0"  # color of scores as collected
SOURCE_LINES = {"frozen": "-", "age 0": "--"}
SOURCE_NAMES = {"frozen": "same weights, no augmentation", "age 0": "as collected in the last epoch"}
MIDDLE_RATIO = f"{KEEPS[1]:g}"
EDGE = 0.003  # share of a panel's values that may lie beyond each end; they are drawn on the edge
LABEL_ROOM = 0.062  # share of the axis between two labels
MIN_STEP = 0.05  # share of the epochs between two ticks


def draw_study(study: dict[str, Any], folder: Path) -> list[Path]:
    """Draws and saves both plots as PNG (200 dpi) and SVG, and returns the files."""
    spec = study["spec"]
    dataset, backbone = (spec[name].rpartition(":")[2] for name in ("dataset", "backbone"))
    names = [dataset, backbone, title(study).replace(" ", "-r"), f"s{spec['seed']}", study["key"]]
    name = saving.slug("-".join(filter(None, names)))
    scores = saving.save_all(scores_figure(study), folder, f"{name}-scores", ("png", "svg"))
    return scores + saving.save_all(variance_figure(study), folder, f"{name}-variance", ("png", "svg"))


@drawing()
def scores_figure(study: dict[str, Any]) -> Figure:
    """Draws each studied example's score against its exact gradient norm at the last stop, a panel for each score.

    The scale of a score does not change probabilities, so each score is scaled to the mean of the norms. A score in
    proportion to the norm lies on the line. Both axes are logarithmic.
    """
    stop = study["stops"][-1]
    norm_n = [value or math.nan for value in stop["examples"]["exact"]["frozen"]]
    clouds = {name: {at: scaled(stop["examples"][name][at], norm_n) for at in SOURCE_NAMES} for name in RIVALS}
    columns = -(-len(RIVALS) // 2)
    heading = _title(study, f"after epoch {stop['epoch']}")
    heading += f"\nin color: {SOURCE_NAMES['frozen']}; in gray: {SOURCE_NAMES['age 0']}"
    figure, panels = style.panels(heading, len(RIVALS), columns, 2.65, "", 2.4 * columns, sharex=True, sharey=True)
    x_limits = limits_of_most(norm_n)
    y_limits = limits_of_most([y for cloud in clouds.values() for y_n in cloud.values() for y in y_n])
    for axes, name in zip(panels, RIVALS, strict=True):
        axes.set(xscale="log", yscale="log", xlim=x_limits, ylim=y_limits)
        axes.plot(x_limits, x_limits, color="black", linewidth=0.8, zorder=3)
        for at, color in (("age 0", STALE), ("frozen", SCORE_COLORS[name])):
            y_n = [min(max(y, y_limits[0]), y_limits[1]) for y in clouds[name][at]]
            axes.scatter(norm_n, y_n, s=6, color=color, alpha=0.55, linewidth=0, rasterized=True)
        rank = stop["scores"].get(name, {}).get("frozen", {}).get("spearman")
        axes.set_title(LABELS[name], color=SCORE_COLORS[name], weight="bold")
        axes.set_title("" if rank is None else f"rank correlation {rank:.2f}", fontsize=8, loc="right")
        axes.label_outer()
    scales.log_ticks(panels[0].xaxis, x_limits)
    scales.log_ticks(panels[0].yaxis, y_limits)
    figure.supxlabel("exact gradient norm", fontsize=9)
    figure.supylabel("score, scaled to the norms' mean", fontsize=9)
    return figure


@drawing()
def variance_figure(study: dict[str, Any]) -> Figure:
    """Draws the variance divided by the optimum's at each stop, with half of the examples kept: a line for each score."""
    figure, panels = style.panels(_title(study), 2, 2, sharey=True)
    lines = {at: {name: points(study, name, at) for name in ("uniform", *RIVALS)} for at in SOURCE_NAMES}
    highest = max((y for scores in lines.values() for line in scores.values() for _, y in line), default=2.0)
    y_limits = (max(1.1, highest) ** -0.06, max(1.1, highest) ** 1.04)
    first, last = study["at"][0], study["at"][-1]
    width = max(1, last - first)
    for axes, (at, meaning) in zip(panels, SOURCE_NAMES.items(), strict=True):
        axes.set(yscale="log", ylim=y_limits, xlim=(last - 1.05 * width, last + 0.42 * width), xlabel="epoch")
        for marker, (name, line) in zip(palette.MARKERS, lines[at].items(), strict=False):
            x, y = [x for x, _ in line], [y for _, y in line]
            axes.plot(
                x, y, color=SCORE_COLORS[name], marker=marker, linestyle=SOURCE_LINES[at], linewidth=1.5, markersize=4.5
            )
        axes.plot((first, last), (1, 1), color=SCORE_COLORS["exact"], linewidth=0.8)
        _name_ends(axes, {name: line[-1] for name, line in lines[at].items() if line} | {"exact": (last, 1)}, y_limits)
        axes.set_title(meaning)
        axes.set_xticks(_epoch_ticks(study["at"]))
        axes.spines["bottom"].set_bounds(axes.get_xlim()[0], last)
    scales.log_ticks(panels[0].yaxis, y_limits)
    panels[0].set_ylabel(f"variance over the optimum's, {100 * float(MIDDLE_RATIO):.0f} % kept")
    return figure


def scaled(score_n: Sequence[float | None], norm_n: Sequence[float]) -> list[float]:
    """Returns the scores, scaled to the mean of the norms; NaN where a score is None or 0 (it has no logarithm)."""
    known = [score for score in score_n if score is not None]
    norms = [norm for norm in norm_n if not math.isnan(norm)]
    if not norms or not sum(known):
        return [math.nan] * len(score_n)
    factor = statistics.fmean(norms) / statistics.fmean(known)
    return [factor * score if score else math.nan for score in score_n]


def limits_of_most(values: Sequence[float]) -> Interval:
    """Returns the limits of a logarithmic axis that contains all values except a few (`EDGE`)."""
    known = sorted(value for value in values if not math.isnan(value))
    if not known:
        return 0.5, 2.0
    beyond = int(EDGE * len(known))
    return known[beyond] / 1.15, known[-1 - beyond] * 1.15


def points(study: dict[str, Any], name: str, source: str) -> list[tuple[int, float]]:
    """Returns (epoch, variance divided by the optimum's) of a score, at each stop that has this number."""
    cells = [(stop["epoch"], stop["scores"].get(name, {}).get(source)) for stop in study["stops"]]
    return [
        (epoch, cell["over_optimum"][MIDDLE_RATIO])
        for epoch, cell in cells
        if cell and cell["over_optimum"][MIDDLE_RATIO]
    ]


def apart(wanted: Sequence[float], room: float) -> list[float]:
    """Returns places near the wanted ones, at least `room` apart and not below 0. Both are in rising order."""
    # Neighbours that would overlap form a group. A group is centered at the mean of its members' wanted places.
    groups: list[list[float]] = []
    for place in wanted:
        groups.append([place])
        while len(groups) > 1 and _lowest(groups[-1], room) < _lowest(groups[-2], room) + len(groups[-2]) * room:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_lowest(group, room) + number * room for group in groups for number in range(len(group))]


def _lowest(group: list[float], room: float) -> float:
    return max(0.0, statistics.fmean(group) - (len(group) - 1) * room / 2)


def _name_ends(axes: Axes, ends: dict[str, tuple[int, float]], y_limits: Interval) -> None:
    """Writes each line's name beside its end, and moves names apart where they would overlap."""
    leader = {"arrowstyle": "-", "linewidth": 0.5, "shrinkA": 1, "shrinkB": 3, "relpos": (0, 0.5)}
    bottom, height = math.log(y_limits[0]), math.log(y_limits[1] / y_limits[0])
    names = sorted(ends, key=lambda name: ends[name][1])
    wanted = [(math.log(ends[name][1]) - bottom) / height for name in names]
    for name, place in zip(names, apart(wanted, LABEL_ROOM), strict=True):
        label, color = "optimum" if name == "exact" else LABELS[name], SCORE_COLORS[name]
        axes.annotate(label, ends[name], (0.745, place), textcoords="axes fraction", va="center", fontsize=8,
                      color=color, arrowprops=leader | {"color": color})  # fmt: skip


def _epoch_ticks(epochs: Sequence[int]) -> list[int]:
    """Returns the last epoch and earlier ones, with enough room between two ticks."""
    kept: list[int] = []
    for epoch in reversed(epochs):
        if not kept or kept[-1] - epoch >= MIN_STEP * (epochs[-1] - epochs[0]):
            kept.append(epoch)
    return kept


def _title(study: dict[str, Any], when: str = "") -> str:
    spec = study["spec"]
    parts = [
        spec["dataset"],
        spec["backbone"],
        title(study),
        f"{study['num_examples']:,} examples",
        f"seed {spec['seed']}",
        when,
    ]
    return ", ".join(filter(None, parts))
