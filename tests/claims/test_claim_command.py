"""`sadp-bench claim`: from records, or by training, to a verdict and an exit code."""

from __future__ import annotations

import json
import math

import pytest
import torch

from sadp_bench.claims.claim_file import catalog
from sadp_bench.records.store import Store
from sadp_bench.training.checkpoint import read_state, write_state
from tests.claims.helpers import GOOD, HEAD, METRIC, SWEEP, recorded, wanted_specs, written
from tests.commands import command, refused
from tests.example_records import make_record
from tests.sweeps.helpers import GOOD as RUNS
from tests.sweeps.helpers import TINY, Scripted

# Accuracies of three seeds; random minus full is -3, -4 and -5 points.
ACCURACIES = {("full", 0): 0.80, ("full", 1): 0.81, ("full", 2): 0.82} | {
    ("random", 0): 0.77, ("random", 1): 0.77, ("random", 2): 0.77
}  # fmt: skip


def test_records_give_the_mean_its_interval_and_the_verdict(tmp_path):
    records = recorded(written(tmp_path), tmp_path / "records", ACCURACIES)
    # Student's t of two degrees of freedom is 4.303, the standard error 1 / sqrt(3): the half-width is 2.484.
    ends = [-4 - 2.484, -4 + 2.484]
    for band, verdict, code in (("-1.4", "held", 0), ("-2", "undecided", 1), ("-6.6", "not held", 1)):
        path = written(tmp_path, GOOD.replace("at_most = -2", f"at_most = {band}"))
        answer = command("claim", path, "--from", records, "--json")
        found = json.loads(answer.out)
        [metric] = found["metrics"]
        assert answer.code == code and found["verdict"] == metric["verdict"] == verdict, band
        assert metric["values"] == pytest.approx([-3, -4, -5])
        assert metric["mean"] == pytest.approx(-4)
        assert [metric["low"], metric["high"]] == pytest.approx(ends, abs=1e-3)
        shown = command("claim", path, "--from", records)
        assert shown.code == code and shown.err == "" and "-4.00  [-6.48, -1.52]" in shown.out
        assert shown.out.splitlines()[-1].startswith(verdict)


def test_one_seed_is_undecided(tmp_path):
    path = written(tmp_path, GOOD.replace("[0, 1, 2]", "0"))
    answer = command("claim", path, "--from", recorded(path, tmp_path / "records", ACCURACIES), "--json")
    found = json.loads(answer.out)
    assert answer.code == 1 and found["verdict"] == "undecided" and "one seed" in found["why"]
    assert found["metrics"][0]["low"] is None


def test_missing_records_are_named(tmp_path):
    path = written(tmp_path)
    records = recorded(path, tmp_path / "records", ACCURACIES)
    for record in records.glob("*-random-r0.5-s[12]-*"):
        record.unlink()
    refused(
        command("claim", path, "--from", records),
        "lacks 2 of 6 runs of the claim: random 0.5 seed=1; random 0.5 seed=2",
    )
    refused(command("claim", path, "--from", tmp_path / "none"), "no folder")
    many = written(tmp_path, GOOD.replace("[0, 1, 2]", str(list(range(9)))), "many")
    refused(command("claim", many, "--from", records), "lacks 14 of 18 runs", "; 2 more")


def test_records_that_differ_in_a_setting_are_none_of_the_claim(tmp_path):
    path, records = written(tmp_path), tmp_path / "records"
    for spec in wanted_specs(path):
        options = (
            spec.method_options | {"rescale": True}
            if spec.method == "random" and spec.seed == 0
            else spec.method_options
        )
        Store(records).write(make_record(spec.of_valid(method_options=options), ACCURACIES[spec.method, spec.seed]))
    refused(command("claim", path, "--from", records), "lacks 1 of 6 runs", "random 0.5 seed=0")


def test_two_records_of_a_run_are_ambiguous(tmp_path):
    path = written(tmp_path)
    records = recorded(path, tmp_path / "records", ACCURACIES)
    spec = next(spec for spec in wanted_specs(path) if spec.method == "random")
    Store(records / "more").write(make_record(spec.of_valid(threads=2), 0.5))
    refused(command("claim", path, "--from", records), "2 records of random 0.5 seed=0", "differ in threads")


def test_a_record_without_the_number_is_named(tmp_path):
    path = written(tmp_path, GOOD.replace("accuracy_difference", "late_gain").replace('against = "full"', ""))
    records = recorded(path, tmp_path / "records", ACCURACIES)
    refused(command("claim", path, "--from", records), "no late_gain of", "-random-r0.5-s0-")


def test_what_is_not_testable_states_why(tmp_path):
    untestable = HEAD + 'untestable = "It needs ImageNet."\n'
    answer = command("claim", written(tmp_path, untestable))
    assert answer.code == 1 and answer.out.splitlines()[-1] == "not testable here: It needs ImageNet."
    part = '\n[[metric]]\nname = "the same on ImageNet"\nuntestable = "no ImageNet"\n'
    path = written(tmp_path, GOOD.replace("at_most = -2", "at_most = -1") + part)
    records = recorded(path, tmp_path / "records", ACCURACIES)
    answer = command("claim", path, "--from", records)
    assert answer.code == 0 and answer.out.splitlines()[-1] == "held: as far as it is testable here"
    assert "not testable here: no ImageNet" in answer.out
    alone = written(tmp_path, HEAD + part + SWEEP, "alone")
    answer = command("claim", alone, "--out", tmp_path / "none")
    assert answer.code == 1 and answer.out.splitlines()[-1] == "not testable here: no ImageNet"
    assert not (tmp_path / "none").exists()


def test_a_premise_that_fails_is_the_reason(tmp_path):
    premise = METRIC.replace("at_most = -2", "at_least = 0\npremise = true").replace("random minus full", "no loss")
    path = written(tmp_path, HEAD + premise + METRIC.replace("-2", "-1") + SWEEP)
    answer = command("claim", path, "--from", recorded(path, tmp_path / "records", ACCURACIES))
    assert answer.code == 1 and "premise: no loss" in answer.out
    assert answer.out.splitlines()[-1] == "undecided: the setting is not shown to be the claim's (no loss)"


TRAINED = HEAD + METRIC.replace("at_most = -2", "at_most = 100") + TINY + "seed = [0, 1]\n" + RUNS
SCORED = """
[[metric]]
name = "EL2N of two networks"
kind = "score_correlation"
of = { method = "el2n", seed = [0, 1, 2] }
against = { method = "el2n", seed = [3, 4, 5] }
at_least = 0.5
"""


def scored_records(tmp_path):
    """Writes records with scores; the second half's are the first half's with two neighbours swapped."""
    path = written(tmp_path, HEAD + SCORED + SWEEP.replace("[0, 1, 2]", "[0, 1, 2, 3, 4, 5]"))
    store = Store(tmp_path / "records")
    for spec in wanted_specs(path):
        spec = spec.of_valid(train_examples=5)
        record = make_record(spec, 0.5)
        store.write(record)
        score_N = torch.tensor([1.0, 2, 3, 4, 5] if spec.seed < 3 else [2.0, 1, 4, 3, 5])
        state = {"score_N": score_N, "seconds": 1.0, "visits": 5, "by": spec.key}
        write_state(store.scores_path(spec), state | {"made_in": {"data_sha256": record.data_sha256}})
    return path, store.folder


def test_scores_are_read_beside_the_records(tmp_path):
    path, records = scored_records(tmp_path)
    answer = command("claim", path, "--from", records, "--json")
    assert answer.code == 0 and json.loads(answer.out)["metrics"][0]["values"] == pytest.approx([0.8] * 3)
    [first] = (records / "scores").glob("*-s0-*.scores")
    state = read_state(first, torch.device("cpu"))
    write_state(first, state | {"made_in": {"data_sha256": "other"}})
    refused(command("claim", path, "--from", records), first.name, "of other data")
    write_state(first, state | {"score_N": torch.full((5,), math.nan)})
    refused(command("claim", path, "--from", records), first.name, "NaN for 5 examples")
    first.unlink()
    refused(command("claim", path, "--from", records), "lacks 1 of 6 runs of the claim: the scores of el2n 0.5 seed=0")


@pytest.fixture
def scripted(monkeypatch):
    """Makes runs end as scripted for their method; a run that ends well writes a record of accuracy 0.7."""
    started = []
    monkeypatch.setattr("sadp_bench.runs.trainer.expected", lambda specs, resources: [1.0])

    def script(**scripts):
        def make(plan, store, options):
            started.append(Scripted(store, **scripts))
            return started[-1]

        monkeypatch.setattr("sadp_bench.sweeps.scheduler.make_executor", make)
        return started

    return script


def test_the_command_trains_what_is_missing_and_measures_it(tmp_path, scripted):
    started = scripted()
    path, words = written(tmp_path, TRAINED), ("--out", tmp_path / "runs", "--quiet")
    first = command("claim", path, *words, "--json")
    found = json.loads(first.out)
    assert first.code == 0 and found["verdict"] == "held" and found["metrics"][0]["values"] == [0.0, 0.0], first.err
    assert sorted((spec.method, spec.seed) for spec in started[0].started) == [
        (method, seed) for method in ("full", "random") for seed in (0, 1)
    ]
    again = command("claim", path, *words, "--json")
    assert json.loads(again.out) == found and not started[1].started
    assert json.loads(command("claim", path, "--from", tmp_path / "runs", "--json").out) == found


def test_a_run_that_fails_gives_no_verdict(tmp_path, scripted):
    scripted(random=[2])
    answer = command("claim", written(tmp_path, TRAINED), "--out", tmp_path / "runs", "--quiet")
    refused(answer, "2 of the claim's runs failed: ", "sadp-bench sweep")


def test_the_list_has_every_claim_with_its_source():
    found = json.loads(command("claim", "--json").out)
    assert [claim["name"] for claim in found] == list(catalog())
    text = command("claim").out
    assert all(len(line) <= 80 for line in text.splitlines())
    for claim in found:
        assert claim["name"] in text and claim["text"] in " ".join(text.split())


def test_bad_options_are_one_line(tmp_path):
    refused(command("claim", "hardest-subset", "--from", tmp_path, "--jobs", "2"), "--from reads existing records")
    refused(command("claim", "--from", tmp_path), "name a claim")
    refused(command("claim", written(tmp_path), "--jobs", "0"), "--jobs is at least 1, not 0")
