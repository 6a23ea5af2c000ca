"""Epsilon-greedy: the highest mean losses, and a few of the others at random."""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.bandit import Bandit
from sadp_bench.pruner import BadInput
from sadp_bench.sampling import ranked


class EpsGreedy(Bandit):
    """Keeps (1 - eps) K of the highest mean loss and eps K of the others at random, for a period of epochs. Weight 1.

    Source: Raju, Daruwalla & Lipasti, "Accelerating Deep Learning with Dynamic Data Pruning", arXiv 2111.12621, 2021.

    Kind: dynamic.
    Scoring: none.

    The mean m is that of `Bandit`, with a = 0.2. An example that was left out keeps its mean until a random draw takes it.
    The paper also prunes the same share in every epoch. Here the K of an epoch is exact.

    Args:
        prune_ratio: The share of visits to save.
        eps: The share of the kept examples that is drawn at random, from 0 to 1. The paper's value is not public to us.
        memory: a, in [0, 1): the share of the earlier visits in m.
        period: The number of epochs that keep the same examples (the paper: 10); 0 means a tenth of the run, at most 10.
    """

    display_name = "ε-greedy"
    name = "eps-greedy"

    def __init__(self, prune_ratio: float, *, eps: float = 0.1, memory: float = 0.2, period: int = 0) -> None:
        super().__init__(prune_ratio, memory=memory, period=period)
        if not 0 <= eps <= 1:
            raise BadInput(f"eps-greedy's eps is from 0 to 1, not {eps:g}")
        self.eps = eps

    def ranked_anew(self, epoch: int, generator: torch.Generator) -> Tensor:
        """Returns the greedy part by falling mean, ties at random, and then the others in random order."""
        ranked_N = ranked(self.mean_N.cpu(), generator)
        num_greedy = round((1 - self.eps) * self.num_kept(epoch))
        others = ranked_N[num_greedy:]
        return torch.cat([ranked_N[:num_greedy], others[torch.randperm(len(others), generator=generator)]])
