"""The table of the three axes in words: a sheet for accuracy and time, one for memory and operations."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from sadp_bench.report.notes import measured_on, mismatched, missing, named, other_data, warnings
from sadp_bench.report.sheets import NOTHING, Cell, Grid, Sheet
from sadp_bench.report.tables import Row

MIB = 1 / 2**20
SHORT = 6  # rows
TIMED = (
    "Speed-up, measured: charged seconds of the plain run (full · bptt · dense) over the run's, by seed; without search: "
    "less the seconds that finding the connections took.",
    "Speed-up, theoretical: counted, not measured. Visits saved × 3 / (1 + 2 K / T) for sltt-k × 1 / density; sltt saves "
    "memory, not operations, and dense hardware does not reward sparse weights.",
    "Product: of the measured speed-ups of the runs that change one axis alone. Kept: how much of it the combination has.",
)
COUNTED = (
    "Connections: those that exist in the end. Training memory: the most that training steps took beyond what was in use "
    "before them. Operations, of one inference: accumulates of spikes, and multiply-accumulates.",
    "Energy of one inference is a 45 nm estimate: 0.9 pJ an accumulate, 4.6 pJ a multiply-accumulate, no memory access.",
)
INTERVALS = "Cells: mean ± half-width of the 95 % t-interval."
ONE_SEED = "One seed: no ± and no interval."


def axes_sheets(rows: Sequence[Row]) -> list[Sheet]:
    """Two a group, in the order of the rows; the first of each kind explains its words."""
    groups = [list(own) for _, own in itertools.groupby(rows, key=lambda row: row["group"])]
    made = [(_timed(own, first=own is groups[0]), _counted(own, first=own is groups[0])) for own in groups]
    return [sheet for pair in made for sheet in pair]


def axes_notes(rows: list[Row]) -> list[str]:
    """What a reader must be told of one group."""
    return [
        measured_on(rows),
        *warnings(rows),
        *other_data(rows),
        *missing(rows),
        *mismatched(rows),
        *(
            f"No product for a seed of {cells}: it lacks a run of one axis alone; make it: `{line}`"
            for line, cells in named(rows, "missing_singles").items()
        ),
    ]


def number(row: Row, name: str, digits: int = 2, scale: float = 1.0, *, spread: bool = True) -> str:
    """'1.52 ±0.12'; without its spread '1.52'."""
    mean, low, high = row[f"{name}_mean"], row[f"{name}_low"], row[f"{name}_high"]
    if mean is None:
        return NOTHING
    half = "" if low is None or not spread else f" ±{scale * (high - low) / 2:,.{digits}f}"
    return f"{scale * mean:,.{digits}f}{half}"


def energy_unit(rows: Sequence[Row]) -> tuple[float, str]:
    """(of a joule, its sign): nJ, or µJ where they are more."""
    most = max((row["energy_joules_mean"] or 0.0 for row in rows), default=0.0)
    return (1e6, "µJ") if most >= 1e-6 else (1e9, "nJ")


def spread_told(rows: Sequence[Row], *names: str) -> list[str]:
    """What ± is, where there is any."""
    some = any(row[f"{name}_low"] is not None for row in rows for name in names)
    return [*([INTERVALS] if some else []), *([ONE_SEED] if any(row["n"] == 1 for row in rows) else [])]


def runs_told(row: Row) -> str:
    return f"n = {row['n']}"


def fewer_told(row: Row, name: str) -> str:
    """Of how many runs a number is, where it is not of all."""
    return f"n = {row[name]}" if 0 < row[name] < row["n"] else ""


def label(row: Row) -> str:
    return f"{row['data']} ·\n{row['time']} · {row['weights']}"


def _timed(rows: list[Row], *, first: bool) -> Sheet:
    heads = ["run", "accuracy\n%", "charged\ns", "search\ns", "speed-up\nmeasured", "without\nsearch"]
    heads += ["speed-up\ntheoretical", "product", "kept\n%"]
    lines = [
        (
            label(row),
            [
                Cell(number(row, "accuracy", 2, 100), below=runs_told(row)),
                Cell(number(row, "seconds", 1)),
                Cell(number(row, "search_seconds", 1)),
                Cell(number(row, "speedup"), below=fewer_told(row, "n_timed")),
                Cell(number(row, "speedup_without_search")),
                Cell(number(row, "theoretical_speedup", spread=False)),
                Cell(number(row, "product")),
                Cell(number(row, "kept_share", 0, 100), below=fewer_told(row, "n_product")),
            ],
        )
        for row in rows
    ]
    told = [*axes_notes(rows), *(TIMED if first else ()), *spread_told(rows, "accuracy")]
    return Sheet(
        f"Data, time and weights: {rows[0]['group']}", [("", Grid(heads, lines))], told, long=len(rows) > SHORT
    )


def _counted(rows: list[Row], *, first: bool) -> Sheet:
    scale, unit = energy_unit(rows)
    heads = ["run", "connections\n%", "training\nmemory, MiB", "accumulates\nmillions", "multiply-acc.\nmillions"]
    heads += [f"energy\n{unit}, estimate", "firing\nrate"]
    lines = [
        (
            label(row),
            [
                Cell(number(row, "density", 1, 100, spread=False)),
                Cell(number(row, "train_memory_bytes", 1, MIB), below=runs_told(row)),
                Cell(number(row, "accumulates", 3, 1e-6)),
                Cell(number(row, "multiply_accumulates", 3, 1e-6)),
                Cell(number(row, "energy_joules", 2, scale)),
                Cell(number(row, "firing_rate", 3)),
            ],
        )
        for row in rows
    ]
    told = [*(COUNTED if first else ()), *spread_told(rows, "train_memory_bytes", "accumulates")]
    return Sheet(f"Memory and operations: {rows[0]['group']}", [("", Grid(heads, lines))], told, long=len(rows) > SHORT)
