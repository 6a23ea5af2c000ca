"""Online importance sampling by the bound of the gradient's norm at the logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sadp_bench.pruner import (
    BadInput,
    Candidates,
    Observation,
    ScoringContext,
    Selection,
    Signal,
    WithinBatch,
    unweighted,
)


class ImportanceSampling(WithinBatch):
    """Draws each batch in proportion to the candidates' bound of the gradient norm, once that pays. Weight 1 / (C g).

    Source: Katharopoulos & Fleuret, "Not All Samples Are Created Equal: Deep Learning with Importance Sampling", ICML 2018.

    Kind: within the batch.
    Scoring: none.

    g_i is the norm of the gradient of candidate i's loss at the logits, summed over time, divided by the sum over the C
    candidates. For cross-entropy of the time-mean it is proportional to ||p - y||. A batch of B is drawn with replacement
    with probabilities g, and each draw has the weight 1 / (C g_i), so that the mean of the candidates is unbiased.

    tau^2 = C sum g_i^2 is the second moment of the gradient under uniform draws over that under draws by g. The authors
    call tau the factor by which a uniform batch must be larger. This factor is tau^2. The candidates pass forward only
    while the running mean of tau exceeds a threshold. Otherwise the batch is a uniform draw, and its training step gives tau.
    The paper's threshold is 1 + C / (3 B). Above it, a forward pass that costs a third of a visit pays.

    The budget is ours: an epoch's candidates are all N examples, each once, so C = B / (1 - ratio). The paper's C = 3 B is
    the ratio 2/3, with threshold 2. Candidates pass forward in evaluation mode.

    Args:
        prune_ratio: The share of visits to save.
        threshold: The tau above which batches are drawn by g, at least 1; 0 means the paper's 1 + C / (3 B).
        memory: The share of the earlier tau in its running mean, in [0, 1). The paper's code has 0.9.
    """

    display_name = "Importance sampling"
    bibtex = r"""
    @inproceedings{katharopoulos2018samples,
      title = {Not All Samples Are Created Equal: Deep Learning with Importance Sampling},
      author = {Katharopoulos, Angelos and Fleuret, Fran{\c{c}}ois},
      booktitle = {International Conference on Machine Learning},
      year = {2018},
    }
    """

    def __init__(self, prune_ratio: float, *, threshold: float = 0.0, memory: float = 0.9) -> None:
        super().__init__(prune_ratio)
        if threshold != 0 and not 1 <= threshold < math.inf:
            raise BadInput(f"importance-sampling's threshold is 0 (the paper's) or at least 1, not {threshold:g}")
        if not 0 <= memory < 1:
            raise BadInput(f"importance-sampling's memory is at least 0 and below 1, not {memory:g}")
        self.threshold = threshold or 1 + 1 / (3 * (1 - prune_ratio))
        self.memory = memory
        self.tau = torch.zeros(())
        self.batch = 0
        self.is_uniform = True

    def watch(self, epoch: int) -> frozenset[Signal]:
        """Returns the errors at the logits, which give tau while batches are uniform."""
        return frozenset({Signal.LOGIT_ERRORS})

    def prepare(self, context: ScoringContext) -> None:
        """Puts tau on the device."""
        super().prepare(context)
        self.tau = torch.zeros((), device=context.device)

    def choose_in_batch(self, candidates: Candidates) -> Selection:
        """Draws the batch by g where tau is high, otherwise uniformly: the candidates come in random order."""
        self.batch += 1
        self.is_uniform = float(self.tau) <= self.threshold
        if self.is_uniform:
            return unweighted(torch.arange(candidates.num_trained))
        g_C = share(candidates.forward(frozenset({Signal.LOGIT_ERRORS})).watched[Signal.LOGIT_ERRORS])
        self._note(g_C)
        g_C = g_C.cpu().double()
        index_B = torch.multinomial(g_C, candidates.num_trained, replacement=True, generator=self.generator(self.batch))
        return Selection(index_B, (1 / (len(g_C) * g_C[index_B])).float())

    def observe(self, seen: Observation) -> None:
        """Takes tau from a uniform batch."""
        if self.is_uniform:
            self._note(share(seen.watched[Signal.LOGIT_ERRORS]))

    def _note(self, g_C: Tensor) -> None:
        tau = (len(g_C) * g_C.square().sum()).sqrt().to(self.tau.dtype)
        self.tau = self.memory * self.tau + (1 - self.memory) * tau


def share(error_TCK: Tensor) -> Tensor:
    """Returns each example's share of the sum of the norms of the errors, summed over time. [C]; equal if all 0."""
    norm_C = error_TCK.sum(0).norm(dim=1)
    norm_C = torch.where(norm_C.sum() > 0, norm_C, torch.ones_like(norm_C))
    return norm_C / norm_C.sum()
