"""The peak memory of what happens within a context, beyond what was in use before it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5), Linux 4.0 and later


class PeakMemory:
    """The most memory that any of its contexts took, in bytes, beyond what was in use when that context began.

    On a GPU: of tensors, as PyTorch's allocator counts them. On a CPU under Linux: of the process, as its resident set
    tells: an upper bound, as what the C library keeps of memory freed within the context counts, and so do pages mapped
    for the first time (a library's code); pages that are taken and never written do not. `extra_bytes` is None before the
    first context, and where the system can't tell: it is never a guess.

    Memory that was freed before a context is handed back to the system as it begins, or what the context takes of it would
    not show. That pages are mapped anew then costs about half a millisecond a MiB, once a context. A context resets the
    peak that the device (on a CPU the process, getrusage's too) itself keeps: who reads that sees what came after.
    Contexts do not nest.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.extra_bytes: int | None = None

    @contextmanager
    def tracked(self) -> Iterator[None]:
        before = _begin(self.device)
        try:
            yield
        finally:
            if before is not None:
                self.extra_bytes = max(self.extra_bytes or 0, _peak(self.device) - before)


def _begin(device: torch.device) -> int | None:
    """Bytes in use now, from which on the peak counts; None where the peak can't be had."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    trim = _malloc_trim()
    if device.type != "cpu" or trim is None:
        return None
    trim(0)
    try:
        CLEAR_REFS.write_text(RESET_PEAK)
        return _resident("VmRSS")
    except OSError:  # no such file, or no permission
        return None


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM")


def _resident(name: str) -> int:
    """Bytes: VmRSS, in use now, or VmHWM, at the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kibibytes = next(line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(kibibytes) * 1024


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """glibc's, where its malloc is the process's; None elsewhere and where another (jemalloc, tcmalloc) was put in its
    place, which keeps freed memory as it likes."""
    if sys.platform != "linux":
        return None
    try:
        process, glibc = ctypes.CDLL(None), ctypes.CDLL("libc.so.6")
        return glibc.malloc_trim if _address(process.malloc) == _address(glibc.malloc) else None
    except (OSError, AttributeError):  # another C library
        return None


def _address(function: Any) -> int | None:
    return ctypes.cast(function, ctypes.c_void_p).value


def peak_bytes(device: torch.device) -> int:
    """Returns the peak of a GPU's allocated memory since its reset; on a CPU the process's, 0 where it is not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # on Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak(device: torch.device) -> None:
    """Lets the peak of a GPU's memory count from now on; on a CPU it does nothing."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
