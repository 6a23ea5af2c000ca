"""Moderate coreset: examples at a medium distance from their class's centre."""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.geometry import Geometry, of_classes
from sadp_bench.pruner import BadInput, Survey

CENTRES = ("median", "mean")


class Moderate(Geometry):
    """Keeps the examples whose distance to their class's centre is nearest the median distance, for the run. Weight 1.

    Source: Xia et al., "Moderate Coreset: A Universal Method of Data Selection for Real-world Data-efficient Deep
    Learning", ICLR 2023.

    Kind: static.
    Scoring: a tenth of the run and a pass.

    Distances d_i = ||f_i - c|| to the class's centre c are sorted, and the middle ones of each class are kept. So the order
    is by |rank - (n - 1) / 2|, ties broken by the seed. Features are not normalised. Besides the scoring network, the cost
    is O(N D + N log N).

    The authors' code takes the median of each feature as the centre, on a network trained to its end. It sorts the
    distances of all classes together (`by_class=false`). The budget and the early network are ours.

    Args:
        prune_ratio: The share of visits to save.
        features: "readout": the readout's input, averaged over time. "spikes": the spikes of each channel of the last
            spiking layer, summed over time and positions.
        by_class: Whether the distances of each class are sorted on their own, so that every class keeps the same share.
        centre: "median" of each feature, as in the authors' code; or "mean".
        score_epochs: The epochs of the scoring network; 0 means a tenth of the run, at least 1.
        score_updates: The updates of the scoring network, in place of epochs; 0 means by epochs.
    """

    display_name = "Moderate"
    bibtex = """
    @inproceedings{xia2023moderate,
      title = {Moderate Coreset: A Universal Method of Data Selection for Real-world Data-efficient Deep
        Learning},
      author = {Xia, Xiaobo and Liu, Jiale and Yu, Jun and Shen, Xu and Han, Bo and Liu, Tongliang},
      booktitle = {International Conference on Learning Representations},
      year = {2023},
    }
    """

    def __init__(
        self,
        prune_ratio: float,
        *,
        features: str = "readout",
        by_class: bool = True,
        centre: str = "median",
        score_epochs: int = 0,
        score_updates: int = 0,
    ) -> None:
        super().__init__(
            prune_ratio,
            features=features,
            by_class=by_class,
            score_epochs=score_epochs,
            score_updates=score_updates,
        )
        if centre not in CENTRES:
            raise BadInput(f"Moderate's centre is {' or '.join(CENTRES)}, not '{centre}'")
        self.centre = centre

    def order(self, feature_MD: Tensor, index_M: Tensor, survey: Survey) -> Tensor:
        """Returns the block's positions by the distance of the rank from the middle rank."""
        distance_M = torch.empty(len(index_M), dtype=torch.float64)
        for position_m in of_classes(torch.arange(len(index_M)), survey.label_N[index_M]):
            distance_M[position_m] = distance_to_centre(feature_MD[position_m], self.centre).cpu()
        sorted_M = distance_M.argsort(stable=True)
        middle = (len(sorted_M) - 1) / 2
        rank_M = torch.empty(len(sorted_M), dtype=torch.float64)
        rank_M[sorted_M] = torch.arange(len(sorted_M), dtype=torch.float64)
        return (rank_M - middle).abs().argsort(stable=True)


def distance_to_centre(feature_MD: Tensor, centre: str) -> Tensor:
    """Returns the distances of rows to their mean, or to the median of each feature.

    The median of an even number of rows is the mean of the two middle values.
    """
    if centre == "mean":
        return (feature_MD - feature_MD.mean(0)).norm(dim=1)
    sorted_MD, number = feature_MD.sort(0).values, len(feature_MD)
    return (feature_MD - (sorted_MD[(number - 1) // 2] + sorted_MD[number // 2]) / 2).norm(dim=1)
