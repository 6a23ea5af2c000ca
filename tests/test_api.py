"""The commands as functions leave the records of the commands, and their frames have the records' numbers."""

from __future__ import annotations

import subprocess
import sys

import pandas
import pytest
import torch

import sadp_bench
from sadp_bench import BadInput
from sadp_bench.api import training
from sadp_bench.cli.spec_options import SPEC_OPTIONS
from sadp_bench.records.store import read, read_all
from tests.commands import command, tiny_run

TINY = {"epochs": 2, "train_examples": 256, "threads": 1, "set": {"backbone.width": 4}, "quiet": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def outcome(folder):
    return sadp_bench.run("sadp", 0.5, out=folder, save_model=True, **TINY)


def test_a_run_is_that_of_the_command(outcome, folder, tmp_path):
    assert tiny_run("sadp", 0.5, tmp_path).code == 0
    [there] = tmp_path.glob("*-sadp-*.json")
    assert there.name == outcome.path.name
    one, other = read(there), outcome.comparison.record
    assert one.spec == other.spec and one.test_accuracy == other.test_accuracy
    assert [row["train_loss"] for row in one.epochs] == [row["train_loss"] for row in other.epochs]
    assert outcome.reference_path.exists()
    again = tiny_run("sadp", 0.5, folder)
    assert again.code == 0 and len(list(folder.glob("*.json"))) == 2, "the command continues the function's work"


def test_a_comparison_is_one_line(outcome):
    shown = str(outcome.comparison)
    assert shown == repr(outcome.comparison) and "\n" not in shown
    assert shown.startswith(f"sadp 0.5: accuracy {outcome.comparison.record.test_accuracy:.4f} (full data ")


def test_lists_make_a_sweep_whose_frame_has_the_records(tmp_path):
    found = sadp_bench.run(["random"], (0.25, 0.5), seed=range(1), out=tmp_path, **TINY)
    assert isinstance(found, training.SweepOutcome) and not found.failures
    frame = found.frame.set_index("ratio")
    assert sorted(frame.index) == [0.0, 0.25, 0.5]
    records = {record.spec.ratio: record for _, record in read_all([tmp_path]).records}
    for ratio, record in records.items():
        row = frame.loc[ratio]
        assert (
            row["test_accuracy"] == record.test_accuracy
            and row["backbone.width"] == 4
            and row["key"] == record.spec.key
        )
        assert row["ceiling"] == pytest.approx(256 * 2 / record.examples_seen)
    loaded = sadp_bench.load(tmp_path)
    pandas.testing.assert_frame_equal(
        loaded.sort_values("ratio", ignore_index=True), found.frame.sort_values("ratio", ignore_index=True)
    )
    epochs = sadp_bench.load([tmp_path], epochs=True)
    assert len(epochs) == 6 and set(epochs["epoch"]) == {0, 1}
    assert list(epochs[epochs["ratio"] == 0.5]["kept"]) == [row["kept"] for row in records[0.5].epochs]
    text = sadp_bench.report(tmp_path, format="csv")
    assert text == command("report", tmp_path, "--format", "csv").out


def test_a_sweep_of_tables_is_that_of_a_file(outcome, folder):
    common = {key: value for key, value in TINY.items() if key != "quiet"}
    tables = {"common": common | {"ratio": 0.5}, "sweep": [{"method": "sadp"}]}
    found = sadp_bench.sweep(tables, out=folder, quiet=True)
    assert [each.spec.key for each in found.comparisons] == [
        outcome.comparison.reference.spec.key,
        outcome.comparison.spec.key,
    ]


def test_a_loaded_model_has_the_accuracy_of_its_record(outcome):
    from sadp_bench.runs.reopening import reopened

    model = sadp_bench.load_model(outcome)
    held = reopened(outcome.comparison.spec).held
    assert not model.network.training and len(model.class_names) == 10
    with torch.inference_mode():
        logits = model.network(model.input(held.input_N.float())).mean(0)
    share = (logits.argmax(1) == held.label_N).double().mean().item()
    assert share == pytest.approx(outcome.comparison.record.test_accuracy, abs=1 / len(held))


def test_visits_sum_to_the_examples_seen(outcome):
    counts = sadp_bench.visits(outcome)
    assert counts.shape == (256,) and counts.sum() == outcome.comparison.record.examples_seen
    assert (counts == sadp_bench.visits(str(outcome.path))).all()


def test_scores_are_those_that_chose_the_subset(tmp_path):
    found = sadp_bench.run("el2n", 0.5, out=tmp_path, reference=False, **TINY)
    order, counts = sadp_bench.scores(found).argsort(), sadp_bench.visits(found)
    assert (counts[order[128:]] == 2).all() and (counts[order[:128]] == 0).all()


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: sadp_bench.run("sdap", 0.5), "sadp"),
        (lambda: sadp_bench.run("random", 1.5), "1.5"),
        (lambda: sadp_bench.run("random", 0.5, epoch=3), "unknown key 'epoch'"),
        (lambda: sadp_bench.run(["random"], 0.5, again=True), "lists make a sweep"),
        (lambda: sadp_bench.sweep({"sweeps": []}), "the sweep: unknown table 'sweeps'"),
        (lambda: sadp_bench.load("/no/such/folder"), "/no/such/folder"),
        (lambda: sadp_bench.load_model("/no/such/file.json"), "/no/such/file.json"),
    ],
)
def test_bad_input_is_one_line(call, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput) as error:
        call()
    assert expected in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_model_that_was_not_kept_is_named(tmp_path):
    found = sadp_bench.run("random", 0.5, out=tmp_path, reference=False, **TINY)
    with pytest.raises(BadInput, match="--save-model"):
        sadp_bench.load_model(found)


def test_every_option_of_a_run_is_typed():
    assert set(training.SpecOptions.__annotations__) == set(SPEC_OPTIONS) - {"seed"} | {
        "protocol",
        "evaluate_on",
        "evaluate_every",
    }


def test_the_package_imports_neither_torch_nor_pandas():
    code = "import sys, sadp_bench; sadp_bench.run, sadp_bench.load; print({'torch', 'pandas', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
