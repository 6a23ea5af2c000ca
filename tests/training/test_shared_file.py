"""Scores that differ in the ratio alone are computed once, and charged to each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sadp_bench.core.errors import BadInput
from sadp_bench.core.progress import Progress
from sadp_bench.records.record import Record
from sadp_bench.records.store import Store
from sadp_bench.runs.run import run
from sadp_bench.training.checkpoint import read_state, write_state
from tests.records.helpers import left_by_a_killed_process
from tests.small_runs import make_trainer, numbers
from tests.stopping import StopsAt, requested, run_it


def test_a_second_set_of_scores_is_refused() -> None:
    context = make_trainer(*requested("el2n")).context
    context.scores(lambda: torch.zeros(101))
    with pytest.raises(BadInput, match="more than once"):
        context.scores(lambda: torch.ones(101))


def test_a_lock_left_by_who_wrote_the_scores_goes(tmp_path: Path) -> None:
    run_it("el2n", tmp_path)
    [path] = (tmp_path / "scores").iterdir()
    left_by_a_killed_process(path.with_name(f"{path.name}.lock"))
    spec, material = requested("el2n", ratio=0.5)
    run(spec, material, Store(tmp_path), Progress(), reference=False)
    assert list((tmp_path / "scores").iterdir()) == [path]


def test_scores_are_computed_once_for_all_ratios_and_charged_to_each(tmp_path: Path) -> None:
    def at(ratio: float, progress: Progress, out: Path = tmp_path, **more: Any) -> Record:
        spec, material = requested("el2n", ratio=ratio, **more)
        outcome = run(spec, material, Store(out), progress, reference=False)
        assert outcome is not None
        return outcome.comparison.record

    first, second = at(0.4, one := StopsAt()), at(0.6, other := StopsAt())
    alone = at(0.6, StopsAt(), tmp_path / "alone")
    scoring = 2 * 2 * 6  # two networks, two epochs, 6 batches
    assert one.count - scoring == 4 * 4 and other.count == 4 * 3  # no scoring the second time
    assert numbers(second) == numbers(alone)
    assert second.prepare_examples == alone.prepare_examples == 2 * 3 * 101
    assert second.seconds["prepare"] == pytest.approx(first.seconds["prepare"], rel=0.2)
    assert second.cpu_seconds["prepare"] == pytest.approx(first.cpu_seconds["prepare"], rel=0.2)
    assert (first.scores_from, second.scores_from, alone.scores_from) == (None, first.spec.key, None)
    assert at(0.6, third := StopsAt(), seed=1).scores_from is None and third.count > scoring


def test_scores_of_other_data_or_another_environment_are_not_used(tmp_path: Path) -> None:
    run_it("el2n", tmp_path)
    [path] = (tmp_path / "scores").iterdir()
    state = read_state(path, torch.device("cpu"))
    state["made_in"]["environment"]["torch"] = "1.0"
    write_state(path, state)
    spec, material = requested("el2n", ratio=0.5)
    outcome = run(spec, material, Store(tmp_path), progress := StopsAt(), reference=False)
    assert outcome is not None and outcome.comparison.record.scores_from is None
    assert any("another environment: not used" in line for line in progress.messages)
