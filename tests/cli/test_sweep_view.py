"""The output of a sweep: before it trains, while it trains, and at its end."""

from __future__ import annotations

import io
import json
import time

import pytest

from sadp_bench.records.record import Failure
from sadp_bench.records.store import Store
from sadp_bench.sweeps import planning
from tests.commands import command
from tests.example_records import make_record, make_spec
from tests.sweeps.helpers import GOOD, TINY, planned, written


def test_a_dry_run_shows_runs_states_and_time_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "start_seconds", lambda spec: 5.0)
    monkeypatch.setattr("sadp_bench.runs.expected_cost.EVALUATION_COST", 0.0)
    store, runs = Store(tmp_path / "runs"), planned(tmp_path, TINY + GOOD).runs
    path = written(tmp_path, TINY + GOOD + "seed = [0, 1]")
    store.write(make_record(runs[0], train=256.0, examples_seen=512))  # and 1,000 s of evaluation: 2.45 s a visit
    before = sorted(tmp_path.rglob("*"))
    answer = command("sweep", path, "--out", store.folder, "--dry-run", "--quiet")
    assert answer.code == 0 and answer.err == ""
    rows = [line.split() for line in answer.out.splitlines()]
    assert rows[:3] == [
        ["run", "state", "expected"],
        ["full", "0", "seed=0", "done"],
        [*"full 0 seed=1 to do 21 min 01 s".split()],
    ]
    assert answer.out.splitlines()[-2:] == [
        "4 runs: 1 done, 3 to do, about 42 min 07 s with 1 job",
        "2 paired seeds decide differences of about 4.6 points (80 % power, paired spread 0.4 assumed)",
    ]
    found = json.loads(command("sweep", path, "--out", store.folder, "--dry-run", "--json").out)
    assert [run["state"] for run in found["runs"]] == ["done", "to do", "to do", "to do"]
    assert found["runs"][0]["spec"] == runs[0].to_json() and found["runs"][0]["seconds"] is None
    assert found["expected_seconds"] == pytest.approx(1256 / 512 * (512 + 256 + 256) + 3 * 5.0)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_sweep_with_nothing_to_do_states_so(tmp_path):
    path, store = written(tmp_path, TINY + GOOD), Store(tmp_path / "runs")
    for spec in planned(tmp_path, TINY + GOOD).runs:
        store.write(make_record(spec))
    answer = command("sweep", path, "--out", store.folder)
    assert (
        answer.code == 0
        and answer.err == ""
        and answer.out.splitlines()[-1].startswith("2 runs: 2 done, 0 failed; sadp-bench report")
    )
    assert "2 runs: all done" in command("sweep", path, "--out", store.folder, "--dry-run").out
    found = json.loads(command("sweep", path, "--out", store.folder, "--json", "--executor", "ray").out)
    assert found["done"] == 2 and len(found["records"]) == 2 and found["failed"] == []


def test_the_overview_shows_counts_the_time_left_and_what_goes_on():
    from rich.console import Console

    from sadp_bench.cli.sweep_view import Overview
    from sadp_bench.sweeps.scheduler import Running, Standing

    specs = [make_spec("sadp", 0.3, seed) for seed in range(5)]
    plan = planning.Plan(specs, frozenset(), {}, {}, {spec.key: 120.0 for spec in specs})
    standing = Standing(plan, {specs[0].key}, {specs[1].key: Failure(specs[1], "exit code 1", "")})
    standing.running[specs[2].key] = Running(specs[2], time.monotonic(), None, "epoch 3/20 [b]kept[/b] " + "x" * 200)
    console = Console(file=io.StringIO(), width=100)
    console.print(Overview(plan).shown(standing))
    first, bar, row = console.file.getvalue().splitlines()
    assert first == "1 done, 1 running, 1 failed, 2 to do, about 6 min 00 s left" and bar
    assert row.startswith("sadp 0.3 seed=2  0 s  epoch 3/20 [b]kept[/b] xx") and len(row) <= 100
