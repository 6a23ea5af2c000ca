"""Order and batches of an epoch's selection."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sadp_bench.pruners.base import Selection


def in_order(selection: Selection, order_N: Tensor, share: float = 1.0, at_least: int = 1) -> tuple[Tensor, Tensor]:
    """Returns the kept examples and their weights in the epoch's order.

    The order does not depend on the pruner, so runs with the same seed show their common examples in the same order.

    Args:
        selection: The kept examples and their weights.
        order_N: The epoch's order of all N examples.
        share: The share of the kept examples to return, from the first; below 1 in a partial epoch.
        at_least: The smallest number of examples to return.

    Returns:
        Indices, and weights in float32.
    """
    weight_N = torch.zeros(len(order_N))
    weight_N[selection.index_K.cpu()] = selection.weight_K.cpu()
    weight_K = weight_N[order_N]
    kept = weight_K > 0
    num_shown = max(at_least, int(share * len(selection.index_K) + 0.5))
    return order_N[kept][:num_shown], weight_K[kept][:num_shown]


def batches(index_K: Tensor, weight_K: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Returns ceil(K / batch_size) batches whose sizes differ by at most one.

    Nothing is dropped, and no short last batch gives its examples more weight.
    """
    num_batches = -(-len(index_K) // batch_size)
    return zip(index_K.tensor_split(num_batches), weight_K.tensor_split(num_batches), strict=True)
