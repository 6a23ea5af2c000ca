"""The base class of methods that choose a subset by the gradients of the last layer.

Shape letters: N training examples, M examples of a block, K kept, C classes, D features.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.geometry import FEATURES, blocks_of, features_of
from baselines.scoring_networks import WithScoringNetworks
from sadp_bench.pruner import BadInput, ScoringContext, Selection, Survey
from sadp_bench.sampling import by_class

ROWS = 512  # of inner products, computed at a time in float64


@dataclass(frozen=True, eq=False)
class Gradients:
    """The gradient of each example's loss at the readout's weights and bias, as two factors: error x [feature, 1].

    It is exact for a loss of the logits' mean over time, whose error is the same at all steps. For a loss of each step's
    logits it is an approximation, because the gradient is then a sum of such products over steps.

    Attributes:
        error_NC: The gradient at the logits, summed over time.
        input_ND: The readout's input, averaged over time, with a last column of ones for the bias.
    """

    error_NC: Tensor
    input_ND: Tensor

    def of(self, index_M: Tensor) -> Gradients:
        """Returns the gradients of some examples, float64."""
        return Gradients(self.error_NC[index_M].double(), self.input_ND[index_M].double())

    def inner(self, other: Gradients) -> Tensor:
        """Returns the inner products with other gradients, float64, [N, other N]. No gradient [C D] is formed."""
        return (self.error_NC @ other.error_NC.T) * (self.input_ND @ other.input_ND.T)

    def square_norm(self) -> Tensor:
        """Returns the squared norms. [N]."""
        return self.error_NC.square().sum(1) * self.input_ND.square().sum(1)

    def sum(self) -> Tensor:
        """Returns the sum of the gradients as a matrix. [C, D]."""
        return self.error_NC.T @ self.input_ND

    def __len__(self) -> int:
        return len(self.error_NC)


class Coreset(WithScoringNetworks):
    """Keeps a weighted subset for the whole run, chosen by the gradients of one scoring network's last layer.

    The weights are scaled to mean 1. So only their proportions count, and no method changes the effective learning rate.

    K differs by one between epochs if (1 - ratio) N is not a whole number. The subset is chosen for the larger K. The
    other epochs leave out the last example of its order.

    Args:
        prune_ratio: The share of visits to save.
        features: "readout": the readout's input, averaged over time. "spikes": the spikes of each channel of the last
            spiking layer, summed over time and positions.
        score_epochs: The epochs of the run's schedule that the scoring network trains; 0 means a tenth of the run, at
            least 1.
        score_updates: The updates of the scoring network, in place of epochs; 0 means by epochs.
    """

    def __init__(
        self, prune_ratio: float, *, features: str = "readout", score_epochs: int = 0, score_updates: int = 0
    ) -> None:
        super().__init__(prune_ratio, score_epochs=score_epochs, score_updates=score_updates)
        if features not in FEATURES:
            raise BadInput(f"{type(self).__name__}'s features are {' or '.join(FEATURES)}, not '{features}'")
        self.features = features
        self.index_K = torch.empty(0, dtype=torch.int64)
        self.weight_K = torch.empty(0)

    @abstractmethod
    def choose(self, gradients: Gradients, survey: Survey, num_kept: int) -> tuple[Tensor, Tensor]:
        """Returns a subset and its weights before scaling. Int64 and float, [K].

        The order counts: an epoch of a smaller K leaves out the last example.

        Args:
            gradients: The gradients of all examples, float32, on the CPU.
            survey: Labels and logits, on the CPU.
            num_kept: The number of examples to choose, K.
        """

    def prepare(self, context: ScoringContext) -> None:
        """Trains the scoring network and chooses the subset, on the `prepare` clock."""
        super().prepare(context)
        survey = context.survey(self.fit(context, 0), frozenset({"errors", FEATURES[self.features]}))
        assert survey.error_NC is not None, "the survey watched them"
        if not bool(survey.error_NC.isfinite().all()):
            raise BadInput("the scoring network's gradients are not finite: lower --learning-rate")
        input_ND = torch.nn.functional.pad(features_of(survey, self.features), (0, 1), value=1.0)
        num_kept = max(self.num_kept(epoch) for epoch in range(context.num_epochs))
        gradients = Gradients(survey.error_NC, input_ND)
        self.index_K, weight_K = self.choose(gradients, survey, num_kept)
        self.weight_K = (weight_K.double() / weight_K.double().mean()).float()

    def select(self, epoch: int) -> Selection:
        """Returns the subset, without its last example where K is smaller by one."""
        num_kept = self.num_kept(epoch)
        return Selection(self.index_K[:num_kept], self.weight_K[:num_kept])

    def blocks(self, label_N: Tensor, largest: int | None = None, *, by_class: bool = True) -> list[Tensor]:
        """Returns the examples in random blocks; see `blocks_of`."""
        return blocks_of(label_N, self.generator(), by_class=by_class, largest=largest)


def shares(blocks: list[Tensor], num_kept: int) -> list[int]:
    """Returns how many examples each block keeps: in proportion to its size, with the sum K."""
    size_B = torch.tensor([len(block) for block in blocks])
    block_N = torch.arange(len(blocks)).repeat_interleave(size_B)
    first_K = by_class(torch.arange(len(block_N)), block_N, size_B)[:num_kept]
    counts: list[int] = block_N[first_K].bincount(minlength=len(blocks)).tolist()
    return counts


def joined(blocks: list[Tensor], chosen: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Returns the choices of all blocks in one order. Its first examples, however many, have the blocks' shares.

    Args:
        blocks: The indices of each block's examples.
        chosen: The chosen positions of each block, in the order of the choice.
        weights: The weights of each block's chosen examples.
    """
    places = [(torch.arange(len(of)) + 0.5) / len(block) for block, of in zip(blocks, chosen, strict=True)]
    order_K = torch.cat(places).argsort(stable=True)
    index_K = torch.cat([block[of] for block, of in zip(blocks, chosen, strict=True)])
    return index_K[order_K], torch.cat(weights)[order_K]
