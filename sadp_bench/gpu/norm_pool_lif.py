"""Batch norm, average pool and multi-step LIF as one function of the graph, on Triton kernels.

Between two convolutions a plain graph passes over memory about twenty times, and this function eight times. Only the
input and four numbers a channel are kept for the backward pass, which computes the membranes again. Sums over programs
are float64, and membranes are float32 (float64 for an input in float64). The kernels are compiled without fused
multiply-adds, so the membranes of both passes have the same bits.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sadp_bench.core.lif_equation import LIFEquation
from sadp_bench.core.precision import wide_dtype
from sadp_bench.gpu import neuron_kernels, norm_kernels
from sadp_bench.native.library import channels_last

PROGRAMS = 1024  # programs that sum over tiles; a fixed number, so that the sums do not depend on the GPU
HELD = 5120  # inputs of a program, over all steps: with more the backward pass of 128 threads runs out of registers
WIDE = {torch.float32: tl.float32, torch.float64: tl.float64}


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
    """Returns the spikes of LIF(average pool(norm(y))), and the membranes after the last step.

    Args:
        y: The input, [N, C, H, W], with N = T B and the row t B + b; N = B if the input is the same at every step.
            Float32, bfloat16, float16 or float64.
        norm: The norm, whose momentum is a number. Its running statistics are updated as in torch. None: no norm.
        equation: The neuron's equation.
        timesteps: Time steps, T.
        pool: The side of the pool: 1 for no pool, or 2 for the mean over 2x2 pixels. The last row or column of an odd side
            is in no pool.
        still: Whether the input is the same at every step.
        before: The membranes that the first step starts from, [B, C, h, w]; None: at rest. No gradient flows into them.
        share_B: Shares of the examples in the norm's batch statistics, with mean 1; None: all are equal.

    Returns:
        Spikes [T B, C, h, w] in the type of y, channels last; membranes [B, C, h, w], channels last, at least float32.
    """
    if norm is None:
        made = _NormPoolLIF.apply(y, None, None, None, equation, timesteps, pool, still, before, None)
    else:
        made = _NormPoolLIF.apply(y, norm.weight, norm.bias, norm, equation, timesteps, pool, still, before, share_B)
    spikes, after = made
    return spikes, after


class _NormPoolLIF(torch.autograd.Function):
    """See `norm_pool_lif`. The norm's weight and bias are inputs of the function, so that they get gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        norm: nn.BatchNorm2d | None,
        equation: LIFEquation,
        timesteps: int,
        pool: int,
        still: bool,
        before: Tensor | None,
        share_B: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Returns spikes and membranes."""
        y = channels_last(y)
        shape = _Shape(y, timesteps, pool, still)
        if before is not None:
            before = channels_last(before.to(shape.wide))
        of_batch = norm is not None and (norm.training or norm.running_mean is None)
        if share_B is not None:
            share_B = share_B.to(y.device, shape.wide)
        with _on(y.device):
            scales = None if norm is None else _scales(y, shape, norm, weight, bias, share_B, of_batch)
            spikes, after = shape.empty(timesteps * shape.batch, y.dtype), shape.empty(shape.batch, shape.wide)
            neuron_kernels.forward[shape.grid()](
                y, scales, before, spikes, after, shape.sites, SOFT=equation.soft, **_constants(equation),
                T=timesteps, STILL=still, CARRIED=before is not None, **shape.compiled(norm),
            )  # fmt: skip
        ctx.save_for_backward(y, scales, before, share_B)
        ctx.facts = shape, equation, norm, of_batch
        ctx.mark_non_differentiable(after)
        ctx.set_materialize_grads(False)
        return spikes, after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, error: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
        """Returns the gradients at y, weight and bias."""
        y, scales, before, share_B = ctx.saved_tensors
        shape, equation, norm, of_batch = ctx.facts
        nothing = (None,) * 10
        if error is None:
            return nothing
        with _on(y.device):
            error = channels_last(error)
            d = shape.empty(len(y), shape.wide)
            programs = shape.programs(shape.sites)
            partial = _new(y, shape, programs, 2) if norm is not None else None
            neuron_kernels.backward[(programs, shape.columns)](
                y, error, scales, before, d, partial, shape.sites, SOFT=equation.soft, SURROGATE=equation.surrogate,
                **_constants(equation), T=shape.timesteps, STILL=shape.still, CARRIED=before is not None,
                **shape.compiled(norm),
            )  # fmt: skip
            parameters = terms = None
            if norm is not None:
                parameters, terms = _new(y, shape, 2), _new(y, shape, 2)
                norm_kernels.backward_scales[(shape.few_columns,)](
                    partial, scales, parameters, terms, programs, shape.pixels, C=shape.channels, **shape.few()
                )
            gradient = torch.empty_like(y)
            norm_kernels.backward_norm[shape.grid(shape.pixels)](
                y, d, scales, terms, share_B, gradient, shape.pixels, shape.area, shape.batch, OF_BATCH=of_batch,
                SHARED=share_B is not None, **shape.compiled(norm),
            )  # fmt: skip
        of_weight = of_bias = None
        if parameters is not None and norm.weight is not None:
            of_weight, of_bias = parameters.to(norm.weight.dtype)
        return gradient, of_weight, of_bias, *nothing[3:]


class _Shape:
    """The sizes of a block's input and how its kernels are laid out."""

    def __init__(self, y: Tensor, timesteps: int, pool: int, still: bool) -> None:
        number, self.channels, self.height, self.width = y.shape
        self.device, self.wide = y.device, wide_dtype(y)
        self.timesteps, self.pool, self.still = timesteps, pool, still
        self.batch = number if still else number // timesteps
        self.area = self.height * self.width
        self.pixels = number * self.area
        self.sites = self.batch * (self.height // pool) * (self.width // pool)
        tile = min(1024, max(128, triton.next_power_of_2(HELD // timesteps + 1) // 2))
        self.per_tile = min(triton.next_power_of_2(self.channels), 128)
        self.pixels_per_tile = tile // self.per_tile
        self.columns = triton.cdiv(self.channels, self.per_tile)
        self.few_columns = triton.cdiv(self.channels, 16)

    def grid(self, pixels: int | None = None) -> tuple[int, int]:
        """Returns a program for each tile of pixels (by default: sites) and channels."""
        return triton.cdiv(self.sites if pixels is None else pixels, self.pixels_per_tile), self.columns

    def programs(self, pixels: int) -> int:
        """Returns the number of programs that sum over pixels, for each tile of channels."""
        return min(triton.cdiv(pixels, self.pixels_per_tile), max(1, PROGRAMS // self.columns))

    def compiled(self, norm: nn.BatchNorm2d | None) -> dict[str, Any]:
        """Returns the constants that the kernels over images are compiled for."""
        # Without a pool pixels have no neighbours, and images of all sizes share a kernel.
        height, width = (1, 1) if self.pool == 1 else (self.height, self.width)
        sizes = {"C": self.channels, "H": height, "W": width, "POOL": self.pool, "NORM": norm is not None}
        return sizes | self.tile()

    def tile(self) -> dict[str, Any]:
        """Returns the tile of a program over pixels."""
        tile = {"PIXELS": self.pixels_per_tile, "CHANNELS": self.per_tile, "WIDE": WIDE[self.wide]}
        return tile | {"enable_fp_fusion": False}

    def few(self) -> dict[str, Any]:
        """Returns the tile of a program over the sums of other programs."""
        return {"ROWS": 64, "CHANNELS": 16, "enable_fp_fusion": False}

    def empty(self, number: int, dtype: torch.dtype) -> Tensor:
        """Returns an empty tensor for so many pooled images."""
        size = number, self.channels, self.height // self.pool, self.width // self.pool
        return torch.empty(size, dtype=dtype, device=self.device, memory_format=torch.channels_last)


def _scales(
    y: Tensor,
    shape: _Shape,
    norm: nn.BatchNorm2d,
    weight: Tensor | None,
    bias: Tensor | None,
    share_B: Tensor | None,
    of_batch: bool,
) -> Tensor:
    """Returns each channel's factor, mean, shift and 1 / standard deviation, and updates the running statistics."""
    partial, programs = None, 0
    if of_batch:
        if shape.pixels == 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {list(y.shape)}")
        programs = shape.programs(shape.pixels)
        partial = _new(y, shape, programs, 3)
        norm_kernels.moments[(programs, shape.columns)](
            y, share_B, partial, shape.pixels, shape.area, shape.batch, C=shape.channels, SHARED=share_B is not None,
            **shape.tile(),
        )  # fmt: skip
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
    scales = _new(y, shape, 4)
    norm_kernels.scales[(shape.few_columns,)](
        partial, weight, bias, norm.running_mean, norm.running_var, scales, programs, EPS=norm.eps,
        MOMENTUM=norm.momentum, C=shape.channels, OF_BATCH=of_batch, TRACKED=norm.running_mean is not None,
        AFFINE=weight is not None, **shape.few(),
    )  # fmt: skip
    return scales


def _constants(equation: LIFEquation) -> dict[str, float]:
    """Returns the constants that the kernels of the neuron are compiled for."""
    return {"KEEP": 1 - 1 / equation.tau, "GAIN": equation.gain, "THRESHOLD": equation.threshold}


def _new(y: Tensor, shape: _Shape, *sizes: int) -> Tensor:
    """Returns an empty tensor of sums, [*sizes, C]."""
    return torch.empty(*sizes, shape.channels, dtype=shape.wide, device=y.device)


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Makes a GPU the current one, where kernels start."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
