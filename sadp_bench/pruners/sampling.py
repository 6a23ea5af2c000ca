"""Numbers of examples to keep, probabilities to draw them, and the draw. All functions are pure; N examples, K kept.

All functions are vectorised, O(N) or O(N log N), and accurate at N = 10^8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Probability from which an example is certain: cumulative sums of 10^8 terms are less exact than the rest to 1.
CERTAIN = 1 - 1e-9


def kept_in_epoch(num_examples: int, prune_ratio: float, epoch: int) -> int:
    """Returns K of an epoch, such that any run's total is (1 - ratio) N epochs to within half an example.

    The rounding error is carried from epoch to epoch, so K may differ by one between epochs.
    """
    per_epoch = (1 - prune_ratio) * num_examples
    return _half_up((epoch + 1) * per_epoch) - _half_up(epoch * per_epoch)


def scheduled(num_examples: int, share_E: Sequence[float]) -> int:
    """Returns K of the last of the epochs with these kept shares; their total is exact to within half an example."""
    return _half_up(num_examples * math.fsum(share_E)) - _half_up(num_examples * math.fsum(share_E[:-1]))


def kept_share(schedule: str, prune_ratio: float, done: float) -> float:
    """Returns the share of the examples to keep at a point of the run; 1 - ratio on average.

    With d = min(ratio, 1 - ratio) / 2, the share is at least half of its mean and at most 1.

    Args:
        schedule: "constant"; "falling", linearly from 1 - ratio + d to 1 - ratio - d; or "rising", the reverse.
        prune_ratio: The share of visits to save.
        done: The finished share of the run, in [0, 1].
    """
    direction = {"constant": 0.0, "falling": 1.0, "rising": -1.0}[schedule]
    return 1 - prune_ratio + direction * min(prune_ratio, 1 - prune_ratio) / 2 * (1 - 2 * done)


def _half_up(value: float) -> int:
    return int(value + 0.5)


def smooth(score_N: Tensor, smoothing: float) -> Tensor:
    """Returns (1 - smoothing) * score / mean + smoothing: a share `smoothing` of uniform sampling. Float64, mean 1.

    Scores that are all zero become all ones.

    Raises:
        ValueError: A score is negative, infinite or not a number.
    """
    score_N = score_N.double()
    mean = score_N.mean()
    if not bool(torch.isfinite(mean)) or bool((score_N < 0).any()):
        raise ValueError("scores must be finite and not negative; the training may have diverged")
    if mean == 0:
        return torch.ones_like(score_N)
    return (1 - smoothing) * (score_N / mean) + smoothing


def inclusion_probability(score_N: Tensor, num_kept: int) -> Tensor:
    """Returns the probabilities pi that minimise sum_i score_i^2 / pi_i subject to sum pi = K and pi <= 1.

    pi_i = min(1, c score_i), with c by water-filling. With the scores in falling order, the first m are capped; m is the
    smallest number for which the next score stays below 1 with c = (K - m) / (the rest's sum). Float64, [N].
    Where fewer than K scores are positive, those are certain and the other examples have equal probabilities.

    Source: the optimum of the variance in Zhao & Zhang, ICML 2015 (importance sampling), with the cap of
    sampling without replacement (Poisson / pi-ps designs: Saerndal et al. 1992, section 3.6).
    """
    assert 0 < num_kept <= len(score_N)
    score_N = score_N.double()
    falling_N, order_N = score_N.sort(descending=True)
    if falling_N[num_kept - 1] <= 0:
        positive_N = score_N > 0
        num_positive = int(positive_N.sum())
        rest = (num_kept - num_positive) / (len(score_N) - num_positive)
        return torch.full_like(score_N, rest).masked_fill_(positive_N, 1.0)
    # Sums from the small end, so that a tail far below the head keeps its digits.
    rest_N = falling_N.flip(0).cumsum(0).flip(0)
    capped_N = torch.arange(num_kept, device=score_N.device)
    level_K = (num_kept - capped_N) / rest_N[:num_kept]
    num_capped = int((level_K * falling_N[:num_kept] >= 1).cumprod(0).sum())
    p_sorted_N = torch.ones_like(falling_N)
    if num_capped < num_kept:
        p_sorted_N[num_capped:] = falling_N[num_capped:] * level_K[num_capped]
    else:
        p_sorted_N[num_capped:] = 0.0
    return torch.empty_like(p_sorted_N).scatter_(0, order_N, p_sorted_N)


def weights(p_N: Tensor, num_kept: int, power: float = 1.0) -> Tensor:
    """Returns the weights (K / (N p))^power, [N], of examples drawn with inclusion probabilities p.

    Weights are scaled such that the mean weight of the kept examples is 1 in expectation.

    With power 1 the mean of weight x value over the kept examples is an unbiased estimate of the mean over all (Horvitz &
    Thompson, JASA 1952), and the scale is 1. With power 0 all weights are equal.
    """
    weight_N = (num_kept / (len(p_N) * p_N)) ** power
    return weight_N * (num_kept / (p_N * weight_N).sum()) if power != 1 else weight_N


def systematic_sample(p_N: Tensor, generator: torch.Generator) -> Tensor:
    """Draws exactly K = sum p distinct examples, i with inclusion probability exactly p_i. Int64, [K], in rising order.

    This is systematic sampling over a random permutation. The probabilities lie end to end along [0, K), and a uniform
    offset u picks the examples at u, u + 1, ... (Madow, Ann. Math. Stat. 1949). Certain examples are set aside first.
    Where two or more are drawn, the permutation makes every pair's joint inclusion probability positive.
    """
    certain_N = p_N >= CERTAIN
    num_kept = int(p_N.sum().round())
    num_drawn = num_kept - int(certain_N.sum())
    if num_drawn == 0:
        return certain_N.nonzero().squeeze(1)
    open_M = (~certain_N).nonzero().squeeze(1)
    open_M = open_M[torch.randperm(len(open_M), generator=generator)]
    end_M = p_N[open_M].double().cumsum(0)
    end_M = end_M * (num_drawn / end_M[-1])
    end_M[-1] = num_drawn
    offset = torch.rand((), generator=generator, dtype=torch.float64)
    tick_M = (end_M - offset).ceil()
    before_M = torch.cat([tick_M.new_zeros(1), tick_M[:-1]])
    chosen = open_M[tick_M > before_M]
    assert len(chosen) == num_drawn
    return torch.cat([certain_N.nonzero().squeeze(1), chosen]).sort().values


def balanced(p_N: Tensor, surplus_N: Tensor, num_kept: int) -> Tensor:
    """Returns the probabilities of drawing now, given earlier draws. Float64, [N], with sum K.

    Every example's number of visits stays within 1 of the sum of its inclusion probabilities.

    An example with a surplus above 0 is ahead, else behind. Let f be the fraction of its sum of earlier probabilities; it
    is ahead with probability f. Let f' = f + p. If f' < 1, examples ahead wait, and examples behind are drawn with
    p / (1 - f). Otherwise examples behind are certain, and examples ahead are drawn with (f' - 1) / f. In both cases the
    inclusion probability, taken over earlier draws, is p; this holds for scores that do not depend on those draws.
    By chance, the sum differs from K by the order of sqrt(N). The values that are neither certain nor impossible are
    scaled to make it K, which moves an inclusion probability by about 1 / N.

    Constant p gives a systematic sample along each example's epochs. Uniform p gives the scheme of `random` (RS2): no
    example is shown twice before all are shown once.

    Args:
        p_N: This epoch's inclusion probabilities.
        surplus_N: The number of earlier visits less the sum of earlier inclusion probabilities, in (-1, 1).
        num_kept: K.
    """
    p_N = p_N.double()
    ahead_N = surplus_N > 0
    part_N = torch.where(ahead_N, 1 - surplus_N, -surplus_N).double().clamp(1e-9, 1)
    past_N = part_N + p_N >= CERTAIN
    of_ahead_N = torch.where(past_N, (part_N + p_N - 1) / part_N, 0.0)
    of_behind_N = torch.where(past_N, 1.0, p_N / (1 - part_N))
    now_N = torch.where(ahead_N, of_ahead_N, of_behind_N).clamp(0, 1)
    open_N = (now_N > 0) & (now_N < CERTAIN)
    rest = num_kept - int((now_N >= CERTAIN).sum())
    if not 0 < rest < int(open_N.sum()):
        return inclusion_probability(now_N, num_kept)
    now_N[open_N] = inclusion_probability(now_N[open_N], rest)
    return now_N


def ranked(score_N: Tensor, generator: torch.Generator) -> Tensor:
    """Returns all indices by falling score, ties in random order. Int64, [N]."""
    shuffled_N = torch.randperm(len(score_N), generator=generator)
    return shuffled_N[score_N[shuffled_N].argsort(descending=True, stable=True)]
