"""Training memory against the number of time steps, as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sadp_bench.report.plots.style import (
    FULL,
    draw_intervals,
    interval,
    key,
    method_styles,
    one_axes,
    seeds_told,
    styled,
)
from sadp_bench.report.tables import Row
from sadp_bench.report.tables.table import MIB

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

NAME = "train_memory_bytes"


@styled
def memory_figure(own: Sequence[Row]) -> Figure:
    """MiB (mean and 95 % interval) against T, a line each backprop; own: memory rows of one setting."""
    figure, axes = one_axes(own[0]["group"])
    names = list(dict.fromkeys(row["time"] for row in own))
    styles = method_styles([{"label": name, "method": name} for name in names]) | {"bptt": {**FULL, "marker": "*"}}
    handles: list[Artist] = []
    for name in names:
        rows = [row for row in own if row["time"] == name]
        at = [(row["timesteps"], MIB * row[f"{NAME}_mean"]) for row in rows]
        draw_intervals(axes, at, [interval(row, NAME, MIB) for row in rows], ecolor=styles[name]["color"])
        x, y = zip(*at, strict=True)
        handles += axes.plot(x, y, **{"label": name, "markersize": 8 if name == "bptt" else 6, **styles[name]})
    steps = sorted({row["timesteps"] for row in own})
    room = 0.06 * (steps[-1] - steps[0])
    axes.set(xlim=(steps[0] - room, steps[-1] + room), ylim=(0, 1.08 * _top(own)))
    axes.set_xticks(steps)
    axes.set_xlabel("time steps T")
    axes.set_ylabel("training memory (MiB)")
    key(figure, handles, seeds_told(own, NAME))
    return figure


def _top(own: Sequence[Row]) -> float:
    """Of the axis: the means, and their intervals as far as those don't squeeze them."""
    most = max(MIB * row[f"{NAME}_mean"] for row in own)
    ends = [ends[1] for row in own if (ends := interval(row, NAME, MIB))]
    return max(min(max([most, *ends]), 1.5 * most), 1e-6)
