"""Bad input: one line that says what came and what is allowed, exit code 2, no traceback, nothing written."""

from __future__ import annotations

import json
import shutil
import urllib.error
from pathlib import Path

import pytest
from commands import TINY, command, tiny_run

RUN = ["run", "--method", "random", "--ratio", "0.5", *TINY]


def run(*words, method="random", ratio="0.5"):
    return ["run", "--method", method, "--ratio", ratio, *TINY, *words]


CASES = {
    "method": (run(method="sdap"), "did you mean 'sadp'"),
    "method, nothing near": (run(method="zzz"), "allowed: el2n, "),
    "dataset": (run("--dataset", "cifar11"), "did you mean 'cifar10'"),
    "backbone": (run("--backbone", "resnet19"), "did you mean 'resnet18'"),
    "ratio below": (run(ratio="-0.1"), "at least 0 and below 1"),
    "ratio 1": (run(ratio="1"), "at least 0 and below 1"),
    "ratio above": (run(ratio="1.5"), "at least 0 and below 1"),
    "ratio nan": (run(ratio="nan"), "at least 0 and below 1"),
    "ratio no number": (run(ratio="half"), "--ratio"),
    "under one batch": (run("--batch-size", "200"), "less than one batch of 200"),
    "epochs 0": (run("--epochs", "0"), "--epochs is at least 1, not 0"),
    "epochs no number": (run("--epochs", "many"), "--epochs"),
    "batch 0": (run("--batch-size", "0"), "--batch-size is at least 1"),
    "timesteps 0": (run("--timesteps", "0"), "--timesteps is at least 1"),
    "threads 0": (run("--threads", "0"), "--threads is at least 1"),
    "seed -1": (run("--seed", "-1"), "--seed"),
    "train-examples 0": (run("--train-examples", "0"), "--train-examples is at least 1"),
    "train-examples too many": (run("--train-examples", "9999"), "has 1437 to train on"),
    "evaluate-every 0": (run("--evaluate-every", "0"), "--evaluate-every is at least 1"),
    "learning rate below 0": (run("--learning-rate", "-1"), "--learning-rate"),
    "learning rate nan": (run("--learning-rate", "nan"), "--learning-rate"),
    "learning rate too high": (run("--learning-rate", "1e30"), "try a lower one"),
    "weight decay": (run("--weight-decay", "inf"), "--weight-decay"),
    "optimizer": (run("--optimizer", "adam"), "sgd, adamw"),
    "schedule": (run("--schedule", "step"), "cosine, constant"),
    "augment": (run("--augment", "flip"), "none, crop, crop-flip"),
    "loss": (run("--loss", "mse"), "mean, step"),
    "precision": (run("--precision", "fp16"), "fp32, bf16, fp64"),
    "protocol": (run("--protocol", "steps"), "epochs, updates"),
    "evaluate-on": (run("--evaluate-on", "train"), "test, validation"),
    "device": (run("--device", "tpu"), "auto, cpu, cuda"),
    "device not there": (run("--device", "cuda:99"), "--device"),
    "setting of the method": (run("--set", "smothing=0.2", method="sadp"), "did you mean 'smoothing'"),
    "setting of the backbone": (run("--set", "backbone.widht=8"), "did you mean 'width'"),
    "setting without value": (run("--set", "smoothing"), "KEY=VALUE"),
    "setting of another type": (run("--set", "smoothing=much", method="sadp"), "is a number"),
    "setting not finite": (run("--set", "smoothing=nan", method="sadp"), "is a number"),
    "setting not whole": (run("--set", "score_epochs=1.5", method="el2n"), "a whole number"),
    "setting not boolean": (run("--set", "fresh=perhaps"), "true or false"),
    "smoothing 0": (run("--set", "smoothing=0", method="sadp"), "above 0 and at most 1"),
    "smoothing 2": (run("--set", "smoothing=2", method="sadp"), "above 0 and at most 1"),
    "offset above ratio": (run("--set", "offset=0.6", method="el2n"), "between 0 and the ratio"),
    "more scoring than run": (run("--set", "score_epochs=9", method="grand"), "at most the run's 2 epochs"),
    "infobatch delta": (run("--set", "delta=0", method="infobatch"), "delta"),
    "infobatch too much": (run("--batch-size", "10", method="infobatch", ratio="0.95"), "at most 0.9"),
    "full with a ratio": (run(method="full"), "its ratio is 0"),
    "updates of infobatch": (run("--protocol", "updates", method="infobatch"), "--protocol epochs"),
    "width 0": (run("--set", "backbone.width=0"), "at least 1 channel"),
    "norm": (run("--set", "backbone.norm=layer"), "batch, none"),
    "tau": (run("--set", "backbone.tau=1"), "backbone.tau is above 1"),
    "surrogate": (run("--set", "backbone.surrogate=relu"), "atan, sigmoid, triangle"),
    "no such module": (run(method="nomodule.at.all:Mine"), "no module named"),
    "no such class": (run(method="sadp_bench.pruners.sadp:SDAP"), "no class"),
    "no pruner": (run(method="sadp_bench.record:Record"), "no subclass of"),
    "abstract": (run(method="sadp_bench.pruner:Pruner"), "abstract"),
    "no backbone": (run("--backbone", "sadp_bench.record:Record"), "no subclass of"),
    "no dataset": (run("--dataset", "sadp_bench.record:Record"), "no subclass of"),
    "missing option": (["run", "--method", "sadp"], "--ratio"),
    "unknown option": (run("--epoch", "3"), "--epoch"),
    "unknown command": (["runn"], "runn"),
    "report of no folder": (["report", "nowhere"], "no folder nowhere"),
    "report format": (["report", ".", "--format", "pdf"], "--format is one of"),
    "list what": (["list", "method"], "did you mean 'methods'"),
    "speed rounds": (["speed", "--rounds", "1", *TINY], "--rounds is at least 2"),
    "speed ratios": (["speed", "--ratios", "a,b", *TINY], "separated by commas"),
    "speed method": (["speed", "--methods", "sdap", "--rounds", "2"], "did you mean 'sadp'"),
    "speed epochs": (["speed", "--rounds", "5", *TINY], "--epochs is at least 6"),
}


@pytest.mark.parametrize(("words", "says"), CASES.values(), ids=CASES.keys())
def test_bad_input_is_one_line_and_code_2(words, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = command(*words, *(["--out", tmp_path / "runs", "--quiet"] if words[0] == "run" else []))
    refused(answer, says)
    assert not list(tmp_path.rglob("*.json")) and not list(tmp_path.rglob("*.part"))


def refused(answer, says):
    assert answer.code == 2
    assert answer.err.count("\n") == 1 and answer.err.startswith("sadp-bench: ")
    assert says in answer.err
    assert answer.out == ""


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion-mnist", "nmnist"])
def test_absent_data_without_a_network_names_file_source_and_way_out(name, tmp_path, monkeypatch):
    def offline(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("sadp_bench.datasets.base.urlopen", offline)
    answer = command(*run("--dataset", name, "--data", tmp_path / "no such folder", "--out", tmp_path / "runs"))
    assert answer.code == 2 and "Traceback" not in answer.err
    line = answer.err.splitlines()[-1]
    for part in ("no such folder", "https://", "--dataset digits"):
        assert part in line
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_a_truncated_data_file_is_named(tmp_path, real_data):
    shutil.copytree(real_data / "cifar-10-batches-bin", tmp_path / "cifar-10-batches-bin")
    broken = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    broken.write_bytes(broken.read_bytes()[:1000])
    answer = command(*run("--dataset", "cifar10", "--data", tmp_path, "--out", tmp_path / "runs"))
    refused(answer, "data_batch_3.bin")


def test_data_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "data").write_text("")
    refused(command(*run("--dataset", "cifar10", "--data", tmp_path / "data", "--out", tmp_path / "runs")), "data")


def test_out_that_cannot_be_written_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    refused(command(*run("--out", tmp_path / "file" / "runs")), "choose another folder")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema": 99}', "null", '{"schema": 1, "spec": 3}'])
def test_a_broken_record_among_good_ones_is_named_and_skipped(content, tmp_path):
    assert tiny_run("full", 0, tmp_path).code == 0
    (tmp_path / "broken.json").write_text(content)
    answer = command("report", tmp_path)
    assert answer.code == 0 and "full" in answer.out
    assert answer.err.count("\n") == 1 and "broken.json" in answer.err


def test_an_edited_record_no_longer_fits_its_key(tmp_path):
    assert tiny_run("full", 0, tmp_path).code == 0
    (path,) = tmp_path.glob("*.json")
    data = json.loads(path.read_text())
    data["spec"]["epochs"] = 3
    path.write_text(json.dumps(data))
    answer = command("report", tmp_path)
    assert answer.code == 2 and "does not fit its spec" in answer.err


def test_a_run_whose_own_record_is_broken_says_so_and_keeps_it(tmp_path):
    assert tiny_run("full", 0, tmp_path).code == 0
    (path,) = tmp_path.glob("*.json")
    path.write_text("{")
    answer = tiny_run("full", 0, tmp_path)
    refused(answer, "--again")
    assert Path(path).read_text() == "{"


def test_report_without_records_says_how_to_make_some(tmp_path):
    refused(command("report", tmp_path), "sadp-bench run")
