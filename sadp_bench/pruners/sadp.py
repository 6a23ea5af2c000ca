"""SADP: spike-aware data pruning."""

from __future__ import annotations

import torch
from torch import Tensor

from sadp_bench.errors import BadInput
from sadp_bench.pruner import Lab, Observation, Pruner, Selection
from sadp_bench.sampling import inclusion_probability, smooth, systematic_sample


class SADP(Pruner):
    """Draws examples in proportion to a bound on their gradient's norm, and weights them so that nothing is biased.

    Source: after Ma, Chen, Wu, Tan & Wu, "Spike-Aware Data Pruning", arXiv 2510.04098.

    A reconstruction: of the paper only the abstract and summaries are public to us, not its formula or constants.
    Theirs is the idea: selection probabilities in proportion to the gradient norm to reduce the gradient's variance, an
    efficient substitute for that norm, smoothed probabilities, scores taken from training itself. Ours are the
    substitute and the draw:

      score   the exact norm of the readout's own gradient (see `readout_gradient_norm`), kept from the example's
              last visit; an example not visited yet has the others' mean. The first epoch is thus uniform.
      pi_i    min(1, c ((1 - smoothing) score_i / mean + smoothing)), summing to K = (1 - ratio) N
      draw    exactly K examples, without replacement, with inclusion probabilities exactly pi
      weight  K / (N pi_i): the mean over the kept of weight x gradient is an unbiased estimate of the full data's
              mean gradient for fixed parameters, whatever the scores are. Mean weight 1 in expectation.

    smoothing: the share of uniform sampling mixed in, in (0, 1]; it bounds the weights by about 1 / smoothing.
    """

    watch = frozenset({"features", "logit_errors"})

    def __init__(self, prune_ratio: float, *, smoothing: float = 0.1) -> None:
        super().__init__(prune_ratio)
        if not 0 < smoothing <= 1:
            raise BadInput(f"sadp's smoothing is above 0 and at most 1, not {smoothing:g}")
        self.smoothing = smoothing
        self.score_N = torch.empty(0)

    def prepare(self, lab: Lab) -> None:
        super().prepare(lab)
        self.score_N = torch.full((lab.num_examples,), torch.nan, device=lab.device)

    def observe(self, seen: Observation) -> None:
        norm_B = readout_gradient_norm(seen.watched["features"], seen.watched["logit_errors"])
        # NaN marks the unseen: a norm that is not a number must be refused, not forgotten.
        self.score_N[seen.index_B] = norm_B.to(self.score_N.dtype).nan_to_num(nan=torch.inf, posinf=torch.inf)

    def select(self, epoch: int) -> Selection:
        num_kept = self.num_kept(epoch)
        score_N = self.score_N.cpu()
        unseen_N = score_N.isnan()
        mean = 1.0 if bool(unseen_N.all()) else score_N.nanmean()
        p_N = inclusion_probability(smooth(torch.where(unseen_N, mean, score_N), self.smoothing), num_kept)
        index_K = systematic_sample(p_N, self.generator(epoch))
        weight_K = num_kept / (self.num_examples * p_N[index_K])
        return Selection(index_K, weight_K.float())


def readout_gradient_norm(features_TBD: Tensor, error_TBC: Tensor) -> Tensor:
    """The norm of each example's gradient of the readout's weight and bias, forward only. [B].

    That gradient is sum_t e[t] [f[t], 1]^T with the loss's gradient e[t] at the logits and the readout's input f[t], so
    its squared norm is sum_{t,s} (e[t] . e[s]) (f[t] . f[s] + 1): exact for every loss, at T^2 products of vectors. For
    a loss on the time-mean of the logits it is ||p - y|| sqrt(||mean f||^2 + 1), EL2N times the spikes' part.
    """
    features_BTD, error_BTC = features_TBD.transpose(0, 1), error_TBC.transpose(0, 1)
    features_BTT = torch.bmm(features_BTD, features_BTD.transpose(1, 2))
    error_BTT = torch.bmm(error_BTC, error_BTC.transpose(1, 2)).to(features_BTT.dtype)
    return ((features_BTT + 1) * error_BTT).sum((1, 2)).clamp_min(0).sqrt()
