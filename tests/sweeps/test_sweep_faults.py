"""Real sweeps of real processes, some of which crash, are killed, or meet another sweep in the same folder."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import multiprocessing
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from sadp_bench.cli import app
from sadp_bench.records import store
from sadp_bench.training.checkpoint import read_state
from tests.commands import comes, command, ends, started

METHODS = """
import os, signal, sys, time
from pathlib import Path
import torch
from sadp_bench import Pruner, Selection

class Plain(Pruner):
    def prepare(self, context):
        super().prepare(context)
        note(f"{type(self).__name__} {self.prune_ratio} {context.seed} {os.getpid()}")

    def select(self, epoch):
        self.before(epoch)
        index_K = torch.arange(self.num_kept(epoch))
        return Selection(index_K, torch.ones(len(index_K)))

    def before(self, epoch):
        if epoch == 2 and "torch._dynamo" in sys.modules:
            note("compiler imported")

def note(line):
    with open("starts.txt", "a") as file:
        file.write(line + "\\n")

def first_time(name):
    try:
        Path(name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

class Crashing(Plain):
    def before(self, epoch):
        print("about to crash\\x1b[31m")
        print("Fatal: it always does", flush=True)
        os._exit(1)  # as native code ends a process; an exception is one line and exit code 2, which no second try mends

class KilledOnce(Plain):
    def before(self, epoch):
        super().before(epoch)
        if epoch == 2 and first_time("killed"):
            os.kill(os.getpid(), signal.SIGKILL)

class Endless(Plain):
    def before(self, epoch):
        time.sleep(600 * epoch)

class ScoresAndLosesItsWorkerOnce(Plain):
    def prepare(self, context):
        super().prepare(context)
        context.scores(lambda: note("scores made") or torch.rand(context.num_examples))

    def scoring_epochs(self, num_epochs):
        return 1

    def before(self, epoch):
        if epoch == 1 and first_time("lost"):
            note(f"lost {os.getpid()}")
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(600)
"""
COMMON = """
[common]
epochs = 3
train_examples = 256
threads = 1
ratio = 0.5
set.backbone.width = 4
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with the methods of `faulty`, and a stranger's module that shadows `torch`."""
    return prepared(tmp_path_factory.mktemp("faults"))


def prepared(folder: Path) -> Path:
    (folder / "faulty.py").write_text(METHODS)
    (folder / "torch.py").write_text("open('stranger.txt', 'w'); raise SystemExit(9)")
    return folder


def sweep(folder: Path, text: str, *words, name: str = "a"):
    """Calls `sadp-bench sweep` in the folder, in this process. Its runs are processes of their own."""
    (folder / f"{name}.toml").write_text(COMMON + text)
    with contextlib.chdir(folder):
        return command("sweep", f"{name}.toml", "--out", "runs", "--allow-imports", *words)


@contextlib.contextmanager
def forked_sweep(folder: Path, *words) -> Iterator[tuple[BaseProcess, Path]]:
    """Yields the command in a fork of this process, which has imported PyTorch, and its log. It ends with the block."""
    log = folder / f"{len(list(folder.glob('*.log')))}.log"
    log.touch()
    process = multiprocessing.get_context("fork").Process(target=_sweep, args=(folder, log, words))
    process.start()
    try:
        yield process, log
    finally:
        process.kill()
        process.join()


def _sweep(folder: Path, log: Path, words) -> None:
    os.chdir(folder)
    with log.open("ab") as sink:
        for number in (1, 2):
            os.dup2(sink.fileno(), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    # A background job's children ignore interrupts; a person's do not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    app.main(["sweep", "a.toml", "--out", "runs", "--allow-imports", *words])


def starts(folder: Path) -> Counter:
    """Returns how often each run was begun, by method and ratio."""
    lines = (folder / "starts.txt").read_text().splitlines()
    return Counter(" ".join(line.split()[:2]) for line in lines)


def records(folder: Path) -> dict[str, store.Record]:
    """Returns the records by method and ratio."""
    found = store.read_all([folder / "runs"])
    assert not found.problems
    return {f"{record.spec.method} {record.spec.ratio:g}": record for _, record in found.records}


@pytest.fixture(scope="module")
def faults(folder):
    """One sweep: runs that are well, one that is killed in the middle, one that crashes every time."""
    text = (
        '[[sweep]]\nmethod = ["faulty:Crashing", "faulty:KilledOnce"]\n[[sweep]]\nmethod = "el2n"\nratio = [0.3, 0.5]\n'
    )
    return sweep(folder, text, "--jobs", 2, "--checkpoint-seconds", 0)


def test_failed_runs_never_stop_the_others(faults, folder):
    assert faults.code == 1
    assert set(records(folder)) == {"full 0", "el2n 0.3", "el2n 0.5", "faulty:KilledOnce 0.5"}
    assert not (folder / "stranger.txt").exists(), "a module in the current folder was imported"
    assert "compiler imported" not in starts(folder), "it takes as long to import as torch"


def test_a_killed_run_goes_on_from_its_checkpoint(faults, folder):
    record = records(folder)["faulty:KilledOnce 0.5"]
    assert starts(folder)["KilledOnce 0.5"] == 1, "prepared once, for its checkpoint holds what that gave"
    assert record.interruptions == 1 and [row["epoch"] for row in record.epochs] == [0, 1, 2]
    assert all(other.interruptions == 0 for name, other in records(folder).items() if "Killed" not in name)
    assert "killed by SIGKILL (out of memory?): it is tried again" in faults.err


def test_a_crashing_run_is_recorded_with_its_last_lines(faults, folder):
    [path] = (folder / "runs").glob("*.failed.json")
    failure = json.loads(path.read_text())
    assert failure["spec"]["method"] == "faulty:Crashing" and failure["attempts"] == 2
    assert failure["reason"] == "exit code 1: Fatal: it always does"
    assert failure["last_lines"][-1] == "Fatal: it always does" and len(failure["last_lines"]) <= 20
    assert "faulty:Crashing 0.5" in faults.out and path.name in faults.out
    assert faults.out.splitlines()[-1] == "5 runs: 4 done, 1 failed; sadp-bench report runs"


def test_runs_have_how_many_shared_the_machine(faults, folder):
    assert {record.environment["jobs"] for record in records(folder).values()} == {2}


def test_the_next_sweep_has_what_failed(faults, folder):
    with contextlib.chdir(folder):
        found = json.loads(command("sweep", "a.toml", "--out", "runs", "--allow-imports", "--dry-run", "--json").out)
    result = {run["spec"]["method"]: run["state"] for run in found["runs"]}
    crashing = result.pop("faulty:Crashing")
    assert crashing == "failed before" and set(result.values()) == {"done"}


def test_scores_are_made_once_and_charged_to_each(faults, folder):
    one, other = (records(folder)[f"el2n {ratio}"] for ratio in (0.3, 0.5))
    assert one.scores_from is None and other.scores_from == one.spec.key
    [path] = (folder / "runs" / "scores").iterdir()
    made = read_state(path, torch.device("cpu"))
    assert min(run.seconds["prepare"] for run in (one, other)) >= made["seconds"] > 0
    assert one.prepare_examples == other.prepare_examples == made["visits"] > 0


def test_two_sweeps_in_one_folder_train_each_run_once(tmp_path):
    prepared(tmp_path)
    (tmp_path / "a.toml").write_text(COMMON + '[[sweep]]\nmethod = "faulty:Plain"\nratio = [0.25, 0.75]\n')
    with forked_sweep(tmp_path) as (one, log), forked_sweep(tmp_path) as (other, other_log):
        one.join()
        other.join()
    result = [log.read_text(), other_log.read_text()]
    assert [one.exitcode, other.exitcode] == [0, 0], result
    assert starts(tmp_path) == {f"Plain {ratio}": 1 for ratio in (0.25, 0.75)}
    found = records(tmp_path)
    assert len(found) == 3 and all(record.interruptions == 0 for record in found.values())
    assert all("3 runs: 3 done, 0 failed" in text for text in result)
    assert sum(text.count(": done  [") for text in result) == 3, "a job waited for a run of the other sweep"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_ends_early_leaves_no_process_behind(tmp_path, sent):
    prepared(tmp_path)
    (tmp_path / "a.toml").write_text(COMMON + '[[sweep]]\nmethod = "faulty:Endless"\n')
    if sent == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux ends a process with its parent")
    with forked_sweep(tmp_path, "--quiet", "--jobs", "2") as (process, log):
        assert comes((tmp_path / "starts.txt").exists)
        os.kill(process.pid, sent)
        process.join()
    assert process.exitcode == (-9 if sent == signal.SIGKILL else 130)
    assert "Traceback" not in log.read_text()
    [line] = (tmp_path / "starts.txt").read_text().splitlines()
    assert ends(int(line.split()[-1]))
    assert not list((tmp_path / "runs").glob("*Endless*.json"))


needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install ray")


@needs_ray
def test_ray_schedules_a_lost_workers_run_again_and_brings_the_records_back(tmp_path):
    prepared(tmp_path)
    text = '[[sweep]]\nmethod = "faulty:ScoresAndLosesItsWorkerOnce"\nratio = [0.3, 0.5]\n'
    (tmp_path / "a.toml").write_text(COMMON.replace("ratio = 0.5\n", "") + text)
    # A process of its own, for Ray has state of its own; two workers wherever this is tested.
    code = """if True:
        import functools, sys, ray
        ray.init = functools.partial(ray.init, num_cpus=2)
        from sadp_bench.cli.app import main
        main(sys.argv[1:])
    """
    words = ["sweep", "a.toml", "--out", "runs", "--allow-imports", "--executor", "ray", "--json"]
    with started([sys.executable, "-P", "-c", code, *words], cwd=tmp_path, stdout=-1, stderr=-1) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    name, lost = "ScoresAndLosesItsWorkerOnce", lost_pid(tmp_path)
    assert starts(tmp_path) == {f"{name} 0.3": 2, f"{name} 0.5": 1, f"lost {lost}": 1, "scores made": 2}
    assert ends(lost), "the run of the lost worker goes on beside its second try"
    assert "its worker was lost: WorkerCrashedError: it is tried again" in err
    output = json.loads(out)
    assert (output["runs"], output["done"], output["failed"]) == (3, 3, [])
    found = records(tmp_path)
    assert set(found) == {"full 0", f"faulty:{name} 0.3", f"faulty:{name} 0.5"}
    assert found[f"faulty:{name} 0.3"].scores_from == found[f"faulty:{name} 0.5"].spec.key
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == sorted(["scores", *(Path(path).name for path in output["records"])]), "a lock or a failure was left"


def lost_pid(folder: Path) -> int:
    [line] = [line for line in (folder / "starts.txt").read_text().splitlines() if line.startswith("lost ")]
    return int(line.split()[1])


def test_without_ray_the_way_to_get_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", os.environ.get("RAY_USAGE_STATS_ENABLED", "0"))
    answer = sweep(prepared(tmp_path), '[[sweep]]\nmethod = "random"\n', "--executor", "ray", "--quiet")
    assert answer.code == 2 and "pip install 'sadp-bench[ray]'" in answer.err and "Traceback" not in answer.err


@needs_ray
def test_a_cluster_that_is_not_there_is_named(tmp_path):
    words = ["--executor", "ray", "--address", "127.0.0.1:1", "--quiet"]
    answer = sweep(prepared(tmp_path), '[[sweep]]\nmethod = "random"\n', *words)
    assert answer.code == 2 and "no Ray cluster at 127.0.0.1:1" in answer.err and "Traceback" not in answer.err
