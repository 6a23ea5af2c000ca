"""The style that all plots share: colours, panels, points with interval bars."""

from __future__ import annotations

import os
import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sadp_bench.records.statistics import Estimate
from sadp_bench.reports.plots.look import current_look
from sadp_bench.reports.rows import RatioRow

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Style = dict[str, Any]  # arguments of a matplotlib artist
Styles = dict[str, Style]  # by a method's label
Interval = tuple[float, float]

FULL: Style = {"color": "#000000", "linewidth": 1.2}
QUIET = "#555555"  # of explanations
PALE = "#DDDDDD"
TILTED: Style = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}  # labels too wide to stand side by side
NARROW = 4.2  # inches below which panels stand one below the other
RC: dict[Any, Any] = {
    "text.parse_math": False,  # A name may contain a $.
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "errorbar.capsize": 2.5,
    "hatch.linewidth": 0.5,
    "svg.hashsalt": "sadp-bench",
    "pdf.fonttype": 42,
}

PAPER_RC: dict[Any, Any] = {
    "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7, "axes.linewidth": 0.6,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.5,
    "lines.linewidth": 1.0, "errorbar.capsize": 1.5, "grid.linewidth": 0.4, "axes.labelpad": 2.5,
}  # fmt: skip


@contextmanager
def drawing() -> Iterator[None]:
    """Applies the style in a block or, as a decorator, in a function; a user's matplotlibrc has no effect there."""
    import_matplotlib()
    import matplotlib.style

    settings = RC | (PAPER_RC if current_look().paper else {})
    with matplotlib.style.context(settings, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # A script that the font lacks shows as boxes.
        yield


def import_matplotlib() -> None:
    """Imports matplotlib without the backend and the settings of the user, which could stop it.

    It reads a file `matplotlibrc` of the working directory first. So it is imported in a folder with an empty one.
    """
    if "matplotlib" in sys.modules:  # Its importer has read the settings, and `drawing` resets them.
        return
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        with TemporaryDirectory() as folder, chdir(folder):
            Path("matplotlibrc").touch()
            import matplotlib.style  # noqa: F401
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


def by_label(rows: Iterable[RatioRow]) -> dict[str, list[RatioRow]]:
    """Returns the pruned rows of each label."""
    lines: dict[str, list[RatioRow]] = {}
    for row in rows:
        if not row.is_full:
            lines.setdefault(row.label, []).append(row)
    return lines


def panels(
    title: str,
    number: int = 1,
    columns: int = 1,
    height: float = 4.2,
    grid: str = "y",
    width: float | None = None,
    **shared: Any,
) -> tuple[Figure, list[Axes]]:
    """Returns a new figure with its axes in reading order. The last row may have empty places.

    Args:
        title: stands above the figure.
        number: of axes.
        columns: axes in a row.
        height: inches of a row.
        grid: the axis with grid lines: x, y, both, or "" for none.
        width: inches of the figure; None for the look's.
        **shared: for `Figure.subplots`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = -(-number // columns)
    width = current_look().inches if width is None else width
    figure = Figure(figsize=(width, height * lines), layout="constrained")
    FigureCanvasAgg(figure)
    figure.set_label(title)  # A paper has it in its caption; `caption_of` returns it.
    if current_look().paper:
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)  # type: ignore[union-attr, call-arg]
    else:
        letters = int(13.9 * width)
        figure.suptitle(
            "\n".join(textwrap.fill(line, letters) for line in title.splitlines()), fontsize=9, x=0.01, ha="left"
        )
    places = list(figure.subplots(lines, columns, squeeze=False, **shared).flat)
    for axes in places[number:]:
        axes.remove()
    for place, axes in enumerate(places[:number]):
        if grid:
            axes.grid(axis=grid)
        if place + columns >= number:  # Nothing stands below these axes.
            axes.tick_params(labelbottom=True)
    return figure, places[:number]


def outer_labels(axes: Sequence[Axes], columns: int, x: str, y: str) -> None:
    """Labels the axes of panels at the left and at the bottom only."""
    for place, panel in enumerate(axes):
        panel.set_xlabel(x if place + columns >= len(axes) else "")
        panel.set_ylabel(y if place % columns == 0 else "")


def interval_ends(estimate: Estimate, scale: float = 1.0) -> Interval | None:
    """Returns the ends of the 95 % interval; None without an interval."""
    low, high = estimate.low, estimate.high
    return None if low is None or high is None else (scale * low, scale * high)


def draw_points(
    axes: Axes,
    at: Sequence[tuple[float, float]],
    label: str,
    style: Style,
    x_bars: Sequence[Interval | None] = (),
    y_bars: Sequence[Interval | None] = (),
    **bar_style: Any,
) -> Artist:
    """Draws points, each with a bar from end to end of its intervals, and returns the legend's handle.

    Args:
        axes: of the points.
        at: (x, y) of each point.
        label: in the legend.
        style: for `Axes.plot`.
        x_bars: the intervals of x; () or None where a point has none.
        y_bars: the intervals of y.
        **bar_style: for `Axes.errorbar`.
    """
    for axis, bars in enumerate((x_bars, y_bars)):
        known = [(point, ends) for point, ends in zip(at, bars, strict=bool(bars)) if ends is not None]
        if known:
            x, y = zip(*(point for point, _ in known), strict=True)
            below = [max(0.0, point[axis] - low) for point, (low, _) in known]
            above = [max(0.0, high - point[axis]) for point, (_, high) in known]
            error: Style = {"yerr" if axis else "xerr": (below, above)}
            axes.errorbar(x, y, fmt="none", **error, **{"elinewidth": 1, "ecolor": style["color"], **bar_style})
    x, y = zip(*at, strict=True)
    return axes.plot(x, y, **{"markersize": 6, **style, "label": label})[0]


def halo() -> list[Any]:
    """Returns path effects for text that may lie on a line."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=1.5, foreground="white")]


def paler(color: str, share: float) -> str:
    """Returns a color mixed with white: `share` of it, as #RRGGBB."""
    parts = [int(color[place : place + 2], 16) for place in (1, 3, 5)]
    return "#" + "".join(f"{round(255 + share * (part - 255)):02X}" for part in parts)
