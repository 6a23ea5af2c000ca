"""Two plots: how often each example was trained on, and the visits of each class against the average."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sadp_bench.core.errors import BadInput
from sadp_bench.core.text import percent
from sadp_bench.records.record import Record
from sadp_bench.records.visit_counts import unpack
from sadp_bench.reports.plots import legends, style
from sadp_bench.reports.plots.look import current_look
from sadp_bench.reports.plots.style import QUIET, Styles, drawing
from sadp_bench.reports.rows import RatioRow

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

Visits = dict[str, "NDArray[np.uint16]"]  # visits of each example, by a run's key

MAX_BINS = 50
MIN_CUT = 0.3  # share of the examples: a bar from this height on may be cut, and has its number beside it
MAX_WRITTEN = 20  # classes whose numbers are written into the heatmap
MIN_SPAN = 10.0  # %: least deviation from the mean that the colors cover
CLASS_COLORS = "PuOr_r"
EVEN_CONTRAST = 0.179  # luminance with equal contrast to black and to white, sqrt(1.05 x 0.05) - 0.05


def visits_of(records: Iterable[Record], warn: Callable[[str], None]) -> Visits:
    """Returns how often each example was trained on, by key, for the records that contain it.

    Args:
        records: The finished runs.
        warn: Is called with the reason where a record's visits are left out.
    """
    import numpy as np

    found: Visits = {}
    for record in records:
        spec = record.spec
        if record.visits is None:
            continue
        try:
            if record.num_examples != spec.train_examples:
                raise BadInput(f"the record counts {record.num_examples:,} examples, its spec {spec.train_examples:,}")
            found[spec.key] = np.array(unpack(record.visits, record.num_examples), dtype=np.uint16)
        except BadInput as error:
            warn(f"no visits of {spec.method} {percent(spec.ratio)}, seed {spec.seed}: {error}")
    return found


def shares(row: RatioRow, visits: Visits) -> list[NDArray[np.float64]]:
    """Returns the share of the epochs that trained on each example, an array for each seed with visits."""
    return [visits[run.spec.key] / run.spec.epochs for run in row.runs if run.spec.key in visits]


def varies(row: RatioRow, visits: Visits) -> bool:
    """Returns whether the visits of two examples differ by more than one, at any seed."""
    return any(int(own.max()) - int(own.min()) > 1 for run in row.runs if (own := visits.get(run.spec.key)) is not None)


def histogram(pooled: NDArray[np.float64], epochs: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns (share of the examples in each bin, edges of the bins). All bins span equally many visits."""
    import numpy as np

    width = -(-(epochs + 1) // MAX_BINS)
    edges = (np.arange(0, epochs + width + 1, width) - 0.5) / epochs
    counts, _ = np.histogram(pooled, edges)
    return counts / len(pooled), edges


@drawing()
def visits_figure(rows: Sequence[RatioRow], visits: Visits, styles: Styles) -> Figure | None:
    """Draws how often each example was trained on, in % of the epochs: a histogram over all seeds, for each method.

    A note names the methods that train on all examples equally often, to within one visit.

    Args:
        rows: The rows of one ratio.
        visits: The visits of each example, by a run's key.
        styles: The style of each label.

    Returns:
        The figure; None where no record contains visits that vary.
    """
    import numpy as np

    known = [(row, np.concatenate(seeds)) for row in rows if not row.is_full and (seeds := shares(row, visits))]
    pooled = [(row, share_n) for row, share_n in known if varies(row, visits)]
    alike = [row.display_label for row, _ in known if not varies(row, visits)]
    if not pooled:
        return None
    look = current_look()
    columns = 2 if len(pooled) in (2, 4) or look.inches < style.NARROW else min(3, len(pooled))
    columns = min(columns, len(pooled))
    height = ({1: 2.0, 2: 1.4} if look.paper else {1: 3.6, 2: 2.3}).get(columns, 1.25 if look.paper else 1.75)
    figure, panels = style.panels(ratio_title(rows[0]), len(pooled), columns, height, sharex=True, sharey=True)
    bars = [histogram(share_n, row.settings["epochs"]) for row, share_n in pooled]
    peaks = [float(heights.max()) for heights, _ in bars]
    top = 120 * max([peak for peak in peaks if peak < MIN_CUT], default=max(peaks))
    for axes, (row, share_n), (heights, edges) in zip(panels, pooled, bars, strict=True):
        color = styles[row.label]["color"]
        _draw_histogram(axes, 100 * heights, 100 * edges, top, color)
        axes.set_title(legends.fold(row.display_label, int(12 * look.inches / columns)), fontsize=8, pad=12)
        never, always = (100 * float((share_n == share).mean()) for share in (0, 1))
        axes.annotate(f"never {never:.1f} %, always {always:.1f} %", (0, 1), (0, 4), xycoords="axes fraction",
                      textcoords="offset points", fontsize=7, color=QUIET)  # fmt: skip
        axes.set(xlim=(-3, 103), ylim=(0, top))
        axes.locator_params(axis="y", nbins=4)
    style.outer_labels(panels, columns, "epochs trained on (%)", "examples (%)")
    count = legends.means_note(len(shares(row, visits)) for row, _ in pooled).replace("Means", "Examples")
    cut = "A bar with a gap is cut, and its number stands beside it." if any(100 * peak > top for peak in peaks) else ""
    even = f"All examples equally often, to within one visit: {', '.join(alike)}." if alike else ""
    legends.note(figure, f"{count}{'' if count == 'One seed' else ', pooled'}.", cut, even)
    return figure


def _draw_histogram(axes: Axes, heights: Any, edges: Any, top: float, color: str) -> None:
    """Draws bars in %. A bar that is higher than the axis gets a gap, and its number beside it."""
    axes.bar((edges[:-1] + edges[1:]) / 2, heights, (edges[1:] - edges[:-1]) * 0.9, color=color)
    for left, right, height in zip(edges, edges[1:], heights, strict=False):
        if height > top:
            place, ha = (right, "left") if left < 20 else (left, "right")
            axes.annotate(f"{height:.0f} %", (place, 0.97 * top), ha=ha, va="top", fontsize=7)
            axes.bar((left + right) / 2, 0.04 * top, right - left, 0.8 * top, color="white")


def ratio_title(row: RatioRow) -> str:
    """Returns the title of a figure of a single ratio."""
    return f"{row.group} · pruning ratio {percent(row.ratio)}"


def class_deviations(row: RatioRow) -> dict[str, float]:
    """Returns for each class how much more often its examples were trained on than the average example, in %."""
    runs = [run for run in row.runs if run.class_visits]
    found: dict[str, list[float]] = {}
    for run in runs:
        for name, visits in run.class_visits.items():
            found.setdefault(name, []).append(visits * run.num_examples / run.examples_seen)
    return {name: 100 * (statistics.fmean(ratios) - 1) for name, ratios in found.items()}


@drawing()
def classes_figure(rows: Sequence[RatioRow]) -> Figure | None:
    """Draws how much more often the examples of each class were trained on than the average example, in %.

    The plot is a heatmap of methods by classes. None where no record contains visits by class.

    Args:
        rows: The rows of one ratio.
    """
    import numpy as np

    rows = [row for row in rows if not row.is_full and any(run.class_visits for run in row.runs)]
    if not rows:
        return None
    deviations = [class_deviations(row) for row in rows]
    names = list(dict.fromkeys(name for of in deviations for name in of))
    values = np.array([[of.get(name, np.nan) for name in names] for of in deviations])
    span = max(MIN_SPAN, float(np.nanmax(np.abs(values))))
    labels = [legends.fold(row.display_label) for row in rows]
    each, rest = (0.17, 0.75) if current_look().paper else (0.3, 1.4)
    height = rest + each * sum(1 + 0.5 * label.count("\n") for label in labels)
    figure, [axes] = style.panels(ratio_title(rows[0]), height=height, grid="")
    image = axes.imshow(values, cmap=CLASS_COLORS, vmin=-span, vmax=span, aspect="auto", interpolation="nearest")
    axes.set_yticks(range(len(rows)), labels)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if len(names) <= MAX_WRITTEN:
        shown = [legends.cut(name) for name in names]
        crowded = max(map(len, shown)) > 8.3 * current_look().inches / len(shown)
        narrow = current_look().inches < 0.45 * len(shown)
        upright = {"rotation": 90} if narrow else style.TILTED if crowded else {}
        axes.set_xticks(range(len(shown)), shown, **upright)
        if not narrow:
            _write_values(axes, values, image.to_rgba(values)[..., :3])
    else:
        axes.set_xticks([])
        axes.set_xlabel(f"{len(names)} classes, in the data set's order")
    bar = figure.colorbar(image, ax=axes, fraction=0.2 / current_look().inches, pad=0.01)
    bar.set_label("visits against\nthe average (%)", fontsize=7)
    bar.outline.set_visible(False)
    legends.note(figure, legends.means_note(sum(bool(run.class_visits) for run in row.runs) for row in rows) + ".")
    return figure


def luminance(color: Sequence[float]) -> float:
    """Returns the relative luminance of an sRGB color (WCAG 2.2), from 0 (black) to 1 (white)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _write_values(axes: Axes, values: Any, colors: Any) -> None:
    """Writes each value in black or white, the one of higher contrast to its cell."""
    for place, line in enumerate(values):
        for column, value in enumerate(line):
            text = f"{round(float(value), 1) + 0.0:+.1f}".replace("-", "−")
            ink = "white" if luminance(colors[place][column]) < EVEN_CONTRAST else "black"
            axes.text(
                column,
                place,
                text,
                ha="center",
                va="center",
                fontsize=7 if current_look().inches > 6 else 6,
                color=ink,
            )
