"""A search is made once for all methods and ratios of a seed, charged to each, and changes no number of any run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from sadp_bench.core.progress import Progress
from sadp_bench.records.file_lock import Lock
from sadp_bench.records.record import Record
from sadp_bench.records.store import Store
from sadp_bench.runs.run import run
from tests.small_runs import make_trainer, numbers
from tests.stopping import OneSecondABatch, Seconds, Stopped, StopsAt, requested, saved

EB = {"sparsity": "eb", "density": 0.3, "epochs": 3}
IMP = {
    "sparsity": "imp", "density": 0.7, "epochs": 3, "timesteps": 4, "early_time": True, "loss": "step", "backprop": "sltt",
    "set": {"sparsity.kl_examples": 50, "sparsity.search_ratio": 0.5},
}  # fmt: skip
BATCHES = 6  # in an epoch of all 101 examples


def trained(axes: dict[str, Any], method: str, folder: Path, progress: Progress | None = None) -> tuple[Record, Any]:
    options = {"el2n": {"score_epochs": 1, "score_runs": 1}}.get(method, {}) | axes.get("set", {})
    spec, material = requested(method, **axes | {"set": options})
    path = Store(folder).search_path(spec)
    trainer = make_trainer(spec, material, progress or Progress(), search_path=path)
    return trainer.run(), trainer.state.sparsity.masks


# Methods that watch, that score before, and that weight.
@pytest.mark.parametrize(
    ("axes", "methods"), [(EB, ["sadp", "el2n", "infobatch"]), (IMP, ["el2n"])], ids=["eb", "imp-early"]
)
def test_a_run_with_anothers_search_has_the_record_of_one_that_searched_itself(
    axes: dict[str, Any], methods: list[str], tmp_path: Path
) -> None:
    first, of_first = trained(axes, "full", tmp_path / "shared")
    assert "from" not in first.ticket
    for method in methods:
        taken, masks = trained(axes, method, tmp_path / "shared", progress := StopsAt())
        alone, of_alone = trained(axes, method, tmp_path / method, own := StopsAt())
        searched = own.count - progress.count
        assert searched > BATCHES and numbers(taken) == numbers(alone), method
        assert all(torch.equal(mask, of_alone[name]) for name, mask in masks.items()), method
        assert taken.ticket["from"] == first.spec.key and "from" not in alone.ticket, method
        for name in ("seconds", "visits"):
            assert taken.ticket[name] == first.ticket[name], (method, name)
        assert taken.seconds["prepare"] >= first.ticket["seconds"] > 0, method
    assert all(torch.equal(mask, masks[name]) for name, mask in of_first.items())
    assert len(list((tmp_path / "shared" / "scores").iterdir())) == 1


def test_a_run_shares_its_search_with_its_reference_and_only_with_runs_of_its_seed_and_axes(tmp_path: Path) -> None:
    def at(**more: Any) -> Record:
        spec, material = requested("random", **EB | more)
        outcome = run(spec, material, Store(tmp_path), Progress())
        assert outcome is not None
        return outcome.comparison.record

    first = at()
    assert first.ticket["from"] == first.spec.reference().key
    for more in ({"seed": 1}, {"density": 0.5}):
        other = at(**more)
        assert other.ticket["from"] == other.spec.reference().key != first.spec.reference().key, more
    assert at(ratio=0.6, protocol="updates").ticket["from"] == first.spec.reference().key


def test_who_comes_while_another_process_searches_waits_and_takes_what_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(EB, "full", tmp_path)
    [path] = (tmp_path / "scores").iterdir()
    hidden = path.rename(tmp_path / "hidden")
    other = Lock(path.with_name(f"{path.name}.lock"))
    assert other.acquire()

    def ends(seconds: float) -> None:
        hidden.rename(path)
        other.release(finished=True)

    monkeypatch.setattr(time, "sleep", ends)
    record, _ = trained(EB, "random", tmp_path, progress := StopsAt())
    assert "from" in record.ticket and any("another process makes search" in line for line in progress.messages)
    assert list((tmp_path / "scores").iterdir()) == [path]


def test_a_search_that_was_cut_short_is_charged_once_whoever_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, path = Seconds(monkeypatch), tmp_path / "a.search"
    spec, material = requested("random", **EB)
    whole = make_trainer(spec, material, OneSecondABatch(seconds)).run()
    assert whole.seconds["prepare"] == whole.ticket["seconds"] == 3 * BATCHES
    with pytest.raises(Stopped):
        saved(spec, material, tmp_path, OneSecondABatch(seconds, 2 * BATCHES + 2), search_path=path).run()
    assert not path.exists()
    for other in ("own", "another's"):
        if other == "another's":
            of_full, _ = requested("full", **EB)
            make_trainer(of_full, material, OneSecondABatch(seconds), search_path=path).run()
        folder = tmp_path / other
        folder.mkdir()
        (folder / "run.ckpt").write_bytes((tmp_path / "run.ckpt").read_bytes())
        resumed = saved(spec, material, folder, OneSecondABatch(seconds), search_path=path if other != "own" else None)
        record = resumed.run()
        assert record.seconds == record.cpu_seconds == whole.seconds, other
        assert numbers(record) == numbers(whole), other
        assert ("from" in record.ticket) == (other != "own"), other


def test_again_makes_the_search_anew(tmp_path: Path) -> None:
    spec, material = requested("random", **EB)
    counts = []
    for again in (False, True):
        run(spec, material, Store(tmp_path), progress := StopsAt(), reference=False, again=again)
        counts.append(progress.count)
    assert counts[0] == counts[1] > 3 * BATCHES
