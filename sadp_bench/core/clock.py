"""The clock of a run.

    charged       prepare (scoring, search), select, train (loading, augmentation, forward, backward, observe, step)
    not charged   evaluate; writing records and checkpoints; the rehearsal, which restores all state

The device is synchronised at phase boundaries only. So queued kernels are charged to the phase that queued them, and
nothing inside a phase waits.
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
        device: Is synchronised at the boundaries of phases.

    Attributes:
        seconds: By phase.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._phase: str | None = None
        self._since = 0.0

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Charges the context to a phase, up to an error too."""
        assert phase in PHASES and self._phase is None
        self._phase, self._since = phase, self._now()
        try:
            yield
        finally:
            self._book()
            self._phase = None

    @contextmanager
    def uncharged(self) -> Iterator[None]:
        """Stops the clock within a phase. Inside the context `seconds` is exact, and may be changed."""
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
