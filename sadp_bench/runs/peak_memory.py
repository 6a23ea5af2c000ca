"""The peak memory of a context, beyond the memory in use before it, and the peak memory of the process."""

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
    """The largest peak of its contexts, in bytes beyond the memory in use when each began. Contexts do not nest.

    On a GPU it counts tensors, as PyTorch's allocator does. On a CPU under Linux it counts the process's resident set.
    This is an upper bound: it includes freed memory that the C library keeps, and pages mapped for the first time, such as
    a library's code. Pages that are taken and never written do not count.

    A context first returns freed memory to the system. Without that, memory that it takes again would not count. Mapping
    the pages anew costs about half a millisecond per MiB, once per context. A context resets the peak that the device
    keeps; on a CPU this is the process's peak, also in getrusage.

    Args:
        device: A GPU or the CPU.

    Attributes:
        extra_bytes: The largest peak; None before the first context, and where the system does not measure it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.extra_bytes: int | None = None

    @contextmanager
    def tracked(self) -> Iterator[None]:
        """Measures the context."""
        before = _begin(self.device)
        try:
            yield
        finally:
            if before is not None:
                self.extra_bytes = max(self.extra_bytes or 0, _peak(self.device) - before)


def _begin(device: torch.device) -> int | None:
    """Resets the peak and returns the bytes in use; None where the peak is not measured."""
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
    """Returns bytes: VmRSS in use, or VmHWM at the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kibibytes = next(line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(kibibytes) * 1024


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Returns glibc's function where the process uses glibc's malloc; None elsewhere, as under jemalloc or tcmalloc."""
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
    """Returns bytes: the peak of a GPU's allocated memory since its reset, or the process's on a CPU; 0: not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # on Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak(device: torch.device) -> None:
    """Resets the peak of a GPU's allocated memory to the memory in use; on a CPU it does nothing."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
