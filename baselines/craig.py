"""CRAIG: the medoids of the last layer's gradients, with the sizes of their clusters."""

from __future__ import annotations

import heapq

import numpy as np
import torch
from torch import Tensor

from baselines.coreset import ROWS, Coreset, Gradients, joined, shares
from sadp_bench.pruner import BadInput, Survey

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


class CRAIG(Coreset):
    """Keeps the examples whose last-layer gradients lie nearest to all those of their class. Weights: cluster sizes.

    Source: Mirzasoleiman, Bilmes & Leskovec, "Coresets for Data-efficient Training of Machine Learning Models", ICML 2020.

    Kind: static.
    Scoring: a tenth of the run and a pass.

    Of each class, S minimises the sum over i of min over j in S of ||g_i - g_j||, greedily from the empty set (facility
    location). g_i = e_i x [f_i, 1] is the gradient of the example's loss at the readout's weights and bias. Gains are
    evaluated lazily (Minoux 1978), which changes no choice. The weight of j is the number of examples that are nearer to j
    than to the other chosen ones. A chosen example belongs to itself. Ties are broken by the seed.

    Differences from the paper: the weights are scaled to the mean 1, where the paper's sum is N. The subset is chosen
    once, where the paper chooses anew every few epochs. Every class keeps the same share, exact in all.

    Distances of a class take 4 M^2 bytes, and choosing the half of 5,000 about two seconds of one core. A larger class is
    cut into equal blocks at random, each of which keeps its share.

    Args:
        prune_ratio: The share of visits to save.
        features: "readout" or "spikes"; see `Coreset`.
        block: The most examples of a block.
        score_epochs: The epochs of the scoring network; 0 means a tenth of the run, at least 1.
    """

    def __init__(
        self, prune_ratio: float, *, features: str = "readout", block: int = 5000, score_epochs: int = 0
    ) -> None:
        super().__init__(prune_ratio, features=features, score_epochs=score_epochs)
        if block < 2:
            raise BadInput(f"craig's block is at least 2 examples, not {block}")
        self.block = block

    def choose(self, gradients: Gradients, survey: Survey, num_kept: int) -> tuple[Tensor, Tensor]:
        """Returns the medoids of each block, in the order of the greedy choice, and the sizes of their clusters."""
        blocks = self.blocks(survey.label_N, self.block)
        chosen, sizes = [], []
        for index_M, num_of_block in zip(blocks, shares(blocks, num_kept), strict=True):
            position_k, size_k = medoids(distances(gradients.of(index_M)), num_of_block)
            chosen.append(position_k)
            sizes.append(size_k)
        return joined(blocks, chosen, sizes)


def distances(gradients: Gradients) -> Tensor:
    """Returns the distances between gradients. Float32, [M, M]; computed in float64, a few rows at a time."""
    norm_M = gradients.square_norm()
    result_MM = torch.empty(len(gradients), len(gradients))
    for row_m in torch.arange(len(gradients)).split(ROWS):
        square_mM = gradients.of(row_m).inner(gradients).mul_(-2).add_(norm_M[row_m][:, None]).add_(norm_M)
        result_MM[row_m] = square_mM.clamp_min_(0).sqrt_().float()
    return result_MM


def medoids(distance_MM: Tensor, num_chosen: int) -> tuple[Tensor, Tensor]:
    """Returns the greedy minimisers of the sum of distances to the nearest chosen example, and their clusters' sizes.

    Args:
        distance_MM: Symmetric. Ties go to the first row.
        num_chosen: How many, at most M.
    """
    distance: Array = distance_MM.numpy()
    nearest = np.full(len(distance), distance.max(initial=0.0))
    owner = np.zeros(len(distance), dtype=np.int64)
    chosen: list[int] = []

    def gain(candidate: int) -> float:
        return float(np.maximum(nearest - distance[candidate], 0).sum(dtype=np.float64))

    # The negative gains are lower bounds once examples are chosen: gains only fall.
    heap = [(-gain(candidate), candidate) for candidate in range(len(distance))] if num_chosen else []
    heapq.heapify(heap)
    while len(chosen) < num_chosen:
        candidate = heap[0][1]
        heapq.heapreplace(heap, (-gain(candidate), candidate))
        if heap[0][1] != candidate:
            continue
        heapq.heappop(heap)
        owner[distance[candidate] < nearest] = len(chosen)
        np.minimum(nearest, distance[candidate], out=nearest)
        chosen.append(candidate)
    owner[chosen] = np.arange(len(chosen))
    size_k = torch.from_numpy(np.bincount(owner, minlength=len(chosen))[: len(chosen)])
    return torch.tensor(chosen, dtype=torch.int64), size_k
