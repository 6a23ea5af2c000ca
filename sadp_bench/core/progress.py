"""What long work tells about itself. The terminal's version is in `terminal`; this one says nothing."""

from __future__ import annotations

from typing import Any


class Progress:
    """Told by the loop what happens; must not wait for the device."""

    def say(self, line: str) -> None:
        """A line worth reading once."""

    def start(self, title: str, visits: int, num_epochs: int) -> None:
        """A stretch of training begins that will make about so many example visits."""

    def advance(self, visits: int) -> None:
        """A batch is done."""

    def epoch(self, row: dict[str, Any], num_examples: int) -> None:
        """An epoch is done; its row of the record, and N."""

    def stop(self) -> None:
        """The stretch has ended, or failed."""
