"""All figures of a report: which there are, and where they are written."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sadp_bench.core.errors import BadInput
from sadp_bench.records.record import Failure, Record
from sadp_bench.report.cells import Cell, Visits, by_ratio, cells, timed_together, visits_of
from sadp_bench.report.epoch_plots import kept_figure, progress_figure
from sadp_bench.report.looks import ENDINGS, FIXED_COLORS, MARKERS, Looks, looks, save, save_all, slug, spaced
from sadp_bench.report.memory import memory_rows
from sadp_bench.report.memory_plots import memory_figure
from sadp_bench.report.pictures import Images, pictures_figure
from sadp_bench.report.ratio_plots import accuracy_figure, speedup_figure
from sadp_bench.report.tables import rows
from sadp_bench.report.time_plots import phases_figure, time_figure
from sadp_bench.report.visits_plots import classes_figure, visits_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "FIXED_COLORS", "MARKERS", "accuracy_figure", "draw", "looks", "save", "slug", "spaced", "speedup_figure",
]  # fmt: skip

Open = Callable[[Record], Images]
Tell = Callable[[str], None]


def draw(
    records: Iterable[Record],
    folder: Path,
    images: Open | None = None,
    tell: Tell = lambda reason: None,
    endings: Sequence[str] = ENDINGS,
    failures: Iterable[Failure] = (),
) -> list[Path]:
    """Writes each figure as PDF, PNG (200 dpi) and SVG, or in what endings names. Returns what was written, by name.

    A group in which nothing was pruned has no figures, and nothing is drawn that no record tells of: speed-ups without a
    reference, visits in records of an earlier version. images: opens the training images of a record's run (see
    `pictures.at_hand`) for the grid of pictures, which needs the data; BadInput is its reason for none. tell: is told
    why something is left out that was asked for. failures: for the names of groups and methods, as in the tables.
    """
    records = list(records)
    table = rows(records, failures)
    style = looks(table)
    visits = visits_of(records, tell)
    written = []
    for title, group in itertools.groupby(table, key=lambda row: row["group"]):
        own = cells(group, records)
        for kind, figure in _figures(own, style, visits, images, tell):
            if figure is not None:
                written += save_all(figure, folder, f"{slug(title)}-{kind}", endings)
    for title, settings in itertools.groupby(memory_rows(records), key=lambda row: row["group"]):
        written += save_all(memory_figure(list(settings)), folder, f"{slug(title)}-memory", endings)
    return sorted(written)


def _figures(
    own: Sequence[Cell], style: Looks, visits: Visits, images: Open | None, tell: Tell
) -> Iterator[tuple[str, Figure | None]]:
    """(kind, figure) of a group, one after the other."""
    table = [cell.row for cell in own]
    kept, left_out = timed_together(table)
    if left_out and all(row["method"] == "full" for row in kept):
        tell(f"no figures of time of {own[0].row['group']}. {left_out}")
    yield "accuracy", accuracy_figure(table, style)
    yield "speedup", speedup_figure(table, style)
    yield "time", time_figure(table, style)
    yield "phases", phases_figure(own)
    yield "kept", kept_figure(own, style)
    yield "progress", progress_figure(own, style)
    opened = _opened(own, visits, images, tell) if images else None
    for ratio, members in by_ratio(own).items():
        yield f"visits-r{ratio}", visits_figure(members, visits, style)
        yield f"classes-r{ratio}", classes_figure(members)
        if opened is not None:
            yield f"pictures-r{ratio}", pictures_figure(members, visits, opened, style)


def _opened(own: Sequence[Cell], visits: Visits, images: Open, tell: Tell) -> Images | None:
    """The images of a group whose records tell what was trained on, all of them on the same data."""
    runs = [run for cell in own if not cell.is_full for run in cell.runs if run.spec.key in visits]
    if not runs:
        return None
    try:
        if len({run.data_sha256 for run in runs}) > 1:
            raise BadInput("the runs saw different data")
        return images(runs[0])
    except BadInput as error:
        tell(f"no pictures of {own[0].row['group']}: {error}")
        return None
