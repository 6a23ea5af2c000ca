"""The clock of a run.

    charged       prepare (scoring, search), select, train (loading, augmentation, forward, backward, observe, step)
    not charged   evaluate; writing records and checkpoints; the rehearsal, which restores all state

The device is synchronised at phase boundaries only. So queued kernels are charged to the phase that queued them, and
nothing inside a phase waits.

The clock also counts the CPU seconds of this process: all of its threads, in user and system mode. Child processes and
the other processes of a run under torchrun do not count. A waiting thread of OpenMP spins, so its CPU seconds count.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sadp_bench.core.phases import PHASES


class Clock:
    """Seconds of each phase, summed over all parts of a run. Phases do not nest.

    Args:
        device: The device to synchronise at the boundaries of phases.

    Attributes:
        seconds: Seconds of each phase.
        cpu_seconds: CPU seconds of this process in each phase. A phase is absent where a part of its seconds is unknown.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.cpu_seconds = dict.fromkeys(PHASES, 0.0)
        self._phase: str | None = None
        self._since = (0.0, 0.0)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Charges the context to a phase, also where it ends in an error."""
        assert phase in PHASES and self._phase is None
        self._phase, self._since = phase, now(self.device)
        try:
            yield
        finally:
            self._book()
            self._phase = None

    @contextmanager
    def uncharged(self) -> Iterator[None]:
        """Stops the clock within a phase. Inside the context the seconds are exact, and may be changed."""
        self._book()
        try:
            yield
        finally:
            self._since = now(self.device)

    def charge(self, phase: str, seconds: float, cpu_seconds: float | None) -> None:
        """Adds the time that another part of the run, or another run, has spent. CPU seconds of None are unknown."""
        self.seconds[phase] += seconds
        if cpu_seconds is None:
            self.cpu_seconds.pop(phase, None)
        elif phase in self.cpu_seconds:
            self.cpu_seconds[phase] += cpu_seconds

    def _book(self) -> None:
        if self._phase is not None:
            seconds, cpu_seconds = now(self.device)
            self.charge(self._phase, seconds - self._since[0], cpu_seconds - self._since[1])


def now(device: torch.device) -> tuple[float, float]:
    """Returns the wall clock's and the process's CPU seconds, after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter(), time.process_time()
