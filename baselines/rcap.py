"""RCAP: shares of the classes by their loss, and the higher losses of each class."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sadp_bench.pruner import BadInput, Observation, Pruner, ScoringContext, Selection, unweighted
from sadp_bench.sampling import by_class, ranked

CLASS_LOSSES = ("mean", "kept")


class RCAP(Pruner):
    """Keeps each epoch more of the classes of high loss, and of each class rather the examples of high loss. Weight 1.

    Source: Hassan, Khare & Paik, "RCAP: Robust, Class-Aware, Probabilistic Dynamic Dataset Pruning", UAI 2025.

    Kind: dynamic.
    Scoring: none.

    l_i is an example's last loss, at most log C, and log C before its first visit. A class of n_c examples keeps
    k_c = min(n_c, z sqrt(L_c n_c / N)) of them, where z makes the sum K, and L_c is the class's loss. Its examples are drawn
    one after the other without replacement, each time with probability proportional to exp(l_i / beta).

    Public to us are the abstract and the authors' code. The abstract says that a closed form makes the classes' shares of
    an aggregated loss. The closed form, the cut at log C, the draw and beta = 1/4 (of an example with CIFAR-10) are in the
    code. The aggregate is not clear. The code takes the softmax over each class first, so that its L_c is the part of the
    class's softmax that the last subset had ("kept"). It does not compare the losses of classes: where all losses of a
    class are equally high, its share is low. The default takes the abstract's word: L_c is the mean of l_i over the class.
    Both start with the shares sqrt(n_c).

    Counts are rounded by Webster's method, so that their sum is K. The authors' code rounds up, and divides the excess of
    full classes by the whole budget, so that it keeps more than it should.

    Args:
        prune_ratio: The share of visits to save.
        beta: The temperature of the draw within a class, above 0. The higher, the more uniform is the draw.
        class_loss: "mean": the class's mean of the last losses. "kept": as in the authors' code.
    """

    def __init__(self, prune_ratio: float, *, beta: float = 0.25, class_loss: str = "mean") -> None:
        super().__init__(prune_ratio)
        if not 0 < beta < math.inf:
            raise BadInput(f"rcap's beta is above 0 and finite, not {beta:g}")
        if class_loss not in CLASS_LOSSES:
            raise BadInput(f"rcap's class_loss is one of {', '.join(CLASS_LOSSES)}, not '{class_loss}'")
        self.beta = beta
        self.class_loss = class_loss
        self.label_N = torch.empty(0, dtype=torch.int64)
        self.loss_N = torch.empty(0)
        self.last_K = torch.empty(0, dtype=torch.int64)
        self.highest = math.inf

    def prepare(self, context: ScoringContext) -> None:
        """Sets all losses to log C."""
        super().prepare(context)
        self.label_N = context.label_N
        self.highest = math.log(max(2, context.num_classes))
        self.loss_N = torch.full((context.num_examples,), self.highest, device=context.device)
        self.last_K = torch.arange(context.num_examples)

    def observe(self, seen: Observation) -> None:
        """Keeps each example's last loss, at most log C."""
        self.loss_N[seen.index_B] = seen.loss_B.to(self.loss_N.dtype).clamp(0, self.highest)

    def select(self, epoch: int) -> Selection:
        """Returns the examples drawn from each class."""
        loss_N, generator = self.loss_N.cpu().double(), self.generator(epoch)
        size_C = self.label_N.bincount()
        weight_C = (size_C * self._class_loss(loss_N, size_C)).sqrt()
        # The highest of log p + Gumbel noise are successive draws without replacement (Efraimidis & Spirakis 2006).
        noise_N = -torch.empty(self.num_examples, dtype=torch.float64).exponential_(generator=generator).log()
        rank_N = ranked(loss_N / self.beta + noise_N, generator)
        self.last_K = by_class(rank_N, self.label_N, weight_C)[: self.num_kept(epoch)]
        return unweighted(self.last_K)

    def _class_loss(self, loss_N: Tensor, size_C: Tensor) -> Tensor:
        """Returns L_c. Float64, [C]."""
        if self.class_loss == "mean":
            return self.label_N.bincount(loss_N, minlength=len(size_C)) / size_C.clamp_min(1)
        share_N = ((loss_N - self.highest) / self.beta).exp()
        last_K = self.last_K
        kept_C = self.label_N[last_K].bincount(share_N[last_K], minlength=len(size_C))
        return kept_C / self.label_N.bincount(share_N, minlength=len(size_C)).clamp_min(1e-300)
