"""Repeated draws of an epoch's examples, as far as they are of a study's.

N training examples, n studied, K kept of all, k of the studied.
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

Drawn = tuple[Tensor, Tensor]  # places among the studied examples, and weights, whose sum estimates n
Draw = Callable[[int], Drawn]  # returns another, independent draw for each number


def studied_draws(
    name: str, method: Pruner, epoch: int, norm_n: Tensor, index_n: Tensor, keep: float, smoothing: float
) -> dict[str, Draw]:
    """Returns draws by name: uniform sampling, the method, and SADP's draw by the exact norm; without those that can't be.

    Args:
        name: Of the method.
        method: In the state to draw from.
        epoch: That the method draws for, from 0.
        norm_n: The exact norms.
        index_n: The studied examples.
        keep: The share that the other two keep.
        smoothing: Of the draw by the exact norm.
    """
    draws = {
        "uniform": by_score(torch.ones_like(norm_n), keep, smoothing, method.seed),
        name: by_pruner(method, index_n, epoch),
        "exact": by_score(norm_n, keep, smoothing, method.seed),
    }
    return {name: draw for name, draw in draws.items() if draw is not None}


def by_score(score_n: Tensor, keep: float, smoothing: float, seed: int) -> Draw | None:
    """Returns the draw in proportion to a smoothed score, with exact weights; None for scores that can't be drawn by."""
    p_n = drawing(score_n, keep, smoothing)
    if not bool(p_n.isfinite().all()):
        return None

    def draw(number: int) -> Drawn:
        place_k = systematic_sample(p_n, stream(seed, f"{STREAM} by score", number))
        return place_k, 1 / p_n[place_k]

    return draw


def by_pruner(pruner: Pruner, index_n: Tensor, epoch: int) -> Draw | None:
    """Returns the draw of a pruner for an epoch; None where it chooses what trains within the batch.

    Each draw is that of a copy in the pruner's present state, with another seed: what the run has drawn so far is given.
    A weight is that of the selection times N / K.
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
