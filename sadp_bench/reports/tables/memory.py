"""The table of training memory by number of time steps."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sadp_bench.core.text import NOTHING, percent
from sadp_bench.records.axes import TIME_AXIS
from sadp_bench.records.comparison import TIMED_TOGETHER
from sadp_bench.records.fields import CHOICES
from sadp_bench.records.naming import method_labels
from sadp_bench.records.record import Record
from sadp_bench.records.statistics import Estimate, Quantity
from sadp_bench.reports.naming import is_axis, is_method_option, time_name, titles, weights_name, without
from sadp_bench.reports.rows import Row, over_seeds
from sadp_bench.reports.tables.notes import measured_on, warnings
from sadp_bench.reports.tables.table import MIB, Cell, Column, Sheet, Table, interval_notes

Runs = list[Record]
MEMORY_COLUMN = Column("training memory", "train_memory_bytes", "MiB", 1, MIB, runs="beside")
MEMORY_EXPLAINED = (
    "Training memory: the peak of training steps above the memory in use before them. On a GPU it counts tensors, on a CPU "
    "the whole process."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class MemoryRow(Row):
    """The runs of one setting, time axis and number of time steps.

    Attributes:
        time: The choice on the time axis.
        timesteps: T.
        train_memory_bytes: The peak of training steps above the memory in use before them.
    """

    time: str
    timesteps: int
    train_memory_bytes: Estimate


def memory_rows(records: Iterable[Record]) -> list[MemoryRow]:
    """Returns a row for each setting, choice on the time axis and number of time steps.

    Runs of one setting share the environment and all of the spec except seed, time steps and time axis. A setting has rows
    where its runs differ in the number of time steps and not all are on bptt.
    """
    known = [record for record in records if record.train_memory_bytes is not None]
    settings = _settings(sorted(known, key=lambda run: (run.spec.seed, run.spec.key)))
    table = []
    for title, runs in zip(_titles(settings), settings, strict=True):
        found: dict[tuple[int, int, int], Runs] = {}
        for run in runs:
            spec = run.spec
            found.setdefault((CHOICES["backprop"].index(spec.backprop), spec.k, spec.timesteps), []).append(run)
        table += [_row(title, own) for _, own in sorted(found.items(), key=lambda item: item[0])]
    return table


def _settings(runs: Runs) -> list[Runs]:
    """Returns the runs of each setting."""
    members: dict[str, Runs] = {}
    for run in runs:
        alike = dataclasses.replace(run.spec.any_seed(), timesteps=1, backprop="bptt", k=0)
        place = [run.environment.get(name) for name in TIMED_TOGETHER]
        members.setdefault(json.dumps([alike.to_json(), place]), []).append(run)
    shown = {
        key: own
        for key, own in members.items()
        if len({run.spec.timesteps for run in own}) > 1 and any(run.spec.backprop != "bptt" for run in own)
    }
    return [shown[key] for key in sorted(shown)]


def _titles(settings: Sequence[Runs]) -> list[str]:
    """Returns the title of each setting. It names data, weights and environment where they differ."""
    specs = [runs[0].spec for runs in settings]
    rivals, labels = [spec.flat() for spec in specs], method_labels(specs)
    shared = [without(flat, "method", "ratio", "seed", "timesteps") for flat in rivals]
    base = titles([{n: v for n, v in flat.items() if not is_axis(n) and not is_method_option(n)} for flat in shared])
    found = []
    for title, spec, flat in zip(base, specs, rivals, strict=True):
        weights = weights_name(flat, rivals)
        data = [] if spec.method == "full" else [f"{labels[spec.key]} {percent(spec.ratio)}"]
        found.append(" · ".join([title, *data, *([] if weights == "dense" else [weights])]))
    alike = [[runs for other, runs in zip(found, settings, strict=True) if other == title] for title in found]
    return [
        " · ".join([title, *_environment(runs, rivals)])
        for title, runs, rivals in zip(found, settings, alike, strict=True)
    ]


def _environment(runs: Runs, rivals: Sequence[Runs]) -> list[str]:
    """Returns 'threads 2' and the like, where settings of one title ran in several environments."""
    own = runs[0].environment
    return [
        f"{name} {own.get(name)}"
        for name in TIMED_TOGETHER
        if any(others[0].environment.get(name) != own.get(name) for others in rivals)
    ]


def _row(title: str, runs: Runs) -> MemoryRow:
    spec = runs[0].spec
    time = time_name(spec.flat())
    return MemoryRow(
        group=title,
        settings={name: getattr(spec, name) for name in TIME_AXIS},
        name=f"{time} T={spec.timesteps}",
        runs=tuple(runs),
        time=time,
        timesteps=spec.timesteps,
        train_memory_bytes=over_seeds((run.train_memory_bytes for run in runs), Quantity.AMOUNT),
    )


def memory_sheets(rows: Iterable[MemoryRow]) -> list[Sheet]:
    """Returns a sheet for each setting: the time axis by number of time steps, in MiB."""
    return [_sheet(title, list(own)) for title, own in itertools.groupby(rows, key=lambda row: row.group)]


def _sheet(title: str, rows: list[MemoryRow]) -> Sheet:
    at = {(row.time, row.timesteps): MEMORY_COLUMN.cell(row) for row in rows}
    steps = sorted({row.timesteps for row in rows})
    lines = [
        (name, [at.get((name, step), Cell(NOTHING)) for step in steps]) for name in dict.fromkeys(r.time for r in rows)
    ]
    grid = Table(["backprop", *(f"T={step}" for step in steps)], lines)
    notes = [measured_on(rows), MEMORY_EXPLAINED, *warnings(rows), "In brackets: the number of runs."]
    notes += interval_notes(rows, "train_memory_bytes")
    return Sheet("memory", title, f"Training memory against T, MiB: {title}", [grid], notes)
