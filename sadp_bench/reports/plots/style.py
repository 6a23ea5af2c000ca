"""The style of all plots: panels, interval bars, legends, notes, saved formats."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import math
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import chdir, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sadp_bench.core.errors import BadInput
from sadp_bench.records.statistics import Estimate
from sadp_bench.records.store import atomic
from sadp_bench.reports.rows import RatioRow

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Style = dict[str, Any]  # arguments of a matplotlib artist
Styles = dict[str, Style]  # by a method's label
Interval = tuple[float, float]

FULL: Style = {"color": "#000000", "linewidth": 1.2}
QUIET = "#555555"  # of explanations
PALE = "#DDDDDD"
NOTE_STYLE: Style = {"fontsize": 7, "color": QUIET}
TILTED: Style = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}  # labels too wide to stand side by side
FORMATS = ("pdf", "png", "svg")
PAGE_WIDTH = 7.2  # inches: a page's
PAPER_WIDTH = 5.5  # inches: the text's width of NeurIPS; a column of ICML or IEEE has 3.25
WIDTHS = (2.0, 20.0)  # inches that a figure may be wide
NARROW = 4.2  # inches below which panels stand one below the other
NOTE_LETTERS = 18.8  # characters of a note in an inch
LEGEND_LETTERS = 16.0  # characters of a legend in an inch, in larger letters than a note's
LOOKS = ("page", "paper")
MAX_CLASS = 24  # characters of a class's name; longer ones leave a plot no room
MAX_LABEL = 26  # characters of a method's label in a line
# In the order in which a tick of a logarithmic axis is worth having.
TICKS = (1, 2, 5, 10, 0.5, 0.2, 0.1, 20, 50, 100, 3, 1.5, 7, 0.7, 1.2, 0.8, 0.9, 1.1, 1.3, 1.7, 2.5, 4, 0.3, 1.05, 1.15,
         30, 200, 500, 1000)  # fmt: skip
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


@dataclass(frozen=True, slots=True)
class Look:
    """How figures look.

    Attributes:
        kind: "page", with title and notes, or "paper", without them and in letters of 8 pt; see LOOKS.
        width: Of a figure, inches; None for that of its kind.
    """

    kind: str = "page"
    width: float | None = None

    def __post_init__(self) -> None:
        """Raises BadInput where a choice is none."""
        if self.kind not in LOOKS:
            raise BadInput(f"--style is one of {', '.join(LOOKS)}, not '{self.kind}'")
        if self.width is not None and not WIDTHS[0] <= self.width <= WIDTHS[1]:
            raise BadInput(f"--width is from {WIDTHS[0]:g} to {WIDTHS[1]:g} inches, not {self.width:g}")

    @property
    def paper(self) -> bool:
        """Whether the figure is for a paper, which has its title and notes in a caption."""
        return self.kind == "paper"

    @property
    def inches(self) -> float:
        """Width of a figure."""
        return self.width or (PAPER_WIDTH if self.paper else PAGE_WIDTH)


PAGE = Look()
_look: ContextVar[Look] = ContextVar("look", default=PAGE)


@contextmanager
def looking(look: Look) -> Iterator[None]:
    """Gives figures that are built within the context this look."""
    before = _look.set(look)
    try:
        yield
    finally:
        _look.reset(before)


def look() -> Look:
    """Returns the look of the figure that is being built."""
    return _look.get()


@contextmanager
def drawing() -> Iterator[None]:
    """Applies the style in a block or, as a decorator, in a function; a user's matplotlibrc has no effect there."""
    import_matplotlib()
    import matplotlib.style

    settings = RC | (PAPER_RC if look().paper else {})
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
    width = look().inches if width is None else width
    figure = Figure(figsize=(width, height * lines), layout="constrained")
    FigureCanvasAgg(figure)
    figure.set_label(title)  # A paper has it in its caption; `caption_of` returns it.
    if look().paper:
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


def limits(values: Sequence[float], intervals: Iterable[Interval | None], least: float) -> Interval:
    """Returns the limits of an axis that holds all values, and their intervals as far as they don't squeeze the values.

    Beyond the values lies at most half of their span (or of `least`); a longer bar runs off the axis.

    Args:
        values: on the axis.
        intervals: of the values.
        least: that the axis spans.
    """
    low, high = min(values), max(values)
    span = max(high - low, least)
    ends = [end for ends in intervals if ends is not None for end in ends]
    bottom = max(min([low, *ends]), low - span / 2)
    top = min(max([high, *ends]), high + span / 2)
    room = max(0.08 * (top - bottom), (least - (top - bottom)) / 2)
    return bottom - room, top + room


def log_limits(values: Sequence[float], intervals: Iterable[Interval | None], least: float) -> Interval:
    """Returns the same for a logarithmic axis, where `least` is a factor. An interval's end may be 0."""
    ends = [(math.log(low) if low > 0 else -math.inf, math.log(high)) for low, high in filter(None, intervals)]
    low, high = limits([math.log(value) for value in values], ends, math.log(least))
    return math.exp(low), math.exp(high)


def spaced(values: Iterable[float], limits: Interval, most: int = 12) -> list[float]:
    """Returns the values within the limits that stand far enough from earlier ones on a logarithmic axis to be read."""
    room = math.log(limits[1] / limits[0]) / most
    kept: list[float] = []
    for value in values:
        if limits[0] <= value <= limits[1] and all(abs(math.log(value / other)) > room for other in kept):
            kept.append(value)
    return kept


def log_ticks(axis: Axis, limits: Interval, most: int = 12) -> None:
    """Sets ticks with plain numbers, so many at most, on a logarithmic axis."""
    from matplotlib.ticker import NullLocator

    powers = [10.0**power for power in range(-12, 13)]
    wide = limits[1] > 30 * limits[0]
    ticks = spaced(
        powers if wide else [*TICKS, *(tick * power for power in powers for tick in (1, 2, 5))], limits, most
    )
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())


def legend(figure: Figure, handles: Iterable[Any], *notes: str, below: bool = False) -> None:
    """Adds the legend outside of the axes, at their right or below them, and the notes below all.

    In a paper the legend stands below, and the notes are in the caption.
    """
    named = {str(handle.get_label()): handle for handle in handles}
    labels = [fold(label) for label in named]
    if not below and not look().paper:
        figure.legend(named.values(), labels, loc="outside right upper", fontsize=8)
        note(figure, *notes)
        return
    # Only one artist can stand below the axes without covering another, so the notes are the legend's title.
    title = "" if look().paper else _fold_notes(notes)
    if not labels:
        note(figure, *notes)
        return
    letters, size = (LEGEND_LETTERS, 8) if not look().paper else (LEGEND_LETTERS * 8 / 7, 7)
    columns = legend_columns(labels, int(letters * look().inches))
    place: Any = "outside lower center" if look().paper else "outside lower left"
    box = figure.legend(handles=list(named.values()), labels=labels, loc=place, ncols=columns, fontsize=size, title=title,
                        handletextpad=0.5, columnspacing=1.2, handlelength=1.8)  # fmt: skip
    box.set_alignment("left")
    box.get_title().set(**NOTE_STYLE)
    # The figure grows by the legend, so that its panels keep their height.
    lines = -(-len(labels) // columns) * max(1 + label.count("\n") for label in labels)
    figure.set_figheight(
        figure.get_figheight() + 0.021 * size * lines + (0.12 * (title.count("\n") + 1) if title else 0)
    )
    figure.set_label(" ".join(filter(None, [f"{figure.get_label()}.", *notes])))


def legend_columns(labels: Sequence[str], room: int) -> int:
    """Returns how many columns of a legend fit into a line of so many letters, at least 1.

    A legend fills its columns one after the other; the first ones have one entry more where they are not even.
    """
    lengths = [max(map(len, label.splitlines())) + 6 for label in labels]
    for columns in range(len(labels), 1, -1):
        each, more = divmod(len(labels), columns)
        ends = list(itertools.accumulate([each + (number < more) for number in range(columns)], initial=0))
        if sum(max(lengths[start:end]) for start, end in itertools.pairwise(ends)) <= room:
            return columns
    return 1


def paler(color: str, share: float) -> str:
    """Returns a color mixed with white: `share` of it, as #RRGGBB."""
    parts = [int(color[place : place + 2], 16) for place in (1, 3, 5)]
    return "#" + "".join(f"{round(255 + share * (part - 255)):02X}" for part in parts)


def fold(label: str, width: int = MAX_LABEL) -> str:
    """Returns a label in lines. A label that begins with _ gets a space, or legends would leave it out."""
    return textwrap.fill(f" {label}" if label.startswith("_") else label, width, drop_whitespace=False)


def cut(name: str, width: int = MAX_CLASS) -> str:
    """Returns the beginning of a name that is too long for a plot."""
    return name if len(name) <= width else f"{name[: width - 1]}…"


def note(figure: Figure, *notes: str) -> None:
    """Adds the notes below a figure that has no legend there; in a paper they are in the caption alone."""
    figure.set_label(" ".join(filter(None, [f"{figure.get_label()}.", *notes])))
    if not look().paper:
        figure.supxlabel(_fold_notes(notes), **NOTE_STYLE, x=0.01, ha="left")


def caption_of(figure: Figure) -> str:
    """Returns the title of a figure and its notes, which a paper has in the caption."""
    return str(figure.get_label())


def _fold_notes(notes: Iterable[str]) -> str:
    return textwrap.fill(" ".join(filter(None, notes)).replace(" %", "\u00a0%"), int(NOTE_LETTERS * look().inches))


def seeds_note(seeds: Iterable[int], *estimates: Estimate) -> str:
    """Returns 'Means of 3 to 5 seeds; bars: 95 % intervals.', given the numbers of seeds and the name of the bars."""
    return means_note(seeds) + ("; bars: 95 % intervals." if any(map(interval_ends, estimates)) else ".")


def means_note(seeds: Iterable[int]) -> str:
    """Returns 'Means of 3 to 5 seeds', given the numbers of seeds."""
    counts = sorted(set(seeds))
    if counts == [1]:
        return "One seed"
    return f"Means of {counts[0]} seeds" if len(counts) == 1 else f"Means of {counts[0]} to {counts[-1]} seeds"


def slug(title: str) -> str:
    """Returns a readable file name, of any script, and short enough for every file system."""
    name = re.sub(r"[^\w.]+", "-", title.replace(",", "")).strip("-.")
    return name if len(name.encode()) <= 150 else f"{name[:40]}-{hashlib.sha256(title.encode()).hexdigest()[:12]}"


def save_all(figure: Figure, folder: Path, name: str, formats: Iterable[str] = FORMATS) -> list[Path]:
    """Saves a figure in each format and returns the files."""
    paths = [folder / f"{name}.{format}" for format in formats]
    for path in paths:
        content = as_bytes(figure, path.suffix[1:])
        with atomic(path) as file:
            file.write(content)
    return paths


def as_data_uri(figure: Figure, format: str = "svg") -> str:
    """Returns a figure as a `data:` URI, for the `src` of an image: svg or png."""
    kind = {"svg": "image/svg+xml", "png": "image/png"}[format]
    return f"data:{kind};base64,{base64.b64encode(as_bytes(figure, format)).decode()}"


def as_bytes(figure: Figure, format: str) -> bytes:
    """Returns a figure as pdf, png (200 dpi) or svg. The same figure gives the same bytes.

    The figure is laid out once, before it is first saved, so that all formats agree.
    """
    content = io.BytesIO()
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(format)
    with drawing():
        if (engine := figure.get_layout_engine()) is not None:
            engine.execute(figure)
            figure.set_layout_engine(None)  # With an engine, even one that does nothing, it would be drawn twice.
        figure.savefig(content, format=format, dpi=200, metadata=metadata)
    return content.getvalue()
