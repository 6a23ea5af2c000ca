"""Failed and damaged records: the lines that `run` and `report` print about them."""

from __future__ import annotations

import json
from pathlib import Path

from sadp_bench.records.record import Failure
from sadp_bench.records.store import Store
from tests.commands import RANDOM, command, refused, tiny_run
from tests.example_records import make_record, make_spec
from tests.records.damages import DAMAGES


def test_a_run_that_diverges_states_so_leaves_no_record_and_is_shown_by_the_report(place):
    refused(command(*RANDOM, "--learning-rate", "1e30", "--no-reference"), "try a lower one")
    [path] = Path("runs").glob("*.json")
    assert path.name.endswith(".failed.json")
    refused(command("report", "runs"), "every run failed (1): random 50 %, seed 0: training diverged")
    answer = command("report", "runs", "records")
    assert answer.code == 0 and "1 failed" in answer.out and "training diverged" in answer.out


def test_a_report_of_failures_alone_is_one_line(place):
    Store(place / "failures").write_failure(Failure(make_spec("sadp", 0.3), "killed by signal 9", "2025"))
    for format in ("text", "markdown", "csv", "json"):
        refused(command("report", "failures", "--format", format), "sadp 30 %, seed 0: killed by signal 9")


def test_a_damaged_record_among_good_ones_is_named_and_skipped(place):
    for name, (damage, _) in DAMAGES.items():
        (place / "records" / "bad.json").write_text(damage(make_record(make_spec("sadp", 0.3)).to_json()))
        answer = command("report", "records")
        assert answer.code == 0 and "random" in answer.out, name
        assert "sadp" not in answer.out.replace("sadp-bench", ""), name
        assert answer.err.count("\n") == 1 and answer.err.startswith("sadp-bench: skipped records/bad.json: "), name
        assert answer.err.rstrip("\n").isprintable(), name


def test_an_edited_record_no_longer_fits_its_key(tmp_path):
    assert tiny_run("full", 0, tmp_path).code == 0
    (path,) = tmp_path.glob("*.json")
    data = json.loads(path.read_text())
    data["spec"]["epochs"] = 3
    path.write_text(json.dumps(data))
    answer = command("report", tmp_path)
    assert answer.code == 2 and "does not fit its spec" in answer.err


def test_a_run_whose_record_is_broken_states_so_and_keeps_it(tmp_path):
    assert tiny_run("full", 0, tmp_path).code == 0
    (path,) = tmp_path.glob("*.json")
    path.write_text("{")
    refused(tiny_run("full", 0, tmp_path), "--again")
    assert Path(path).read_text() == "{"


def test_report_without_records_states_how_to_make_some(tmp_path):
    refused(command("report", tmp_path), "sadp-bench run")
