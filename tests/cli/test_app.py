"""`sadp-bench run` and its neighbours on digits, in this process where that gives the same result."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from sadp_bench.core import clock
from sadp_bench.datasets.digits import Digits
from sadp_bench.records import store
from sadp_bench.runs import building, resolve
from sadp_bench.runs.material import load_material
from sadp_bench.training.evaluation import evaluate
from tests.commands import SCRIPT, TINY, Answer, charged, command, started, the_record, tiny_run
from tests.small_runs import EvenTime

PROMISED = (
    "method ratio realised_ratio test_accuracy reference_accuracy seconds speedup nominal_maximum ceiling efficiency "
    "cpu_seconds cpu_speedup disturbed reference_disturbed record"
).split()


@pytest.fixture(scope="module", autouse=True)
def calm() -> Iterator[None]:
    """Marks every run in this process as undisturbed, whatever else runs on the machine."""
    with patch.object(clock, "time", EvenTime()):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of the records of `first`."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def first(folder: Path) -> Answer:
    """Returns the answer of the first run, of sadp; its reference runs before it."""
    return tiny_run("sadp", 0.3, folder)


def test_panel_shows_all_promised_figures(first: Answer, folder: Path) -> None:
    assert first.code == 0
    path, run = the_record(folder, "sadp")
    full_path, full = the_record(folder, "full")
    speedup = charged(full) / charged(run)
    ceiling = 2 * 256 / run["examples_seen"]
    lines = [" ".join(line.strip("│ ").split()) for line in first.out.splitlines()]

    def cells(record: Any) -> str:
        seconds = record["seconds"]
        phases = [seconds["prepare"], seconds["select"], seconds["train"], charged(record), seconds["evaluate"]]
        return f"{100 * record['test_accuracy']:.2f} % " + " ".join(f"{value:.2f} s" for value in phases)

    assert "test accuracy prepare select train charged evaluate" in lines
    assert f"full data {cells(full)}" in lines
    assert f"sadp 0.3 {cells(run)}" in lines
    assert f"difference {100 * (run['test_accuracy'] - full['test_accuracy']):+.2f}" in lines
    for start in (
        f"realised ratio {1 - run['examples_seen'] / 512:.4f}",
        f"speed-up {speedup:.3f} x",
        f"speed-up by CPU {speedup:.3f} x",
        "nominal maximum 1.429 x",
        f"ceiling {ceiling:.3f} x",
        f"efficiency {100 * speedup / ceiling:.1f} %",
        f"record {path}",
        f"reference {full_path}",
    ):
        assert any(line.startswith(start) for line in lines), start


def test_expectation_is_said_before_training_and_the_reference_comes_first(first: Answer) -> None:
    lines = first.err.splitlines()
    assert re.fullmatch(r"expected to take about \d+ s \(full \d+ s, sadp \d+ s\)", lines[0])
    assert [line.split("  ")[0] for line in lines[1:]] == ["full 0"] * 2 + ["sadp 0.3"] * 2


def test_progress_is_plain_lines_where_stderr_is_no_terminal(first: Answer) -> None:
    last = first.err.splitlines()[-1]
    whole = r"sadp 0\.3  epoch 2/2  kept 69\.9 %  loss \d\.\d{3}  accuracy \d+\.\d\d %  [\d,]+ images/s  0 s left"
    assert re.fullmatch(whole, last)
    assert "\x1b" not in first.err


def test_json_is_one_object_of_the_promised_keys_unrounded(first: Answer, folder: Path) -> None:
    answer = tiny_run("random", 0.5, folder, "--json")
    assert answer.code == 0 and answer.out.count("\n") == 1
    found = json.loads(answer.out)
    path, run = the_record(folder, "random")
    full = the_record(folder, "full")[1]
    assert list(found) == PROMISED
    assert found == {
        "method": "random",
        "ratio": 0.5,
        "realised_ratio": 0.5,
        "test_accuracy": run["test_accuracy"],
        "reference_accuracy": full["test_accuracy"],
        "seconds": pytest.approx(charged(run), rel=1e-15),
        "speedup": pytest.approx(charged(full) / charged(run), rel=1e-14),
        "nominal_maximum": 2.0,
        "ceiling": 2.0,
        "efficiency": pytest.approx(charged(full) / charged(run) / 2, rel=1e-14),
        "cpu_seconds": pytest.approx(charged(run), rel=1e-15),
        "cpu_speedup": pytest.approx(charged(full) / charged(run), rel=1e-14),
        "disturbed": None,
        "reference_disturbed": None,
        "record": str(path),
    }


def test_second_method_shares_the_reference(first: Answer, folder: Path) -> None:
    before = the_record(folder, "full")[0].read_bytes()
    answer = tiny_run("infobatch", 0.25, folder)
    full_path = the_record(folder, "full")[0]
    assert answer.code == 0
    assert answer.err.splitlines()[0] == f"full 0 is done already: {full_path} (--again trains it anew)"
    assert "full 0  epoch" not in answer.err and "infobatch 0.25  epoch 2/2" in answer.err
    assert full_path.read_bytes() == before


def test_finished_run_is_not_trained_again_and_states_so(first: Answer, folder: Path) -> None:
    path = the_record(folder, "sadp")[0]
    before = path.read_bytes()
    answer = tiny_run("sadp", 0.3, folder)
    assert answer.code == 0 and path.read_bytes() == before
    assert f"sadp 0.3 is done already: {path} (--again trains it anew)" in answer.err.splitlines()
    assert "epoch" not in answer.err
    assert answer.out == first.out


def test_again_trains_anew_to_the_same_numbers(tmp_path: Path) -> None:
    tiny_run("full", 0, tmp_path)
    path, before = the_record(tmp_path, "full")
    written = path.stat().st_mtime_ns
    answer = tiny_run("full", 0, tmp_path, "--again")
    after = the_record(tmp_path, "full")[1]
    assert answer.code == 0 and "full 0  epoch 2/2" in answer.err
    assert path.stat().st_mtime_ns > written
    for record in (before, after):
        for row in record["epochs"]:
            del row["seconds"], row["data_seconds"]
        for timed in ("seconds", "cpu_seconds", "finished", "peak_memory_bytes", "train_memory_bytes", "environment"):
            del record[timed]
    assert after == before
    assert [child.name for child in tmp_path.iterdir()] == [path.name]


def test_again_replaces_a_broken_record(tmp_path: Path) -> None:
    tiny_run("full", 0, tmp_path)
    path = the_record(tmp_path, "full")[0]
    path.write_text("{")
    assert tiny_run("full", 0, tmp_path, "--again").code == 0
    assert store.read(path).spec.method == "full"


def test_without_a_reference_what_needs_one_is_null(tmp_path: Path) -> None:
    answer = tiny_run("random", 0.5, tmp_path, "--no-reference", "--json", "--quiet")
    assert answer.err == "", "it is quiet"
    found = json.loads(answer.out)
    missing = ["reference_accuracy", "speedup", "efficiency", "cpu_speedup", "disturbed", "reference_disturbed"]
    assert [name for name in PROMISED if found[name] is None] == missing
    assert len(list(tmp_path.iterdir())) == 1
    panel = tiny_run("random", 0.5, tmp_path, "--no-reference").out
    assert "No full-data reference: no speed-up." in panel and "efficiency" not in panel


def test_full_is_its_own_reference(tmp_path: Path) -> None:
    found = json.loads(tiny_run("full", 0, tmp_path, "--json").out)
    assert (found["realised_ratio"], found["speedup"], found["efficiency"], found["ceiling"]) == (0, 1, 1, 1)
    assert found["reference_accuracy"] == found["test_accuracy"]


def test_saved_weights_load_safely_and_give_the_recorded_accuracy(tmp_path: Path) -> None:
    assert tiny_run("random", 0.25, tmp_path, "--save-model", "--no-reference").code == 0
    path, _ = the_record(tmp_path, "random")
    record = store.read(path)
    found = load_material(Digits(Path(), record.spec.timesteps), "digits", "test", record.spec.train_examples)
    model = building.make_model(record.spec, found, seed=99)
    model.load_state_dict(torch.load(path.with_suffix(".pt"), weights_only=True))
    held = building.make_loader(record.spec, found, found.held)
    assert evaluate(model, held, record.spec.precision) == record.test_accuracy


def test_settings_reach_method_and_backbone(tmp_path: Path) -> None:
    answer = tiny_run("sadp", 0.3, tmp_path, "--set", "smoothing=0.2", "--set", "backbone.tau=3", "--no-reference")
    assert answer.code == 0
    spec = the_record(tmp_path, "sadp")[1]["spec"]
    assert spec["method_options"]["smoothing"] == 0.2 and spec["method_options"]["score"] == "layers"
    assert spec["backbone_options"]["width"] == 4 and spec["backbone_options"]["tau"] == 3


def test_validation_accuracy_is_named_so(tmp_path: Path) -> None:
    answer = tiny_run("full", 0, tmp_path, "--evaluate-on", "validation")
    assert "held-out accuracy" in answer.out and "test accuracy" not in answer.out
    assert the_record(tmp_path, "full")[1]["test_examples"] == 144  # a tenth of 1,437


def test_equal_updates_have_a_nominal_maximum_of_one(tmp_path: Path) -> None:
    found = json.loads(tiny_run("random", 0.5, tmp_path, "--protocol", "updates", "--json").out)
    run, full = the_record(tmp_path, "random")[1], the_record(tmp_path, "full")[1]
    assert found["nominal_maximum"] == 1 and found["realised_ratio"] == 0.5
    assert len(run["epochs"]) == 4 and len(full["epochs"]) == 2
    assert full["spec"]["protocol"] == "epochs"


def test_event_data_trains(tmp_path: Path, real_data: Path) -> None:
    words = ["--dataset", "nmnist", "--data", real_data, "--train-examples", 800, "--epochs", 4]
    answer = tiny_run("sadp", 0.5, tmp_path, *words, "--set", "backbone.width=8", "--json")
    assert answer.code == 0
    found = json.loads(answer.out)
    assert found["realised_ratio"] == 0.5 and found["speedup"] > 0
    assert found["reference_accuracy"] > 0.3  # of 10 digits
    assert all(0 < rate < 1 for rate in the_record(tmp_path, "full")[1]["firing_rate"])


def test_terminal_gets_a_bar_with_the_time_left(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    words = [SCRIPT, "run", "--method", "full", "--ratio", 0, "--threads", 1, "--epochs", 15, "--json"]
    words += ["--train-examples", 600]
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "140", "LINES": "24"}
    how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": theirs, "env": environment}
    seen = b""
    with started([*words, "--out", tmp_path, "--set", "backbone.width=8"], **how) as process:
        os.close(theirs)
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux's end of file where the other side is closed
                break
            if not piece:
                break
            seen += piece
        assert process.wait(60) == 0
        assert process.stdout is not None and json.loads(process.stdout.read())["method"] == "full"
    os.close(ours)
    shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", seen.decode())
    assert "━" in shown
    assert re.search(r"epoch \d+/15  kept 100.0 %  loss \d\.\d{3}.*  [\d,]+ images/s +0:00:\d\d", shown)
    assert shown.rstrip().splitlines()[-1].startswith("full 0  epoch 15/15")


def test_an_interrupted_run_states_so_in_the_end(tmp_path: Path) -> None:
    assert tiny_run("random", 0.25, tmp_path, "--no-reference").code == 0
    path, _ = the_record(tmp_path, "random")
    record = store.read(path)
    store.Store(tmp_path).write(dataclasses.replace(record, interruptions=2))
    result = tiny_run("random", 0.25, tmp_path, "--no-reference").out
    assert "Interrupted 2 times; the seconds are the sum over all parts." in result
    assert json.loads(command("report", tmp_path, "--format", "json").out)["rows"][0]["interruptions"] == 2


def test_interrupt_leaves_no_record_and_no_half_written_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [SCRIPT, "run", "--method", "sadp", "--ratio", 0.3, "--threads", 1, "--epochs", 5000, "--out", out]
    how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # Children of a background job ignore interrupts; children of an interactive shell do not.
    how["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    with started([*words, "--set", "backbone.width=4", "--save-model"], **how) as process:
        for line in process.stderr:
            if "epoch 2/" in line:
                break
        process.send_signal(signal.SIGINT)
        result, complaint = process.communicate(timeout=30)
    assert process.returncode == 130
    assert result == "" and "Traceback" not in complaint
    assert complaint.rstrip().endswith("sadp-bench: interrupted; the same command continues from the last checkpoint")
    assert {path.suffix for path in out.iterdir()} == {".lock"}  # it counts the starts


MINE = '''
import torch
from sadp_bench import Pruner, Selection

class Mine(Pruner):
    """Keeps the first K."""

    def __init__(self, prune_ratio: float, *, strength: int = 1) -> None:
        super().__init__(prune_ratio)
        self.strength = strength

    def select(self, epoch: int) -> Selection:
        index_K = torch.arange(self.num_kept(epoch))
        return Selection(index_K, torch.ones(len(index_K)))
'''


def test_strangers_method_runs_from_its_folder_and_is_reported(tmp_path: Path) -> None:
    (tmp_path / "mypkg").mkdir()
    (tmp_path / "mypkg" / "mine.py").write_text(MINE)
    words = [SCRIPT, "run", "--method", "mypkg.mine:Mine", "--ratio", "0.5", "--set", "strength=3", *TINY, "--json"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["method"] == "mypkg.mine:Mine" and found["realised_ratio"] == 0.5 and found["cpu_speedup"] is not None
    assert json.loads((tmp_path / found["record"]).read_text())["spec"]["method_options"] == {"strength": 3}
    rows = json.loads(command("report", tmp_path / "runs", "--format", "json").out)["rows"]
    assert [row["method"] for row in rows] == ["full", "mypkg.mine:Mine"]
    assert "mypkg.mine:Mine" in command("report", tmp_path / "runs").out


def test_broken_reference_stops_its_run_before_training(tmp_path: Path) -> None:
    requested = {"method": "random", "ratio": 0.5, "epochs": 2, "train_examples": 256, "threads": 1}
    spec, _ = resolve.resolve({**requested, "set": {"backbone.width": 4}})
    path = store.Store(tmp_path).path(spec.reference())
    path.write_text("{")
    for more in ([], ["--no-reference"]):
        answer = tiny_run("random", 0.5, tmp_path, *more)
        assert answer.code == 2 and answer.err.count("\n") == 1 and str(path) in answer.err, more
        assert list(tmp_path.iterdir()) == [path] and path.read_text() == "{", more


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder here that refuses even root")
def test_unwritable_out_is_refused_before_training() -> None:
    answer = tiny_run("random", 0.5, Path("/proc/none"))
    assert (
        answer.code == 2 and answer.err.startswith("sadp-bench: can't write /proc/none") and answer.err.count("\n") == 1
    )
