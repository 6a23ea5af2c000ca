"""A run that is stopped anywhere and started again ends in the record of one that never was."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from sadp_bench.core.errors import BadInput, Diverged
from sadp_bench.core.progress import Progress
from sadp_bench.pruners.base import KeepAll
from sadp_bench.records.record import Record
from sadp_bench.records.store import FAILED, Store, read_all
from sadp_bench.runs.run import run
from sadp_bench.training.checkpoint import Checkpoint, write_state
from tests.small_runs import assert_same_weights, make_trainer, numbers, resolved, weights_of
from tests.stopping import METHODS, OneSecondABatch, Seconds, Stopped, StopsAt, requested, resumed, run_it, saved, whole


@pytest.mark.parametrize("method", METHODS)
def test_a_run_stopped_anywhere_ends_in_the_same_record_and_weights(method: str, tmp_path: Path) -> None:
    spec, material = requested(method, backbone="mlp")
    record, weights, num_batches = whole(spec, material)
    for stop in range(2, num_batches + 1, 6):  # in nearly every epoch, of scoring too
        again, bench = resumed(spec, material, stop, tmp_path / str(stop))
        assert numbers(again) == numbers(record)
        assert again.interruptions == 1
        assert_same_weights(weights_of(bench.model), weights)


def test_a_run_stopped_again_and_again_loses_one_epoch_at_most(tmp_path: Path) -> None:
    spec, material = requested("el2n")
    record, weights, num_batches = whole(spec, material)
    stops, batches = 0, 0
    while True:
        bench = saved(spec, material, tmp_path, progress := StopsAt(8), starts=stops + 1)  # an epoch has 6 at most
        try:
            again = bench.run()
            break
        except Stopped:
            stops += 1
            batches += progress.count
    batches += progress.count
    assert numbers(again) == numbers(record) and again.interruptions == stops > 3
    assert_same_weights(weights_of(bench.model), weights)
    assert batches <= num_batches + 6 * stops


@pytest.mark.parametrize(
    "changed",
    [
        {"optimizer": "adamw"},
        {"precision": "bf16"},
        {"protocol": "updates"},
        {"loss": "step"},
        {"lr_clock": "visits"},
        {"augment": "crop-flip,randaugment,cutout,mixup,cutmix"},
        {"ema": 0.9, "nesterov": True, "clip_norm": 0.5, "warmup_epochs": 1.5, "label_smoothing": 0.1},
    ],
)
def test_every_kind_of_training_is_taken_up_exactly(changed: dict[str, Any], tmp_path: Path) -> None:
    spec, material = requested("random", **changed)
    record, weights, num_batches = whole(spec, material)
    with pytest.raises(Stopped):
        saved(spec, material, tmp_path, StopsAt(num_batches - 1)).run()
    bench = saved(spec, material, tmp_path)
    assert numbers(bench.run()) == numbers(record)
    assert_same_weights(weights_of(bench.model), weights)


@pytest.mark.parametrize("stop", [2, 8, 13, 20, 25, 38])
def test_seconds_of_all_parts_are_summed_and_what_was_lost_counts_once(
    stop: int, tmp_path: Path, monkeypatch: Any
) -> None:
    spec, material = requested("el2n")
    seconds = Seconds(monkeypatch)
    whole = make_trainer(spec, material, OneSecondABatch(seconds)).run()
    assert whole.seconds == {"prepare": 2 * 2 * 6, "select": 0, "train": 4 * 4, "evaluate": 0}
    with pytest.raises(Stopped):
        saved(spec, material, tmp_path, OneSecondABatch(seconds, stop)).run()
    again = saved(spec, material, tmp_path, OneSecondABatch(seconds)).run()
    assert again.seconds == again.cpu_seconds == whole.seconds
    assert [row["seconds"] for row in again.epochs] == [4] * 4


def test_writing_checkpoints_and_scores_is_not_charged(tmp_path: Path, monkeypatch: Any) -> None:
    spec, material = requested("el2n")
    seconds = Seconds(monkeypatch)

    def slowly(path: Path, state: dict[str, Any]) -> None:
        seconds.now += 1000
        write_state(path, state)

    monkeypatch.setattr("sadp_bench.training.checkpoint.write_state", slowly)
    monkeypatch.setattr("sadp_bench.training.shared_file.write_state", slowly)
    progress = OneSecondABatch(seconds)
    outcome = run(spec, material, Store(tmp_path), progress, reference=False, checkpoint_seconds=0.0)
    assert outcome is not None and seconds.now > 9000
    assert sum(outcome.comparison.record.seconds.values()) == progress.count == 2 * 2 * 6 + 4 * 4


@pytest.mark.parametrize(("every", "expected"), [(0, [0, 1, 2, 3, 4]), (10, [3]), (8, [2, 4]), (3600, [])])
def test_checkpoints_come_at_the_first_epoch_end_after_so_many_seconds(
    every: float, expected: list[int], tmp_path: Path, monkeypatch: Any
) -> None:
    written = []

    class Watched(Checkpoint):
        def write(self, state: Any) -> None:
            written.append(len(state()["training"]["rows"]))
            super().write(state)

    progress = OneSecondABatch(Seconds(monkeypatch))
    watched = Watched(tmp_path / "a.ckpt", every, {}, print)
    make_trainer(*requested("random"), progress, checkpoint=watched).run()  # 4 seconds an epoch
    assert written == expected and (tmp_path / "a.ckpt").exists() == bool(expected)


def test_run_takes_up_its_checkpoint_states_so_counts_and_cleans_up(tmp_path: Path) -> None:
    undisturbed = run_it("sadp", tmp_path / "a").comparison.record
    assert undisturbed.interruptions == 0
    for batch in (6, 7):
        with pytest.raises(Stopped):
            run_it("sadp", tmp_path / "b", StopsAt(batch))
    suffixes = {"".join(path.suffixes[-2:]) for path in (tmp_path / "b").iterdir()}
    assert {".ckpt", ".lock"} <= {suffix.rpartition(".")[1] + suffix.rpartition(".")[2] for suffix in suffixes}
    outcome = run_it("sadp", tmp_path / "b", progress := StopsAt())
    assert any(re.search(r"sadp 0.4 goes on from its checkpoint, after epoch [23]", line) for line in progress.messages)
    assert numbers(outcome.comparison.record) == numbers(undisturbed)
    assert outcome.comparison.record.interruptions == 2
    assert os.listdir(tmp_path / "b") == [outcome.path.name]


def test_a_run_that_diverges_leaves_a_failure_with_epoch_and_rate_and_no_record(tmp_path: Path) -> None:
    spec, material = resolved(method="random", ratio=0.4, learning_rate=1e30, schedule="constant", epochs=3)
    with pytest.raises(Diverged, match=r"after epoch 1 .* at a learning rate of 1e\+30 \(--learning-rate 1e\+30\)"):
        run(spec, material, Store(tmp_path), Progress(), reference=False)
    records, problems, [failure] = read_all([tmp_path])
    assert not records and not problems
    assert failure.spec == spec and failure.epoch == 0 and failure.learning_rate == 1e30
    assert Store(tmp_path).path(spec, FAILED).exists()


def test_a_finished_runs_left_over_checkpoint_goes(tmp_path: Path) -> None:
    outcome = run_it("random", tmp_path)
    left = outcome.path.with_suffix(".ckpt")
    left.write_bytes(b"killed between the record and this")
    run_it("random", tmp_path)
    assert not left.exists()


def test_what_killed_processes_left_half_written_goes(tmp_path: Path) -> None:
    spec, _ = requested("el2n")
    store = Store(tmp_path)
    left = [store.path(spec, ".ckpt"), store.path(spec, ".lock"), store.scores_path(spec)]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.with_name(f".{path.name}.a1b2.part").write_bytes(b"half")
    (tmp_path / ".another.ckpt.a1b2.part").write_bytes(b"somebody else's")
    run_it("el2n", tmp_path)
    assert {path.name for path in tmp_path.rglob("*.part")} == {".another.ckpt.a1b2.part"}


def test_again_trains_from_the_beginning_of_a_finished_run(tmp_path: Path) -> None:
    first = run_it("random", tmp_path)
    second = run_it("random", tmp_path, progress := StopsAt(), again=True)
    assert progress.count and numbers(first.comparison.record) == numbers(second.comparison.record)


def killed_after_its_record(out: Path) -> Record:
    """Leaves checkpoint and lock, as a kill between the record's writing and their removal does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "discard", lambda self: os._exit(9))
        if not (child := os.fork()):
            run_it("random", out)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert {path.suffix for path in out.iterdir()} == {".json", ".ckpt", ".before", ".lock", ".lease"}
    [(_, record)] = read_all([out]).records
    return record


def test_what_a_kill_after_the_record_left_goes_with_the_next_start(tmp_path: Path) -> None:
    record = killed_after_its_record(tmp_path)
    [path] = tmp_path.glob("*.json")
    content, found = path.read_text(), run_it("random", tmp_path).comparison.record
    assert path.read_text() == content and numbers(found) == numbers(record)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json"}


def test_again_does_not_take_up_a_finished_run(tmp_path: Path) -> None:
    record = killed_after_its_record(tmp_path)
    again = run_it("random", tmp_path, progress := StopsAt(), again=True).comparison.record
    assert progress.count == 16 and not any("goes on" in line for line in progress.messages)
    assert numbers(again) == numbers(record) and again.interruptions == 0


def test_again_goes_on_with_itself(tmp_path: Path) -> None:
    run_it("random", tmp_path)
    with pytest.raises(Stopped):
        run_it("random", tmp_path, StopsAt(12), again=True)
    run_it("random", tmp_path, progress := StopsAt(), again=True)
    assert progress.count == 8 and any(
        "goes on from its checkpoint, after epoch 2" in line for line in progress.messages
    )


def test_weights_are_there_when_the_record_is(tmp_path: Path) -> None:
    spec, _ = requested("random")
    store = Store(tmp_path)
    store.path(spec, ".pt").mkdir()  # in the way
    with pytest.raises(BadInput, match=r"\.pt"):
        run_it("random", tmp_path, save_model=True)
    assert store.find(spec) is None
    store.path(spec, ".pt").rmdir()
    run_it("random", tmp_path, progress := StopsAt(), save_model=True)
    assert progress.count == 0 and store.path(spec, ".pt").exists() and store.find(spec) is not None


def test_a_run_that_another_machine_took_over_ends(tmp_path: Path) -> None:
    spec, _ = requested("random")

    class Overtaken(StopsAt):
        def advance(self, visits: int) -> None:
            super().advance(visits)
            if self.count == 6:
                other = tmp_path / "other"
                other.write_text(lease.read_text().replace("token=", "token=another"))
                other.replace(lease)

    lease = Store(tmp_path).path(spec, ".lock.lease")
    with pytest.raises(BadInput, match="another process has taken random 0.4 over"):
        run_it("random", tmp_path, progress := Overtaken())
    assert progress.count == 8 and "another" in lease.read_text() and not list(tmp_path.glob("*.json"))


def test_fitting_for_no_epochs_trains_nothing() -> None:
    bench = make_trainer(*requested("el2n"), progress := StopsAt())
    model = bench.context.fit(KeepAll(), 0, 0)
    assert progress.count == 0 and bench.context.visits == 0
    assert_same_weights(weights_of(model), weights_of(bench.context.fresh_model(0)))


def test_a_run_resumed_in_another_environment_states_both(tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(Stopped):
        run_it("random", tmp_path, StopsAt(12))
    outcome = run_it("random", tmp_path, jobs=2)
    assert outcome.comparison.record.environment["jobs"] == "1, then 2"


@pytest.mark.parametrize("jump", [-(10**9), 10**9])
def test_a_clock_that_jumps_changes_no_duration(jump: int, tmp_path: Path, monkeypatch: Any) -> None:
    now = time.time
    ticks = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: now() + jump * (next(ticks) % 2))
    record = run_it("random", tmp_path).comparison.record
    assert all(0 <= seconds < 60 for seconds in record.seconds.values())
