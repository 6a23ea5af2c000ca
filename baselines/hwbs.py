"""HWBS: draws without repetition by the history of each example's error norm."""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.el2n import error_norm
from sadp_bench.pruner import BadInput, Observation, Pruner, ScoringContext, Selection
from sadp_bench.sampling import inclusion_probability, smooth, systematic_sample, weights

DRAWS = ("exact", "bernoulli")
UNSEEN = -1.0  # below every norm
LEAST_DRAWN = 32  # expected independent draws; the probability that no example is drawn is then below exp(-32)


class HWBS(Pruner):
    """Draws examples in proportion to a moving average of the error norm ||p - y||. Weight K / (N pi).

    Source: Anonymous, "Learn from the Past: Dynamic Data Pruning with Historically Weighted Bernoulli Sampling", submitted
    to ICLR 2025 (OpenReview ZQ9SF5eUHZ).

    Kind: dynamic.
    Scoring: none.

    Only the paper's abstract is public to us. It contains the optimal probabilities of draws without repetition, and the
    gradient's norm at the logits as the score. It also contains the moving average over an example's visits, and the
    smoothing. The paper's constants a and b are not public; ours are the defaults.

    - v_i <- b v_i + (1 - b) ||p_i - y_i||_2 at each visit, in training mode. p is the softmax of the time-mean of the
      logits. The first visit sets v_i to the norm. Unseen examples have the mean.
    - pi_i = min(1, c ((1 - a) v_i / mean + a)), summing to K.
    - Weight: K / (N pi_i). With exactly K draws, the mean of weight x gradient over the kept is an unbiased estimate of
      the full data's mean gradient. Independent draws take n, not K, and the mean divides by n: a bias of order 1 / K.

    The score is an ordinary network's, so the method is the control for the spikes and inner layers in `sadp`. The budget is
    ours: by default a systematic sample takes exactly K examples with the same pi. The paper's independent draws take K in
    expectation only. So `draw=bernoulli` is exempt from the budget, and the record contains the realised ratio.

    Args:
        prune_ratio: The share of visits to save.
        smoothing: a, the share of uniform sampling mixed in, in (0, 1]; it bounds the weights by about 1 / a.
        memory: b, in [0, 1): the share of an example's earlier norms in v.
        draw: "exact": K examples. "bernoulli": each example independently, as published.
    """

    display_name = "HWBS"
    bibtex = """
    @misc{anonymous2025hwbs,
      title = {Learn from the Past: Dynamic Data Pruning with Historically Weighted {Bernoulli} Sampling},
      author = {Anonymous},
      note = {Submitted to ICLR 2025, OpenReview ZQ9SF5eUHZ},
      year = {2025},
    }
    """
    takes_budget = True

    def __init__(self, prune_ratio: float, *, smoothing: float = 0.2, memory: float = 0.5, draw: str = "exact") -> None:
        super().__init__(prune_ratio)
        if not 0 < smoothing <= 1:
            raise BadInput(f"hwbs's smoothing is above 0 and at most 1, not {smoothing:g}")
        if not 0 <= memory < 1:
            raise BadInput(f"hwbs's memory is at least 0 and below 1, not {memory:g}")
        if draw not in DRAWS:
            raise BadInput(f"hwbs's draw is one of {', '.join(DRAWS)}, not '{draw}'")
        self.smoothing = smoothing
        self.memory = memory
        self.draw = draw
        self.fixed_size = draw == "exact"
        self.exempt = draw == "bernoulli"
        self.score_N = torch.empty(0)

    def prepare(self, context: ScoringContext) -> None:
        """Makes room for the scores. Raises BadInput where independent draws could take no example."""
        super().prepare(context)
        kept = self.fewest_kept()
        if self.draw == "bernoulli" and kept < LEAST_DRAWN:
            raise BadInput(
                f"hwbs's draw bernoulli expects at least {LEAST_DRAWN} examples in an epoch, not {kept:.1f}: take "
                "draw=exact, lower --ratio, or take more examples"
            )
        self.score_N = torch.full((self.num_examples,), UNSEEN, device=context.device)

    def observe(self, seen: Observation) -> None:
        """Mixes the batch's error norms into the examples' averages."""
        new_B = error_norm(seen.logits_TBC.mean(0), seen.label_B).to(self.score_N.dtype)
        old_B = self.score_N[seen.index_B]
        mixed_B = self.memory * old_B + (1 - self.memory) * new_B
        self.score_N[seen.index_B] = torch.where(old_B < 0, new_B, mixed_B)

    def select(self, epoch: int) -> Selection:
        """Draws an epoch's examples, and weights them."""
        num_kept, generator = self.num_kept(epoch), self.generator(epoch)
        p_N = inclusion_probability(smooth(self.final_scores(), self.smoothing), num_kept)
        if self.draw == "exact":
            index_K = systematic_sample(p_N, generator)
        else:
            drawn_N = torch.rand(self.num_examples, generator=generator, dtype=p_N.dtype) < p_N
            index_K = drawn_N.nonzero().squeeze(1)
        return Selection(index_K, weights(p_N, num_kept)[index_K].float())

    def final_scores(self) -> Tensor:
        """Returns the scores on the CPU, with the mean for unseen examples; ones before any visit. [N]."""
        score_N = self.score_N.cpu()
        unseen_N = score_N < 0
        if bool(unseen_N.all()):
            return torch.ones_like(score_N)
        mean = score_N[~unseen_N].mean(dtype=torch.float64).to(score_N.dtype)
        return torch.where(unseen_N, mean, score_N)
