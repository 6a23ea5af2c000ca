"""Herding: a subset whose mean feature follows the mean of all."""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.geometry import Geometry
from sadp_bench.pruner import Survey


class Herding(Geometry):
    """Keeps the examples whose mean feature follows the mean of their class, chosen one by one. Weight 1.

    Source: Welling, "Herding Dynamical Weights to Learn", ICML 2009; Chen, Welling & Smola, "Super-Samples from Kernel
    Herding", UAI 2010.

    Kind: static.
    Scoring: a tenth of the run and a pass.

    With mu the mean feature of the class, the t-th chosen example minimises ||mu - (f_1 + ... + f_t) / t||. The seed
    breaks ties. An example is chosen once, as in iCaRL (Rebuffi et al., CVPR 2017). In the sources it may be chosen again.
    Features are not normalised. The budget and the early network are ours.

    Trap: DeepCore's code takes the largest distance in place of the smallest.

    The order contains all examples of a block, so all ratios share it. An order of K examples would take (1 - ratio) of the
    time. A block of M examples takes O(M^2 D) time and 2 M D float64 of memory. For 50,000 examples of 512 features, one
    core needs about 2 minutes in 10 classes (an estimate from a class of 2,500), and ten times as long over all.

    Args:
        prune_ratio: The share of visits to save.
        features: "readout": the readout's input, averaged over time. "spikes": the spikes of each channel of the last
            spiking layer, summed over time and positions.
        by_class: Whether the choice follows the mean of each class, with the same share of every class; otherwise it follows
            the mean of all.
        score_epochs: The epochs of the scoring network; 0 means a tenth of the run, at least 1.
        score_updates: The updates of the scoring network, in place of epochs; 0 means by epochs.
    """

    display_name = "Herding"
    bibtex = """
    @inproceedings{welling2009herding,
      title = {Herding Dynamical Weights to Learn},
      author = {Welling, Max},
      booktitle = {International Conference on Machine Learning},
      year = {2009},
    }

    @inproceedings{chen2010herding,
      title = {Super-Samples from Kernel Herding},
      author = {Chen, Yutian and Welling, Max and Smola, Alex},
      booktitle = {Uncertainty in Artificial Intelligence},
      year = {2010},
    }
    """

    def order(self, feature_MD: Tensor, index_M: Tensor, survey: Survey) -> Tensor:
        """Returns the block's positions, the first to choose first."""
        return herded(feature_MD)


def herded(feature_MD: Tensor) -> Tensor:
    """Returns all rows in greedy order: each brings the mean of the chosen rows nearest to the mean of all. Int64, [M].

    With rows x relative to mu, and s the sum of the chosen ones, the next row minimises ||s + x||^2, so ||x||^2 + 2 s x.
    """
    centred_MD = feature_MD - feature_MD.mean(0)
    square_M, sum_D = centred_MD.square().sum(1), torch.zeros_like(centred_MD[0])
    chosen = []
    for _ in range(len(centred_MD)):
        row = (square_M + 2 * (centred_MD @ sum_D)).argmin()[None]  # stays on the device
        sum_D = sum_D + centred_MD.index_select(0, row)[0]
        square_M.index_fill_(0, row, torch.inf)
        chosen.append(row)
    return torch.cat(chosen)
