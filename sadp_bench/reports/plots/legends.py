"""Legends, notes and captions of figures, and labels that fit."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sadp_bench.records.statistics import Estimate
from sadp_bench.reports.plots.look import current_look
from sadp_bench.reports.plots.style import QUIET, Style, interval_ends

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTE_STYLE: Style = {"fontsize": 7, "color": QUIET}
NOTE_LETTERS = 18.8  # characters of a note in an inch
LEGEND_LETTERS = 16.0  # characters of a legend in an inch; its letters are larger than a note's
MAX_CLASS = 24  # characters of a class's name; longer names are cut
MAX_LABEL = 26  # characters of a method's label in a line


def legend(figure: Figure, handles: Iterable[Any], *notes: str, below: bool = False) -> None:
    """Adds the legend outside of the axes, at their right or below them, and the notes below all.

    In a paper the legend stands below, and the notes are in the caption.
    """
    named = {str(handle.get_label()): handle for handle in handles}
    labels = [fold(label) for label in named]
    if not below and not current_look().paper:
        figure.legend(named.values(), labels, loc="outside right upper", fontsize=8)
        note(figure, *notes)
        return
    # Only one artist can stand below the axes without covering another, so the notes are the legend's title.
    title = "" if current_look().paper else _fold_notes(notes)
    if not labels:
        note(figure, *notes)
        return
    letters, size = (LEGEND_LETTERS, 8) if not current_look().paper else (LEGEND_LETTERS * 8 / 7, 7)
    columns = legend_columns(labels, int(letters * current_look().inches))
    place: Any = "outside lower center" if current_look().paper else "outside lower left"
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
    """Returns the number of legend columns, at least 1, that fit into a line of `room` letters.

    A legend fills its columns one after the other. The first columns have one entry more where the entries do not divide
    evenly.
    """
    lengths = [max(map(len, label.splitlines())) + 6 for label in labels]
    for columns in range(len(labels), 1, -1):
        each, more = divmod(len(labels), columns)
        ends = list(itertools.accumulate([each + (number < more) for number in range(columns)], initial=0))
        if sum(max(lengths[start:end]) for start, end in itertools.pairwise(ends)) <= room:
            return columns
    return 1


def fold(label: str, width: int = MAX_LABEL) -> str:
    """Returns a label in lines. A label that begins with _ gets a space before it, because legends omit such labels."""
    return textwrap.fill(f" {label}" if label.startswith("_") else label, width, drop_whitespace=False)


def cut(name: str, width: int = MAX_CLASS) -> str:
    """Returns the beginning of a name that is too long for a plot."""
    return name if len(name) <= width else f"{name[: width - 1]}…"


def note(figure: Figure, *notes: str) -> None:
    """Adds the notes below a figure without a legend there. In a paper the notes are only in the caption."""
    figure.set_label(" ".join(filter(None, [f"{figure.get_label()}.", *notes])))
    if not current_look().paper:
        figure.supxlabel(_fold_notes(notes), **NOTE_STYLE, x=0.01, ha="left")


def caption_of(figure: Figure) -> str:
    """Returns the title and the notes of a figure, for the caption in a paper."""
    return str(figure.get_label())


def _fold_notes(notes: Iterable[str]) -> str:
    return textwrap.fill(
        " ".join(filter(None, notes)).replace(" %", "\u00a0%"), int(NOTE_LETTERS * current_look().inches)
    )


def seeds_note(seeds: Iterable[int], *estimates: Estimate) -> str:
    """Returns 'Means of 3 to 5 seeds; bars: 95 % intervals.', with the second part if an estimate has an interval."""
    return means_note(seeds) + ("; bars: 95 % intervals." if any(map(interval_ends, estimates)) else ".")


def means_note(seeds: Iterable[int]) -> str:
    """Returns 'Means of 3 to 5 seeds', given the numbers of seeds."""
    counts = sorted(set(seeds))
    if counts == [1]:
        return "One seed"
    return f"Means of {counts[0]} seeds" if len(counts) == 1 else f"Means of {counts[0]} to {counts[-1]} seeds"
