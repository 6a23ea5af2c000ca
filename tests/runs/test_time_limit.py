"""`--minutes` ends a run after an epoch, with a checkpoint and an exit code of its own; the same command goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sadp_bench.core.errors import TimeIsUp
from sadp_bench.core.progress import Progress
from sadp_bench.core.time_limit import TimeLimit
from sadp_bench.records.file_lock import Lock
from sadp_bench.records.store import Store, read_all
from sadp_bench.runs.run import run
from tests.commands import command, tiny_run
from tests.small_runs import numbers
from tests.stopping import requested

SCORING = ["--quiet", "--no-reference", "--set", "score_runs=1", "--set", "score_epochs=1"]


def test_a_run_in_parts_of_an_epoch_ends_in_the_record_of_a_whole_one(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert tiny_run("el2n", 0.5, whole, *SCORING).code == 0
    lines = list[str]()
    while (answer := tiny_run("el2n", 0.5, parts, "--minutes", 1e-6, *SCORING)).code == 75:
        assert answer.out == "" and answer.err.count("\n") == 1 and len(lines) < 9, answer
        lines.append(answer.err)
    assert answer.code == 0
    for line, place in zip(lines, ("in its preparation", "after epoch 0", "after epoch 1"), strict=True):
        assert f"el2n 0.5 was {place} when the 1e-06 minutes of --minutes were over; the same command goes on" in line
    [(path, record)], [(expected_path, expected)] = (read_all([folder]).records for folder in (parts, whole))
    assert numbers(record) == numbers(expected) and path.name == expected_path.name, "the limit is part of the key"


def test_a_limit_ends_the_wait_for_another_process(tmp_path: Path) -> None:
    spec, material = requested("random")
    lock = Lock(Store(tmp_path).path(spec, ".lock"))
    assert lock.acquire()
    with pytest.raises(TimeIsUp, match="waited for another process when the 0.001 minutes"):
        run(spec, material, Store(tmp_path), Progress(), reference=False, limit=TimeLimit(0.001))
    lock.release(finished=True)


def test_a_limit_that_is_none_is_refused() -> None:
    for value in (0, -1, "nan", "inf"):
        answer: Any = command("run", "--method", "full", "--ratio", 0, "--minutes", value)
        assert answer.code == 2 and "--minutes is above 0" in answer.err, answer
