"""The memory of this machine and of its control groups, and refusals for lack of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sadp_bench.core import memory
from sadp_bench.core.errors import BadInput


def test_the_machines_memory_is_the_least_limit_of_the_control_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, groups = tmp_path / "cgroup", tmp_path / "groups"
    monkeypatch.setattr(memory, "GROUP_ROOT", root)
    monkeypatch.setattr(memory, "CONTROL_GROUPS", groups)
    whole = memory.machine_bytes()
    limits = {"job/memory.max": "9000", "job/step/memory.max": "max", "memory/a/memory.limit_in_bytes": "8000"}
    for name, text in limits.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    for lines, wanted in (
        ("0::/", whole),
        ("0::/job", 9000),
        ("0::/job/step", 9000),
        ("2:cpu:/job\n0::/elsewhere", whole),
        ("4:memory:/a/b\n3:cpu:/job\n0::/job", 8000),
        ("", whole),
    ):
        groups.write_text(lines)
        assert memory.machine_bytes() == wanted, lines


def test_what_needs_more_than_there_is_is_refused_and_unknown_memory_refuses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "machine_bytes", lambda: 2**30)
    memory.check_room(2**30, "a step", "take less")
    with pytest.raises(BadInput, match="^a step needs at least 1.5 GiB of memory, and there are 1.0; take less$"):
        memory.check_room(1.5 * 2**30, "a step", "take less")
    monkeypatch.setattr(memory, "machine_bytes", lambda: None)
    memory.check_room(2**60, "a step", "take less")
