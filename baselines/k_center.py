"""k-center: the greedy cover of the features, farthest first."""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.geometry import Geometry, squared_distances
from sadp_bench.pruner import Survey

CANDIDATES = 512  # centres are chosen among so many examples before all distances are renewed
ROWS = 8192  # rows of distances in memory: 32 MB with the candidates


class KCenter(Geometry):
    """Keeps centres that cover the features: the next is always the example farthest from all chosen ones. Weight 1.

    Source: Sener & Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018.

    Kind: static.
    Scoring: a tenth of the run and a pass.

    The first centre is random, as in DeepCore. The next is argmax_i min_j ||f_i - f_j||, j over the chosen ones. The seed
    breaks ties. Examples with the features of a chosen one come last. Features are not normalised. The budget, the early
    network and the start without labelled examples are ours.

    The order contains all examples of a block, so all ratios share it. An order of K examples would take (1 - ratio) of the
    time. A block of M examples takes O(M^2 D) time, and M D float64 and 64 MB of memory. For 50,000 examples of 512
    features that is 0.2 GB over all, and a tenth of it in 10 classes. One core needs about 20 seconds in 10 classes, and
    4 minutes over all. These times are estimates from one class, and from the first 1,800 centres.

    Args:
        prune_ratio: The share of visits to save.
        features: "readout": the readout's input, averaged over time. "spikes": the spikes of each channel of the last
            spiking layer, summed over time and positions.
        by_class: Whether each class is covered on its own, with the same share of every class, as in DeepCore.
        score_epochs: The epochs of the scoring network; 0 means a tenth of the run, at least 1.
        score_updates: The updates of the scoring network, in place of epochs; 0 means by epochs.
    """

    display_name = "k-Center"
    bibtex = """
    @inproceedings{sener2018coreset,
      title = {Active Learning for Convolutional Neural Networks: A Core-Set Approach},
      author = {Sener, Ozan and Savarese, Silvio},
      booktitle = {International Conference on Learning Representations},
      year = {2018},
    }
    """

    def order(self, feature_MD: Tensor, index_M: Tensor, survey: Survey) -> Tensor:
        """Returns the block's positions, farthest first."""
        return farthest_first(feature_MD)


def farthest_first(feature_MD: Tensor) -> Tensor:
    """Returns all rows, row 0 first, and then always the farthest from those before. Int64, [M], on the CPU.

    The rows come in batches. A batch is chosen among the rows that were farthest at its start. The distances of the other
    rows at that time are upper bounds. The batch ends where one of these rows may be farther. So the order is exact, and
    products of matrices give the distances.
    """
    near_M = torch.full(
        (len(feature_MD),), torch.inf, dtype=torch.float64
    )  # squared, to the nearest chosen row; -1: chosen
    batches = [torch.tensor([0])]
    while True:
        _renew(near_M, feature_MD, batches[-1])
        if float(near_M.max()) <= 0:
            return torch.cat([*batches, (near_M == 0).nonzero().squeeze(1)])
        batches.append(_farthest(near_M, feature_MD))


def _renew(near_M: Tensor, feature_MD: Tensor, chosen_B: Tensor) -> None:
    """Lowers the distances to the nearest chosen row where a newly chosen row is nearer."""
    centre_BD = feature_MD[chosen_B.to(feature_MD.device)]
    for near_R, feature_RD in zip(near_M.split(ROWS), feature_MD.split(ROWS), strict=True):
        near_R.copy_(torch.minimum(near_R, squared_distances(feature_RD, centre_BD).amin(1).cpu()))
    near_M[chosen_B] = -1


def _farthest(near_M: Tensor, feature_MD: Tensor) -> Tensor:
    """Returns the next rows, at least one, in their order."""
    sorted_M = near_M.argsort(descending=True, stable=True)
    row_C, others = sorted_M[:CANDIDATES].sort().values, sorted_M[CANDIDATES:]
    bound = (0.0, 0)  # no row at distance 0 is worth a place in a batch
    if len(others):
        bound = max(bound, (float(near_M[others[0]]), -int(others[0])))  # of equally far rows the lower is first
    candidate_CD = feature_MD[row_C.to(feature_MD.device)]
    between_CC = squared_distances(candidate_CD, candidate_CD).cpu().numpy()
    near_C, chosen = near_M[row_C].numpy(), list[int]()
    while True:
        best = int(near_C.argmax())
        row = int(row_C[best])
        if chosen and (float(near_C[best]), -row) <= bound:
            return torch.tensor(chosen)
        chosen.append(row)
        near_C = near_C.clip(max=between_CC[best])
        near_C[best] = -1
