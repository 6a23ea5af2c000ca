"""IES: instance-dependent early stopping, by the second difference of an example's loss."""

from __future__ import annotations

import torch
from torch import Tensor

from sadp_bench.pruner import Observation, Pruner, ScoringContext, Selection, unweighted
from sadp_bench.sampling import ranked

MEMORY = 5  # epochs, whose losses give the paper's three second differences


class IES(Pruner):
    """Trains on the examples whose loss has the largest second differences; others pass forward at the epoch's end. Weight 1.

    Source: Yuan et al., "Instance-dependent Early Stopping", ICLR 2025.

    Kind: dynamic.
    Scoring: none.

    An example has one loss for each epoch: that of its training step, or of a forward pass at the epoch's end. Its score
    is the mean of |l[t] - 2 l[t-1] + l[t-2]| over the last three epochs. With three or four losses, the score is the mean
    of the second differences that there are. With fewer losses an example has no score. Such examples train first, at
    random.

    The paper leaves out examples with a score below 1e-3, and its saving follows from that. Here the ratio gives the
    saving: each epoch trains the K highest scores. So an example returns when its loss moves again, as in the paper.

    Losses of training steps are in training mode, before the update. Losses of forward passes are in evaluation mode. The
    forward passes are charged, and the ceiling contains them.

    Args:
        prune_ratio: The share of visits to save.
    """

    display_name = "IES"
    bibtex = """
    @inproceedings{yuan2025ies,
      title = {Instance-dependent Early Stopping},
      author = {Yuan, Suqin and Lin, Runqi and Feng, Lei and Han, Bo and Liu, Tongliang},
      booktitle = {International Conference on Learning Representations},
      year = {2025},
    }
    """
    takes_budget = True

    def prepare(self, context: ScoringContext) -> None:
        """Forgets all losses."""
        super().prepare(context)
        shape = (context.num_examples, MEMORY)
        self.loss_history_N = torch.full(shape, torch.nan, device=context.device)  # oldest first; NaN: none yet
        self.resting = torch.empty(0, dtype=torch.int64)

    def select(self, epoch: int) -> Selection:
        """Returns the K highest scores, ties at random."""
        ranked_N = ranked(unrest(self.loss_history_N).cpu(), self.generator(epoch))
        index_K, self.resting = ranked_N[: self.num_kept(epoch)], ranked_N[self.num_kept(epoch) :]
        return unweighted(index_K)

    def observe(self, seen: Observation) -> None:
        """Adds the losses of a batch."""
        newest_B1 = seen.loss_B.to(self.loss_history_N.dtype)[:, None]
        self.loss_history_N[seen.index_B] = torch.cat([self.loss_history_N[seen.index_B][:, 1:], newest_B1], 1)

    def revisit(self, epoch: int) -> Tensor:
        """Returns the examples that the epoch did not train, except after the last epoch."""
        return self.resting if epoch + 1 < self.num_epochs else self.resting[:0]

    def observe_forward(self, seen: Observation) -> None:
        """Adds the losses of examples that did not train."""
        self.observe(seen)


def unrest(loss_NE: Tensor) -> Tensor:
    """Returns the mean absolute second difference of each row over the epochs that have one; infinite where none has. [N]."""
    return loss_NE.diff(n=2, dim=1).abs().nanmean(1).nan_to_num(nan=torch.inf)
