"""By how much a layer's bound is too large: exact squared gradient norms against E_l A_l, summed over a few examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sadp_bench.capture.layer_shapes import by_time, num_features
from sadp_bench.capture.per_example_norms import Pair, joined, square_norms
from sadp_bench.capture.squared_norms import middle, squares, squares_of_input
from sadp_bench.core import distributed

MAX_EXACT = 32  # examples whose exact gradient norms are taken
SHARE_EXACT = 4  # at most one example in so many of the batch, so that the first of several processes has them all


def num_exact(batch: int, batch_of_all: int) -> int:
    """Returns how many of a batch's first examples are measured.

    Args:
        batch: This process's number of examples.
        batch_of_all: That of all processes together.
    """
    return max(1, min(MAX_EXACT, batch_of_all // SHARE_EXACT, batch))


def bound_ratio(
    layers: Sequence[nn.Module],
    pairs: Mapping[nn.Module, Mapping[int, Pair]],
    number: int,
    scale_B: Tensor | None,
) -> Tensor:
    """Returns each layer's sums of exact squared norms, and of the middle step's E_l A_l; the first process's, for all.

    Args:
        layers: The L layers. One without pairs, frozen or not used, has zeros.
        pairs: By layer and call, the first examples' inputs and errors.
        number: How many of the first examples are measured.
        scale_B: The factors of the examples' losses, which are divided out.

    Returns:
        [2, L].
    """
    sums = []
    for layer in layers:
        if layer not in pairs:
            sums.append(torch.zeros(2, device=next(layer.parameters()).device))
            continue
        calls = [pair for _, pair in sorted(pairs[layer].items())]
        exact_b = square_norms(layer, calls, number)
        a, d = (middle(joined([middle(by_time(layer, pair[side], number)) for pair in calls])) for side in (0, 1))
        of_tokens = squares_of_input(layer, a, d, a.dim() - num_features(layer, a), binary=False)
        bound_b = of_tokens.reshape(1, number, -1).sum((0, 2)) * squares(d).sum(0)
        both = torch.stack([exact_b.to(bound_b.dtype), bound_b])
        sums.append((both if scale_B is None else both / scale_B[:number].square()).sum(1))
    return distributed.from_first(torch.stack(sums, 1))
