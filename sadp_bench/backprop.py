"""How a batch's gradient is made: forward, loss, weighted backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sadp_bench.losses import Loss

Forward = Callable[[Tensor], Tensor]  # model input -> logits_TBC, at least float32
Backprop = Callable[[Forward, Loss, Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]


def bptt(
    forward: Forward, loss: Loss, input: Tensor, label_B: Tensor, weight_B: Tensor, batch_size: float
) -> tuple[Tensor, Tensor]:
    """Backpropagation through time: all steps in one graph. Accumulates into `.grad` the gradient of
    sum(weight_B * loss_B) / batch_size; returns logits_TBC and loss_B (before weighting), detached.

    batch_size: of the whole batch, divided by the number of processes that share it (their gradients are averaged).
    """
    logits_TBC = forward(input)
    loss_B = loss(logits_TBC, label_B)
    ((loss_B * weight_B.to(loss_B.dtype)).sum() / batch_size).backward()
    return logits_TBC.detach(), loss_B.detach()


def at_precision(model: torch.nn.Module, precision: str, device: torch.device) -> Forward:
    """The model's forward pass under bfloat16 autocast ("bf16") or as it is; logits in float32 at least."""

    def forward(input: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits_TBC: Tensor = model(input)
        return logits_TBC.to(torch.promote_types(logits_TBC.dtype, torch.float32))

    return forward
