"""Disturbed runs: the mark in the panel and in every format, and no interval that its quantity cannot have."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from sadp_bench.core import clock
from sadp_bench.reports import render
from sadp_bench.reports.formats import html
from sadp_bench.reports.grouping import rows
from sadp_bench.reports.plots.time import phases_figure, time_figure
from sadp_bench.reports.tables.axes import axes_rows
from sadp_bench.reports.tables.ticket_search import search_rows
from tests.commands import command, started, tiny_run
from tests.example_records import make_record, make_spec
from tests.reports.axes_records import IMP, run, three_axes
from tests.reports.helpers import row_of
from tests.reports.plots.helpers import styles_of
from tests.small_runs import EvenTime

WHY = "its process had a core for less than 90 % of the time"


def with_cpu(record, share=0.98):
    return dataclasses.replace(
        record, cpu_seconds={phase: share * seconds for phase, seconds in record.seconds.items()}
    )


def stormy():
    """Returns runs of which some are disturbed.

    One run of random is short of CPU and one exceeds its ceiling. The third run of full is short of CPU.
    """
    found = [with_cpu(make_record(make_spec(seed=seed), 0.97 + seed / 100, 100 + seed)) for seed in (0, 1)]
    found.append(with_cpu(make_record(make_spec(seed=2), 0.6, 900.0), 0.11))
    for seed, (seconds, share) in enumerate(((60.0, 0.9801), (500.0, 0.1), (60.0, 1.0), (45.0, 1.0))):
        found.append(with_cpu(make_record(make_spec("random", 0.5, seed), 0.99 - seed / 3, seconds), share))
    return [*found, with_cpu(make_record(make_spec(seed=3), 0.98, 100.0))]


@pytest.fixture
def no_plots(monkeypatch):
    """Leaves out the page's plots, which take most of its time."""
    monkeypatch.setattr(html, "plots_by_group", lambda *given: {})


def test_disturbed_runs_are_marked_and_counted_out_in_every_format(no_plots):
    table = rows(stormy())
    full, random = row_of(table, "full", 0), row_of(table, "random", 0.5)
    assert full.disturbed_seeds == [2] and (full.seconds.n, full.seconds.mean) == (3, pytest.approx(301 / 3))
    assert random.disturbed_seeds == [1, 3] and (random.seconds.n, random.seconds.mean) == (2, 60)
    assert (random.n, random.speedup.n, random.cpu_speedup.n) == (4, 1, 4)
    pages = {format: render(stormy(), [], format, width=200) for format in ("text", "markdown", "latex", "html")}
    for format, shown in pages.items():
        mark = r"\dag{}" if format == "latex" else "†"
        speed, seconds = (
            (rf"1.67{mark}$_{{1}}$", rf"100.3\,s{mark}")
            if format == "latex"
            else (f"1.67{mark} (1) / 2.00", f"100.3 s{mark} (3)")
        )
        assert (speed in shown and seconds in shown) or format == "html", format
        assert f"1.67{mark}" in shown and f"{mark}: without disturbed runs" in shown, format
        plain = shown.replace(r"\,\%", " %")
        assert WHY in plain and "exceeds its ceiling by more than 2 %" in plain and "sadp-bench speed" in shown, format
        assert "by CPU" in shown and "Speed-up by CPU" in shown, format
    [first, second] = csv.DictReader(io.StringIO(render(stormy(), [], "csv")))
    assert (first["disturbed_seeds"], second["disturbed_seeds"]) == ("2", "1; 3")
    assert second["n_timed"] == "1" and second["n_cpu"] == "4" and WHY in second["mismatches"]
    found = json.loads(render(stormy(), [], "json"))["rows"]
    assert [row["disturbed_seeds"] for row in found] == [[2], [1, 3]] and found[1]["n_seconds"] == 2


def test_tables_of_axes_and_of_the_search_mark_disturbed_runs_too():
    records = [run(), run(seconds=80.0, search=30.0, **IMP)]
    for share, mark in ((0.98, ""), (0.5, "†")):
        found = axes_rows([records[0], with_cpu(records[1], share)])
        [searched] = search_rows(found)
        assert (found[1].mark, searched.mark, searched.search_seconds.n) == (mark, mark, int(not mark))
        assert found[1].cpu_speedup.n == 0  # the plain run has no known CPU seconds
        shown = render([records[0], with_cpu(records[1], share)], [], "markdown")
        assert ("–†" in shown and "†: without disturbed runs" in shown) == bool(mark)
    assert axes_rows([with_cpu(record) for record in records])[1].cpu_speedup.mean == pytest.approx(100 / 110)


def test_plots_of_time_leave_disturbed_runs_out():
    table = rows(stormy())
    for figure in (time_figure(table, styles_of(table)), phases_figure(table)):
        assert max(x for line in figure.axes[0].lines for x in line.get_xdata()) < 130


def test_no_interval_reaches_below_0_nor_an_accuracy_beyond_0_and_100(no_plots):
    """The two seeds lie far apart in every quantity and every table."""
    records = []
    for seed, record in enumerate([*three_axes((0,)), *three_axes((1,))]):
        far = 1 if seed < 10 else 40
        seconds = {phase: spent * far for phase, spent in record.seconds.items()}
        ticket = record.ticket and record.ticket | {"seconds": record.ticket["seconds"] * far}
        accuracy = 0.999 if seed < 10 else 0.01
        epochs = [{**row, "seconds": far, "test_accuracy": accuracy} for row in record.epochs]
        changed = {"seconds": seconds, "ticket": ticket, "test_accuracy": accuracy, "epochs": epochs}
        changed["train_memory_bytes"] = record.train_memory_bytes * far
        records.append(with_cpu(dataclasses.replace(record, **changed)))
    tables = json.loads(render(records, [], "json"))
    ends = [
        (f"{kind} {row['group']}: {name}", value)
        for kind in ("rows", "axes", "search")
        for row in tables[kind]
        for name, value in row.items()
        if name.endswith(("_low", "_high")) and value is not None
    ]
    assert len(ends) > 200
    for name, value in ends:
        share = re.search(r": (accuracy|accuracy_difference|random_difference|realised_ratio|search_share)_", name)
        assert (-1 if "difference" in name else 0) <= value <= (1 if share else 1e12), name
    for format in ("text", "markdown", "latex", "html"):
        shown = re.sub(r"\\,|\$|\{|\}", "", render(records, [], format, width=200))
        negative = re.findall(r"\[[-−]\d[\d.,]*, [+\d][\d.,]*\]", shown)
        assert not [found for found in negative if not re.match(r"\[[-−]\d+\.\d\d, \+", found)], format  # differences
        for mean, half in re.findall(r"([\d,]+(?:\.\d+)?)†? ?± ?([\d,]+(?:\.\d+)?)", shown):
            low = float(mean.replace(",", "")) - float(half.replace(",", ""))
            assert low >= -0.051, (format, mean, half)  # both are rounded


def test_the_panel_and_json_of_a_starved_run_state_it(tmp_path: Path) -> None:
    with patch.object(clock, "time", EvenTime(cpu_share=0.25)):
        shown = tiny_run("random", 0.5, tmp_path, "--quiet").out
    text = " ".join(shown.replace("│", " ").split())
    named = "No speed-up, as this run and the full-data run were disturbed"
    assert f"{named}: {WHY}. Measure it with sadp-bench speed." in text
    assert "efficiency" not in text and "speed-up by CPU 1.000 x" in text and "another environment" not in text
    found = json.loads(tiny_run("random", 0.5, tmp_path, "--quiet", "--json").out)
    assert found["disturbed"] == found["reference_disturbed"] == WHY
    assert found["seconds"] is found["speedup"] is found["efficiency"] is None and found["cpu_speedup"] == 1
    assert "†" in command("report", tmp_path).out


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system pins no process to a core")
def test_a_busy_second_process_on_the_same_core_is_found(tmp_path: Path) -> None:
    """Asserts no time. Beside a process that never waits, a run has about half of its core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        with started([sys.executable, "-c", "while True: pass"]):
            tiny_run("random", 0.5, tmp_path, "--quiet", "--no-reference")
    finally:
        os.sched_setaffinity(0, cores)
    [row] = json.loads(command("report", tmp_path, "--format", "json").out)["rows"]
    assert row["disturbed_seeds"] == [0] and row["seconds_mean"] is None
