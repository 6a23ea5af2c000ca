"""The most and the least chosen images of each method, where the data is at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sadp_bench.core.errors import BadInput
from sadp_bench.records.record import Record
from sadp_bench.report.cells import Cell, Visits
from sadp_bench.report.plots.style import WIDTH, Styles, below_all, means_told, one_axes, styled, wrapped
from sadp_bench.report.plots.visits import at_ratio, shares

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

EACH = 6  # pictures of the most chosen, and of the least


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """The training images of a run, in the order of its visits.

    pixel_N: uint8, [N, H, W] or [N, H, W, 3]. label_N: [N]. class_names: by label.
    """

    pixel_N: NDArray[np.uint8]
    label_N: Sequence[int]
    class_names: Sequence[str]


def extremes(share_N: NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """The places of the most and of the least chosen; where several are chosen alike, the first."""
    import numpy as np

    least = np.argsort(share_N, kind="stable")[:EACH]
    most = np.argsort(-share_N, kind="stable")[:EACH]
    return most.tolist(), least.tolist()


@styled
def pictures_figure(own: Sequence[Cell], visits: Visits, images: Images, styles: Styles) -> Figure | None:
    """The most and the least chosen training images of each method, its mean over seeds, with their classes and in how
    many % of the epochs they were trained on. own: cells of one ratio. None where no method chooses.
    """
    import numpy as np

    told = [(cell, np.mean(several, axis=0)) for cell in own if not cell.is_full and (several := shares(cell, visits))]
    alike = [cell.row["label"] for cell, share_N in told if share_N.min() == share_N.max()]
    told = [(cell, share_N) for cell, share_N in told if share_N.min() < share_N.max()]
    if not told:
        return None
    figure, axes = one_axes(at_ratio(told[0][0]), 0.6 + WIDTH * 1.5 / (2 * EACH + 3.2) * len(told))
    axes.axis("off")
    axes.set(xlim=(-2.3, 2 * EACH + 0.5), ylim=(1.5 * len(told), -0.35), aspect="equal")
    for x, text in ((0.0, "trained on most often"), (EACH + 0.5, "trained on least often")):
        axes.text(x, -0.1, text, fontsize=8, va="bottom")
    for number, (cell, share_N) in enumerate(told):
        color = styles[cell.row["label"]]["color"]
        axes.text(
            -0.15,
            1.5 * number + 0.5,
            wrapped(cell.row["label"], 16),
            ha="right",
            va="center",
            color=color,
            weight="bold",
        )
        most, least = extremes(share_N)
        for column, place in enumerate([*most, *least]):
            x = column + 0.5 * (column >= EACH)
            _draw_picture(axes, (x, 1.5 * number), images, place, 100 * float(share_N[place]))
    seeds = means_told(len(shares(cell, visits)) for cell, _ in told)
    below_all(
        figure,
        f"In %: the epochs that trained on the image. {seeds}; of images chosen alike the first.",
        f"All images equally often: {', '.join(alike)}." if alike else "",
    )
    return figure


def _draw_picture(axes: Any, at: tuple[float, float], images: Images, place: int, percent: float) -> None:
    x, y = at
    extent = (x + 0.03, x + 0.97, y + 0.97, y + 0.03)
    axes.imshow(images.pixel_N[place], cmap="gray", vmin=0, vmax=255, extent=extent, interpolation="nearest")
    name = str(images.class_names[images.label_N[place]])
    axes.text(
        x + 0.5, y + 1.0, f"{name}\n{percent:.0f} %", ha="center", va="top", fontsize=max(4, min(6, 54 / len(name)))
    )


def at_hand(data: Path | None) -> Callable[[Record], Images]:
    """Opens the training images of a record's run, where its data set is registered, is at hand in that folder (nothing
    is downloaded) and is the very data that the run saw; BadInput says why not. Imports torch."""
    opened: dict[Any, Any] = {}

    def images(record: Record) -> Images:
        from sadp_bench.core import registry
        from sadp_bench.datasets.base import data_root
        from sadp_bench.runs import resolve

        spec = record.spec
        if spec.dataset not in registry.table("dataset"):  # what a record names is not imported
            raise BadInput(f"{spec.dataset} is no registered data set")
        kind, root = registry.resolve("dataset", spec.dataset), data_root(data)
        if kind.events:
            raise BadInput(f"{spec.dataset} holds recordings of events, no images")
        if kind.locate(root) is None:
            raise BadInput(f"{spec.dataset} is not in {root}; name its folder with --data")
        if spec.dataset not in opened:
            opened[spec.dataset] = kind(root, spec.timesteps)
        material = resolve.load(opened[spec.dataset], spec.dataset, spec.evaluate_on, spec.train_examples)
        if material.sha256 != record.data_sha256:
            raise BadInput(f"{spec.dataset} in {root} is not the data that the runs saw")
        pixel_N = material.train.input_N.movedim(1, -1).double().mul(255 / kind.scale).round().byte().numpy()
        names = material.dataset.class_names
        return Images(pixel_N[..., 0] if pixel_N.shape[-1] == 1 else pixel_N, material.train.label_N.tolist(), names)

    return images
