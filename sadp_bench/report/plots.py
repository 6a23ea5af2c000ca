"""Accuracy against pruning ratio, and measured speed-up against the theoretical maximum: two figures a group."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sadp_bench.record import Record
from sadp_bench.report.formats import percent
from sadp_bench.report.tables import Row, rows
from sadp_bench.store import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Looks = dict[str, dict[str, Any]]

# Okabe and Ito's palette without its yellow, too pale for lines on white; gray stands in.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
FIXED_COLORS = {"fewer-epochs": "#000000", "random": "#7F7F7F", "sadp": "#D55E00"}
MARKERS = "osD^vPX<>ph"
LINES = ("-", "--", ":", "-.")
WIDEST_DODGE = 0.6
# In the order in which a tick is worth having.
SPEEDUPS = (1, 2, 5, 10, 0.5, 0.2, 0.1, 20, 50, 100, 3, 1.5, 7, 0.7, 1.2, 0.8, 0.9, 1.1, 1.3, 1.7, 2.5, 4, 0.3, 15, 30)


def draw(records: Iterable[Record], folder: Path) -> list[Path]:
    """Writes each figure as PNG (200 dpi) and SVG. Returns what was written.

    A group in which nothing was pruned has no figures, and one without any speed-up only that of accuracy.
    """
    table = rows(records)
    style = looks(table)
    written = []
    for title, group in itertools.groupby(table, key=lambda row: row["group"]):
        own = list(group)
        for kind, figure in (("accuracy", accuracy_figure(own, style)), ("speedup", speedup_figure(own, style))):
            if figure is not None:
                written += [save(figure, folder / f"{slug(title)}-{kind}.{ending}") for ending in ("png", "svg")]
    return written


def looks(table: list[Row]) -> Looks:
    """By label, the same in all figures of a report: a color a method, a marker and a line style a variant of it."""
    labels = {row["label"]: row["method"] for row in table if row["method"] != "full"}
    others = [method for method in dict.fromkeys(labels.values()) if method not in FIXED_COLORS]
    colors = {method: COLORS[number % len(COLORS)] for number, method in enumerate(others)} | FIXED_COLORS
    rounds = {method: number // len(COLORS) for number, method in enumerate(others)}
    own: Looks = {}
    for number, (label, method) in enumerate(labels.items()):
        variant = list(labels.values())[:number].count(method) + rounds.get(method, 0)
        line = LINES[variant % len(LINES)]
        own[label] = {"color": colors[method], "marker": MARKERS[number % len(MARKERS)], "linestyle": line}
    return own


def accuracy_figure(own: list[Row], style: Looks) -> Figure | None:
    """Accuracy in % (mean; bars: standard deviation) against pruning ratio in %. None where nothing was pruned.

    Ticks stand at the true ratios; methods stand slightly beside them, so that none hides another.
    """
    lines = _by_label(own)
    if not lines:
        return None
    figure, axes = _figure(own[0]["group"])
    for row in own:
        if row["method"] == "full":
            _draw_full(axes, row)
    ratios = sorted({100 * row["ratio"] for points in lines.values() for row in points})
    gap = min([after - before for before, after in itertools.pairwise(ratios)], default=10)
    step = min(0.5 * gap / len(lines), WIDEST_DODGE)
    for number, (label, points) in enumerate(lines.items()):
        x = [100 * row["ratio"] + step * (number - (len(lines) - 1) / 2) for row in points]
        y = [100 * row["accuracy_mean"] for row in points]
        spread = [100 * (row["accuracy_sd"] or 0) for row in points]
        _draw_points(axes, x, y, spread, label, style[label])
    axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
    if len(ratios) == 1:
        axes.set_xlim(ratios[0] - 10, ratios[0] + 10)
    axes.set_xlabel("pruning ratio: share of example visits saved (%)")
    axes.set_ylabel(f"{own[0]['evaluate_on']} accuracy (%)")
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def speedup_figure(own: list[Row], style: Looks) -> Figure | None:
    """Measured speed-up over full against 1/(1-ratio), beside the theoretical maximum: the diagonal under equal
    epochs, 1 under equal updates. None where nothing was both pruned and timed.

    Both axes are logarithmic, so equal shares of the maximum lie equally far below it. Methods stand slightly beside
    their ratio; the maximum spreads as a bar over each such cluster, so that each point is read against its own.
    """
    lines = _by_label([row for row in own if row["speedup_mean"] is not None])
    if not lines:
        return None
    figure, axes = _figure(own[0]["group"])
    axes.set_xscale("log")
    axes.set_yscale("log")
    maximum = {1.0: 1.0} | {1 / (1 - row["ratio"]): row["nominal_maximum"] for row in own}
    nominal = sorted(maximum)
    axes.plot(nominal, [maximum[x] for x in nominal], color="black", linewidth=1, label="theoretical maximum")
    step = _log_step(nominal, len(lines))
    width = step ** (len(lines) / 2)
    axes.hlines([maximum[x] for x in nominal[1:]], [x / width for x in nominal[1:]], [x * width for x in nominal[1:]],
                color="black", linewidth=1.3, zorder=1.5)  # fmt: skip
    for number, (label, points) in enumerate(lines.items()):
        x = [step ** (number - (len(lines) - 1) / 2) / (1 - row["ratio"]) for row in points]
        y = [row["speedup_mean"] for row in points]
        look = {**style[label], "linestyle": "", "markersize": 5}
        _draw_points(axes, x, y, [row["speedup_sd"] or 0 for row in points], label, look)
    ticks = spaced(nominal, axes.get_xlim())
    axes.set_xticks(ticks, [f"{x:.2f}\n{percent(round(1 - 1 / x, 6))}" for x in ticks])
    bottom, top = axes.get_ylim()
    axes.set_ylim(min(bottom, 0.8), max(top, 1.25))
    y_ticks = spaced(list(SPEEDUPS), axes.get_ylim())
    axes.set_yticks(y_ticks, [f"{y:g}" for y in y_ticks])
    axes.minorticks_off()
    axes.set_xlabel("1 / (1 − pruning ratio); below it the ratio")
    axes.set_ylabel("measured speed-up over full (×)")
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _log_step(nominal: list[float], methods: int) -> float:
    """The factor between neighbouring methods of one cluster."""
    gap = min((math.log(after / before) for before, after in itertools.pairwise(nominal)), default=0.0)
    return math.exp(min(0.75 * gap, 0.12 * math.log(nominal[-1] / nominal[0])) / methods)


def _by_label(own: list[Row]) -> dict[str, list[Row]]:
    lines: dict[str, list[Row]] = {}
    for row in own:
        if row["method"] != "full":
            lines.setdefault(row["label"], []).append(row)
    return lines


def _figure(title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(textwrap.fill(title, 56), fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _draw_full(axes: Axes, row: Row) -> None:
    mean, spread = 100 * row["accuracy_mean"], 100 * (row["accuracy_sd"] or 0)
    axes.axhline(mean, color="black", linewidth=1, label="full")
    if spread:
        axes.axhspan(mean - spread, mean + spread, color="black", alpha=0.08, linewidth=0)


def _draw_points(
    axes: Axes, x: list[float], y: list[float], spread: Sequence[float], label: str, look: dict[str, Any]
) -> None:
    if any(spread):
        axes.errorbar(x, y, yerr=spread, fmt="none", ecolor=look["color"], elinewidth=1, capsize=2.5)
    axes.plot(x, y, **{"label": textwrap.fill(label, 26), "linewidth": 1.2, "markersize": 6, **look})


def spaced(values: list[float], limits: tuple[float, float]) -> list[float]:
    """Those within the limits that stand far enough from the earlier ones on a logarithmic axis to be read."""
    room = math.log(limits[1] / limits[0]) / 12
    kept: list[float] = []
    for value in values:
        if limits[0] <= value <= limits[1] and all(abs(math.log(value / other)) > room for other in kept):
            kept.append(value)
    return kept


def slug(title: str) -> str:
    """A file name for people, of any script, and short enough for every file system."""
    name = re.sub(r"[^\w.]+", "-", title.replace(",", "")).strip("-.")
    return name if len(name.encode()) <= 150 else f"{name[:40]}-{hashlib.sha256(title.encode()).hexdigest()[:12]}"


def save(figure: Figure, path: Path) -> Path:
    import matplotlib

    # The same records give the same bytes. A script that the font lacks shows as boxes, which needs no warning.
    with matplotlib.rc_context({"svg.hashsalt": "sadp-bench"}), warnings.catch_warnings(), atomic(path) as file:
        warnings.filterwarnings("ignore", "Glyph")
        undated = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(file, format=path.suffix[1:], dpi=200, metadata=undated)
    return path
