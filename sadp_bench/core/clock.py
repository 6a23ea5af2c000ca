"""The clock, in one place.

    charged       prepare (scoring), select, train (loading, augmentation, forward, backward, observe, step)
    not charged   evaluate; writing records and checkpoints; the untimed warm-up, which restores all state

The device is synchronised at phase boundaries only, so that kernels still queued are charged to the phase that
queued them, and nothing inside a phase waits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sadp_bench.core.phases import PHASES


class Clock:
    """Seconds by phase, summed over the run, also over its parts where it was interrupted. Phases do not nest."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._phase: str | None = None
        self._since = 0.0

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        assert phase in PHASES and self._phase is None
        self._phase, self._since = phase, self._now()
        try:
            yield
        finally:
            self._book()
            self._phase = None

    @contextmanager
    def uncharged(self) -> Iterator[None]:
        """Stops the clock within a phase. `seconds` is exact meanwhile, and may be set."""
        self._book()
        try:
            yield
        finally:
            self._since = self._now()

    def _book(self) -> None:
        if self._phase is not None:
            self.seconds[self._phase] += self._now() - self._since

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
