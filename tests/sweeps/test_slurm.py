"""A sweep's runs as jobs of submitit: its debug executor runs each in this process, as Slurm would elsewhere."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sadp_bench.records.store import Store, read_all
from sadp_bench.sweeps import processes
from sadp_bench.sweeps.executors import Options
from sadp_bench.sweeps.slurm_executor import Slurm
from tests.commands import Answer, command, refused
from tests.small_runs import resolved

submitit = pytest.importorskip("submitit", reason="submitit is not installed: pip install 'sadp-bench[slurm]'")

FILE = """
[common]
epochs = 2
train_examples = 256
threads = 1
ratio = 0.5
set.backbone.width = 4
[[sweep]]
method = "random"
"""


def sweep(folder: Path, *words: Any) -> Answer:
    (folder / "a.toml").write_text(FILE)
    return command("sweep", folder / "a.toml", "--out", folder / "runs", "--executor", "slurm", *words)


class InProcess:
    """Replaces `processes.fresh`: runs the command in this process. The first `losses` are lost, as preempted jobs are."""

    losses = 0

    def __init__(self, words: Sequence[str], environment: Any) -> None:
        if InProcess.losses:
            InProcess.losses -= 1
            raise submitit.core.utils.UncompletedJobError("preempted")
        self.answer = command(*words)
        self.lines = self.answer.err.splitlines()

    def wait(self) -> int:
        return self.answer.code

    def terminate(self) -> None:
        pass

    def stop(self) -> None:
        pass


def test_jobs_leave_the_records_of_the_sweep_and_a_lost_one_is_submitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "fresh", InProcess)
    monkeypatch.setattr("sadp_bench.sweeps.scheduler.TICK_SECONDS", 0.01)
    monkeypatch.setattr(
        "submitit.local.debug.DebugJob.done", lambda job: True
    )  # so `result` runs the job, and raises as Slurm's does
    monkeypatch.setattr("pdb.post_mortem", lambda *_: None)  # the debug executor would open it
    InProcess.losses = 1
    answer = sweep(tmp_path, "--slurm", "cluster=debug")
    assert answer.code == 0, answer.err
    assert "Slurm ended its job DEBUG_" in answer.err and "it is tried again" in answer.err
    found = {record.spec.method: record for _, record in read_all([tmp_path / "runs"]).records}
    assert set(found) == {"full", "random"}
    assert {record.environment["jobs"] for record in found.values()} == {1}
    assert sorted(path.suffix for path in (tmp_path / "runs").iterdir()) == ["", ".json", ".json"], "a lock was left"


def test_the_settings_reach_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from submitit.slurm.slurm import SlurmExecutor

    texts: list[str] = []
    monkeypatch.setattr(shutil, "which", lambda name: name)

    def submit(self: Any, function: Any, words: list[str]) -> Any:
        assert function is processes.finished and words[:2] == ["run", "--method"]
        texts.append(self._executor._make_submission_file_text("python", "1"))
        return SimpleNamespace(
            job_id="7", state="PENDING", done=lambda: False, cancel=lambda: texts.append("cancelled")
        )

    monkeypatch.setattr(submitit.AutoExecutor, "submit", submit)
    monkeypatch.setattr(SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    settings = {"partition": "long", "timeout_min": "90", "exclusive": "true", "jobs": "3"}
    executor = Slurm(Store(tmp_path), Options(executor="slurm", slurm=settings))
    spec = resolved(threads=4)[0]
    executor.start(spec, 0)
    assert executor.capacity() == 3 and executor.ended() == [] and executor.latest(spec) == "job 7: pending"
    for line in ("--partition=long", "--time=90", "--exclusive", "--cpus-per-task=4", "--gpus-per-node=0"):
        assert f"#SBATCH {line}\n" in texts[0], texts[0]
    executor.stop()
    assert texts[1:] == ["cancelled"]


def test_what_slurm_can_not_do_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    faults: list[tuple[list[str], str]] = [
        ([], "finds no sbatch here"),
        (["--slurm", "cluster=sge"], "one of slurm, local, debug"),
        (["--slurm", "jobs=0"], "the most jobs at a time are a whole number of at least 1"),
        (["--slurm", "partition"], "--slurm takes KEY=VALUE"),
        (["--slurm", "cluster=debug", "--slurm", "partitions=a"], "Unknown argument 'partitions'"),
        (["--jobs", "2"], "write --slurm jobs=2"),
        (["--minutes", "5"], "--minutes belongs to --executor local"),
        (["--executor", "local", "--slurm", "partition=a"], "--slurm belongs to --executor slurm"),
    ]
    for words, fault in faults:
        refused(sweep(tmp_path, "--quiet", *words), fault)
    monkeypatch.setitem(sys.modules, "submitit", None)
    refused(sweep(tmp_path, "--quiet"), "pip install 'sadp-bench[slurm]'")
    assert not list((tmp_path / "runs").glob("*"))
