"""What `speed` measured: each arm's efficiency beside what the noise alone does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sadp_bench.report.plots.style import PALE, method_styles, one_axes, save_all, slug, styled
from sadp_bench.report.plots.style import below_all as note
from sadp_bench.report.tables import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes the figure in each format. Returns what was written."""
    name = slug(f"{result['dataset']} {result['backbone']} {result['device']} efficiency")
    return save_all(efficiency_figure(result), folder, name)


@styled
def efficiency_figure(result: Mapping[str, Any]) -> Figure:
    """Training efficiency, median and 95 % interval, a line an arm; 1 is the theoretical maximum, and the band what full
    data against itself shows."""
    rows, noise = result["rows"], result["noise_floor"]
    styles = method_styles([{"label": row["method"], "method": row["method"]} for row in rows])
    figure, axes = one_axes(title(result), height=1.4 + 0.3 * len(rows), grid="x")
    if noise["low"] is not None:
        axes.axvspan(noise["low"], noise["high"], color=PALE, linewidth=0)
    axes.axvline(1, color="black", linewidth=1)
    for place, row in enumerate(rows):
        look = styles[row["method"]]
        if row["efficiency_low"] is not None:
            ends = [row["efficiency_low"], row["efficiency_high"]]
            axes.plot(ends, [place, place], color=look["color"], linewidth=1.2, solid_capstyle="butt")
        axes.plot([row["efficiency"]], [place], color=look["color"], marker=look["marker"], linestyle="", markersize=6)
    axes.set_yticks(range(len(rows)), [f"{row['method']} {percent(row['ratio'])}" for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("training efficiency: speed-up / ceiling (1: the theoretical maximum)")
    drawn = (
        "95 % intervals; the band: full data against itself" if noise["low"] is not None else "too few for intervals"
    )
    note(figure, f"Medians of {result['rounds']} rounds, {drawn}.")
    return figure


def title(result: Mapping[str, Any]) -> str:
    return (
        f"{result['dataset']} · {result['backbone']} · {result['train_examples']:,} examples · batch "
        f"{result['batch_size']} · {result['device']}, {result['threads']} threads"
    )
