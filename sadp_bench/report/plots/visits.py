"""What gets pruned: how often each example was trained on, and which classes were trained on more than others."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sadp_bench.report.cells import Cell, Visits
from sadp_bench.report.plots.style import (
    QUIET,
    TURNED,
    WIDTH,
    Styles,
    below_all,
    means_told,
    one_axes,
    panels,
    styled,
    wrapped,
)
from sadp_bench.report.tables import percent

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

MAX_BINS = 50
CUT = 0.3  # of the examples: higher bars may be cut, with their numbers written
MAX_WRITTEN = 20  # classes whose numbers are written into the heatmap
MIN_SPAN = 10.0  # % from the mean, that the colors reach
CLASS_COLORS = "PuOr_r"
EVEN_CONTRAST = 0.179  # the luminance from which black and white differ alike, sqrt(1.05 x 0.05) - 0.05


def shares(cell: Cell, visits: Visits) -> list[NDArray[np.float64]]:
    """By seed, each example's share of the epochs in which it was trained on; of the seeds that tell."""
    return [visits[run.spec.key] / run.spec.epochs for run in cell.runs if run.spec.key in visits]


def histogram(pooled: NDArray[np.float64], epochs: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(share of the examples in each bin, edges). As many bins as an example can have visits, or else even parts of them."""
    import numpy as np

    width = -(-(epochs + 1) // MAX_BINS)
    edges = (np.arange(0, epochs + width + 1, width) - 0.5) / epochs
    counts, _ = np.histogram(pooled, edges)
    return counts / len(pooled), edges


@styled
def visits_figure(own: Sequence[Cell], visits: Visits, styles: Styles) -> Figure | None:
    """How often each example was trained on, in % of the epochs: a histogram a method, over the examples of all seeds
    together. own: cells of one ratio. None where no record tells.
    """
    import numpy as np

    told = [(cell, np.concatenate(several)) for cell in own if not cell.is_full and (several := shares(cell, visits))]
    if not told:
        return None
    row, columns = told[0][0].row, 2 if len(told) in (2, 4) else min(3, len(told))
    height = {1: 3.6, 2: 2.3}.get(columns, 1.75)
    figure, every = panels(at_ratio(told[0][0]), len(told), columns, height, sharex=True, sharey=True)
    bars = [histogram(pooled, row["epochs"]) for _, pooled in told]
    peaks = [float(heights.max()) for heights, _ in bars]
    cut = False
    top = 120 * max([peak for peak in peaks if peak < CUT], default=max(peaks))
    for number, (axes, (cell, pooled), (heights, edges)) in enumerate(zip(every, told, bars, strict=True)):
        color = styles[cell.row["label"]]["color"]
        axes.bar(100 * (edges[:-1] + edges[1:]) / 2, 100 * heights, 100 * np.diff(edges) * 0.9, color=color)
        for left, right, height in zip(edges, edges[1:], 100 * heights, strict=False):
            if height > top:
                cut = True
                place, ha = (right, "left") if left < 0.2 else (left, "right")
                axes.annotate(f"{height:.0f} %", (100 * place, 0.97 * top), ha=ha, va="top", fontsize=7)
                axes.bar(50 * (left + right), 0.04 * top, 100 * (right - left), 0.8 * top, color="white")
        axes.set_title(wrapped(cell.row["label"], 36), color=color, weight="bold", fontsize=8, pad=13)
        never, always = (100 * float((pooled == share).mean()) for share in (0, 1))
        axes.annotate(f"never {never:.1f} %, always {always:.1f} %", (0, 1), (0, 4), xycoords="axes fraction",
                      textcoords="offset points", fontsize=7, color=QUIET)  # fmt: skip
        axes.set(xlim=(-3, 103), ylim=(0, top))
        axes.locator_params(axis="y", nbins=4)
        axes.set_xlabel("epochs trained on (%)" if number + columns >= len(told) else "")
        axes.set_ylabel("examples (%)" if number % columns == 0 else "")
    seeds = means_told(len(shares(cell, visits)) for cell, _ in told)
    told_of_cuts = " A bar with a gap is cut, and its number stands beside it." if cut else ""
    below_all(figure, f"{seeds.replace('Means', 'Examples')}{'' if seeds == 'One seed' else ', pooled'}.{told_of_cuts}")
    return figure


def luminance(color: Sequence[float]) -> float:
    """Relative luminance of an sRGB color (WCAG 2.2), from 0, black, to 1, white."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def at_ratio(cell: Cell) -> str:
    """The title of a figure of one ratio."""
    return f"{cell.row['group']} · pruning ratio {percent(cell.row['ratio'])}"


def class_deviations(cell: Cell) -> dict[str, float]:
    """By class, how much more often its examples were trained on than the average example, in % (mean over seeds)."""
    told = [run for run in cell.runs if run.class_visits]
    names = dict.fromkeys(name for run in told for name in run.class_visits)
    ratios = {
        name: [
            run.class_visits[name] * run.num_examples / run.examples_seen for run in told if name in run.class_visits
        ]
        for name in names
    }
    return {name: 100 * (statistics.fmean(several) - 1) for name, several in ratios.items()}


@styled
def classes_figure(own: Sequence[Cell]) -> Figure | None:
    """How much more or less often the examples of each class were trained on than the average example, in %: methods by
    classes. own: cells of one ratio. None where no record tells.
    """
    import numpy as np

    rows = {cell.row["label"]: of for cell in own if not cell.is_full and (of := class_deviations(cell))}
    if not rows:
        return None
    cells = [cell for cell in own if cell.row["label"] in rows and not cell.is_full]
    names = list(dict.fromkeys(name for of in rows.values() for name in of))
    values = [[of.get(name, float("nan")) for name in names] for of in rows.values()]
    span = max(MIN_SPAN, max(abs(value) for of in rows.values() for value in of.values()))
    labels = [wrapped(label) for label in rows]
    figure, axes = one_axes(
        at_ratio(cells[0]), 1.4 + 0.3 * sum(1 + 0.5 * label.count("\n") for label in labels), "both"
    )
    axes.grid(visible=False)
    image = axes.imshow(values, cmap=CLASS_COLORS, vmin=-span, vmax=span, aspect="auto", interpolation="nearest")
    axes.set_yticks(range(len(rows)), labels)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if len(names) <= MAX_WRITTEN:
        crowded = max(map(len, names)) > 60 / len(names)
        axes.set_xticks(range(len(names)), names, **(TURNED if crowded else {}))
        _write_values(axes, values, image.to_rgba(np.array(values))[..., :3])
    else:
        axes.set_xticks([])
        axes.set_xlabel(f"{len(names)} classes, in the data set's order")
    bar = figure.colorbar(image, ax=axes, fraction=0.04 * 5 / WIDTH, pad=0.01)
    bar.set_label("visits against\nthe average (%)", fontsize=7)
    bar.outline.set_visible(False)
    below_all(figure, means_told(sum(bool(run.class_visits) for run in cell.runs) for cell in cells) + ".")
    return figure


def _write_values(axes: Axes, values: Sequence[Sequence[float]], colors: Any) -> None:
    """In black or white, whichever stands out from the color that lies beneath."""
    for place, line in enumerate(values):
        for column, value in enumerate(line):
            text = f"{round(value, 1) + 0.0:+.1f}".replace("-", "−")
            ink = "white" if luminance(colors[place][column]) < EVEN_CONTRAST else "black"
            axes.text(column, place, text, ha="center", va="center", fontsize=7, color=ink)
