"""Reports of long work. The class here drops them; the command line's subclass prints them."""

from __future__ import annotations

from typing import Any


class Progress:
    """Receives the events of a run. No method may wait for the device."""

    def message(self, line: str) -> None:
        """Reports a line of text."""

    def start(self, title: str, visits: int, num_epochs: int) -> None:
        """Reports that training begins.

        Args:
            title: The training's name.
            visits: About how many example visits it makes.
            num_epochs: The number of its last epoch.
        """

    def advance(self, visits: int) -> None:
        """Reports that a batch is done."""

    def epoch(self, row: dict[str, Any], num_examples: int) -> None:
        """Reports that an epoch is done, with its row of the record and the size of the training set."""

    def round(self, text: str, share: float) -> None:
        """Reports that a round of a measurement is done.

        Args:
            text: The number of the round: 'round 3/30'.
            share: The share of the measurement that is done.
        """

    def stop(self) -> None:
        """Reports that training has ended, or failed."""
