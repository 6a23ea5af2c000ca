"""Training memory against the number of time steps: the rows, and the table of them."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Sequence

from sadp_bench.records.metrics import TIME_AXIS, TIMED_TOGETHER
from sadp_bench.records.record import Record
from sadp_bench.records.spec import CHOICES
from sadp_bench.records.statistics import estimate
from sadp_bench.report.axes import told_of
from sadp_bench.report.axes_sheets import MIB, number, spread_told
from sadp_bench.report.axis_names import flat, is_axis, percent, time_name, weights_name
from sadp_bench.report.notes import measured_on, warnings
from sadp_bench.report.sheets import NOTHING, Cell, Grid, Sheet
from sadp_bench.report.tables import Row, columns, labels, titles

Runs = list[Record]
TOLD = (
    "The most that training steps took beyond what was in use before them: on a GPU of tensors, on a CPU of the "
    "whole process."
)


def memory_rows(records: Iterable[Record]) -> list[Row]:
    """One flat, unrounded row for each setting, backprop and T; bytes: mean, standard deviation, 95 % t-interval.

    A setting is all of a spec but seed, time steps and time axis, in one environment. It is shown where its runs differ in T
    and not all of them are on bptt.
    """
    told = [record for record in records if record.train_memory_bytes is not None]
    settings = _settings(sorted(told, key=lambda run: (run.spec.seed, run.spec.key)))
    table = []
    for title, runs in zip(_titles(settings), settings, strict=True):
        found: dict[tuple[int, int, int], Runs] = {}
        for run in runs:
            spec = run.spec
            found.setdefault((CHOICES["backprop"].index(spec.backprop), spec.k, spec.timesteps), []).append(run)
        table += [_row(title, own) for _, own in sorted(found.items(), key=lambda item: item[0])]
    return table


def _settings(runs: Runs) -> list[Runs]:
    """The runs of each."""
    members: dict[str, Runs] = {}
    for run in runs:
        alike = dataclasses.replace(run.spec, seed=0, timesteps=1, backprop="bptt", k=0)
        place = [run.environment.get(name) for name in TIMED_TOGETHER]
        members.setdefault(json.dumps([alike.to_json(), place]), []).append(run)
    wanted = {
        key: own
        for key, own in members.items()
        if len({run.spec.timesteps for run in own}) > 1 and any(run.spec.backprop != "bptt" for run in own)
    }
    return [wanted[key] for key in sorted(wanted)]


def _titles(settings: Sequence[Runs]) -> list[str]:
    """By what differs among them: data, weights and environment too."""
    specs = [runs[0].spec for runs in settings]
    without = ("method", "ratio", "seed", "timesteps")
    base = titles([{n: v for n, v in flat(spec).items() if n not in without and not is_axis(n)} for spec in specs])
    names, rivals = labels(specs), [flat(spec) for spec in specs]
    found = []
    for title, spec, own in zip(base, specs, rivals, strict=True):
        weights = weights_name(own, rivals)
        data = [] if spec.method == "full" else [f"{names[spec.key]} {percent(spec.ratio)}"]
        found.append(" · ".join([title, *data, *([] if weights == "dense" else [weights])]))
    return [
        " · ".join(
            [title, *_places(runs, [other for name, other in zip(found, settings, strict=True) if name == title])]
        )
        for title, runs in zip(found, settings, strict=True)
    ]


def _places(runs: Runs, alike: Sequence[Runs]) -> list[str]:
    """'threads 2', where settings of one title were run elsewhere."""
    own = runs[0].environment
    return [
        f"{name} {own.get(name)}"
        for name in TIMED_TOGETHER
        if any(others[0].environment.get(name) != own.get(name) for others in alike)
    ]


def _row(title: str, runs: Runs) -> Row:
    spec = runs[0].spec
    row: Row = {"group": title, "time": time_name(flat(spec)), **{name: getattr(spec, name) for name in TIME_AXIS}}
    row |= {"timesteps": spec.timesteps, "n": len(runs), "seeds": [run.spec.seed for run in runs]}
    row |= columns("train_memory_bytes", estimate(run.train_memory_bytes for run in runs))
    return row | {"name": f"{row['time']} T={spec.timesteps}"} | told_of(runs)


def memory_sheets(table: Sequence[Row]) -> list[Sheet]:
    """One a setting."""
    groups = itertools.groupby(table, key=lambda row: row["group"])
    return [_sheet(title, list(rows)) for title, rows in groups]


def memory_notes(rows: Sequence[Row]) -> list[str]:
    """What a reader must be told of one setting."""
    rows = list(rows)
    return [measured_on(rows), TOLD, *warnings(rows)]


def _sheet(title: str, rows: Sequence[Row]) -> Sheet:
    """Backprop by T, in MiB."""
    at = {(row["time"], row["timesteps"]): row for row in rows}
    steps = sorted({row["timesteps"] for row in rows})
    names = dict.fromkeys(row["time"] for row in rows)
    lines = [(name, [_cell(at.get((name, step))) for step in steps]) for name in names]
    grid = Grid(["backprop", *(f"T={step}" for step in steps)], lines)
    told = [*memory_notes(rows), "In brackets: the runs.", *spread_told(rows, "train_memory_bytes")]
    return Sheet(f"Training memory against T, MiB: {title}", [("", grid)], told)


def _cell(row: Row | None) -> Cell:
    return Cell(NOTHING if row is None else f"{number(row, 'train_memory_bytes', 1, MIB)} ({row['n']})")
