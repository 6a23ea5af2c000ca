"""RePB: pruning by comparison within windows of batches, with weights for the visits that are missing."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sadp_bench.pruner import BadInput, Observation, Pruner, ScoringContext, Selection

MAX_WEIGHT = 10.0  # before the scaling to mean 1
NO_WINDOW = -1  # of an example that the last pass skipped


class RePB(Pruner):
    """Skips the lowest losses of each window of batches at the next pass; weights by the missing visits, mean 1.

    Source: After Zhou et al., "Inconsistency Biases in Dynamic Data Pruning", ICLR 2026 (OpenReview Zw1Uw7u6Su).

    Kind: dynamic.
    Scoring: none.

    Only the abstract and a summary are public to us. We could not read github.com/mrazhou/RePB, which the summary names.
    Both contain the comparison within a window of batches, where the network hardly changes. They also contain the uniform
    return of skipped examples, and weights by the visits so far. The sizes, the budget and the scale of the weights are
    ours:

    - A window is w consecutive batches of a pass (an epoch); the last one may be shorter. A pass's examples have the
      rank of their loss within their window: (place from the lowest + 1/2) / the window's size.
    - A pass skips the share `drop_share` of the examples that the last pass visited: those of the lowest ranks, at most
      N - K. So each window loses the same share. The seed breaks ties.
    - Examples that the last pass skipped return: as many as make the K of the pass exact, drawn uniformly. Up to a ratio
      of drop_share / (1 + drop_share) all return. The first pass draws its K uniformly.
    - Weight of i at pass e, counted from 1: (1 - ratio) e / n_i. n_i is the number of visits of i, this one included. A
      full run would have made e. At any steady rate of visits an example's weights then sum to (1 - ratio) e. With a
      budget that is not constant, the sum of the shares kept so far takes the place of (1 - ratio) e. A weight
      is limited to 10, and then divided by the mean over the kept: the mean weight is 1 in every pass.

    Args:
        prune_ratio: The share of visits to save.
        window: w, in batches, at least 1. The paper's value is not public to us.
        drop_share: The share of a window that the next pass skips, above 0 and below 1. The paper's is not public to us.
    """

    display_name = "RePB"
    bibtex = """
    @inproceedings{zhou2026repb,
      title = {Inconsistency Biases in Dynamic Data Pruning},
      author = {Zhou and others},
      booktitle = {International Conference on Learning Representations},
      note = {OpenReview Zw1Uw7u6Su},
      year = {2026},
    }
    """
    takes_budget = True

    def __init__(self, prune_ratio: float, *, window: int = 10, drop_share: float = 0.5) -> None:
        super().__init__(prune_ratio)
        if window < 1:
            raise BadInput(f"repb's window is at least 1 batch, not {window}")
        if not 0 < drop_share < 1:
            raise BadInput(f"repb's drop_share is above 0 and below 1, not {drop_share:g}")
        self.window = window
        self.drop_share = drop_share
        self.batches = 0  # of this pass, so far
        self.loss_N = torch.empty(0)
        self.window_N = torch.empty(0, dtype=torch.int32)
        self.visits_N = torch.empty(0, dtype=torch.int32)

    def prepare(self, context: ScoringContext) -> None:
        """Sets all visits to zero."""
        super().prepare(context)
        size, device = context.num_examples, context.device
        self.loss_N = torch.zeros(size, device=device)
        self.window_N = torch.full((size,), NO_WINDOW, dtype=torch.int32, device=device)
        self.visits_N = torch.zeros(size, dtype=torch.int32, device=device)

    def observe(self, seen: Observation) -> None:
        """Keeps the batch's losses, its window and its visits. Each process counts its own parts of the batches."""
        self.loss_N[seen.index_B] = seen.loss_B.to(self.loss_N.dtype)
        self.window_N[seen.index_B] = self.batches // self.window
        self.visits_N[seen.index_B] += 1
        self.batches += 1

    def select(self, epoch: int) -> Selection:
        """Skips the lowest ranks of the last pass, and draws the rest among the examples that it skipped."""
        num_kept, generator = self.num_kept(epoch), self.generator(epoch)
        window_N = self.window_N.cpu()
        visited = (window_N != NO_WINDOW).nonzero().squeeze(1)
        others = (window_N == NO_WINDOW).nonzero().squeeze(1)
        visited = visited[torch.randperm(len(visited), generator=generator)]
        rank_V = rank_in_window(self.loss_N.cpu()[visited], window_N[visited])
        most, least = self.num_examples - num_kept, len(visited) - num_kept
        num_skipped = max(least, min(most, round(self.drop_share * len(visited))))
        staying = visited[rank_V.argsort(stable=True)[num_skipped:]]
        drawn = others[torch.randperm(len(others), generator=generator)[: num_kept - len(staying)]]
        self.window_N.fill_(NO_WINDOW)
        self.batches = 0
        index_K = torch.cat([staying, drawn])
        return Selection(index_K, self._weights(index_K, epoch))

    def _weights(self, index_K: Tensor, epoch: int) -> Tensor:
        visits_K = self.visits_N.cpu()[index_K].double() + 1
        if self.budget == "constant":
            expected = (1 - self.prune_ratio) * (epoch + 1)
        else:
            expected = math.fsum(map(self.share_kept, range(epoch + 1)))
        weight_K = (expected / visits_K).clamp_max(MAX_WEIGHT)
        return (weight_K / weight_K.mean()).float()


def rank_in_window(loss_V: Tensor, window_V: Tensor) -> Tensor:
    """Returns (place from the lowest + 1/2) / size of each loss within its window; ties in the given order. [V]."""
    order_V = loss_V.argsort(stable=True)
    order_V = order_V[window_V[order_V].argsort(stable=True)]  # By window, and within it by loss.
    size_W = window_V.bincount()
    start_W = size_W.cumsum(0) - size_W
    place_V = torch.empty_like(order_V)
    place_V[order_V] = torch.arange(len(order_V)) - start_W[window_V[order_V]]
    return (place_V + 0.5) / size_W[window_V]
