"""A checkpoint is whole or set aside, holds nothing but tensors and plain values, and never ends a run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sadp_bench.core.errors import BadInput
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.exchange import Selection, unweighted
from sadp_bench.records.store import Store
from sadp_bench.runs.run import run
from sadp_bench.training.checkpoint import FORMAT, read_state, write_state
from tests.disks import fill, foreign_folder, small_disk, unprivileged
from tests.small_runs import numbers, resolved
from tests.stopping import SIZES, Stopped, StopsAt, requested, run_it, saved, whole


def test_what_was_written_with_other_data_is_set_aside(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run_it("random", tmp_path, StopsAt(9))
    spec, material = requested("random")
    material.train.input_N[0, 0, 0, 0] += 1
    outcome = run(spec, material, Store(tmp_path), progress := StopsAt(), reference=False)
    assert any("of other data or settings: set aside as" in line for line in progress.messages)
    assert outcome is not None and outcome.comparison.record.data_sha256 == material.sha256


DAMAGES = {
    "emptied": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "one bit": lambda content: content[:-1000] + bytes([content[-1000] ^ 1]) + content[-999:],
    "another file": lambda content: b"GIF89a" * 100,
    "another version": lambda content: content.replace(b"state 3", b"state 2"),
}


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_serves(tmp_path: Path) -> None:
    undisturbed = run_it("el2n", tmp_path / "whole").comparison.record
    with pytest.raises(Stopped):
        run_it("el2n", tmp_path / "stopped", StopsAt(33))
    for damage, damaged in DAMAGES.items():
        shutil.copytree(tmp_path / "stopped", tmp_path / damage)
        [path] = (tmp_path / damage).glob("*.ckpt")
        path.write_bytes(damaged(path.read_bytes()))
        outcome = run_it("el2n", tmp_path / damage, progress := StopsAt())
        assert any("set aside as" in line for line in progress.messages), damage
        assert any("goes on from its checkpoint, after epoch 1" in line for line in progress.messages), damage
        assert numbers(outcome.comparison.record) == numbers(undisturbed), damage


def test_two_damaged_checkpoints_mean_the_beginning(tmp_path: Path) -> None:
    undisturbed = run_it("random", tmp_path / "a").comparison.record
    with pytest.raises(Stopped):
        run_it("random", tmp_path / "b", StopsAt(12))
    for path in (tmp_path / "b").glob("*.ckpt*"):
        path.write_bytes(b"")
    outcome = run_it("random", tmp_path / "b", progress := StopsAt())
    assert not any("goes on" in line for line in progress.messages)
    assert numbers(outcome.comparison.record) == numbers(undisturbed)
    assert progress.count == sum(-(-row["kept"] // 17) for row in undisturbed.epochs)


def test_a_checkpoint_with_an_object_in_it_is_refused(tmp_path: Path) -> None:
    import hashlib
    import io

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "owned"),)

    content = io.BytesIO()
    torch.save({"rows": Evil()}, content)
    digest = hashlib.sha256(content.getvalue()).hexdigest().encode()
    (tmp_path / "evil").write_bytes(FORMAT + digest + b"\n" + content.getvalue())
    with pytest.raises(BadInput, match="no state of tensors"):
        read_state(tmp_path / "evil", torch.device("cpu"))
    assert not (tmp_path / "owned").exists()


class FillsDisk(StopsAt):
    """Fills `disk` from the given batch on."""

    def __init__(self, batch: int, disk: Path) -> None:
        super().__init__()
        self.fills, self.disk = batch, disk

    def advance(self, visits: int) -> None:
        super().advance(visits)
        if self.count >= self.fills:
            fill(self.disk)


@pytest.mark.parametrize(("full_from", "fails", "epochs"), [(1, True, 0), (10, False, 4)])
def test_a_disk_that_fills_up_ends_no_training_and_costs_no_checkpoint(
    full_from: int, fails: bool, epochs: int, tmp_path: Path
) -> None:
    undisturbed = run_it("random", tmp_path).comparison.record
    with small_disk("4m") as disk:
        with pytest.raises(BadInput, match="No space left on device"):  # when the record is written, after training
            run_it("random", disk, progress := FillsDisk(full_from, disk))
        assert progress.count == 16
        # Where two checkpoints are there already, the older one's place is enough for the next.
        assert (
            sum(s.startswith("no checkpoint: ") and s.endswith("goes on without") for s in progress.messages) == fails
        )
        assert not list(disk.glob("*.json")) and not list(disk.glob(".*"))
        (disk / "filler").unlink()
        outcome = run_it("random", disk, progress := StopsAt())
        assert any(f"goes on from its checkpoint, after epoch {epochs}" in line for line in progress.messages)
        assert numbers(outcome.comparison.record) == numbers(undisturbed)
        assert outcome.comparison.record.interruptions == 1


def test_a_folder_that_may_not_be_written_any_more_ends_no_training(tmp_path: Path) -> None:
    spec, material = requested("random")
    record, _, _ = whole(spec, material)
    write_state(tmp_path / "first", {})  # the first imports what the unprivileged may not read
    with foreign_folder() as folder:
        trainer = saved(spec, material, folder, progress := StopsAt())
        with unprivileged(folder):
            assert numbers(trainer.run()) == numbers(record)
    assert sum("Permission denied" in line for line in progress.messages) == 1  # once


class Keeps(Pruner):
    """Keeps an object that no checkpoint holds."""

    def __init__(self, prune_ratio: float) -> None:
        super().__init__(prune_ratio)
        self.history = {"a", "b"}

    def select(self, epoch: int) -> Selection:
        return unweighted(torch.arange(self.num_kept(epoch)))


def test_a_pruner_that_cannot_be_saved_states_so_and_begins_anew(tmp_path: Path) -> None:
    spec, material = resolved(**SIZES | {"method": f"{__name__}:Keeps", "ratio": 0.4})
    with pytest.raises(Stopped):
        run(spec, material, Store(tmp_path), one := StopsAt(12), reference=False, checkpoint_seconds=0.0)
    assert sum("attribute history is a set, which no checkpoint holds" in line for line in one.messages) == 1
    run(spec, material, Store(tmp_path), other := StopsAt(), reference=False)
    assert other.count == 16 and not any("goes on" in line for line in other.messages)


def test_only_what_a_checkpoint_holds_is_plain() -> None:
    pruner = Keeps(0.5)
    for odd in (np.zeros(3), {1}, lambda: 0, [torch.zeros(1), {"a": np.int64(1)}]):
        pruner.history = odd
        with pytest.raises(BadInput, match="attribute history"):
            pruner.state_dict()
            pytest.fail(f"{odd!r} counts as plain")
    for scalar in (np.float64(0.1), np.int64(3), np.bool_(True)):  # They become plain at once.
        vars(pruner).clear()
        pruner.number = scalar  # type: ignore[attr-defined]
        kept = pruner.state_dict()["number"]
        assert kept == scalar and type(kept) in (float, int, bool)


def test_tensors_of_another_device_come_to_this_ones(tmp_path: Path, monkeypatch: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:3")
        write_state(tmp_path / "gpu", {"a": torch.arange(5)})
    assert torch.equal(read_state(tmp_path / "gpu", torch.device("cpu"))["a"], torch.arange(5))
