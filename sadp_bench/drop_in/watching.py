"""The interface of a watched network for the sampler."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from sadp_bench.capture.signals import Signal
from sadp_bench.core.losses import Loss


class Watching(Protocol):
    """The part of a `Watch` that the sampler uses."""

    loss: Loss

    @property
    def waits(self) -> bool:
        """Whether numbers of the batch are read anyway, so that a further check costs no wait for the device."""

    def in_time(self, logits: Any, batch: int) -> Tensor | None:
        """Returns the observed logits as [T, B, C]; None for another shape."""

    def forget(self) -> None:
        """Drops the records of the batch."""

    def record(self, signals: frozenset[Signal]) -> None:
        """Replaces the hooks by those of these signals."""

    def expect(self, batch: int) -> None:
        """Receives the size of the batch whose backward pass is next."""

    def seen(self, logits_TBC: Tensor, label_B: Tensor, weight_B: Tensor, index_B: Tensor) -> dict[str, Tensor] | None:
        """Returns the signals of the last batch, or None where its gradients are not finite."""
