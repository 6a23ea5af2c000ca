"""The LIF neuron's multi-step pass for CPUs: SpikingJelly's equations, several times as fast.

SpikingJelly's CPU path allocates memory for every operation of every step. On large batches, mapping those pages takes
most of its time. `CPULif` works in place. For the backward pass it keeps only the spikes and the surrogate's
derivative, in the input's type. In float32 and float64 it equals SpikingJelly to rounding, which tests check. Under
bfloat16 autocast the derivative is rounded to bfloat16, like the gradients around it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sadp_bench.core.precision import wide_dtype

# A spike's derivative at x = membrane - threshold, computed in place. Names and values are SpikingJelly's surrogates'.
DERIVATIVES = {
    "atan": lambda x: x.mul_(math.pi).square_().add_(1).reciprocal_(),  # alpha = 2
    "sigmoid": lambda x: x.mul_(4).sigmoid_().mul_(1 - x).mul_(4),  # alpha = 4
    "triangle": lambda x: x.abs_().neg_().add_(1).clamp_(min=0),  # alpha = 1
}


class CPULif(torch.autograd.Function):
    """current [T, ...], membrane before [...] -> spikes [T, ...], membrane after.

    h[t] = (1 - 1/tau) v[t-1] + gain x[t];  s[t] = h[t] >= threshold;  v[t] = h[t] after the reset, hard (to 0) or soft.
    No gradient flows through the reset (detach_reset) or through the membranes that come in and go out.
    """

    @staticmethod
    def forward(
        ctx: Any, current: Tensor, before: Tensor, tau: float, gain: float, threshold: float, soft: bool, surrogate: str
    ) -> tuple[Tensor, Tensor]:
        """Returns spikes and the membrane after the last step."""
        spikes, derivative = torch.empty_like(current), torch.empty_like(current)
        membrane = before.clone()
        scratch = torch.empty_like(membrane)
        for step, x in enumerate(current):
            membrane.mul_(1 - 1 / tau).add_(scratch.copy_(x), alpha=gain)
            derivative[step].copy_(DERIVATIVES[surrogate](torch.sub(membrane, threshold, out=scratch)))
            spikes[step].copy_(torch.ge(membrane, threshold, out=scratch))
            if soft:
                membrane.sub_(scratch, alpha=threshold)
            else:
                membrane.mul_(torch.lt(membrane, threshold, out=scratch))
        ctx.save_for_backward(spikes, derivative)
        ctx.settings = tau, gain, soft
        ctx.mark_non_differentiable(membrane)
        return spikes, membrane

    @staticmethod
    def backward(ctx: Any, error: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        """Returns the gradient at the current."""
        spikes, derivative = ctx.saved_tensors
        tau, gain, soft = ctx.settings
        gradient = torch.empty_like(spikes)
        carried = torch.zeros(spikes.shape[1:], dtype=wide_dtype(spikes))
        scratch, factor = torch.empty_like(carried), torch.empty_like(carried)
        for step in range(len(spikes) - 1, -1, -1):
            if not soft:
                torch.sub(1, scratch.copy_(spikes[step]), out=factor)
                carried.mul_(factor)  # A membrane that was reset does not reach the next step.
            carried.addcmul_(scratch.copy_(error[step]), factor.copy_(derivative[step]))
            gradient[step].copy_(torch.mul(carried, gain, out=scratch))
            carried.mul_(1 - 1 / tau)
        return gradient, None, None, None, None, None, None
