"""Batch norm, an optional 2x2 average pool and the LIF neuron, computed by the C core in one pass over memory.

T time steps, B examples, C channels, H rows, W columns; h = H / pool and w = W / pool, rounded down.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sadp_bench.core.lif_equation import LIFEquation
from sadp_bench.core.row_squares import attach_row_squares
from sadp_bench.native.library import Block, address, call, channels_last

SURROGATES = {"atan": 0, "sigmoid": 1, "triangle": 2}
DTYPES = (torch.float32, torch.bfloat16)


def supports(norm: nn.Module | None) -> bool:
    """Returns whether the core computes a norm: batch norm over one process, with running statistics, or none."""
    plain = isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.momentum is not None
    return norm is None or (plain and norm.weight is not None and norm.weight.dtype == torch.float32)


def norm_pool_lif(
    y: Tensor,
    norm: nn.BatchNorm2d | None,
    equation: LIFEquation,
    timesteps: int,
    pool: int,
    still: bool,
    before: Tensor | None,
    share_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the spikes of a convolution's output after norm and pool, and the membranes after the last step.

    In training mode the norm updates its running statistics, as torch's does.

    Args:
        y: The convolution's output, [T * B, C, H, W], time first; [B, C, H, W] if `still`. Float32 or bfloat16, on the CPU.
        norm: The norm; None: no norm.
        equation: The neuron's equation.
        timesteps: Time steps, T.
        pool: The side of the average pool: 2, or 1 for no pool.
        still: Whether the current is the same at every step.
        before: The membranes that the first step starts from, float32, [B, C, h, w]; None: at rest.
        share_B: Shares of the examples in the norm's statistics in training mode; None: all are equal.

    Returns:
        Spikes [T * B, C, h, w] of y's type, and membranes [B, C, h, w], float32, detached. Both are channels last.

    Raises:
        ValueError: The norm is in training mode, and each channel has only one value.
    """
    if norm is not None and norm.training and y.numel() == y.shape[1]:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {list(y.shape)}")
    weight, bias = (None, None) if norm is None else (norm.weight, norm.bias)
    if norm is not None and norm.training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    if share_B is not None:
        share_B = share_B.float().contiguous()
    made: tuple[Tensor, Tensor] = _NormPoolLIF.apply(
        y, weight, bias, before, share_B, norm, equation, timesteps, pool, still
    )
    return made


class _NormPoolLIF(torch.autograd.Function):
    """See `norm_pool_lif`. Keeps y for the backward pass, which computes the membranes again."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        before: Tensor | None,
        share_B: Tensor | None,
        norm: nn.BatchNorm2d | None,
        equation: LIFEquation,
        timesteps: int,
        pool: int,
        still: bool,
    ) -> tuple[Tensor, Tensor]:
        """Returns the spikes and the membranes after the last step."""
        y, before = channels_last(y), None if before is None else channels_last(before)
        channels, height, width = y.shape[1:]
        examples = len(y) if still else len(y) // timesteps
        shape = (channels, height // pool, width // pool)
        spikes = torch.empty((timesteps * examples, *shape), dtype=y.dtype, memory_format=torch.channels_last)
        after = torch.empty((examples, *shape), memory_format=torch.channels_last)
        moments = torch.empty(2, channels, dtype=torch.float64)
        block = Block(
            timesteps=timesteps,
            examples=examples,
            height=height,
            width=width,
            channels=channels,
            pool=pool,
            still=still,
            bf16=y.dtype == torch.bfloat16,
            soft=equation.soft,
            surrogate=SURROGATES[equation.surrogate],
            normed=norm is not None,
            training=norm is not None and norm.training,
            keep=1 - 1 / equation.tau,
            gain=equation.gain,
            threshold=equation.threshold,
            momentum=0.0 if norm is None else norm.momentum,
            eps=0.0 if norm is None else norm.eps,
            running_mean=address(None if norm is None else norm.running_mean),
            running_var=address(None if norm is None else norm.running_var),
            after=after.data_ptr(),
            spikes=spikes.data_ptr(),
        )
        ctx.save_for_backward(y, weight, bias, before, share_B, moments)
        ctx.block = block
        _run("forward", block, y, weight, bias, before, share_B, moments)
        ctx.mark_non_differentiable(after)
        return spikes, after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, error: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        """Returns the gradients at y and at the norm's weight and bias."""
        y, weight, bias, before, share_B, moments = ctx.saved_tensors
        block: Block = ctx.block
        error = channels_last(error.to(y.dtype))
        dy = torch.empty_like(y)
        dweight, dbias = (None if p is None else torch.empty_like(p) for p in (weight, bias))
        in_place = block.pool == 1 and not block.bf16
        inner = dy if in_place else torch.empty(len(y) * error[0].numel())
        block.error, block.dy, block.inner = error.data_ptr(), dy.data_ptr(), inner.data_ptr()
        squares = torch.empty(len(y), block.height)
        block.dweight, block.dbias, block.squares = address(dweight), address(dbias), squares.data_ptr()
        _run("backward", block, y, weight, bias, before, share_B, moments)
        attach_row_squares(dy, squares.sum(1))
        return dy, dweight, dbias, *(None,) * 7


def _run(
    side: str,
    block: Block,
    y: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    before: Tensor | None,
    share_B: Tensor | None,
    moments: Tensor,
) -> None:
    """Runs the core, forward or backward. Raises MemoryError where it finds no memory."""
    block.y, block.weight, block.bias, block.before = map(address, (y, weight, bias, before))
    block.share = address(share_B)
    block.mean, block.inverse = moments[0].data_ptr(), moments[1].data_ptr()
    call(f"norm_pool_lif_{side}", block)
