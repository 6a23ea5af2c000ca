"""KAKURENBO: hides the examples that the network has learned, and passes them forward again."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sadp_bench.pruner import BadInput, Observation, Pruner, ScoringContext, Selection
from sadp_bench.sampling import ranked, scheduled

# Stages of the run: the end, in tenths of the run, and the hidden share as a part of the highest one.
STAGES = ((3, 1.0), (6, 0.8), (8, 0.6), (10, 0.4))
MAX_HIDDEN = 0.9  # share of all examples that an epoch hides, at most: weights stay at or below 10


class Kakurenbo(Pruner):
    """Hides the share F of lowest losses that the network gets right with confidence. Weight 1 / (1 - F).

    Source: Nguyen et al., "KAKURENBO: Adaptively Hiding Samples in Deep Neural Network Training", NeurIPS 2023
    (arXiv 2310.10102).

    Kind: dynamic.
    Scoring: none.

    The F N examples of lowest loss are hidden for an epoch. Examples of them that the network gets wrong, or right with a
    confidence below 0.7, move back. Confidence is the highest softmax of the time-mean of the logits. F falls over the
    run: 1, 0.8, 0.6 and 0.4 of its highest value, up to 30, 60, 80 and 100 % of the epochs. Hidden examples pass
    forward at the epoch's end, in evaluation mode, so that their loss and confidence are new in every epoch. These passes
    are charged. After the last epoch there are none.

    The paper divides the learning rate by 1 - F. Here the weights are 1 / (1 - F). For SGD this is the same, except that
    weight decay stays as it is. Adam's steps hardly change with such a factor.

    The budget is ours: the four shares are scaled, and none exceeds 0.9, so that the run's total is exact. The paper sets
    the highest F, 0.3, and saves what is left after moving back. Here the next lowest losses that are right with
    confidence are hidden in place of those that move back. Where there are too few of them, those that moved back are
    hidden after all, the lowest losses first. The first epoch, which has no losses, hides nothing. The authors' script for
    CIFAR takes the softmax over the batch in place of the classes, and F before moving back for the learning rate.

    Args:
        prune_ratio: The share of visits to save.
        confidence: The least confidence of a hidden example, above 0 and at most 1.
        refresh: Whether hidden examples pass forward at the epoch's end; otherwise they keep their last values.
        rescale: Whether the weights are 1 / (1 - F); otherwise 1. At high ratios they multiply the first steps by up to 10.
    """

    display_name = "KAKURENBO"
    bibtex = r"""
    @inproceedings{nguyen2023kakurenbo,
      title = {{KAKURENBO}: Adaptively Hiding Samples in Deep Neural Network Training},
      author = {Nguyen, Truong Thao and Gerofi, Balazs and Martinez-Noriega, Edgar Josafat and Trahay,
        Fran{\c{c}}ois and Wahib, Mohamed},
      booktitle = {Advances in Neural Information Processing Systems},
      eprint = {2310.10102},
      archiveprefix = {arXiv},
      year = {2023},
    }
    """
    fixed_size = False

    def __init__(
        self, prune_ratio: float, *, confidence: float = 0.7, refresh: bool = True, rescale: bool = True
    ) -> None:
        super().__init__(prune_ratio)
        if not 0 < confidence <= 1:
            raise BadInput(f"kakurenbo's confidence is above 0 and at most 1, not {confidence:g}")
        self.confidence = confidence
        self.refresh = refresh
        self.rescale = rescale
        self.loss_N = torch.empty(0)
        self.confidence_N = torch.empty(0)
        self.hidden_M = torch.empty(0, dtype=torch.int64)

    def check(self, num_epochs: int) -> None:
        """Raises BadInput where the epochs after the first can't hide as much as the ratio."""
        largest = MAX_HIDDEN * (num_epochs - 1) / num_epochs
        if self.prune_ratio > largest + 1e-9:
            named = math.floor(1000 * largest) / 1000  # Rounded down, so that the method can realise it.
            raise BadInput(
                f"kakurenbo saves at most {named:g} of the visits in {num_epochs} epochs, of which the first hides nothing: "
                "lower --ratio or raise --epochs"
            )

    def prepare(self, context: ScoringContext) -> None:
        """Forgets all losses, and makes the shares of the epochs. Raises BadInput where an epoch would keep no example."""
        super().prepare(context)
        self.check(context.num_epochs)
        self.loss_N = torch.full((context.num_examples,), torch.inf, device=context.device)
        self.confidence_N = torch.zeros(context.num_examples, device=context.device)
        self.kept_E = [1 - share for share in hidden_shares(self.prune_ratio, context.num_epochs)]
        if not all(self.num_kept(epoch) for epoch in range(context.num_epochs)):
            raise BadInput(
                f"kakurenbo would hide all {self.num_examples} examples in an epoch: lower --ratio, or take more examples"
            )

    def observe(self, seen: Observation) -> None:
        """Keeps each example's last loss, and its confidence, which is 0 where the network is wrong."""
        p_B, class_B = seen.logits_TBC.mean(0).softmax(1).max(1)
        sure_B = torch.where(class_B == seen.label_B, p_B, 0.0)
        self.loss_N[seen.index_B] = seen.loss_B.to(self.loss_N.dtype)
        self.confidence_N[seen.index_B] = sure_B.to(self.confidence_N.dtype)

    def select(self, epoch: int) -> Selection:
        """Returns all but the hidden examples."""
        num_kept = self.num_kept(epoch)
        rank_N = ranked(-self.loss_N.cpu(), self.generator(epoch))
        moved_back_N = (self.confidence_N.cpu() < self.confidence).to(torch.uint8)
        rank_N = rank_N[moved_back_N[rank_N].argsort(stable=True)]
        self.hidden_M, index_K = rank_N.tensor_split([self.num_examples - num_kept])
        weight = self.num_examples / num_kept if self.rescale else 1.0
        return Selection(index_K, torch.full((num_kept,), weight))

    def num_kept(self, epoch: int) -> int:
        """Returns the number of examples that an epoch does not hide."""
        return scheduled(self.num_examples, self.kept_E[: epoch + 1])

    def revisit(self, epoch: int) -> Tensor:
        """Returns the hidden examples; none after the last epoch."""
        return self.hidden_M if self.refresh and epoch + 1 < self.num_epochs else self.hidden_M[:0]

    def observe_forward(self, seen: Observation) -> None:
        """Keeps the losses and confidences of hidden examples."""
        self.observe(seen)


def hidden_shares(prune_ratio: float, num_epochs: int) -> list[float]:
    """Returns the hidden share of each epoch: none in the first, and the ratio on average.

    The later epochs have the stages' parts of one level, at most `MAX_HIDDEN`. The level makes the sum exact.
    """
    part_E = [next(part for end, part in STAGES if 10 * epoch < end * num_epochs) for epoch in range(1, num_epochs)]
    level = MAX_HIDDEN
    for num_full in range(len(part_E)):  # the parts fall, so full epochs come first
        level = (prune_ratio * num_epochs - num_full * MAX_HIDDEN) / math.fsum(part_E[num_full:])
        if level * part_E[num_full] <= MAX_HIDDEN:
            return [0.0, *[MAX_HIDDEN] * num_full, *(level * part for part in part_E[num_full:])]
    return [0.0, *[MAX_HIDDEN] * len(part_E)]
