"""SeTa: a window that slides over groups of losses, from easy to hard."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sadp_bench.pruner import BadInput, Observation, Pruner, ScoringContext, Selection, unweighted
from sadp_bench.sampling import ranked

UNSEEN = 3.0  # loss of an example before its first visit
MAX_GROUPS = 100
MAX_BINS = 1024  # bins of losses, which make up the groups


class SeTa(Pruner):
    """Keeps a random part of the examples within a window of loss groups that slides from easy to hard. Weight 1.

    Source: Zhou, Gao & Wang, "Scale Efficient Training for Large Datasets", CVPR 2025 (arXiv 2503.13385).

    Kind: dynamic.
    Scoring: none.

    k-means divides the last losses into G groups, from easy to hard. Epoch e keeps examples of the groups s to s + W - 1
    with s = e modulo (G - W + 1). The window moves by a group an epoch, from easy to hard, and then begins anew at the
    easiest group. Epoch 0 takes all groups, so the first window is that of s = 1: by default the four hardest groups. The
    epochs from floor(delta E) on take all groups too (partial annealing). The authors drop a random share before they make
    the groups, 0.1 on CIFAR. What an epoch saves then follows from the losses.

    The budget is ours. The random share follows from it: K examples of the window are drawn at random. A window of fewer
    than K is kept whole. The rest is drawn at random from the next harder group, and then from the groups beyond. If all
    these are too few, the next easier groups follow. So every epoch keeps K. k-means here finds the least sum of squares.
    The authors' iterates from random first centres, with a fixed seed, and may end at another sum.

    Constants are those of the authors' script for CIFAR: 5 groups, a window of 4 (0.9 of 5, rounded), delta 0.875, and
    the loss 3 for an example before its first visit. Its InfoBatch base patches DataLoader, and seeds NumPy globally.

    Args:
        prune_ratio: The share of visits to save.
        groups: G, from 2 to 100.
        window: W, from 1 to G.
        delta: The share of the epochs that have a window, at least 0 and at most 1.
    """

    display_name = "SeTa"
    bibtex = """
    @inproceedings{zhou2025seta,
      title = {Scale Efficient Training for Large Datasets},
      author = {Zhou, Qing and Gao, Junyu and Wang, Qi},
      booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
      eprint = {2503.13385},
      archiveprefix = {arXiv},
      year = {2025},
    }
    """
    takes_budget = True

    def __init__(self, prune_ratio: float, *, groups: int = 5, window: int = 4, delta: float = 0.875) -> None:
        super().__init__(prune_ratio)
        if not 2 <= groups <= MAX_GROUPS:
            raise BadInput(f"seta's groups are from 2 to {MAX_GROUPS}, not {groups}")
        if not 1 <= window <= groups:
            raise BadInput(f"seta's window is from 1 to the {groups} groups, not {window}")
        if not 0 <= delta <= 1:
            raise BadInput(f"seta's delta is at least 0 and at most 1, not {delta:g}")
        self.groups = groups
        self.window = window
        self.delta = delta
        self.loss_N = torch.empty(0)

    def prepare(self, context: ScoringContext) -> None:
        """Sets all losses to that of unseen examples."""
        super().prepare(context)
        self.loss_N = torch.full((context.num_examples,), UNSEEN, device=context.device)

    def observe(self, seen: Observation) -> None:
        """Keeps each example's last loss."""
        self.loss_N[seen.index_B] = seen.loss_B.to(self.loss_N.dtype)

    def select(self, epoch: int) -> Selection:
        """Returns K examples at random: of all, or those nearest to the window."""
        away_N = torch.zeros(self.num_examples)
        if 0 < epoch < math.floor(self.delta * self.num_epochs):
            first = epoch % (self.groups - self.window + 1)
            away_N = self._away(first)[loss_groups(self.loss_N.cpu(), self.groups)]
        return unweighted(ranked(-away_N, self.generator(epoch))[: self.num_kept(epoch)])

    def _away(self, first: int) -> Tensor:
        """Returns each group's place in the order in which they are taken: 0 within the window. [G]."""
        group_G, harder = torch.arange(self.groups), self.groups - first - self.window
        above_G, below_G = group_G - (first + self.window - 1), first - group_G
        return torch.where(below_G > 0, harder + below_G, above_G.clamp_min(0)).float()


def loss_groups(loss_N: Tensor, groups: int) -> Tensor:
    """Returns each example's group by k-means of the losses, from 0 for the lowest. Int64, [N].

    Groups of numbers are intervals, so dynamic programming finds the least sum of squares. It is exact up to `MAX_BINS`
    examples. More examples are first put into as many bins of equal size. Each loss then belongs to the nearest mean.
    """
    rising_N = loss_N.double().sort().values
    rising_N -= rising_N.mean()
    bins = min(len(rising_N), MAX_BINS)
    edge_M = torch.linspace(0, len(rising_N), bins + 1, dtype=torch.float64).round().long()
    sum_N, square_N = (torch.cat([torch.zeros(1), x.cumsum(0)]) for x in (rising_N, rising_N.square()))
    size_MM, sum_MM, square_MM = (x[None, :] - x[:, None] for x in (edge_M, sum_N[edge_M], square_N[edge_M]))
    cost_MM = torch.where(size_MM > 0, square_MM - sum_MM.square() / size_MM, torch.inf)
    least_M, cuts = cost_MM[0], []
    for _ in range(min(groups, bins) - 1):
        least_M, cut_M = (least_M[:, None] + cost_MM).min(0)
        cuts.append(cut_M)
    ends = [bins]
    for cut_M in reversed(cuts):
        ends.append(int(cut_M[ends[-1]]))
    end_G = edge_M[[0, *reversed(ends)]]
    mean_G = sum_N[end_G].diff() / end_G.diff() + loss_N.double().mean()
    return torch.bucketize(loss_N.double(), (mean_G[1:] + mean_G[:-1]) / 2)
