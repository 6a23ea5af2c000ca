"""The measured peak of a context whose use of memory is set by the test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sadp_bench.runs import peak_memory
from sadp_bench.runs.peak_memory import PeakMemory

CPU = torch.device("cpu")
MIB = 2**20
TAKEN = 200 * MIB
WITHIN = 25 * MIB  # of the 200 that are taken: the allocator may leave room for one more tensor between them


def is_measurable() -> bool:
    tracker = PeakMemory(CPU)
    with tracker.tracked():
        pass
    return tracker.extra_bytes is not None


needs_linux = pytest.mark.skipif(
    not is_measurable(),
    reason="only Linux measures the peak of a process, with glibc's malloc and a writable clear_refs",
)

TAKES_200 = """
import json, sys, torch
from sadp_bench.runs.environment import keep_freed_memory
from sadp_bench.runs.peak_memory import PeakMemory

torch.set_num_threads(1)
if sys.argv[1] == "keeps":
    keep_freed_memory()

def take(mebibytes):
    return [torch.full((piece * 2**20 // 4,), 1.0) for _ in range(mebibytes // piece)]

def measured(do):
    memory = PeakMemory(torch.device("cpu"))
    with memory.tracked():
        do()
    return memory.extra_bytes

def again_and_again():
    for _ in range(4):
        take(200)

found = {}
for piece in (200, 20, 1):  # MiB a tensor
    take(piece)
    found[f"taken as {piece}"] = measured(lambda: take(200))
    found[f"a second time as {piece}"] = measured(lambda: take(200))
    take(600)
    found[f"after more was freed as {piece}"] = measured(lambda: take(200))
    found[f"again and again as {piece}"] = measured(again_and_again)
    held = take(400)
    found[f"beside what is held as {piece}"] = measured(lambda: take(200))
    del held[::2]
    found[f"beside what is held in parts as {piece}"] = measured(lambda: take(200))
    del held
print(json.dumps(found))
"""


@needs_linux
@pytest.mark.parametrize("freed", ["keeps", "gives back"])
def test_200_mebibytes_are_reported_as_such_whatever_was_taken_and_freed_before(freed: str) -> None:
    done = subprocess.run([sys.executable, "-c", TAKES_200, freed], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 18

    def most(case: str) -> int:
        """Returns the bound: what is freed within a context may stay in gaps that the next tensors do not fit.

        Four times 200 are taken there, one after the other, so the sum would be 800.
        """
        return 3 * TAKEN if case.startswith("again and again") else TAKEN + WITHIN

    wrong = {case: extra for case, extra in found.items() if not TAKEN - WITHIN <= extra <= most(case)}
    assert {case: f"{extra / MIB:.1f} MiB" for case, extra in wrong.items()} == {}


@needs_linux
def test_the_largest_of_several_contexts_counts_also_where_one_ends_in_an_error() -> None:
    tracker = PeakMemory(CPU)
    assert tracker.extra_bytes is None
    for mebibytes, at_least in ((10, 5), (80, 70), (20, 70)):
        with tracker.tracked():
            torch.full((mebibytes * MIB // 4,), 1.0)
        assert tracker.extra_bytes is not None and at_least * MIB < tracker.extra_bytes < (mebibytes + 80) * MIB
    with pytest.raises(KeyError), tracker.tracked():
        torch.full((200 * MIB // 4,), 1.0)
        raise KeyError
    assert tracker.extra_bytes > 180 * MIB


def test_what_the_system_does_not_report_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def peak_of() -> int | None:
        tracker = PeakMemory(CPU)
        with tracker.tracked():
            torch.ones(MIB)
        return tracker.extra_bytes

    monkeypatch.setattr(peak_memory, "_malloc_trim", lambda: None)  # another C library or allocator
    assert peak_of() is None
    monkeypatch.setattr(peak_memory, "_malloc_trim", lambda: lambda pad: 0)
    monkeypatch.setattr(peak_memory, "CLEAR_REFS", tmp_path / "absent" / "clear_refs")
    assert peak_of() is None
    monkeypatch.setattr(peak_memory, "CLEAR_REFS", tmp_path)  # not to be written
    assert peak_of() is None
    tracker = PeakMemory(torch.device("meta"))
    with tracker.tracked():
        pass
    assert tracker.extra_bytes is None


def test_a_gpu_is_requested_for_what_its_tensors_take(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def answer(name: str, *values: int) -> None:
        left = list(values)

        def requested(device: torch.device) -> int | None:
            calls.append(name)
            return left.pop(0) if left else None

        monkeypatch.setattr(torch.cuda, name, requested)

    answer("reset_peak_memory_stats")
    answer("memory_allocated", 100, 300)
    answer("max_memory_allocated", 500, 450)
    tracker = PeakMemory(torch.device("cuda"))
    for _ in range(2):
        with tracker.tracked():
            calls.append("within")
    assert calls == ["reset_peak_memory_stats", "memory_allocated", "within", "max_memory_allocated"] * 2
    assert tracker.extra_bytes == 400


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_200_mebibytes_on_a_gpu() -> None:
    device = torch.device("cuda")
    tracker = PeakMemory(device)
    held = torch.full((300 * MIB // 4,), 1.0, device=device)
    torch.full((600 * MIB // 4,), 1.0, device=device)
    with tracker.tracked():
        torch.full((200 * MIB // 4,), 1.0, device=device)
    assert tracker.extra_bytes == 200 * MIB and len(held)
