"""The logits of an observed batch: their order of time and examples, and whether they and the losses are finite.

T time steps, B examples, C classes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sadp_bench.core.errors import BadInput
from sadp_bench.core.precision import widened
from sadp_bench.pruners.base import Observation


class LossesAlone(Observation):
    """The observation of a batch whose logits have another shape than [B, C] and [T, B, C]: they can't be read."""

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name == "logits_TBC":
            raise BadInput(
                f"this pruner reads logits, [B, C] or [T, B, C], and these are {shape_of(value)}: take another"
            )
        return value


def in_time(logits: Any, batch: int, batch_first: bool = False) -> Tensor | None:
    """Returns logits as [T, B, C], detached and in at least float32; T is 1 for [B, C]. None for any other shape.

    Args:
        logits: The observed logits.
        batch: The number of examples, B.
        batch_first: Whether logits of three dimensions are [B, T, C].
    """
    if not isinstance(logits, Tensor) or logits.dim() not in (2, 3):
        return None
    logits_TBC = logits.detach()[None] if logits.dim() == 2 else logits.detach()
    logits_TBC = logits_TBC.transpose(0, 1) if batch_first and logits.dim() == 3 else logits_TBC
    return widened(logits_TBC) if logits_TBC.shape[1] == batch else None


def not_finite(logits_TBC: Tensor | None, loss_B: Tensor) -> Tensor:
    """Returns which examples have a loss that is not finite, or a NaN among their logits. [B]."""
    lost_B = ~loss_B.isfinite()
    return lost_B if logits_TBC is None else lost_B | logits_TBC.isnan().any(2).any(0)


def shape_of(logits: Any) -> str:
    """Returns the shape of logits in words; the type of what is no tensor."""
    return str(list(logits.shape)) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
