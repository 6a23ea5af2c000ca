"""Numbers of examples to keep, probabilities to draw them, and the draw. All functions are pure; N examples, K kept.

All functions are vectorised, O(N) or O(N log N), and accurate at N = 10^8. Up to `MAX_WHOLE` examples, probabilities are
float64. For more examples they are float32, and computed in float64 block by block. The level of the water-filling then
comes from passes in place of a sort, and the permutation of a draw has two levels. So a selection needs little memory,
and no random access beyond the processor's cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

# Probability from which an example is certain: cumulative sums of 10^8 terms are less exact than the rest to 1.
CERTAIN = 1 - 1e-9
MAX_WHOLE = 1 << 24  # examples; with more, storage and draw are those of large sets
BUDGETS = {"constant": 0.0, "falling": 1.0, "rising": -1.0}  # by name, the direction of `kept_share`
BLOCK = 1 << 16  # examples; the values of a block in a few float64 tensors fit into the processor's cache


def kept_in_epoch(num_examples: int, prune_ratio: float, epoch: int) -> int:
    """Returns K of an epoch, such that any run's total is (1 - ratio) N epochs to within half an example.

    The rounding error is carried from epoch to epoch, so K may differ by one between epochs.
    """
    per_epoch = (1 - prune_ratio) * num_examples
    return _half_up((epoch + 1) * per_epoch) - _half_up(epoch * per_epoch)


def scheduled(num_examples: int, share_E: Sequence[float]) -> int:
    """Returns K of the last of the epochs with these kept shares; their total is exact to within half an example."""
    return _half_up(num_examples * math.fsum(share_E)) - _half_up(num_examples * math.fsum(share_E[:-1]))


def kept_share(budget: str, prune_ratio: float, done: float) -> float:
    """Returns the share of the examples to keep at a point of the run; 1 - ratio on average.

    With d = min(ratio, 1 - ratio) / 2, the share is at least half of its mean and at most 1.

    Args:
        budget: "constant"; "falling", linearly from 1 - ratio + d to 1 - ratio - d; or "rising", the reverse.
        prune_ratio: The share of visits to save.
        done: The finished share of the run, in [0, 1].
    """
    return 1 - prune_ratio + BUDGETS[budget] * min(prune_ratio, 1 - prune_ratio) / 2 * (1 - 2 * done)


def _half_up(value: float) -> int:
    return int(value + 0.5)


def smooth(score_N: Tensor, smoothing: float) -> Tensor:
    """Returns (1 - smoothing) * score / mean + smoothing: a share `smoothing` of uniform sampling. Mean 1, type `storage`.

    Scores that are all zero become all ones.

    Raises:
        ValueError: A score is negative, infinite or not a number.
    """
    large = len(score_N) > MAX_WHOLE
    mean = score_N.sum(dtype=torch.float64) / len(score_N) if large else score_N.double().mean()
    if not bool(torch.isfinite(mean)) or bool((score_N < 0).any()):
        raise ValueError("scores must be finite and not negative; the training may have diverged")
    if mean == 0:
        return torch.ones_like(score_N, dtype=storage(len(score_N)))
    return _in_blocks(lambda score_B: (1 - smoothing) * (score_B.double() / mean) + smoothing, score_N)


def storage(num_examples: int) -> torch.dtype:
    """Returns the type of probabilities of so many examples."""
    return torch.float64 if num_examples <= MAX_WHOLE else torch.float32


def _in_blocks(function: Callable[..., Tensor], *tensors_N: Tensor) -> Tensor:
    """Returns a function of each example, computed block by block. [N], of type `storage`."""
    result_N = torch.empty(len(tensors_N[0]), dtype=storage(len(tensors_N[0])), device=tensors_N[0].device)
    for result_B, *parts_B in zip(result_N.split(BLOCK), *(of_N.split(BLOCK) for of_N in tensors_N), strict=True):
        result_B.copy_(function(*parts_B))
    return result_N


def inclusion_probability(score_N: Tensor, num_kept: int) -> Tensor:
    """Returns the probabilities pi that minimise sum_i score_i^2 / pi_i subject to sum pi = K and pi <= 1.

    pi_i = min(1, c score_i), with c by water-filling. With the scores in falling order, the first m are capped. m is the
    smallest number for which c times the next score is below 1, with c = (K - m) / (sum of the other scores). If fewer
    than K scores are positive, those examples are certain, and the others have equal probabilities. [N], of type `storage`.

    Source: the optimum of the variance in Zhao & Zhang, ICML 2015 (importance sampling), with the cap of
    sampling without replacement (Poisson / pi-ps designs: Saerndal et al. 1992, section 3.6).
    """
    assert 0 < num_kept <= len(score_N)
    num_positive = int((score_N > 0).sum())
    if num_positive < num_kept:
        rest = (num_kept - num_positive) / (len(score_N) - num_positive)
        shares_N = torch.full_like(score_N, rest, dtype=storage(len(score_N)))
        return shares_N.masked_fill_(score_N > 0, 1.0)
    if len(score_N) > MAX_WHOLE:
        level = _level_by_passes(score_N, num_kept)
        return _in_blocks(lambda score_B: (score_B.double() * level).clamp_max(1.0), score_N)
    score_N = score_N.double()
    level, least = _level(score_N, num_kept)
    return _in_blocks(lambda score_B: (score_B * level).masked_fill_(score_B >= least, 1.0), score_N)


def _level(score_N: Tensor, num_kept: int) -> tuple[float, float]:
    """Returns the level c, 0 where all kept scores are capped, and the least capped score, infinite where none is."""
    rising_N = torch.from_numpy(np.sort(score_N.detach().cpu().numpy()))  # several times as fast as torch's sort
    rest_N = rising_N.cumsum(0)  # from the small end, so that a tail far below the head keeps its digits
    level, num_capped, width = 0.0, 0, 1 << 10
    while num_capped < num_kept:  # in growing parts, because few scores are capped
        capped_M = torch.arange(num_capped, min(num_capped + width, num_kept))
        place_M = len(rising_N) - 1 - capped_M
        level_M = (num_kept - capped_M) / rest_N[place_M]
        found = int((level_M * rising_N[place_M] >= 1).cumprod(0).sum())
        num_capped, width = num_capped + found, 8 * width
        if found < len(capped_M):
            level = float(level_M[found])
            break
    return level, float(rising_N[-num_capped]) if num_capped else math.inf


def _level_by_passes(score_N: Tensor, num_kept: int) -> float:
    """Returns the level c. Each pass caps the scores of at least 1 / c and so raises c, until it caps no further score."""
    level, num_capped = num_kept / float(score_N.sum(dtype=torch.float64)), 0
    while True:
        found, rest = 0, 0.0
        for score_B in score_N.split(BLOCK):
            score_B = score_B.double()
            capped_B = score_B * level >= 1
            found += int(capped_B.sum())
            rest += float(score_B.masked_fill(capped_B, 0.0).sum())
        if found == num_capped or found >= num_kept:
            return level
        num_capped, level = found, (num_kept - found) / rest


def weights(p_N: Tensor, num_kept: int, power: float = 1.0) -> Tensor:
    """Returns the weights (K / (N p))^power, [N], of examples drawn with inclusion probabilities p.

    Weights are scaled such that the mean weight of the kept examples is 1 in expectation.

    With power 1 the mean of weight x value over the kept examples is an unbiased estimate of the mean over all (Horvitz &
    Thompson, JASA 1952). This needs a p that is exact given all earlier draws. The scale is then 1. With power 0 all
    weights are equal.
    """
    weight_N = (num_kept / (len(p_N) * p_N)) ** power
    return weight_N * (num_kept / (p_N * weight_N).sum()) if power != 1 else weight_N


def systematic_sample(p_N: Tensor, generator: torch.Generator) -> Tensor:
    """Draws exactly K = sum p distinct examples, i with inclusion probability exactly p_i. Int64, [K], in rising order.

    This is systematic sampling over a random permutation. With more than `MAX_WHOLE` examples, blocks are permuted, and
    the examples within each block. The probabilities lie end to end along [0, K), and a uniform offset u picks the examples
    at u, u + 1, ... (Madow, Ann. Math. Stat. 1949). Certain examples are set aside first. If two or more are drawn, the
    permutation makes every pair's joint inclusion probability positive.
    """
    chosen_N = p_N >= CERTAIN
    num_kept = int(p_N.sum(dtype=torch.float64).round())
    num_drawn = num_kept - int(chosen_N.sum())
    if num_drawn == 0:
        return chosen_N.nonzero().squeeze(1)
    open_N = ~chosen_N
    if len(p_N) > MAX_WHOLE:
        _draw_in_blocks(p_N, open_N, num_drawn, generator, chosen_N)
        return chosen_N.nonzero().squeeze(1)
    open_M = open_N.nonzero().squeeze(1)
    open_M = open_M[torch.randperm(len(open_M), generator=generator)]
    end_M = p_N[open_M].double().cumsum(0)
    end_M *= num_drawn / end_M[-1]
    end_M[-1] = num_drawn
    tick_M = end_M.sub_(torch.rand((), generator=generator, dtype=torch.float64)).ceil_()
    drawn = open_M[_rises(tick_M, 0.0)]
    assert len(drawn) == num_drawn
    chosen_N[drawn] = True
    return chosen_N.nonzero().squeeze(1)


def _draw_in_blocks(p_N: Tensor, open_N: Tensor, num_drawn: int, generator: torch.Generator, chosen_N: Tensor) -> None:
    """Draws by `systematic_sample` over blocks in random order, and over a random permutation within each block.

    Args:
        p_N: The probabilities.
        open_N: The examples to draw from.
        num_drawn: The sum of their probabilities, a whole number up to rounding.
        generator: The random stream.
        chosen_N: A mask; it becomes True at the drawn examples.
    """
    number = -(-len(p_N) // BLOCK)  # of equal size, because a block whose sum is below 1 never has two drawn examples
    parts = zip(*(of_N.tensor_split(number) for of_N in (p_N, open_N, chosen_N)), strict=True)
    blocks = [part for part in parts if bool(part[1].any())]
    scale = num_drawn / sum(float(p_B[open_B].sum(dtype=torch.float64)) for p_B, open_B, _ in blocks)
    offset = float(torch.rand((), generator=generator, dtype=torch.float64))
    order = torch.randperm(len(blocks), generator=generator).tolist()
    end, tick = 0.0, 0.0  # of the blocks so far
    for place, (p_B, open_B, chosen_B) in enumerate((blocks[at] for at in order), start=1):
        open_M = open_B.nonzero().squeeze(1)
        open_M = open_M[torch.randperm(len(open_M), generator=generator)]
        end_M = end + p_B[open_M].double().cumsum(0) * scale
        tick_M = (end_M - offset).ceil().clamp_max(num_drawn)
        if place == len(blocks):
            tick_M[-1] = num_drawn
        chosen_B[open_M[_rises(tick_M, tick)]] = True
        end, tick = float(end_M[-1]), float(tick_M[-1])


def _rises(tick_M: Tensor, before: float) -> Tensor:
    """Returns where a rising sequence exceeds its last value, or the one before the sequence."""
    rises_M = torch.empty(len(tick_M), dtype=torch.bool, device=tick_M.device)
    rises_M[0] = tick_M[0] > before
    torch.gt(tick_M[1:], tick_M[:-1], out=rises_M[1:])
    return rises_M


def balanced(p_N: Tensor, surplus_N: Tensor, num_kept: int) -> Tensor:
    """Returns the probabilities of drawing now, given earlier draws. [N], with sum K, of type `storage`.

    Every example's number of visits stays within 1 of the sum of its inclusion probabilities.

    An example with a surplus above 0 is ahead, else behind. Let f be the fractional part of its sum of earlier
    probabilities. The example is ahead with probability f. Let f' = f + p. If f' < 1, examples ahead wait, and examples
    behind are drawn with p / (1 - f). Otherwise examples behind are certain, and examples ahead are drawn with
    (f' - 1) / f. In both cases the inclusion probability, taken over earlier draws, is p, but only for scores that do not
    depend on those draws. If a visit lowers an example's score, examples ahead have low p and wait, so weights by p are
    biased. The sum differs from K by a random number of the order of sqrt(N). The values that are neither certain nor
    impossible are scaled to make it K, which changes an inclusion probability by about 1 / N.

    Constant p gives a systematic sample along each example's epochs. Uniform p gives the scheme of `random` (RS2): no
    example is shown twice before all are shown once.

    Args:
        p_N: This epoch's inclusion probabilities.
        surplus_N: The number of earlier visits less the sum of earlier inclusion probabilities, in (-1, 1).
        num_kept: K.
    """
    now_N = _in_blocks(_now, p_N, surplus_N)
    certain_N = now_N >= CERTAIN
    open_N = (now_N > 0) & ~certain_N
    rest = num_kept - int(certain_N.sum())
    if not 0 < rest < int(open_N.sum()):
        return inclusion_probability(now_N, num_kept)
    # The open values may be few enough for float64, although all are float32.
    return now_N.masked_scatter_(open_N, inclusion_probability(now_N[open_N], rest).to(now_N.dtype))


def _now(p_B: Tensor, surplus_B: Tensor) -> Tensor:
    """Returns the probabilities of `balanced` before they are scaled. Float64, as many as given."""
    p_B, ahead_B = p_B.double(), surplus_B > 0
    part_B = torch.where(ahead_B, 1 - surplus_B, -surplus_B).double().clamp(1e-9, 1)
    past_B = part_B + p_B >= CERTAIN
    of_ahead_B = torch.where(past_B, (part_B + p_B - 1) / part_B, 0.0)
    of_behind_B = torch.where(past_B, 1.0, p_B / (1 - part_B))
    return torch.where(ahead_B, of_ahead_B, of_behind_B).clamp(0, 1)


def ranked(score_N: Tensor, generator: torch.Generator) -> Tensor:
    """Returns all indices by falling score, ties in random order. Int64, [N]."""
    shuffled_N = torch.randperm(len(score_N), generator=generator)
    return shuffled_N[score_N[shuffled_N].argsort(descending=True, stable=True)]


def by_class(rank_N: Tensor, label_N: Tensor, weight_C: Tensor) -> Tensor:
    """Returns all indices in an order whose first K, for every K, have classes in proportion to weights. Int64, [N].

    The j-th example of a class, from 0, has the place (j + 1/2) / weight. So the first K have the counts of Webster's
    method (Sainte-Lague): the numbers weight x level, rounded, where the level makes their sum K. If a class has too few
    examples, the other classes get the rest, in proportion to their weights.

    Args:
        rank_N: All indices. Examples of a class, and examples with equal places, keep this order.
        label_N: The classes.
        weight_C: The classes' weights, at least 0. Classes of weight 0 come last, in proportion to their sizes.
    """
    class_M, size_C, weight_C = label_N[rank_N], label_N.bincount(minlength=len(weight_C)), weight_C.double()
    positive_C = weight_C[weight_C > 0]
    least = 1e-12 * float(positive_C.min()) / float(size_C.max()) if len(positive_C) else 1.0
    weight_C = torch.where(weight_C > 0, weight_C, size_C * least)
    return rank_N[((place_within(class_M) + 0.5) / weight_C[class_M]).argsort(stable=True)]


def place_within(group_M: Tensor) -> Tensor:
    """Returns each member's place among the members of its group, from 0, in the given order. Int64, [M]."""
    by_group_M, size_G = group_M.argsort(stable=True), group_M.bincount()
    place_M = torch.empty_like(by_group_M)
    place_M[by_group_M] = torch.arange(len(group_M)) - (size_G.cumsum(0) - size_G)[group_M[by_group_M]]
    return place_M
