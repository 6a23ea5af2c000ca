"""IES: instance-dependent early stopping, by the second difference of an example's loss."""

from __future__ import annotations

import torch
from torch import Tensor

from sadp_bench.pruner import Candidates, ScoringContext, Selection, WithinBatch, unweighted

MEMORY = 5  # epochs, whose losses give the paper's three second differences


class IES(WithinBatch):
    """Trains on the candidates whose loss still changes its pace; those that are mastered pass forward alone. Weight 1.

    Source: Yuan et al., "Instance-dependent Early Stopping", ICLR 2025.

    Kind: within the batch.
    Scoring: none.

    Every example is a candidate in every epoch, and passes forward in evaluation mode. Its score is the mean of
    |l[t] - 2 l[t-1] + l[t-2]| over the last three epochs, this one included, with the losses l of these passes. The paper
    leaves out examples with a score below 1e-3, from which its saving follows. Here the saving is given: each batch trains
    the highest scores. So an example returns when its loss moves again, as in the paper. With fewer than three losses an
    example has no score; such examples train first, in random order. With three or four losses its score is the mean of
    the second differences that there are.

    Args:
        prune_ratio: The share of visits to save.
    """

    def prepare(self, context: ScoringContext) -> None:
        """Forgets all losses."""
        super().prepare(context)
        shape = (context.num_examples, MEMORY)
        self.loss_history_N = torch.full(shape, torch.nan, device=context.device)  # oldest first; NaN: none yet

    def choose_in_batch(self, candidates: Candidates) -> Selection:
        """Returns the candidates with the highest scores. They come in random order, which breaks ties."""
        seen = candidates.forward(frozenset())
        newest_C1 = seen.loss_B.to(self.loss_history_N.dtype)[:, None]
        history_C = torch.cat([self.loss_history_N[seen.index_B][:, 1:], newest_C1], 1)
        self.loss_history_N[seen.index_B] = history_C
        ranked_C = unrest(history_C).cpu().argsort(descending=True, stable=True)
        return unweighted(ranked_C[: candidates.num_trained])


def unrest(loss_BE: Tensor) -> Tensor:
    """Returns the mean absolute second difference of each row over the epochs that have one; infinite where none has. [B]."""
    return loss_BE.diff(n=2, dim=1).abs().nanmean(1).nan_to_num(nan=torch.inf)
