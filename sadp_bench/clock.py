"""The clock, in one place.

    charged       prepare (scoring), select, train (loading, augmentation, forward, backward, observe, step)
    not charged   evaluate; writing records; the untimed warm-up, which restores all state

The device is synchronised at phase boundaries only, so that kernels still queued are charged to the phase that
queued them, and nothing inside a phase waits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PHASES = ("prepare", "select", "train", "evaluate")


class Clock:
    """Seconds by phase, summed over the run. Phases do not nest."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        assert phase in PHASES
        start = self._now()
        try:
            yield
        finally:
            self.seconds[phase] += self._now() - start

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
