"""Selective-Backprop: a forward pass of all examples, a backward pass of those with a high loss."""

from __future__ import annotations

import torch

from sadp_bench.pruner import BadInput, Candidates, ScoringContext, Selection, WithinBatch, unweighted
from sadp_bench.sampling import inclusion_probability, systematic_sample


class SelectiveBackprop(WithinBatch):
    """Draws candidates in proportion to a power of their loss's rank among the latest losses. Weight 1.

    Source: Jiang et al., "Accelerating Deep Learning by Focusing on the Biggest Losers", arXiv 1910.00762, 2019.

    Kind: within the batch.
    Scoring: none.

    Every example is a candidate in every epoch, and passes forward in evaluation mode. The paper keeps an example with
    probability F(loss)^beta, where F is the distribution of the last `window` losses. For losses of one distribution
    the mean of F^beta is 1 / (1 + beta), so the budget gives beta = ratio / (1 - ratio). In the paper beta is a setting,
    and the kept share varies. Here each batch trains exactly its share: the probabilities are scaled to sum to it.

    The first epoch is like every other. The authors' code trains on all data first, to fill the window.

    The training step repeats the forward pass of the kept examples, as in the paper. The gradient is biased towards hard
    examples.

    Args:
        prune_ratio: The share of visits to save.
        window: The number of latest losses that make up F, at least 2. The paper's code has 1024.
    """

    display_name = "Selective-Backprop"
    bibtex = """
    @misc{jiang2019biggest,
      title = {Accelerating Deep Learning by Focusing on the Biggest Losers},
      author = {Jiang, Angela H. and others},
      eprint = {1910.00762},
      archiveprefix = {arXiv},
      year = {2019},
    }
    """

    def __init__(self, prune_ratio: float, *, window: int = 1024) -> None:
        super().__init__(prune_ratio)
        if window < 2:
            raise BadInput(f"selective-backprop's window is at least 2 losses, not {window}")
        self.window = window
        self.latest = torch.empty(0)
        self.batch = 0

    def prepare(self, context: ScoringContext) -> None:
        """Empties the window."""
        super().prepare(context)
        self.latest = torch.empty(0, device=context.device)

    def choose_in_batch(self, candidates: Candidates) -> Selection:
        """Draws the candidates by the power of their loss's rank."""
        loss_C = candidates.forward(frozenset()).loss_B
        self.latest = torch.cat([self.latest, loss_C.to(self.latest.dtype)])[-self.window :]
        rank_C = torch.searchsorted(self.latest.sort().values, loss_C.to(self.latest.dtype), right=True)
        share_C = rank_C.cpu().double() / len(self.latest)
        probability_C = inclusion_probability(
            share_C ** (self.prune_ratio / (1 - self.prune_ratio)), candidates.num_trained
        )
        self.batch += 1
        return unweighted(systematic_sample(probability_C, self.generator(self.batch)))
