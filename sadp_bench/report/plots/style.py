"""What all plots share: one look, a color a method, intervals, notes, and the three formats a figure is saved in."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from sadp_bench.records.store import atomic
from sadp_bench.report.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
T = TypeVar("T")
Style = dict[str, Any]
Styles = dict[str, Style]
Interval = tuple[float, float]

# Okabe and Ito's palette without its yellow, too pale on white; brown and gray stand in. Black is full's.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
FIXED_COLORS = {"fewer-epochs": "#8A5A00", "random": "#7F7F7F", "sadp": "#D55E00"}
FULL: Style = {"color": "#000000", "linewidth": 1.2}
QUIET = "#555555"  # of what explains
NOTE: Style = {"fontsize": 7, "color": QUIET}
LINE = 135  # characters of a note in a line
ROW = 115  # and of a legend's, whose letters are larger
PALE = "#DDDDDD"
MARKERS = "osD^vPX<>ph"
LINES = ("-", "--", ":", "-.")
FORMATS = ("pdf", "png", "svg")
WIDTH = 7.2  # inches: a page's
TURNED: Style = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}  # of labels that are too wide side by side
LABEL_WIDTH = 26  # characters of a method's label in a line
RC: dict[Any, Any] = {
    "text.parse_math": False,  # names may hold a $
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


def styled(build: Callable[P, T]) -> Callable[P, T]:
    """For a function that builds a figure: it does so in the one look."""

    @functools.wraps(build)
    def wrapped(*args: P.args, **named: P.kwargs) -> T:
        with _applied():
            return build(*args, **named)

    return wrapped


@contextmanager
def _applied() -> Iterator[None]:
    import matplotlib

    # A script that the font lacks shows as boxes, which needs no warning.
    with matplotlib.rc_context(RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        yield


def method_styles(table: Sequence[Row]) -> Styles:
    """By label, the same in all figures of a report: a color a method, a marker and a line style a variant of it."""
    labels = {row["label"]: row["method"] for row in table if row["method"] != "full"}
    others = [method for method in dict.fromkeys(labels.values()) if method not in FIXED_COLORS]
    colors = {method: COLORS[number % len(COLORS)] for number, method in enumerate(others)} | FIXED_COLORS
    rounds = {method: number // len(COLORS) for number, method in enumerate(others)}
    own: Styles = {}
    for number, (label, method) in enumerate(labels.items()):
        variant = list(labels.values())[:number].count(method) + rounds.get(method, 0)
        line = LINES[variant % len(LINES)]
        own[label] = {"color": colors[method], "marker": MARKERS[number % len(MARKERS)], "linestyle": line}
    return own


def finished(own: Iterable[Row]) -> list[Row]:
    """The rows that have a run."""
    return [row for row in own if row["n"]]


def by_label(own: Iterable[Row]) -> dict[str, list[Row]]:
    """The pruned rows of each label."""
    lines: dict[str, list[Row]] = {}
    for row in own:
        if row["method"] != "full":
            lines.setdefault(row["label"], []).append(row)
    return lines


def halo() -> list[Any]:
    """For text that may lie on a line."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=1.5, foreground="white")]


def interval(row: Row, name: str, scale: float = 1.0) -> Interval | None:
    """The 95 % interval of a row's number, or None where it has none."""
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return None if low is None or high is None else (scale * low, scale * high)


def draw_intervals(
    axes: Axes, points: Sequence[tuple[float, float]], across: Sequence[Interval | None], **look: Any
) -> None:
    """A bar from end to end beside each (x, y) that has an interval; look: of `errorbar`, with direction "x" or "y"."""
    direction = look.pop("direction", "y")
    there = [(point, ends) for point, ends in zip(points, across, strict=True) if ends is not None]
    if not there:
        return
    middles = [point[direction == "y"] for point, _ in there]
    lower = [max(0.0, middle - low) for middle, (_, (low, _)) in zip(middles, there, strict=True)]
    upper = [max(0.0, high - middle) for middle, (_, (_, high)) in zip(middles, there, strict=True)]
    x, y = zip(*(point for point, _ in there), strict=True)
    axes.errorbar(x, y, **{f"{direction}err": (lower, upper), "fmt": "none", "elinewidth": 1, **look})


def limits(values: Sequence[float], intervals: Iterable[Interval | None], least: float) -> Interval:
    """Of an axis: all values are within, and their intervals as far as they don't squeeze the values: beyond the values
    there is at most half of their span (or of `least`); a longer bar runs off the axis."""
    low, high = min(values), max(values)
    span = max(high - low, least)
    ends = [end for ends in intervals if ends is not None for end in ends]
    bottom = max(min([low, *ends]), low - span / 2)
    top = min(max([high, *ends]), high + span / 2)
    room = max(0.08 * (top - bottom), (least - (top - bottom)) / 2)
    return bottom - room, top + room


def log_limits(values: Sequence[float], intervals: Iterable[Interval | None], least: float) -> Interval:
    """The same of a logarithmic axis; least: a factor. The end of an interval may be 0 or less."""
    ends = [(math.log(low) if low > 0 else -math.inf, math.log(high)) for low, high in filter(None, intervals)]
    low, high = limits([math.log(value) for value in values], ends, math.log(least))
    return math.exp(low), math.exp(high)


def one_axes(title: str, height: float = 4.2, grid: str = "y") -> tuple[Figure, Axes]:
    figure, [axes] = panels(title, 1, 1, height, grid)
    return figure, axes


def panels(
    title: str, number: int, columns: int, height: float, grid: str = "y", **shared: Any
) -> tuple[Figure, list[Axes]]:
    """So many axes of a height in inches, in reading order; those that would fill the last row are not there."""
    from matplotlib.figure import Figure

    lines = -(-number // columns)
    figure = Figure(figsize=(WIDTH, height * lines), layout="constrained")
    figure.suptitle(textwrap.fill(title, 100), fontsize=9, x=0.01, ha="left")
    every = list(figure.subplots(lines, columns, squeeze=False, **shared).flat)
    for axes in every[number:]:
        axes.remove()
    for place, axes in enumerate(every[:number]):
        axes.grid(axis=grid)
        if place + columns >= number:  # nothing below it
            axes.tick_params(labelbottom=True)
    return figure, every[:number]


def key(figure: Figure, handles: Iterable[Any], *told: str, below: bool = False) -> None:
    """The legend outside of the axes, at the right or below them, and, below all, what a reader must be told."""
    named = {str(handle.get_label()): handle for handle in handles}
    shown = [wrapped(label) for label in named]
    text = _filled(*told)
    if not below:
        figure.legend(named.values(), shown, loc="outside right upper", fontsize=8)
        below_all(figure, text)
        return
    # Only one thing can stand below the axes without covering another, so the text is the legend's title.
    columns = len(shown) if sum(9 + len(label) for label in shown) < ROW else _columns(shown)
    legend = figure.legend(named.values(), shown, loc="outside lower left", ncols=columns, fontsize=8, title=text)
    legend.set_alignment("left")
    legend.get_title().set(**NOTE)


def _columns(shown: Sequence[str]) -> int:
    return max(1, ROW // (9 + max(len(line) for label in shown for line in label.splitlines())))


def wrapped(label: str, width: int = LABEL_WIDTH) -> str:
    """In lines; a label that begins with _ would have no place in a legend."""
    return textwrap.fill(f" {label}" if label.startswith("_") else label, width, drop_whitespace=False)


def below_all(figure: Figure, *told: str) -> None:
    """What a reader must be told, of a figure without a legend below it."""
    figure.supxlabel(_filled(*told), **NOTE, x=0.01, ha="left")


def _filled(*told: str) -> str:
    return textwrap.fill(" ".join(filter(None, told)).replace(" %", "\u00a0%"), LINE)


def seeds_told(own: Sequence[Row], *names: str, count: str = "n") -> str:
    """'Means of 3 to 5 seeds; bars: 95 % intervals.' names: of the numbers whose intervals are drawn."""
    bars = any(interval(row, name) for row in own for name in names)
    return means_told([row[count] for row in own]) + ("; bars: 95 % intervals." if bars else ".")


def means_told(seeds: Iterable[int]) -> str:
    counts = sorted(set(seeds))
    if counts == [1]:
        return "One seed"
    return f"Means of {counts[0]} seeds" if len(counts) == 1 else f"Means of {counts[0]} to {counts[-1]} seeds"


def spaced(values: Sequence[float], limits: tuple[float, float]) -> list[float]:
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
    with _applied():
        if figure.get_layout_engine() is not None:
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        figure.savefig(content, format=format, dpi=200, metadata=metadata)
    return content.getvalue()
