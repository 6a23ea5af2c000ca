"""The plot of a result of `speed`: the efficiency of each method and ratio, and the noise floor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sadp_bench.core.text import percent
from sadp_bench.reports.naming import display_label
from sadp_bench.reports.plots import legends, saving, style
from sadp_bench.reports.plots.palette import method_styles
from sadp_bench.reports.plots.style import draw_points, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_speed(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draws and saves the plot in each format, and returns the files."""
    name = saving.slug(f"{result['dataset']} {result['backbone']} {result['device']} efficiency")
    return saving.save_all(efficiency_figure(result), folder, name)


@drawing()
def efficiency_figure(result: Mapping[str, Any]) -> Figure:
    """Draws the training efficiency (median and 95 % interval) of each method and ratio, on a line each.

    1 is the theoretical maximum. The band is the interval of full data against itself.
    """
    rows, noise = result["rows"], result["noise_floor"]
    styles = method_styles({row["method"]: row["method"] for row in rows})
    figure, [axes] = style.panels(title(result), height=1.4 + 0.3 * len(rows), grid="x")
    if noise["low"] is not None:
        axes.axvspan(noise["low"], noise["high"], color=style.PALE, linewidth=0)
    axes.axvline(1, color="black", linewidth=1)
    for place, row in enumerate(rows):
        bar = None if row["efficiency_low"] is None else (row["efficiency_low"], row["efficiency_high"])
        at, line_style = [(row["efficiency"], place)], {**styles[row["method"]], "linestyle": ""}
        draw_points(axes, at, row["method"], line_style, x_bars=[bar], elinewidth=1.2, capsize=0)
    axes.set_yticks(
        range(len(rows)), [f"{display_label(row['method'], row['method'])} {percent(row['ratio'])}" for row in rows]
    )
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("training efficiency: speed-up / ceiling (1: the theoretical maximum)")
    bars = "too few for intervals" if noise["low"] is None else "95 % intervals; the band: full data against itself"
    legends.note(figure, f"Medians of {result['rounds']} rounds, {bars}.")
    return figure


def title(result: Mapping[str, Any]) -> str:
    """Returns the title of a result: data set, network, number of examples, batch size, device, threads."""
    return (
        f"{result['dataset']} · {result['backbone']} · {result['train_examples']:,} examples · batch "
        f"{result['batch_size']} · {result['device']}, {result['threads']} threads"
    )
