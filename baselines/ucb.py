"""UCB: the highest upper confidence bounds of the loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from baselines.bandit import Bandit
from sadp_bench.pruner import BadInput
from sadp_bench.sampling import ranked


class UCB(Bandit):
    """Keeps the highest m + c v, from the loss's running mean m and variance v, for a period of epochs. Weight 1.

    Source: Raju, Daruwalla & Lipasti, "Accelerating Deep Learning with Dynamic Data Pruning", arXiv 2111.12621, 2021.

    Kind: dynamic.
    Scoring: none.

    m and v are those of `Bandit`, with a = 0.2. As published, the bound contains v itself, not its root, and no number of
    visits. So the bound rises with a noisy loss, and does not rise while an example is left out. The paper also prunes the
    same share in every epoch. Here the K of an epoch is exact.

    Args:
        prune_ratio: The share of visits to save.
        confidence: c, at least 0; at 0 the ranking is by m alone. The paper's value is not public to us.
        memory: a, in [0, 1): the share of the earlier visits in m and v.
        period: The number of epochs that keep the same examples (the paper: 10); 0 means a tenth of the run, at most 10.
    """

    display_name = "UCB"
    name = "ucb"

    def __init__(self, prune_ratio: float, *, confidence: float = 1.0, memory: float = 0.2, period: int = 0) -> None:
        super().__init__(prune_ratio, memory=memory, period=period)
        if not 0 <= confidence < math.inf:
            raise BadInput(f"ucb's confidence is at least 0 and finite, not {confidence:g}")
        self.confidence = confidence

    def ranked_anew(self, epoch: int, generator: torch.Generator) -> Tensor:
        """Returns the examples by falling bound, ties at random."""
        return ranked((self.mean_N + self.confidence * self.variance_N).cpu(), generator)
