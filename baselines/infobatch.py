"""InfoBatch: unbiased dynamic pruning of well-learned examples."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sadp_bench.pruner import BadInput, Observation, Pruner, ScoringContext, Selection

MAX_DROPPED = 0.9  # share of all examples that an epoch drops, at most: weights stay at or below 10
VARIANTS = ("mean", "quantile")
# The groups of the variant "quantile", lowest losses first: the quantile at a group's end, and its share of drops.
QUANTILES = ((0.20, 0.75), (0.85, 0.50))

Group = tuple[Tensor, int]  # indices of examples, and how many of them an epoch drops


class InfoBatch(Pruner):
    """Drops, in each epoch, a random share p of the examples with a loss below the mean; weights the rest 1/(1-p).

    Source: Qin et al., "InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning", ICLR 2024.

    Kind: dynamic.
    Scoring: none.

    The last (1 - delta) of the epochs use all data, weight 1. The batch's loss is the mean over the actual batch, as in
    the published code, so the mean weight exceeds 1. This raises the effective learning rate. The record contains the
    mean weight.

    By default the ratio is a budget. A = floor((1 - delta) E + 0.5) epochs use all data. Each of the other E - A drops
    d = ratio N E / (E - A) examples, rounded so that the run's total is exact. They are drawn from the b lowest losses.
    b is the number of losses below the mean, and p = d / b. If p would exceed `drop_share` (the paper's p is 0.5), the
    threshold rises: b = d / drop_share. Once all N examples are below it, p rises further. In the first epoch all
    examples count as below the mean. The budget is ours; the paper has none.

    The variant "quantile" is the authors' code for ImageNet, with two thresholds. An epoch keeps a quarter of the lowest
    20 % of the losses, half of the next 65 %, and all of the rest. There is no setting for how much is saved. The first
    epoch has no losses, and keeps all.

    Args:
        prune_ratio: The share of visits to save.
        delta: The share of the epochs that drop examples, above 0 and at most 1.
        native: Whether p is the ratio, as published, in floor(delta E) epochs. The run is then exempt from the budget:
            p = 0.5 saves only about 0.3.
        drop_share: The share of the examples below the threshold that an epoch drops before the threshold rises, above
            0 and at most 0.9. At 0.9, a fifth of the kept examples can have two thirds of the weight.
        variant: "mean" or "quantile".
    """

    display_name = "InfoBatch"
    bibtex = """
    @inproceedings{qin2024infobatch,
      title = {{InfoBatch}: Lossless Training Speed Up by Unbiased Dynamic Data Pruning},
      author = {Qin, Ziheng and Wang, Kai and Zheng, Zangwei and Gu, Jianyang and Peng, Xiangyu and Xu, Zhaopan
        and Zhou, Daquan and Shang, Lei and Sun, Baigui and Xie, Xuansong and You, Yang},
      booktitle = {International Conference on Learning Representations},
      year = {2024},
    }
    """
    fixed_size = False

    def __init__(
        self,
        prune_ratio: float,
        *,
        delta: float = 0.875,
        native: bool = False,
        drop_share: float = 0.5,
        variant: str = "mean",
    ) -> None:
        super().__init__(prune_ratio)
        if not 0 < delta <= 1:
            raise BadInput(f"infobatch's delta is above 0 and at most 1, not {delta:g}")
        if not 0 < drop_share <= MAX_DROPPED:
            raise BadInput(f"infobatch's drop_share is above 0 and at most {MAX_DROPPED:g}, not {drop_share:g}")
        if variant not in VARIANTS:
            raise BadInput(f"infobatch's variant is one of {', '.join(VARIANTS)}, not '{variant}'")
        if native and variant == "quantile":
            raise BadInput("infobatch's variant quantile has no p: leave out native")
        self.delta = delta
        self.native = native
        self.drop_share = drop_share
        self.variant = variant
        self.exempt = native
        self.score_N = torch.empty(0)

    def check(self, num_epochs: int) -> None:
        """Raises BadInput where the pruned epochs can't save the ratio."""
        if self.native:
            return
        if self.variant == "quantile":
            saved = _quantile_drops() * max(0, self._num_pruned_epochs(num_epochs) - 1) / num_epochs
            if abs(self.prune_ratio - saved) > 0.0005:
                raise BadInput(
                    f"infobatch's variant quantile with delta={self.delta:g} saves {saved:.3f} of the visits in "
                    f"{num_epochs} epochs, and no other share: give --ratio {saved:.3f}"
                )
            return
        largest = MAX_DROPPED * self._num_pruned_epochs(num_epochs) / num_epochs
        if self.prune_ratio > largest:
            named = math.floor(1000 * largest) / 1000  # Rounded down, so that the method can realise it.
            raise BadInput(
                f"infobatch with delta={self.delta:g} saves at most {named:g} of the visits in {num_epochs} epochs, "
                f"not {self.prune_ratio:g}: lower --ratio, or raise delta"
            )

    def planned_visits(self, num_examples: int, num_epochs: float) -> float:
        """Returns the budget; NaN for `native`, whose visits depend on the losses."""
        return math.nan if self.native else super().planned_visits(num_examples, num_epochs)

    def prepare(self, context: ScoringContext) -> None:
        """Sets all losses to zero and counts the epochs that drop examples. Raises BadInput where one would drop all."""
        super().prepare(context)
        self.check(context.num_epochs)
        self.score_N = torch.zeros(context.num_examples, device=context.device)
        self.pruned_epochs = self._num_pruned_epochs(context.num_epochs)
        has_shares = not self.native and self.variant != "quantile"
        if has_shares and max(map(self._num_dropped, range(self.pruned_epochs)), default=0) == self.num_examples:
            raise BadInput(
                f"infobatch would drop all {self.num_examples} examples in an epoch: lower --ratio, or take more examples"
            )

    def observe(self, seen: Observation) -> None:
        """Keeps each example's last loss."""
        self.score_N[seen.index_B] = seen.loss_B.to(self.score_N.dtype)

    def final_scores(self) -> Tensor:
        """Returns the last loss of each example; 0: not seen yet."""
        return self.score_N

    def select(self, epoch: int) -> Selection:
        """Drops a random part of each group of examples and weights the rest of it."""
        weight_N = torch.ones(self.num_examples)
        if epoch < self.pruned_epochs:
            generator = self.generator(epoch)
            for index, num_dropped in self._groups(epoch, self.score_N.cpu(), generator):
                if num_dropped:
                    shuffled = index[torch.randperm(len(index), generator=generator)]
                    weight_N[index] = len(index) / (len(index) - num_dropped)
                    weight_N[shuffled[:num_dropped]] = 0
        index_K = weight_N.nonzero().squeeze(1)
        return Selection(index_K, weight_N[index_K])

    def _groups(self, epoch: int, score_N: Tensor, generator: torch.Generator) -> list[Group]:
        """Returns the groups of examples from which an epoch drops some, with the numbers of drops."""
        if self.variant == "quantile":
            return _quantile_groups(score_N, generator) if epoch else []
        first = epoch == 0 and not self.native
        below_N = torch.ones_like(score_N).bool() if first else score_N < score_N.mean()
        num_below = int(below_N.sum())
        if self.native:
            return [(below_N.nonzero().squeeze(1), int(self.prune_ratio * num_below))]
        num_dropped = self._num_dropped(epoch)
        if num_dropped > self.drop_share * num_below:
            num_below = min(self.num_examples, math.ceil(num_dropped / self.drop_share))
            return [(_ascending(score_N, generator)[:num_below].sort().values, num_dropped)]
        return [(below_N.nonzero().squeeze(1), num_dropped)]

    def _num_pruned_epochs(self, num_epochs: int) -> int:
        if self.native or self.variant == "quantile":
            return math.floor(self.delta * num_epochs)
        return num_epochs - int((1 - self.delta) * num_epochs + 0.5)

    def _num_dropped(self, epoch: int) -> int:
        """Returns d with the rounding error carried over."""
        per_epoch = self.prune_ratio * self.num_examples * self.num_epochs / self.pruned_epochs
        return int((epoch + 1) * per_epoch + 0.5) - int(epoch * per_epoch + 0.5)


def _ascending(score_N: Tensor, generator: torch.Generator) -> Tensor:
    """Returns the examples by score, ties at random."""
    shuffled = torch.randperm(len(score_N), generator=generator)
    return shuffled[score_N[shuffled].argsort(stable=True)]


def _quantile_groups(score_N: Tensor, generator: torch.Generator) -> list[Group]:
    """Returns the groups between the quantiles of the scores, each with its number of drops."""
    ranked_N = _ascending(score_N, generator)
    groups, start = [], 0
    for quantile, share in QUANTILES:
        end = round(quantile * len(score_N))
        groups.append((ranked_N[start:end], round(share * (end - start))))
        start = end
    return groups


def _quantile_drops() -> float:
    """Returns the share of the examples that an epoch of the variant "quantile" drops."""
    starts = (0.0, *(quantile for quantile, _ in QUANTILES))
    return sum((quantile - start) * share for start, (quantile, share) in zip(starts, QUANTILES, strict=False))
