"""The base class of methods that order the examples by the geometry of their features, and common functions.

Shape letters: N training examples, M examples of a block, D features.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from baselines.scored import Scored
from sadp_bench.pruner import BadInput, ScoringContext, Survey

FEATURES = {"readout": "features", "spikes": "spikes"}  # the setting's value -> the field of a survey
ROUNDING = 1e-12  # of squared distances, relative to the sum of the squared norms


class Geometry(Scored):
    """Keeps the first K examples of an order by their features, for the whole run. Weight 1.

    The features are those of one scoring network. The order does not depend on K, so runs that differ in the ratio alone
    share it.

    Args:
        prune_ratio: The share of visits to save.
        features: "readout": the readout's input, averaged over time, as in the papers. "spikes": the spikes of each
            channel of the last spiking layer, summed over time and positions.
        by_class: Whether each class has an order of its own, and every class keeps the same share; otherwise there is one
            order of all examples.
        score_epochs: The epochs of the run's schedule that the scoring network trains; 0 means a tenth of the run, at
            least 1.
        score_updates: The updates of the scoring network, in place of epochs; 0 means by epochs.

    Attributes:
        watched: The fields of a survey that the order needs besides the features.
    """

    watched: frozenset[str] = frozenset()

    def __init__(
        self,
        prune_ratio: float,
        *,
        features: str = "readout",
        by_class: bool = True,
        score_epochs: int = 0,
        score_updates: int = 0,
    ) -> None:
        super().__init__(prune_ratio, score_epochs=score_epochs, score_updates=score_updates)
        if features not in FEATURES:
            raise BadInput(f"{type(self).__name__}'s features are {' or '.join(FEATURES)}, not '{features}'")
        self.features = features
        self.by_class = by_class

    @abstractmethod
    def order(self, feature_MD: Tensor, index_M: Tensor, survey: Survey) -> Tensor:
        """Returns the positions of a block's examples, the first to keep first. Int64, [M].

        Args:
            feature_MD: The block's features, float64, on the context's device. The rows are in random order, so that ties
                go to the first row.
            index_M: The examples' indices, on the CPU.
            survey: The whole survey, on the CPU.
        """

    def score(self, context: ScoringContext) -> Tensor:
        """Returns -(place + 1/2) / M of each example in the order of its block, so that all blocks keep the same share."""
        survey = self.surveyed(context)
        feature_ND = features_of(survey, self.features)
        score_N = torch.empty(self.num_examples, dtype=torch.float64)
        for index_M in self.blocks(survey.label_N):
            order_M = self.order(feature_ND[index_M].to(context.device, torch.float64), index_M, survey)
            place_M = torch.arange(len(index_M), dtype=torch.float64)
            score_N[index_M[order_M.cpu()]] = -(place_M + 0.5) / len(index_M)
        return score_N

    def surveyed(self, context: ScoringContext) -> Survey:
        """Returns the survey of a trained scoring network, with the features and the watched fields."""
        model = self.fit(context, 0)
        return context.survey(model, self.watched | {FEATURES[self.features]})

    def blocks(self, label_N: Tensor) -> list[Tensor]:
        """Returns the indices of each block's examples, in random order."""
        return blocks_of(label_N, self.generator(), by_class=self.by_class)


def features_of(survey: Survey, features: str) -> Tensor:
    """Returns the features that the setting `features` names. Float32, [N, D]."""
    feature_ND = survey.feature_ND if features == "readout" else survey.spikes_ND
    assert feature_ND is not None, "the survey watched them"
    return feature_ND


def blocks_of(
    label_N: Tensor, generator: torch.Generator, *, by_class: bool = True, largest: int | None = None
) -> list[Tensor]:
    """Returns the indices of each class, or of all examples, in random order and cut into equal blocks.

    Args:
        label_N: The classes.
        generator: The random stream of the order.
        by_class: Whether each block has examples of one class only.
        largest: The most examples of a block; None: no block is cut.
    """
    shuffled_N = torch.randperm(len(label_N), generator=generator)
    blocks = of_classes(shuffled_N, label_N) if by_class else [shuffled_N]
    if largest is None:
        return blocks
    return [part for block in blocks for part in block.tensor_split(-(-len(block) // largest))]


def of_classes(index_M: Tensor, label_N: Tensor) -> list[Tensor]:
    """Returns the indices of each class that has any, in their order."""
    label_M = label_N[index_M]
    grouped_M = index_M[label_M.argsort(stable=True)]
    return [part for part in grouped_M.split(label_M.bincount().tolist()) if len(part)]


def squared_distances(a_AD: Tensor, b_BD: Tensor) -> Tensor:
    """Returns the squared Euclidean distances of rows, float64 [A, B], by a product of matrices."""
    scale_AB = a_AD.square().sum(1)[:, None] + b_BD.square().sum(1)
    return without_rounding(torch.addmm(scale_AB, a_AD, b_BD.T, alpha=-2), scale_AB)


def without_rounding(square_AB: Tensor, scale_AB: Tensor) -> Tensor:
    """Sets squared distances below the rounding error to 0, in place, and returns them. So equal rows have distance 0.

    Args:
        square_AB: Squared distances from inner products, float64.
        scale_AB: The sums of the two squared norms.
    """
    return square_AB.masked_fill_(square_AB <= ROUNDING * scale_AB, 0)
