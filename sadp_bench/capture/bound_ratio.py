"""Ratio of exact squared gradient norms to their bounds E_l A_l, from sums over a few examples of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sadp_bench.capture.layer_shapes import by_time, num_features
from sadp_bench.capture.per_example_norms import Pair, square_norms
from sadp_bench.capture.squared_norms import middle, squares, squares_of_input
from sadp_bench.core import distributed

# Examples of a batch whose exact gradient norms are computed, at most.
MAX_EXACT = 32
# Batch examples for each measured example, at least: so the first of several processes holds all measured examples.
SHARE_EXACT = 4


def num_exact(batch: int, batch_of_all: int) -> int:
    """Returns the number of measured examples, which are the first of the batch.

    Args:
        batch: This process's number of examples.
        batch_of_all: The number of examples of all processes together.
    """
    return max(1, min(MAX_EXACT, batch_of_all // SHARE_EXACT, batch))


def bound_ratio(
    layers: Sequence[nn.Module],
    pairs: Mapping[nn.Module, Mapping[int, Pair]],
    number: int,
    scale_B: Tensor | None,
) -> Tensor:
    """Returns each layer's sums of exact squared norms and of the middle step's E_l A_l, from the first process.

    Args:
        layers: The L layers. A layer without pairs, because it is frozen or unused, has zeros.
        pairs: The first examples' inputs and errors, by layer and call.
        number: The number of measured examples.
        scale_B: The factor of each example's loss. The sums are those without it.

    Returns:
        [2, L].
    """
    sums = []
    for layer in layers:
        if layer not in pairs:
            sums.append(torch.zeros(2, device=next(layer.parameters()).device))
            continue
        calls = [pair for _, pair in sorted(pairs[layer].items())]
        exact_b = square_norms(layer, calls, number, cheapest=True)
        a, d = (middle(by_time(layer, x, number)) for x in calls[len(calls) // 2])
        of_tokens = squares_of_input(layer, a, d, a.dim() - num_features(layer, a), binary=False)
        bound_b = of_tokens.reshape(number, -1).sum(1) * squares(d, 1)
        both = torch.stack([exact_b.to(bound_b.dtype), bound_b])
        sums.append((both if scale_B is None else both / scale_B[:number].square()).sum(1))
    return distributed.from_first(torch.stack(sums, 1))
