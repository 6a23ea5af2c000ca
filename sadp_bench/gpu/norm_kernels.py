# mypy: ignore-errors
"""The Triton kernels of batch norm: its statistics, and its backward pass through the pool.

Images lie channels last: a tensor is a matrix [pixels, C], time first. A program handles a tile of pixels and channels.
C, H and W are compiled in, and the number of examples is not, so a new batch size compiles nothing.

Sums over pixels are the same in every run: each program writes its sums, and a second kernel adds them in float64. No
kernel uses atomics, so equal inputs give equal bits.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["pixels", "area", "examples"])
def moments(
    y_ptr,
    share_ptr,
    partial_ptr,
    pixels,
    area,
    examples,
    C: tl.constexpr,
    SHARED: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Writes count, mean and sum of squared deviations of each channel over each program's tiles, [programs, 3, C].

    SHARED: each pixel counts by its example's share; an image has `area` pixels. The shares' mean is 1.

    Source of the update: Chan, Golub & LeVeque, COMPSTAT 1982.
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    count = tl.zeros((CHANNELS,), WIDE)
    mean = tl.zeros((CHANNELS,), WIDE)
    squares = tl.zeros((CHANNELS,), WIDE)
    for start in range(program * PIXELS, pixels, programs * PIXELS):
        pixel = start + tl.arange(0, PIXELS)
        inside = (pixel < pixels)[:, None] & (channel < C)[None, :]
        x = tl.load(y_ptr + pixel.to(tl.int64)[:, None] * C + channel[None, :], mask=inside, other=0).to(WIDE)
        if SHARED:
            share = tl.load(share_ptr + pixel // area % examples, mask=pixel < pixels, other=0).to(WIDE)
            here = tl.maximum(tl.sum(share, 0), 1e-30)  # above 0 even if no example of the tile has a share
            mean_here = tl.sum(x * share[:, None], 0) / here
            deviation = tl.where(inside, x - mean_here[None, :], 0.0)
            squares_here = tl.sum(deviation * deviation * share[:, None], 0)
        else:
            here = tl.minimum(pixels - start, PIXELS).to(WIDE)
            mean_here = tl.sum(x, 0) / here
            deviation = tl.where(inside, x - mean_here[None, :], 0.0)
            squares_here = tl.sum(deviation * deviation, 0)
        moved = mean_here - mean
        squares += squares_here + moved * moved * (count * here / (count + here))
        count += here
        mean += moved * (here / count)
    row = partial_ptr + program * 3 * C + channel
    tl.store(row, count, mask=channel < C)
    tl.store(row + C, mean, mask=channel < C)
    tl.store(row + 2 * C, squares, mask=channel < C)


@triton.jit(do_not_specialize=["programs"])
def scales(
    partial_ptr,
    weight_ptr,
    bias_ptr,
    running_mean_ptr,
    running_var_ptr,
    scales_ptr,
    programs,
    EPS: tl.constexpr,
    MOMENTUM: tl.constexpr,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    OF_BATCH: tl.constexpr,
    TRACKED: tl.constexpr,
    AFFINE: tl.constexpr,
):
    """Writes each channel's factor, mean, shift and 1 / standard deviation, [4, C]; norm(x) = factor (x - mean) + shift.

    OF_BATCH: mean and variance are the batch's; otherwise they are the running ones. TRACKED: the batch's update the
    running ones.
    """
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    there = channel < C
    if OF_BATCH:
        sums = tl.zeros((CHANNELS,), tl.float64)
        count = tl.zeros((CHANNELS,), tl.float64)
        for start in range(0, programs, ROWS):
            row = start + tl.arange(0, ROWS)
            inside = (row < programs)[:, None] & there[None, :]
            at = partial_ptr + row[:, None] * 3 * C + channel[None, :]
            number = tl.load(at, mask=inside, other=0).to(tl.float64)
            count += tl.sum(number, 0)
            sums += tl.sum(number * tl.load(at + C, mask=inside, other=0).to(tl.float64), 0)
        count = tl.where(there, count, 2.0)  # not 0 for channels that do not exist
        mean = sums / count
        squares = tl.zeros((CHANNELS,), tl.float64)
        for start in range(0, programs, ROWS):
            row = start + tl.arange(0, ROWS)
            inside = (row < programs)[:, None] & there[None, :]
            at = partial_ptr + row[:, None] * 3 * C + channel[None, :]
            number = tl.load(at, mask=inside, other=0).to(tl.float64)
            moved = tl.load(at + C, mask=inside, other=0).to(tl.float64) - mean[None, :]
            squares += tl.sum(tl.load(at + 2 * C, mask=inside, other=0).to(tl.float64) + number * moved * moved, 0)
        variance = squares / count
        if TRACKED:
            old_mean = tl.load(running_mean_ptr + channel, mask=there).to(tl.float64)
            old_var = tl.load(running_var_ptr + channel, mask=there).to(tl.float64)
            new_mean = old_mean * (1 - MOMENTUM) + mean * MOMENTUM
            new_var = old_var * (1 - MOMENTUM) + squares / (count - 1) * MOMENTUM
            tl.store(running_mean_ptr + channel, new_mean, mask=there)
            tl.store(running_var_ptr + channel, new_var, mask=there)
    else:
        mean = tl.load(running_mean_ptr + channel, mask=there, other=0).to(tl.float64)
        variance = tl.load(running_var_ptr + channel, mask=there, other=0).to(tl.float64)
    inverse = 1 / tl.sqrt(variance + EPS)
    factor = inverse
    shift = tl.zeros((CHANNELS,), tl.float64)
    if AFFINE:
        factor = inverse * tl.load(weight_ptr + channel, mask=there).to(tl.float64)
        shift = tl.load(bias_ptr + channel, mask=there).to(tl.float64)
    tl.store(scales_ptr + channel, factor, mask=there)
    tl.store(scales_ptr + C + channel, mean, mask=there)
    tl.store(scales_ptr + 2 * C + channel, shift, mask=there)
    tl.store(scales_ptr + 3 * C + channel, inverse, mask=there)


@triton.jit(do_not_specialize=["programs", "pixels"])
def backward_scales(
    partial_ptr,
    scales_ptr,
    parameters_ptr,
    terms_ptr,
    programs,
    pixels,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Writes the gradients of weight and bias, [2, C], and slope and constant, the terms of the batch's statistics, [2, C].

    The gradient at an input y is factor dz + slope (y - mean) + constant.
    """
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    there = channel < C
    sum_d = tl.zeros((CHANNELS,), tl.float64)
    sum_dx = tl.zeros((CHANNELS,), tl.float64)
    for start in range(0, programs, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < programs)[:, None] & there[None, :]
        at = partial_ptr + row[:, None] * 2 * C + channel[None, :]
        sum_d += tl.sum(tl.load(at, mask=inside, other=0).to(tl.float64), 0)
        sum_dx += tl.sum(tl.load(at + C, mask=inside, other=0).to(tl.float64), 0)
    factor = tl.load(scales_ptr + channel, mask=there, other=0).to(tl.float64)
    inverse = tl.load(scales_ptr + 3 * C + channel, mask=there, other=0).to(tl.float64)
    tl.store(parameters_ptr + channel, sum_dx * inverse, mask=there)
    tl.store(parameters_ptr + C + channel, sum_d, mask=there)
    tl.store(terms_ptr + channel, -factor * inverse * inverse * sum_dx / pixels, mask=there)
    tl.store(terms_ptr + C + channel, -factor * sum_d / pixels, mask=there)


@triton.jit(do_not_specialize=["pixels", "area", "examples"])
def backward_norm(
    y_ptr,
    gradient_ptr,
    scales_ptr,
    terms_ptr,
    share_ptr,
    error_ptr,
    pixels,
    area,
    examples,
    C: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    POOL: tl.constexpr,
    NORM: tl.constexpr,
    OF_BATCH: tl.constexpr,
    SHARED: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Writes the gradient at the block's input y, [pixels, C], from the one at the neuron's current.

    SHARED: a pixel changes mean and variance in proportion to its example's share; see `moments`.
    """
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (pixel < pixels)[:, None] & (channel < C)[None, :]
    at = pixel.to(tl.int64)[:, None] * C + channel[None, :]
    if POOL == 1:
        d = tl.load(gradient_ptr + at, mask=inside, other=0)
    else:
        h: tl.constexpr = H // POOL
        w: tl.constexpr = W // POOL
        column, row = pixel % W // POOL, pixel // W
        site = ((row // H).to(tl.int64) * h + row % H // POOL) * w + column
        pooled = (column < w) & (row % H // POOL < h)  # The last row or column of an odd side is in no pool.
        d = tl.load(gradient_ptr + site[:, None] * C + channel[None, :], mask=inside & pooled[:, None], other=0)
        d = 0.25 * d
    if NORM:
        d = tl.load(scales_ptr + channel, mask=channel < C, other=0)[None, :] * d
    if OF_BATCH:
        slope = tl.load(terms_ptr + channel, mask=channel < C, other=0)[None, :]
        constant = tl.load(terms_ptr + C + channel, mask=channel < C, other=0)[None, :]
        mean = tl.load(scales_ptr + C + channel, mask=channel < C, other=0)[None, :]
        y = tl.load(y_ptr + at, mask=inside, other=0).to(WIDE)
        through_statistics = slope * (y - mean) + constant
        if SHARED:
            share = tl.load(share_ptr + pixel // area % examples, mask=pixel < pixels, other=0).to(WIDE)
            through_statistics *= share[:, None]
        d += through_statistics
    tl.store(error_ptr + at, d, mask=inside)
