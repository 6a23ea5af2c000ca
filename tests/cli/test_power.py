"""`sadp-bench power`, and the sentence of a sweep's plan about what its seeds decide."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sadp_bench.cli.power_view import decision
from sadp_bench.records.power import seeds_needed
from sadp_bench.records.store import Store
from sadp_bench.reports.formats.text import sheets_text
from sadp_bench.reports.grouping import rows
from sadp_bench.reports.tables.power import power_rows, power_sheets
from tests.commands import command, refused
from tests.example_records import make_record, make_spec

ACCURACIES = {
    ("full", 0.0): (0.80, 0.81, 0.82),
    ("random", 0.5): (0.75, 0.77, 0.766),
    ("sadp", 0.5): (0.76, 0.775, 0.783),
}
CPU = {"prepare": 0.0, "select": 0.0, "train": 90.0}


def records(seeds: int = 3):
    return [
        make_record(make_spec(method, ratio, seed), accuracies[seed], cpu_seconds=CPU)
        for (method, ratio), accuracies in ACCURACIES.items()
        for seed in range(seeds)
    ]


def folder(path: Path, seeds: int) -> Path:
    for record in records(seeds):
        Store(path).write(record)
    return path


def test_the_seeds_and_hours_are_those_of_the_records_spreads(tmp_path):
    answer = command("power", folder(tmp_path, 3), "--difference", "0.3", "--json")
    random, sadp = json.loads(answer.out)
    assert sadp["to_full.spread"] == pytest.approx(0.2517, abs=1e-4) and sadp["to_full.n"] == 3  # of -4, -3.5 and -3.7
    for name, points, margin in (("to_full", 0.3, False), ("to_random", 0.3, False), ("lossless", 0.5, True)):
        seeds = seeds_needed(points, sadp[f"{name}.spread"], margin=margin)
        assert sadp[f"{name}.seeds"] == seeds, name
        assert sadp[f"{name}.hours"] == pytest.approx(seeds * 2 * 90 / 3600), name
    assert random["to_random.spread"] is random["to_random.seeds"] is None
    shown = sheets_text(power_sheets(power_rows(rows(records()), 0.003, 0.005)), [], 80)
    assert max(map(len, shown.splitlines())) <= 80 and f"  {sadp['to_full.seeds']} " in shown
    assert "true difference of 0.3 points" in " ".join(command("power", tmp_path).out.split())


def test_what_gives_no_spread_is_one_line(tmp_path):
    refused(command("power", folder(tmp_path / "one", 1)), "no paired spread")
    refused(command("power", tmp_path / "one", "--difference", "0"), "--difference", "above 0")
    refused(command("power", tmp_path / "one", "--margin", "nan"), "--margin", "nan")
    Store(folder(tmp_path / "some", 3)).write(make_record(make_spec("el2n", 0.3, 0), 0.7))
    answer = command("power", tmp_path / "some")
    assert answer.code == 0 and "differences are equal: el2n 30 %." in " ".join(answer.out.split())


def test_a_plan_ends_with_what_its_seeds_decide():
    specs = [record.spec for record in records()]
    assert decision(specs, []).sentence() == (
        "3 paired seeds decide differences of about 1.3 points (80 % power, paired spread 0.4 assumed)"
    )
    assert (
        "of about 2.0 points (80 % power, paired spread 0.6 of the records here)"
        in decision(specs, records()).sentence()
    )
    one = [spec for spec in specs if spec.seed == 0]
    assert decision(one, []).sentence() == "1 seed decides no difference: a paired spread needs at least two"
    assert decision([make_spec()], []) is None
