"""Every plot of a report, in one style: which plots there are, and in which files they are saved.

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

MOST_METHODS = 12  # of a group whose lines and legend are easily read
OpenImages = Callable[[Record], Images]
Warn = Callable[[str], None]

# By kind, in the order in which a reader wants them.
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
    """A figure of a report, and where it belongs.

    Args:
        group: title of the group of rows, or of the setting whose memory is drawn.
        kind: a key of `CAPTIONS`.
        figure: of matplotlib.
        ratio: pruning ratio, for plots of a single ratio.
    """

    group: str
    kind: str
    figure: Figure
    ratio: float | None = None

    @property
    def name(self) -> str:
        """File name without its ending: `cifar10-cnn-...-visits-r0.5`."""
        return f"{slug(self.group)}-{self.kind}{'' if self.ratio is None else f'-r{self.ratio}'}"

    @property
    def caption(self) -> str:
        """'How often each example was trained on, at 50 %'."""
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
        records: finished runs.
        folder: where the files go.
        images: see `plots_of`.
        warn: see `plots_of`.
        formats: endings of the files: pdf, png (200 dpi), svg.
        failures: see `plots_of`.
        searches: see `plots_of`.
        look: see `plots_of`. Figures of a paper have their titles and notes in a file `captions.txt`.
        paper: see `plots_of`.

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

    A group in which nothing was pruned has no plots. A plot is left out where no record holds its numbers: speed-ups
    without a reference, visits in records of an earlier version.

    Args:
        records: finished runs.
        images: opens the training images of a record's run for the grid of pictures, see `pictures.at_hand`. Without it
            there are no pictures.
        warn: is called with the reason where a requested plot is left out.
        failures: runs without a record. They take part in the names of groups and methods, as in the tables.
        searches: the searches that settings of the runs come from.
        most: the number of plots: those of the groups of the most runs are drawn first, and those of more than
            `MOST_METHODS` methods last. None for all, in reading order.
        look: how figures look.
        paper: an author's choice of methods, their order and their names.
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
    """Returns a figure of this look. A caller that draws another meanwhile has its own."""
    with looking(look):
        return build()


def _open_images(group: Sequence[RatioRow], visits: Visits, images: OpenImages, warn: Warn) -> Images | None:
    """Returns the images of a group whose pruned runs have visits, all of them of the same data."""
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
