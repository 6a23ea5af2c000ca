"""Repeated draws of an epoch's examples, restricted to the studied examples.

N training examples, n studied examples, K kept of all, k kept of the studied.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from sadp_bench.core.rng import stream, stream_seed
from sadp_bench.measure.study_numbers import drawing
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.sampling import systematic_sample

STREAM = "study draws"

Drawn = tuple[Tensor, Tensor]  # places among the studied examples, and weights; the sum of the weights estimates n
Draw = Callable[[int], Drawn]  # returns an independent draw for each number


def studied_draws(
    name: str, method: Pruner, epoch: int, norm_n: Tensor, index_n: Tensor, keep: float, smoothing: float
) -> dict[str, Draw]:
    """Returns draws by name: uniform sampling, the method, and SADP's draw by the exact norm. Impossible draws are left out.

    Args:
        name: The method's name.
        method: The method, in the state to draw from.
        epoch: The epoch for which the method draws, from 0.
        norm_n: The exact norms.
        index_n: The studied examples.
        keep: The share of the examples that the other two draws keep.
        smoothing: The smoothing of the draw by the exact norm.
    """
    draws = {
        "uniform": by_score(torch.ones_like(norm_n), keep, smoothing, method.seed),
        name: by_pruner(method, index_n, epoch),
        "exact": by_score(norm_n, keep, smoothing, method.seed),
    }
    return {name: draw for name, draw in draws.items() if draw is not None}


def by_score(score_n: Tensor, keep: float, smoothing: float, seed: int) -> Draw | None:
    """Returns the draw in proportion to a smoothed score, with exact weights; None for negative or non-finite scores."""
    p_n = drawing(score_n, keep, smoothing)
    if not bool(p_n.isfinite().all()):
        return None

    def draw(number: int) -> Drawn:
        place_k = systematic_sample(p_n, stream(seed, f"{STREAM} by score", number))
        return place_k, 1 / p_n[place_k]

    return draw


def by_pruner(pruner: Pruner, index_n: Tensor, epoch: int) -> Draw | None:
    """Returns the draw of a pruner for an epoch; None for a pruner that chooses within the batch.

    Each draw comes from a copy of the pruner in its present state, with another seed. A weight is the selection's weight
    times N / K.
    """
    selected = len(copy.deepcopy(pruner).select(epoch).index_K)
    if pruner.num_trained(epoch, selected) < selected:
        return None
    place_N = torch.full((pruner.num_examples,), -1)
    place_N[index_n] = torch.arange(len(index_n))

    def draw(number: int) -> Drawn:
        copied = copy.deepcopy(pruner)
        copied.seed = stream_seed(pruner.seed, f"{STREAM} by pruner", number)
        chosen = copied.select(epoch)
        place_K, weight_K = place_N[chosen.index_K.cpu()], chosen.weight_K.cpu().double()
        studied = place_K >= 0
        return place_K[studied], weight_K[studied] * (len(place_N) / len(place_K))

    return draw
