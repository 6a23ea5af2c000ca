"""Random masks, and the number of weights that they keep in each layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import torch

from sadp_bench.core.rng import stream
from sadp_bench.sparsity.base import Masks


def erdos_renyi(shapes: Mapping[str, Sequence[int]], num_live: int, kernels: bool = True) -> dict[str, int]:
    """Returns the number of live weights of each layer, `num_live` in all.

    A layer's density is in proportion to (inputs + outputs) / (inputs * outputs), and at most 1, so that large layers are
    the sparsest. Largest remainders decide the rounding.

    Source: Mocanu et al., Nature Communications 2018; with kernel sizes ("ERK") Evci et al., ICML 2020.

    Args:
        shapes: The shape of each layer's weight: outputs, inputs, kernel sides.
        num_live: The live weights of all layers together.
        kernels: Whether the sum and the product also have the kernel's sides.
    """
    part = {name: sum(shape) if kernels else sum(shape[:2]) * math.prod(shape[2:]) for name, shape in shapes.items()}
    size = {name: math.prod(shape) for name, shape in shapes.items()}
    assert 0 <= num_live <= sum(size.values())
    share = {name: Fraction(size[name]) for name in shapes}
    open_layers = list(shapes)
    while open_layers:
        left = num_live - sum(size[name] for name in shapes if name not in open_layers)
        scale = Fraction(left, sum(part[name] for name in open_layers))
        share |= {name: scale * part[name] for name in open_layers}
        full = [name for name in open_layers if share[name] > size[name]]
        share |= {name: Fraction(size[name]) for name in full}
        open_layers = [name for name in open_layers if name not in full] if full else []
    number = {name: math.floor(exact) for name, exact in share.items()}
    by_remainder = sorted(shapes, key=lambda name: number[name] - share[name])
    for name in by_remainder[: num_live - sum(number.values())]:
        number[name] += 1
    return number


def random_masks(shapes: Mapping[str, Sequence[int]], number: Mapping[str, int], seed: int) -> Masks:
    """Returns random masks with `number` live weights of each layer, drawn without replacement."""
    masks = {}
    for name, shape in shapes.items():
        size = math.prod(shape)
        chosen = torch.randperm(size, generator=stream(seed, f"sparsity {name}"))[: number[name]]
        masks[name] = torch.zeros(size, dtype=torch.bool).index_fill_(0, chosen, True).view(*shape)
    return masks
