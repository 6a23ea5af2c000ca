"""The time that a command may take."""

from __future__ import annotations

import math
import time

from sadp_bench.core.errors import BadInput, TimeIsUp


class TimeLimit:
    """The time that a command may take, counted from the creation of this object.

    Args:
        minutes: The limit; None: no limit.
    """

    def __init__(self, minutes: float | None = None) -> None:
        if minutes is not None and not (math.isfinite(minutes) and minutes > 0):
            raise BadInput(f"--minutes is above 0, not {minutes:g}")
        self.minutes = minutes
        self._since = time.monotonic()

    def is_over(self) -> bool:
        """Returns whether the time is over for the first rank. All ranks must call it, and all get the same value."""
        if self.minutes is None:
            return False
        from sadp_bench.core import distributed  # it imports torch, and a Ray worker imports this module without torch

        return distributed.agreed(self._is_over())

    def _is_over(self) -> bool:
        return self.minutes is not None and time.monotonic() - self._since >= 60 * self.minutes

    def left(self) -> float | None:
        """Returns the minutes that are left, at least a thousandth; None without a limit."""
        passed = (time.monotonic() - self._since) / 60
        return None if self.minutes is None else max(self.minutes - passed, 0.001)

    def check_alone(self, where: str) -> None:
        """Raises `TimeIsUp` where the time is over. For the rank that waits while the others wait for it.

        Args:
            where: What the command was doing, for the message.
        """
        if self._is_over():
            raise self.error(where)

    def error(self, where: str) -> TimeIsUp:
        """Returns the error that ends the command."""
        return TimeIsUp(
            f"{where} when the {self.minutes:g} minutes of --minutes were over; the same command goes on from there"
        )
