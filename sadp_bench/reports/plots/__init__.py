"""All plots of a report: their order, captions and file names.

matplotlib and NumPy are imported only where a plot is drawn, and torch only where pictures are opened.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sadp_bench.core.errors import BadInput
from sadp_bench.core.text import percent
from sadp_bench.records.record import Failure, Record
from sadp_bench.records.store import atomic
from sadp_bench.records.trials import Searches
from sadp_bench.reports.grouping import NO_SEARCHES, rows
from sadp_bench.reports.paper import Paper
from sadp_bench.reports.plots.epochs import by_ratio, kept_figure, progress_figure
from sadp_bench.reports.plots.legends import caption_of
from sadp_bench.reports.plots.look import PAGE, Look, looking
from sadp_bench.reports.plots.memory import memory_figure
from sadp_bench.reports.plots.palette import method_styles
from sadp_bench.reports.plots.pictures import Images, pictures_figure
from sadp_bench.reports.plots.ratio import accuracy_figure, speedup_figure
from sadp_bench.reports.plots.saving import FORMATS, as_data_uri, save_all, slug
from sadp_bench.reports.plots.style import Styles
from sadp_bench.reports.plots.time import phases_figure, time_figure, timed_together
from sadp_bench.reports.plots.visits import Visits, classes_figure, visits_figure, visits_of
from sadp_bench.reports.rows import RatioRow, largest_first
from sadp_bench.reports.tables.memory import memory_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CAPTIONS", "Plot", "as_data_uri", "draw", "plots_of"]

MOST_METHODS = 12  # methods of a group whose lines and legend are easy to read
OpenImages = Callable[[Record], Images]
Warn = Callable[[str], None]

# By kind, in reading order.
CAPTIONS = {
    "accuracy": "Accuracy against pruning ratio",
    "speedup": "Measured speed-up against the theoretical maximum",
    "time": "Accuracy against charged time",
    "phases": "Where the time goes",
    "progress": "Accuracy as training goes on",
    "kept": "Examples kept, by epoch",
    "visits": "How often each example was trained on",
    "classes": "Visits by class",
    "pictures": "The most and the least chosen images",
    "memory": "Training memory against time steps",
}


@dataclass(frozen=True, slots=True, eq=False)
class Plot:
    """A figure of a report and its place there.

    Attributes:
        group: The title of the group, or of the setting whose memory is drawn.
        kind: A key of `CAPTIONS`.
        figure: The figure of matplotlib.
        ratio: The pruning ratio, for plots of a single ratio.
    """

    group: str
    kind: str
    figure: Figure
    ratio: float | None = None

    @property
    def name(self) -> str:
        """The file name without its ending: `cifar10-cnn-...-visits-r0.5`."""
        return f"{slug(self.group)}-{self.kind}{'' if self.ratio is None else f'-r{self.ratio}'}"

    @property
    def caption(self) -> str:
        """The caption, such as 'How often each example was trained on, at 50 %'."""
        return CAPTIONS[self.kind] + ("" if self.ratio is None else f", at {percent(self.ratio)}")


def draw(
    records: Iterable[Record],
    folder: Path,
    images: OpenImages | None = None,
    warn: Warn = lambda reason: None,
    formats: Sequence[str] = FORMATS,
    failures: Iterable[Failure] = (),
    searches: Searches = NO_SEARCHES,
    look: Look = PAGE,
    paper: Paper | None = None,
) -> list[Path]:
    """Draws and saves every plot of the records.

    Args:
        records: The finished runs.
        folder: The folder of the files.
        images: See `plots_of`.
        warn: See `plots_of`.
        formats: The endings of the files: pdf, png (200 dpi), svg.
        failures: See `plots_of`.
        searches: See `plots_of`.
        look: See `plots_of`. Titles and notes of a paper's figures are saved in `captions.txt`.
        paper: See `plots_of`.

    Returns:
        The saved files, by name.
    """
    saved, captions = [], []
    for plot in plots_of(records, images, warn, failures, searches, look=look, paper=paper):
        saved += save_all(plot.figure, folder, plot.name, formats)
        captions.append(f"{plot.name}: {plot.caption}. {caption_of(plot.figure)}\n")
    if look.paper and captions:
        saved.append(folder / "captions.txt")
        with atomic(saved[-1]) as file:
            file.write("\n".join(captions).encode())
    return sorted(saved)


def plots_of(
    records: Iterable[Record],
    images: OpenImages | None = None,
    warn: Warn = lambda reason: None,
    failures: Iterable[Failure] = (),
    searches: Searches = NO_SEARCHES,
    most: int | None = None,
    look: Look = PAGE,
    paper: Paper | None = None,
) -> Iterator[Plot]:
    """Draws the plots of the records, group by group, in the order of `CAPTIONS`; memory comes last.

    A group in which nothing was pruned has no plots. A plot is left out where no record contains its numbers: speed-ups
    without a reference, visits in records of an earlier version.

    Args:
        records: The finished runs.
        images: Opens the training images of a record's run for the grid of pictures, see `pictures.at_hand`. Without it
            there are no pictures.
        warn: Is called with the reason where a requested plot is left out.
        failures: The runs that ended without a record. They affect the names of groups and methods, as in the tables.
        searches: The searches that settings of the runs come from.
        most: The largest number of plots of groups. The groups with the most runs come first, groups of more than
            `MOST_METHODS` methods last. None for all groups, in reading order.
        look: The look of the figures.
        paper: An author's choice of methods, their order and their names.
    """
    records = list(records)
    table = rows(records, failures, searches=searches)
    if paper is not None:
        paper.check(table)
        by_group = itertools.groupby(table, key=lambda row: row.group)
        table = [paper.named(row) for _, group in by_group for row in paper.shown(list(group))]
    styles = method_styles({row.label: row.method for row in table})
    visits = visits_of(records, warn)
    groups = [[row for row in group if row.n] for _, group in itertools.groupby(table, key=lambda row: row.group)]
    ordered = groups if most is None else sorted(largest_first(groups), key=_is_crowded)
    of_groups = (plot for group in ordered for plot in _group_plots(group, styles, visits, images, warn, look))
    yield from itertools.islice(of_groups, most)
    for title, settings in itertools.groupby(memory_rows(records), key=lambda row: row.group):
        if (figure := _built(functools.partial(memory_figure, list(settings)), look)) is not None:
            yield Plot(title, "memory", figure)


def _is_crowded(group: Sequence[RatioRow]) -> bool:
    return len({row.label for row in group}) > MOST_METHODS


def _group_plots(
    group: Sequence[RatioRow], styles: Styles, visits: Visits, images: OpenImages | None, warn: Warn, look: Look
) -> Iterator[Plot]:
    ratios = by_ratio(group)
    if not ratios:
        return
    title = group[0].group
    kept, left_out = timed_together(group)
    if left_out and all(row.is_full for row in kept):
        warn(f"no plots of time of {title}. {left_out}")
    builders: dict[str, Callable[[], Figure | None]] = {
        "accuracy": lambda: accuracy_figure(group, styles),
        "speedup": lambda: speedup_figure(group, styles),
        "time": lambda: time_figure(group, styles),
        "phases": lambda: phases_figure(group),
        "progress": lambda: progress_figure(group, styles),
        "kept": lambda: kept_figure(group, styles),
    }
    for kind, build in builders.items():
        if (figure := _built(build, look)) is not None:
            yield Plot(title, kind, figure)
    opened = _open_images(group, visits, images, warn) if images else None
    for ratio, members in ratios.items():
        of_ratio: dict[str, Callable[[], Figure | None]] = {
            "visits": functools.partial(visits_figure, members, visits, styles),
            "classes": functools.partial(classes_figure, members),
        }
        if opened is not None:
            of_ratio["pictures"] = functools.partial(pictures_figure, members, visits, opened, styles)
        for kind, build in of_ratio.items():
            if (figure := _built(build, look)) is not None:
                yield Plot(title, kind, figure, ratio)


def _built(build: Callable[[], Figure | None], look: Look) -> Figure | None:
    """Returns a figure of this look. The look holds only during the call, not while `plots_of` waits."""
    with looking(look):
        return build()


def _open_images(group: Sequence[RatioRow], visits: Visits, images: OpenImages, warn: Warn) -> Images | None:
    """Returns the images of a group; None where no pruned run has visits, or the images cannot be opened."""
    runs = [run for row in group if not row.is_full for run in row.runs if run.spec.key in visits]
    if not runs:
        return None
    try:
        if len({run.data_sha256 for run in runs}) > 1:
            raise BadInput("the runs saw different data")
        return images(runs[0])
    except BadInput as error:
        warn(f"no pictures of {group[0].group}: {error}")
        return None
