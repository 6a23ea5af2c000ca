"""InfoBatch: unbiased dynamic pruning of well-learned examples."""

from __future__ import annotations

import math

import torch

from sadp_bench.pruner import BadInput, Observation, Pruner, ScoringContext, Selection

# Share of the examples below the threshold that an epoch drops, at most: weights stay at or below 10.
MAX_DROPPED = 0.9


class InfoBatch(Pruner):
    """Drops each epoch a random share p of the examples with a loss below the mean; weights the rest 1/(1-p).

    Source: Qin et al., "InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning", ICLR 2024.

    The last (1 - delta) of the epochs use all data, weight 1. The batch's loss is the mean over the actual batch, as in
    the published code, so the mean weight exceeds 1 (a hidden raise of the learning rate; the record contains it).

    By default the ratio is a budget. A = floor((1 - delta) E + 0.5) epochs use all data. Each of the other E - A drops
    d = ratio N E / (E - A) examples, rounded so that the run's total is exact. With b examples below the mean, p = d / b.
    If p would exceed 0.9, the threshold rises until b = d / 0.9. In the first epoch all examples count as below the mean.

    Args:
        prune_ratio: The share of visits to save.
        delta: The share of the epochs that drop examples, above 0 and at most 1.
        native: Whether p is the ratio as published, exempt from the budget (p = 0.5 realises only about 0.3).
    """

    fixed_size = False

    def __init__(self, prune_ratio: float, *, delta: float = 0.875, native: bool = False) -> None:
        super().__init__(prune_ratio)
        if not 0 < delta <= 1:
            raise BadInput(f"infobatch's delta is above 0 and at most 1, not {delta:g}")
        self.delta = delta
        self.native = native
        self.exempt = native
        self.score_N = torch.empty(0)

    def check(self, num_epochs: int) -> None:
        """Raises BadInput where the pruned epochs can't save as much as the ratio."""
        largest = MAX_DROPPED * self._num_pruned_epochs(num_epochs) / num_epochs
        if not self.native and self.prune_ratio > largest:
            named = math.floor(1000 * largest) / 1000  # Rounded down, so that the method can realise it.
            raise BadInput(
                f"infobatch with delta={self.delta:g} saves at most {named:g} of the visits in {num_epochs} epochs, "
                f"not {self.prune_ratio:g}: lower --ratio, or raise delta"
            )

    def prepare(self, context: ScoringContext) -> None:
        """Sets all losses to zero and counts the epochs that drop examples."""
        super().prepare(context)
        self.check(context.num_epochs)
        self.score_N = torch.zeros(context.num_examples, device=context.device)
        self.pruned_epochs = self._num_pruned_epochs(context.num_epochs)

    def observe(self, seen: Observation) -> None:
        """Keeps each example's last loss."""
        self.score_N[seen.index_B] = seen.loss_B.to(self.score_N.dtype)

    def select(self, epoch: int) -> Selection:
        """Drops a random share of the examples below the mean loss and weights the rest of them."""
        weight_N = torch.ones(self.num_examples)
        if epoch < self.pruned_epochs:
            score_N, generator = self.score_N.cpu(), self.generator(epoch)
            below_N = score_N < score_N.mean() if epoch > 0 or self.native else torch.ones_like(weight_N).bool()
            num_dropped = self._num_dropped(epoch, int(below_N.sum()))
            if not self.native and num_dropped > MAX_DROPPED * below_N.sum():
                below_N = _lowest(score_N, num_dropped, generator)
            below = below_N.nonzero().squeeze(1)
            if num_dropped:
                shuffled = below[torch.randperm(len(below), generator=generator)]
                weight_N[below] = len(below) / (len(below) - num_dropped)
                weight_N[shuffled[:num_dropped]] = 0
        index_K = weight_N.nonzero().squeeze(1)
        return Selection(index_K, weight_N[index_K])

    def _num_pruned_epochs(self, num_epochs: int) -> int:
        return num_epochs - int((1 - self.delta) * num_epochs + 0.5)

    def _num_dropped(self, epoch: int, num_below: int) -> int:
        """Returns d with the rounding error carried over, or natively the published share of the examples below the mean."""
        if self.native:
            return int(self.prune_ratio * num_below)
        per_epoch = self.prune_ratio * self.num_examples * self.num_epochs / self.pruned_epochs
        return int((epoch + 1) * per_epoch + 0.5) - int(epoch * per_epoch + 0.5)


def _lowest(score_N: torch.Tensor, num_dropped: int, generator: torch.Generator) -> torch.Tensor:
    """Returns the mask of the lowest d / 0.9 scores, ties at random: a raised threshold."""
    shuffled = torch.randperm(len(score_N), generator=generator)
    num_below = min(len(score_N), -int(-num_dropped / MAX_DROPPED // 1))
    lowest = shuffled[score_N[shuffled].argsort(stable=True)[:num_below]]
    return torch.zeros(len(score_N), dtype=torch.bool).index_fill_(0, lowest, True)
