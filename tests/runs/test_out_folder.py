"""A run whose folder or lock goes away while it trains ends in a line that contains what happened and where it can go on."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sadp_bench.core.errors import BadInput
from tests.small_runs import numbers
from tests.stopping import StopsAt, run_it


class Hindered(StopsAt):
    """Calls `happens` after the second epoch of `random`. An epoch has four batches."""

    def __init__(self, happens: Callable[[], object]) -> None:
        super().__init__()
        self.happens = happens

    def advance(self, visits: int) -> None:
        super().advance(visits)
        if self.count == 8:
            self.happens()


def remade(folder: Path, move: Callable[[], object]) -> None:
    move()
    folder.mkdir()


def test_a_folder_that_goes_away_is_said_with_the_place_where_the_run_goes_on(tmp_path: Path) -> None:
    undisturbed = run_it("random", tmp_path / "undisturbed").comparison.record
    cases: dict[str, tuple[Callable[[Path, Path], object], str]] = {
        "removed": (
            lambda out, other: shutil.rmtree(out),
            "was removed or renamed, and its checkpoints are gone with it",
        ),
        "renamed": (
            lambda out, other: out.rename(other),
            "was removed or renamed, and is {other} now; the same command",
        ),
        "replaced": (
            lambda out, other: remade(out, lambda: out.rename(other)),
            "was replaced by another, and is {other} now; the same command with --out {other} goes on",
        ),
        "made anew": (lambda out, other: remade(out, lambda: shutil.rmtree(out)), "was replaced by another, and its"),
        "lock": (
            lambda out, other: [path.unlink() for path in out.glob("*.lock*")],
            "somebody removed the lock of random 0.4",
        ),
    }
    for case, (happens, expected) in cases.items():
        out, other = tmp_path / case / "out", tmp_path / case / "other"
        line = re.escape(expected.format(other=other))
        with pytest.raises(BadInput, match=line):
            run_it(
                "random", out, progress := Hindered(lambda happens=happens, out=out, other=other: happens(out, other))
            )
        assert progress.count == 8, f"{case}: it trains on"
        assert not list((tmp_path / case).rglob("*.json")), case
        assert case in ("replaced", "made anew", "lock") or not out.exists(), f"{case}: the folder is made again"
        if other.exists() or case == "lock":
            place = other if other.exists() else out
            for lease in place.glob("*.lease"):
                lease.unlink()  # Its holder, this process, would have ended.
            again = run_it("random", place, progress := StopsAt())
            assert any("goes on from its checkpoint, after epoch 1" in messages for messages in progress.messages), case
            assert numbers(again.comparison.record) == numbers(undisturbed), case
