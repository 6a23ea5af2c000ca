# mypy: ignore-errors
"""The Triton kernels of the norm's affine map, the pool and the multi-step LIF, forward and backward.

The layout is that of `norm_kernels`. A program handles all T steps of its tile, and T is compiled in. "Sites" are the
pooled pixels of one step, B h w.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _pooled(y_ptr, first, inside, C: tl.constexpr, W: tl.constexpr, POOL: tl.constexpr, WIDE: tl.constexpr):
    """Returns a tile of inputs, or of means over the 2x2 pixels from `first` on (offsets)."""
    x = tl.load(y_ptr + first, mask=inside, other=0).to(WIDE)
    if POOL == 2:
        right = tl.load(y_ptr + first + C, mask=inside, other=0).to(WIDE)
        below = tl.load(y_ptr + first + W * C, mask=inside, other=0).to(WIDE)
        across = tl.load(y_ptr + first + (W + 1) * C, mask=inside, other=0).to(WIDE)
        x = 0.25 * ((x + right) + (below + across))
    return x


@triton.jit
def _first_pixel(site, H: tl.constexpr, W: tl.constexpr, POOL: tl.constexpr):
    """Returns the pixel, counted over a step's frames, at the upper left of each site."""
    if POOL == 1:
        return site.to(tl.int64)
    h: tl.constexpr = H // POOL
    w: tl.constexpr = W // POOL
    row = site // w
    return ((row // h).to(tl.int64) * H + (row % h) * POOL) * W + (site % w) * POOL


@triton.jit
def _step_size(sites, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, POOL: tl.constexpr):
    """Returns the numbers of a step's frames, before the pool."""
    return sites.to(tl.int64) // ((H // POOL) * (W // POOL)) * (H * W * C)


@triton.jit
def _derivative(x, SURROGATE: tl.constexpr):
    """Returns the spike's derivative at x = membrane - threshold, as SpikingJelly's surrogate of the same name does."""
    if SURROGATE == "atan":  # alpha = 2
        scaled = x * 3.141592653589793
        return 1 / (1 + scaled * scaled)
    elif SURROGATE == "sigmoid":  # alpha = 4
        share = tl.sigmoid(4 * x)
        return 4 * (share * (1 - share))
    else:  # "triangle", alpha = 1
        return tl.maximum(1 - tl.abs(x), 0.0)


@triton.jit(do_not_specialize=["sites"])
def forward(
    y_ptr,
    scales_ptr,
    before_ptr,
    spikes_ptr,
    after_ptr,
    sites,
    KEEP: tl.constexpr,
    GAIN: tl.constexpr,
    THRESHOLD: tl.constexpr,
    SOFT: tl.constexpr,
    T: tl.constexpr,
    C: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    POOL: tl.constexpr,
    STILL: tl.constexpr,
    NORM: tl.constexpr,
    CARRIED: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Writes the spikes [T, sites, C] and the membranes after the last step [sites, C]."""
    site = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (site < sites)[:, None] & (channel < C)[None, :]
    at = site.to(tl.int64)[:, None] * C + channel[None, :]
    first = _first_pixel(site, H, W, POOL)[:, None] * C + channel[None, :]
    step_in, step_out = _step_size(sites, C, H, W, POOL), sites.to(tl.int64) * C
    if NORM:
        factor = tl.load(scales_ptr + channel, mask=channel < C, other=0)[None, :]
        mean = tl.load(scales_ptr + C + channel, mask=channel < C, other=0)[None, :]
        shift = tl.load(scales_ptr + 2 * C + channel, mask=channel < C, other=0)[None, :]
    membrane = tl.zeros((PIXELS, CHANNELS), WIDE)
    if CARRIED:
        membrane = tl.load(before_ptr + at, mask=inside, other=0)
    for t in tl.static_range(T):
        if not STILL or t == 0:
            x = _pooled(y_ptr + t * step_in, first, inside, C, W, POOL, WIDE)
            if NORM:
                x = factor * (x - mean) + shift
        membrane = KEEP * membrane + GAIN * x
        fires = membrane >= THRESHOLD
        tl.store(spikes_ptr + t * step_out + at, tl.where(fires, 1.0, 0.0), mask=inside)
        membrane = tl.where(fires, membrane - THRESHOLD if SOFT else 0.0, membrane)
    tl.store(after_ptr + at, membrane, mask=inside)


@triton.jit(do_not_specialize=["sites"])
def backward(
    y_ptr,
    error_ptr,
    scales_ptr,
    before_ptr,
    gradient_ptr,
    partial_ptr,
    sites,
    KEEP: tl.constexpr,
    GAIN: tl.constexpr,
    THRESHOLD: tl.constexpr,
    SOFT: tl.constexpr,
    SURROGATE: tl.constexpr,
    T: tl.constexpr,
    C: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    POOL: tl.constexpr,
    STILL: tl.constexpr,
    NORM: tl.constexpr,
    CARRIED: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Writes the gradient d at the neuron's current, [T, sites, C] (STILL: [sites, C], summed over time).

    Each program also writes the sums over its sites of d and of d (x - mean), [programs, 2, C]. Membranes are computed
    again.
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    step_in, step_out = _step_size(sites, C, H, W, POOL), sites.to(tl.int64) * C
    if NORM:
        factor = tl.load(scales_ptr + channel, mask=channel < C, other=0)[None, :]
        mean = tl.load(scales_ptr + C + channel, mask=channel < C, other=0)[None, :]
        shift = tl.load(scales_ptr + 2 * C + channel, mask=channel < C, other=0)[None, :]
    sum_d = tl.zeros((PIXELS, CHANNELS), WIDE)
    sum_dx = tl.zeros((PIXELS, CHANNELS), WIDE)
    for start in range(program * PIXELS, sites, programs * PIXELS):
        site = start + tl.arange(0, PIXELS)
        inside = (site < sites)[:, None] & (channel < C)[None, :]
        at = site.to(tl.int64)[:, None] * C + channel[None, :]
        first = _first_pixel(site, H, W, POOL)[:, None] * C + channel[None, :]
        membrane = tl.zeros((PIXELS, CHANNELS), WIDE)
        if CARRIED:
            membrane = tl.load(before_ptr + at, mask=inside, other=0)
        inputs, membranes = (), ()
        for t in tl.static_range(T):
            if not STILL or t == 0:
                x = _pooled(y_ptr + t * step_in, first, inside, C, W, POOL, WIDE)
                current = x
                if NORM:
                    x -= mean
                    current = factor * x + shift
            membrane = KEEP * membrane + GAIN * current
            inputs, membranes = inputs + (x,), membranes + (membrane,)
            membrane = tl.where(membrane >= THRESHOLD, membrane - THRESHOLD if SOFT else 0.0, membrane)
        carried = tl.zeros((PIXELS, CHANNELS), WIDE)
        over_time = tl.zeros((PIXELS, CHANNELS), WIDE)
        for t in tl.static_range(T - 1, -1, -1):
            if not SOFT:  # A membrane that was reset does not reach the next step.
                carried = tl.where(membranes[t] >= THRESHOLD, 0.0, carried)
            error = tl.load(error_ptr + t * step_out + at, mask=inside, other=0).to(WIDE)
            carried += error * _derivative(membranes[t] - THRESHOLD, SURROGATE)
            d = GAIN * carried
            carried = KEEP * carried
            if STILL:
                over_time += d
            else:
                tl.store(gradient_ptr + t * step_out + at, d, mask=inside)
                sum_d += d
                sum_dx += tl.where(inside, d * inputs[t], 0.0)
        if STILL:
            tl.store(gradient_ptr + at, over_time, mask=inside)
            sum_d += over_time
            sum_dx += tl.where(inside, over_time * inputs[0], 0.0)
    if NORM:
        row = partial_ptr + program * 2 * C + channel
        tl.store(row, tl.sum(sum_d, 0), mask=channel < C)
        tl.store(row + C, tl.sum(sum_dx, 0), mask=channel < C)
