"""Training memory against the number of time steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sadp_bench.reports.plots import legends, scales, style
from sadp_bench.reports.plots.look import current_look
from sadp_bench.reports.plots.palette import LINES, TIMES
from sadp_bench.reports.plots.style import Style, draw_points, drawing, interval_ends
from sadp_bench.reports.tables.memory import MemoryRow
from sadp_bench.reports.tables.table import MIB

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@drawing()
def memory_figure(rows: Sequence[MemoryRow]) -> Figure:
    """Draws MiB (mean and 95 % interval) against T, a line for each way of backpropagation.

    Args:
        rows: The memory rows of one setting.
    """
    figure, [axes] = style.panels(rows[0].group, height=2.2 if current_look().paper else 4.2)
    names = dict.fromkeys(row.time for row in rows)
    styles = {name: _style(name, list(names)) for name in names}
    handles = []
    for name in names:
        line = [row for row in rows if row.time == name]
        at = [(row.timesteps, MIB * row.train_memory_bytes.mean) for row in line]
        bars = [interval_ends(row.train_memory_bytes, MIB) for row in line]
        handles.append(draw_points(axes, at, name, styles[name], y_bars=bars))
    steps = sorted({row.timesteps for row in rows})
    room = 0.06 * (steps[-1] - steps[0])
    above = [(0.0, ends[1]) for row in rows if (ends := interval_ends(row.train_memory_bytes, MIB))]
    top = scales.limits([0.0, *(MIB * row.train_memory_bytes.mean for row in rows)], above, 1e-6)[1]
    axes.set(xlim=(steps[0] - room, steps[-1] + room), ylim=(0, top))
    axes.set_xticks(steps)
    axes.set_xlabel("time steps T")
    axes.set_ylabel("training memory (MiB)")
    legends.legend(
        figure, handles, legends.seeds_note([row.n for row in rows], *(row.train_memory_bytes for row in rows))
    )
    return figure


def _style(name: str, names: list[str]) -> Style:
    """Returns the style of a choice on the time axis: color and marker by kind, and a line for each K of sltt-k."""
    kind = name.partition(" ")[0]
    number = [other for other in names if other.partition(" ")[0] == kind].index(name)
    color, marker = TIMES[kind]
    return {"color": color, "marker": marker, "linestyle": LINES[number % len(LINES)]}
