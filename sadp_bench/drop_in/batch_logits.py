"""The logits of an observed batch: their order of time and examples, and whether they and the losses are finite.

T time steps, B examples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sadp_bench.core.errors import BadInput
from sadp_bench.core.precision import widened
from sadp_bench.pruners.exchange import Observation


class LossesAlone(Observation):
    """The observation of a batch whose logits are neither [B, C] nor [T, B, C]. Reading them raises BadInput."""

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name == "logits_TBC":
            raise BadInput(
                f"this pruner reads logits, [B, C] or [T, B, C], and these are {shape_of(value)}: take another"
            )
        return value


class LogitOrder:
    """Puts logits in the order [T, B, C]. With time_first=False they may be [B, T, C].

    Args:
        time_first: The argument of `watch` or `score_with`.
        decide: Returns whether logits with T = B have the examples first; None if that is unknown.
    """

    def __init__(self, time_first: bool | None, decide: Callable[[Tensor], bool | None] = lambda logits: None) -> None:
        self.batch_first = None if time_first is False else False
        self._may_be_either = time_first is False
        self._decide = decide

    def in_time(self, logits: Tensor, batch: int) -> Tensor:
        """Returns logits [B, T, C] as [T, B, C], and any others unchanged.

        Raises:
            BadInput: T = B, and neither an earlier batch nor the network shows the order.
        """
        if not self._may_be_either or logits.dim() != 3:
            return logits
        if logits.shape[0] != logits.shape[1]:
            self.batch_first = logits.shape[0] == batch
        elif self.batch_first is None:
            self.batch_first = self._decide(logits)
        if self.batch_first is None:
            raise BadInput(
                f"the logits, {list(logits.shape)}, may be [T, B, C] or [B, T, C]: give their mean over time, or take "
                "another batch size"
            )
        return logits.transpose(0, 1) if self.batch_first else logits


def in_time(logits: Any, batch: int, order: LogitOrder | None = None) -> Tensor | None:
    """Returns logits as [T, B, C], detached and in at least float32; T is 1 for [B, C]. None for any other shape.

    Args:
        logits: The observed logits.
        batch: The number of examples, B.
        order: The order of logits of three dimensions; time first by default.
    """
    if not isinstance(logits, Tensor) or logits.dim() not in (2, 3):
        return None
    logits = logits.detach() if order is None else order.in_time(logits.detach(), batch)
    logits_TBC = logits[None] if logits.dim() == 2 else logits
    return widened(logits_TBC) if logits_TBC.shape[1] == batch else None


def not_finite(logits_TBC: Tensor | None, loss_B: Tensor) -> Tensor:
    """Returns which examples have a loss that is not finite, or a NaN among their logits. [B]."""
    lost_B = ~loss_B.isfinite()
    return lost_B if logits_TBC is None else lost_B | logits_TBC.isnan().any(2).any(0).to(lost_B.device)


def wrong_shape(logits: Any, batch: int, where: str = "watch") -> str:
    """Returns a message for logits that are not [B, C] or [T, B, C] of B examples."""
    hint = ""
    if isinstance(logits, Tensor) and logits.dim() == 3 and logits.shape[0] == batch:
        hint = f"; for [B, T, C], set {where}(..., time_first=False)"
    return f"logits are [B, C] or [T, B, C] of the {batch} examples, not {shape_of(logits)}{hint}"


def shape_of(logits: Any) -> str:
    """Returns the shape of logits in words; the type of a value that is no tensor."""
    return str(list(logits.shape)) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
