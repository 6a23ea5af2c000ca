"""Order and batches of an epoch's selection."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sadp_bench.pruners.exchange import Selection


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


def batches(index_K: Tensor, weight_K: Tensor, number: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Returns `number` batches, whose sizes differ by at most one.

    Nothing is dropped, and no short last batch gives its examples more weight.
    """
    return ((index_B, weight_B) for index_B, weight_B, _ in candidates(index_K, weight_K, len(index_K), number))


def candidates(
    index_K: Tensor, weight_K: Tensor, num_trained: int, number: int
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Returns the candidates of `number` batches, each with the number of them that train.

    The batches' sizes differ by at most one, and so do the numbers that train.
    """
    least, rest = divmod(num_trained, number)
    sizes = [least + (place < rest) for place in range(number)]
    return zip(index_K.tensor_split(number), weight_K.tensor_split(number), sizes, strict=True)
