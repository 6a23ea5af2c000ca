"""The tables for people, as words in cells: what the formats only lay out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

from sadp_bench.records.metrics import ACCURACY_SLACK
from sadp_bench.report.notes import notes
from sadp_bench.report.tables import Row, percent, shared_means

NOTHING = "–"
GAP = 2  # letters between columns


@dataclass(frozen=True, slots=True)
class Cell:
    """value above, with the number of runs behind it in brackets; below it a second line.

    inline: both in one line, where that is to be had.
    """

    value: str = ""
    runs: str = ""
    below: str = ""
    inline: str = ""
    best: bool = False
    second: bool = False

    @property
    def above(self) -> str:
        return f"{self.value} ({self.runs})" if self.runs else self.value


@dataclass(frozen=True, slots=True)
class Grid:
    """heads: a name a column, the labels' first. lines: a label and a cell for each other column."""

    heads: list[str]
    lines: list[tuple[str, list[Cell]]]


@dataclass(frozen=True, slots=True)
class Sheet:
    """What belongs together. grids: each with the caption that stands above it, or none. long: so many lines that what is
    too wide had better continue on another page of paper."""

    title: str
    grids: list[tuple[str, Grid]]
    notes: list[str] = field(default_factory=list)
    long: bool = False


def sheets(table: Iterable[Row]) -> list[Sheet]:
    """A sheet a group, in the order of the rows."""
    return [_sheet(title, list(rows)) for title, rows in itertools.groupby(table, key=lambda row: row["group"])]


def _sheet(title: str, rows: list[Row]) -> Sheet:
    grids = [("", _results(rows))]
    if any(row["accuracy_difference_low"] is not None or _has_random(row) for row in rows if row["method"] != "full"):
        margin = f"{100 * rows[0]['margin']:g}"
        caption = f"Paired differences in points: mean and 95 % interval; margin {margin} points"
        grids.append((caption, _differences(rows)))
    return Sheet(title, grids, notes(rows))


def _has_random(row: Row) -> bool:
    return row["random_difference_low"] is not None


def _results(rows: list[Row]) -> Grid:
    """Accuracy and time, by method and ratio."""
    ratios = sorted({0.0} | {row["ratio"] for row in rows})
    at = {(row["label"], row["ratio"]): row for row in rows}
    labels = list(dict.fromkeys(["full", *(row["label"] for row in rows)]))
    lines = [(label, [_result(label, ratio, at, rows) for ratio in ratios]) for label in labels]
    return Grid(["method", *map(percent, ratios)], lines)


def _result(label: str, ratio: float, at: dict[tuple[str, float], Row], rows: list[Row]) -> Cell:
    row = at.get((label, ratio))
    if row is None:
        # Only `full` belongs at ratio 0, and nowhere else.
        return Cell(NOTHING) if (label == "full") == (ratio == 0) else Cell()
    if not row["n"]:
        return Cell(f"{row['n_failed']} failed")
    rivals = [other for other in rows if other["ratio"] == ratio and other["method"] != "full" and other["n"]]
    means = shared_means(rivals)
    rank = sorted(set(means), reverse=True).index(means[rivals.index(row)]) if row in rivals else None
    runs = f"{row['n']}, {row['n_failed']} failed" if row["n_failed"] else f"{row['n']}"
    best, second = rank == 0 and len(rivals) > 1, rank == 1 and len(rivals) > 2
    return Cell(_accuracy(row), runs, _time(row), best=best, second=second)


def _accuracy(row: Row) -> str:
    low, high = row["accuracy_low"], row["accuracy_high"]
    return f"{100 * row['accuracy_mean']:.2f}" + ("" if low is None else f" ±{100 * (high - low) / 2:.2f}")


def _time(row: Row) -> str:
    if row["method"] == "full":
        return NOTHING if row["seconds_mean"] is None else f"{row['seconds_mean']:,.1f} s"
    if row["speedup_mean"] is None:
        return f"{NOTHING} / {row['ceiling_mean']:.2f}x"
    fewer = f" ({row['n_timed']})" if row["n_timed"] < row["n"] else ""
    return f"{row['speedup_mean']:.2f}{fewer} / {row['ceiling_mean']:.2f}x"


def _differences(rows: list[Row]) -> Grid:
    """Accuracy against full and random, speed-up and the time to full's accuracy, by method and ratio."""
    goal = f"full's - {100 * ACCURACY_SLACK:g}"
    heads = ["method", "to full", "verdict", "to random", "speed-up", f"time to\n{goal}"]
    lines = [(f"{row['label']}\n{percent(row['ratio'])}", _against(row)) for row in rows if row["n"]]
    return Grid(heads, lines)


def _against(row: Row) -> list[Cell]:
    to_full = to_random = judged = speedup = Cell()
    if row["method"] != "full":
        to_full = _difference(row, "accuracy_difference", row["n_paired"])
        judged = Cell(row["verdict"] or NOTHING)
        speedup = _speedup(row)
    if row["method"] not in ("full", "random"):
        to_random = _difference(row, "random_difference", row["n_random"])
    return [to_full, judged, to_random, speedup, _time_to_accuracy(row)]


def _speedup(row: Row) -> Cell:
    mean, low, high, runs = row["speedup_mean"], row["speedup_low"], row["speedup_high"], str(row["n_timed"])
    if mean is None:
        return Cell(NOTHING)
    if low is None:
        return Cell(f"{mean:.2f}", runs)
    return Cell(f"{mean:.2f}", runs, f"[{low:.2f}, {high:.2f}]", inline=f"{mean:.2f} ±{(high - low) / 2:.2f}")


def _difference(row: Row, name: str, runs: int) -> Cell:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if not runs:
        return Cell(NOTHING)
    mean = _points(row[f"{name}_mean"])
    if low is None:
        return Cell(mean, str(runs))
    interval = f"[{_points(low)}, {_points(high)}]"
    return Cell(mean, str(runs), interval, inline=f"{mean} ±{100 * (high - low) / 2:.2f}")


def _points(share: float) -> str:
    return f"{round(100 * share, 2) + 0.0:+.2f}"


def _time_to_accuracy(row: Row) -> Cell:
    timed, reached = row["n_timed"], row["n_reached"]
    if not timed:
        return Cell(NOTHING)
    if not reached:
        return Cell("never", str(timed))
    seconds, share = f"{row['seconds_to_accuracy_mean']:,.1f} s", row["share_to_accuracy_mean"]
    below = "" if share is None else percent(round(share, 2))
    runs = f"{reached}" if reached == timed else f"{reached}/{timed}"
    return Cell(seconds, runs, below, inline=", ".join(filter(None, [seconds, below])))


def spans(grid: Grid, room: int) -> list[tuple[int, int]]:
    """Ranges of cells, as wide as fits into so many letters beside the labels; at least one cell each."""
    found, first, used = [], 0, 0
    for number, head in enumerate(grid.heads[1:]):
        cells = [own[number] for _, own in grid.lines]
        width = GAP + max(
            len(part) for part in [*head.split("\n"), *(c.above for c in cells), *(c.below for c in cells)]
        )
        if number > first and used + width > room:
            found.append((first, number))
            first, used = number, 0
        used += width
    return [*found, (first, len(grid.heads) - 1)]
