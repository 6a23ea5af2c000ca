"""RCAP: shares of the classes by their loss, and the higher losses of each class."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sadp_bench.pruner import BadInput, Observation, Pruner, ScoringContext, Selection, unweighted
from sadp_bench.sampling import by_class, ranked

CLASS_LOSSES = ("mean", "kept")


class RCAP(Pruner):
    """Keeps more examples of classes with a high loss, and prefers examples of high loss within a class. Weight 1.

    Source: Hassan, Khare & Paik, "RCAP: Robust, Class-Aware, Probabilistic Dynamic Dataset Pruning", UAI 2025 (PMLR
    286:1648, arXiv 2606.11761).

    Kind: dynamic.
    Scoring: none.

    l_i is an example's last loss, at most log C, and log C before its first visit. A class of n_c examples keeps
    k_c = min(n_c, z sqrt(L_c n_c / N)) of them. L_c is the class's loss, and z makes the sum K. A class's examples are drawn
    one after the other without replacement, each time with probability proportional to exp(l_i / beta).

    We have read the abstract and the authors' code, not the paper's text. In the abstract, a closed form of an aggregated
    loss gives the classes' shares. The code contains the closed form, the cut at log C and the draw; its example with
    CIFAR-10 has beta = 1/4. The aggregate is not clear. The code takes the softmax over each class. Its L_c is the part of
    the class's softmax that the last subset had ("kept"). It does not compare the losses of classes: where all losses of a
    class are equally high, its share is low. The default follows the abstract: L_c is the mean of l_i over the class. Both
    start with the shares sqrt(n_c).

    Counts are rounded by Webster's method, so that their sum is K. The authors' code rounds up, so each class keeps at
    least one example. Here each class does too, if K is at least the number of classes: the last examples of the order make
    room. Otherwise a class that kept none would keep its old losses, and be lost for good. With a smaller K, "kept" sets
    L_c of a class that the last subset left out to 1 / n_c, the mean example's part. The authors' code keeps more than it
    should: it rounds up, and divides the excess of full classes by the whole budget.

    Args:
        prune_ratio: The share of visits to save.
        beta: The temperature of the draw within a class, above 0. A higher beta makes the draw more uniform.
        class_loss: "mean": the class's mean of the last losses. "kept": as in the authors' code.
    """

    display_name = "RCAP"
    bibtex = """
    @inproceedings{hassan2025rcap,
      title = {{RCAP}: Robust, Class-Aware, Probabilistic Dynamic Dataset Pruning},
      author = {Hassan and Khare and Paik},
      booktitle = {Uncertainty in Artificial Intelligence},
      eprint = {2606.11761},
      archiveprefix = {arXiv},
      year = {2025},
    }
    """
    takes_budget = True

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
        order_N = by_class(rank_N, self.label_N, weight_C)
        self.last_K = with_every_class(order_N, self.label_N, self.num_kept(epoch))
        return unweighted(self.last_K)

    def _class_loss(self, loss_N: Tensor, size_C: Tensor) -> Tensor:
        """Returns L_c. Float64, [C]."""
        if self.class_loss == "mean":
            return self.label_N.bincount(loss_N, minlength=len(size_C)) / size_C.clamp_min(1)
        share_N = ((loss_N - self.highest) / self.beta).exp()
        last_K = self.last_K
        kept_C = self.label_N[last_K].bincount(share_N[last_K], minlength=len(size_C))
        loss_C = kept_C / self.label_N.bincount(share_N, minlength=len(size_C)).clamp_min(1e-300)
        is_left_out_C = self.label_N[last_K].bincount(minlength=len(size_C)) == 0
        return torch.where(is_left_out_C, 1 / size_C.clamp_min(1), loss_C)


def with_every_class(order_N: Tensor, label_N: Tensor, num_kept: int) -> Tensor:
    """Returns K examples of an order: the first of each class, and then the first of the others. Int64, [K].

    So each class has at least one example, if K allows it. If the first K examples have all classes, they are the result.
    """
    class_M = label_N[order_N]
    size_C = class_M.bincount()
    first_C = class_M.argsort(stable=True)[(size_C.cumsum(0) - size_C)[size_C > 0]]  # places in the order
    is_later_M = torch.ones_like(class_M, dtype=torch.uint8).index_fill_(0, first_C, 0)
    return order_N[is_later_M.argsort(stable=True)[:num_kept].sort().values]
