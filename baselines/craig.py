"""CRAIG: the medoids of the last layer's gradients, with the sizes of their clusters."""

from __future__ import annotations

import heapq

import numpy as np
import torch
from torch import Tensor

from baselines.coreset import ROWS, Coreset, Gradients, joined, shares
from baselines.geometry import without_rounding
from sadp_bench.pruner import BadInput, Survey

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


class CRAIG(Coreset):
    """Keeps the examples whose last-layer gradients lie nearest to all those of their class. Weights: cluster sizes.

    Source: Mirzasoleiman, Bilmes & Leskovec, "Coresets for Data-efficient Training of Machine Learning Models", ICML 2020.

    Kind: static.
    Scoring: a tenth of the run and a pass.

    The subset S of a class minimises the sum over i of min over j in S of ||g_i - g_j||, greedily from the empty set
    (facility location). g_i = e_i x [f_i, 1] stands for the gradient at the readout's weights and bias; see `Gradients`.
    Gains are evaluated lazily (Minoux 1978), which changes no choice. Ties of gains are broken by the seed.

    The weight of j is the number of examples that are nearer to j than to the other chosen ones. A chosen example belongs
    to itself. An example that is equally near to several chosen ones is shared among them in equal parts. The paper leaves
    that case open. Without the sharing, one example of a cluster of equal gradients would have nearly the whole weight.

    Differences from the paper: For a softmax the authors take e_i alone. The product with the features is DeepCore's (Guo
    et al. 2022). The paper's weights have the sum N. Here their mean is 1, as in the authors' code. The subset is chosen
    once, and the paper chooses anew every few epochs. Every class keeps the same share, and K is exact.

    The distances of a class of M examples take 4 M^2 bytes. The choice of half of 5,000 takes about two seconds of one core.
    A class of more than `block` examples is cut into equal blocks at random, each of which keeps its share.

    Args:
        prune_ratio: The share of visits to save.
        features: "readout": the readout's input, averaged over time. "spikes": the spikes of each channel of the last
            spiking layer, summed over time and positions.
        block: The most examples of a block.
        score_epochs: The epochs of the scoring network; 0 means a tenth of the run, at least 1.
        score_updates: The updates of the scoring network, in place of epochs; 0 means by epochs.
    """

    display_name = "CRAIG"
    bibtex = """
    @inproceedings{mirzasoleiman2020craig,
      title = {Coresets for Data-efficient Training of Machine Learning Models},
      author = {Mirzasoleiman, Baharan and Bilmes, Jeff and Leskovec, Jure},
      booktitle = {International Conference on Machine Learning},
      year = {2020},
    }
    """

    def __init__(
        self,
        prune_ratio: float,
        *,
        features: str = "readout",
        block: int = 5000,
        score_epochs: int = 0,
        score_updates: int = 0,
    ) -> None:
        super().__init__(prune_ratio, features=features, score_epochs=score_epochs, score_updates=score_updates)
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
        scale_mM = norm_M[row_m][:, None] + norm_M
        square_mM = gradients.of(row_m).inner(gradients).mul_(-2).add_(scale_mM)
        result_MM[row_m] = without_rounding(square_mM, scale_mM).sqrt_().float()
    return result_MM


def medoids(distance_MM: Tensor, num_chosen: int) -> tuple[Tensor, Tensor]:
    """Returns the greedy minimisers of the sum of distances to the nearest chosen example, and their clusters' sizes.

    Sizes are float64: a cluster has a part of each example that is equally near to several chosen ones.

    Args:
        distance_MM: The distances, symmetric. Ties go to the first row.
        num_chosen: The number of examples to choose, at most M.
    """
    distance: Array = distance_MM.numpy()
    nearest = np.full(len(distance), distance.max(initial=0.0))
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
        np.minimum(nearest, distance[candidate], out=nearest)
        chosen.append(candidate)
    return torch.tensor(chosen, dtype=torch.int64), torch.from_numpy(_sizes(distance, nearest, chosen))


def _sizes(distance: Array, nearest: Array, chosen: list[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Returns each chosen example's number of examples: itself, and its parts of those that are nearest to it."""
    nearest[chosen] = np.nan  # equal to no distance
    owners = np.zeros(len(nearest))
    for place in chosen:
        owners += distance[place] == nearest
    part = 1 / np.maximum(owners, 1)
    return np.array([1 + part[distance[place] == nearest].sum() for place in chosen], dtype=np.float64)
