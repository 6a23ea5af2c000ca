"""The most and the least chosen images of each method, where the data set is available."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sadp_bench.core.errors import BadInput
from sadp_bench.records.record import Record
from sadp_bench.reports.plots import legends, style
from sadp_bench.reports.plots.look import current_look
from sadp_bench.reports.plots.style import Styles, drawing
from sadp_bench.reports.plots.visits import Visits, ratio_title, shares
from sadp_bench.reports.rows import RatioRow

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

EACH = 6  # pictures of the most chosen, and as many of the least chosen


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """The training images of a run, in the order of its visits.

    Attributes:
        pixel_N: The images, uint8 [N, H, W] or [N, H, W, 3].
        label_N: The labels, [N].
        class_names: The name of each class, by label.
    """

    pixel_N: NDArray[np.uint8]
    label_N: Sequence[int]
    class_names: Sequence[str]


def extremes(share_N: NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """Returns the places of the most and the least chosen examples, the first ones where shares are equal."""
    import numpy as np

    most, least = (np.argsort(sign * share_N, kind="stable")[:EACH].tolist() for sign in (-1, 1))
    return most, least


@drawing()
def pictures_figure(rows: Sequence[RatioRow], visits: Visits, images: Images, styles: Styles) -> Figure | None:
    """Draws the most and the least chosen training images of each method, by the mean over seeds.

    Below an image stand its class and the percentage of epochs that trained on it.

    Args:
        rows: The rows of one ratio.
        visits: The visits of each example, by a run's key.
        images: The training images of the runs.
        styles: The style of each label.

    Returns:
        The figure; None where all methods train on all images equally often.
    """
    import numpy as np

    means = [(row, np.mean(seeds, axis=0)) for row in rows if not row.is_full and (seeds := shares(row, visits))]
    chosen = [(row, share_N) for row, share_N in means if share_N.min() < share_N.max()]
    alike = [row.display_label for row, share_N in means if share_N.min() == share_N.max()]
    if not chosen:
        return None
    height = 0.6 + current_look().inches * 1.5 / (2 * EACH + 3.2) * len(chosen)
    figure, [axes] = style.panels(ratio_title(rows[0]), height=height)
    axes.axis("off")
    axes.set(xlim=(-2.3, 2 * EACH + 0.5), ylim=(1.5 * len(chosen), -0.35), aspect="equal")
    for x, text in ((0.0, "trained on most often"), (EACH + 0.5, "trained on least often")):
        axes.text(x, -0.1, text, fontsize=8, va="bottom")
    for number, (row, share_N) in enumerate(chosen):
        y, color = 1.5 * number, styles[row.label]["color"]
        name = legends.fold(row.display_label, 16)
        axes.text(-0.15, y + 0.5, name, ha="right", va="center", color=color, weight="bold")
        for half, places in enumerate(extremes(share_N)):
            for column, place in enumerate(places):
                x = column + half * (EACH + 0.5)
                _draw_picture(axes, x, y, images, place, f"{100 * float(share_N[place]):.0f} %")
    count = legends.means_note(len(shares(row, visits)) for row, _ in chosen)
    even = f"All images equally often: {', '.join(alike)}." if alike else ""
    legends.note(
        figure, f"In %: the epochs that trained on the image. {count}. The first of equally chosen images.", even
    )
    return figure


def _draw_picture(axes: Axes, x: float, y: float, images: Images, place: int, share: str) -> None:
    extent = (x + 0.03, x + 0.97, y + 0.97, y + 0.03)
    axes.imshow(images.pixel_N[place], cmap="gray", vmin=0, vmax=255, extent=extent, interpolation="nearest")
    name = legends.cut(images.class_names[images.label_N[place]])
    size = max(4, min(6, 54 / len(name)))
    axes.text(x + 0.5, y + 1.0, f"{name}\n{share}", ha="center", va="top", fontsize=size)


def at_hand(data: Path | None) -> Callable[[Record], Images]:
    """Returns a function that opens the training images of a record's run. It imports torch and downloads nothing.

    Args:
        data: The folder of the data sets.

    Raises:
        BadInput: Raised by the returned function. The data set is not registered, is not in the folder, contains no images,
            or is not the data that the run saw.
    """
    opened: dict[Any, Any] = {}

    def images(record: Record) -> Images:
        import torch

        from sadp_bench.core import registry
        from sadp_bench.datasets.base import data_root
        from sadp_bench.runs.reopening import reopened

        spec, root = record.spec, data_root(data)
        if spec.dataset in registry.table("dataset") and registry.resolve("dataset", spec.dataset).events:
            raise BadInput(f"{spec.dataset} contains recordings of events, not images")  # before they are read
        material = reopened(spec, data, opened)
        if material.dataset.events:
            raise BadInput(f"{spec.dataset} contains recordings of events, not images")
        if material.sha256 != record.data_sha256:
            raise BadInput(f"{spec.dataset} in {root} is not the data that the runs saw")
        if material.train.row_N is not None:
            raise BadInput(f"{spec.dataset} in {root} stays on the disk, and pictures need images in memory")
        input_N, scale = material.train.input_N.movedim(1, -1), material.dataset.scale
        whole_bytes = input_N.dtype == torch.uint8 and scale == 255
        pixel_N = (input_N if whole_bytes else input_N.double().mul(255 / scale).round().byte()).numpy()
        names = material.dataset.class_names
        return Images(pixel_N[..., 0] if pixel_N.shape[-1] == 1 else pixel_N, material.train.label_N.tolist(), names)

    return images
