"""GLISTER: examples whose gradient step lowers the loss of all examples most."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from baselines.coreset import Coreset, Gradients, joined, shares
from sadp_bench.pruner import BadInput, Survey


class Glister(Coreset):
    """Keeps the examples whose gradient step of the last layer most lowers the loss of all, chosen in rounds. Weight 1.

    Source: Killamsetty et al., "GLISTER: Generalization based Data Subset Selection for Efficient and Robust Learning",
    AAAI 2021.

    Kind: static.
    Scoring: a tenth of the run and a pass.

    Let g_i = e_i x [f_i, 1] (see `Gradients`), and S the examples chosen so far. A step moves the readout's weights and
    bias to W - (eta / K) sum of g_j over S. The gain of i is g_i . (gradient of the validation loss there), the first term
    of the loss's Taylor expansion. A round takes the K / rounds highest gains, ties broken by the seed, and then moves the
    readout (the paper's r-greedy). The rest of the network stays, so the mean logits after the step are those of the moved
    readout.

    The paper has a validation set. A run has none to spare, so the loss is the mean over the training set, as in DeepCore
    (Guo et al. 2022). It is the cross-entropy of the logits' mean over time, whatever loss trains the run. The paper's step
    is eta times the sum of g_j, and DeepCore's is eta times their mean. Here it is eta times the mean over a full subset:
    it grows with S, and not with K. No eta suits all data; the default is ours. The subset is chosen once, and the paper
    chooses anew every few epochs.

    Without `by_class` a class may lose most of its examples, above all with a small eta. Besides the scoring network, the
    time is O(rounds N C D), and the memory is about 8 N (4 C + D) bytes. That is 0.25 GB for CIFAR-10 at 512 features, and
    60 GB for ImageNet at 2,048. With `by_class`, N is the number of examples of a class.

    Args:
        prune_ratio: The share of visits to save.
        eta: The learning rate of the step by the mean gradient of the subset, at least 0. At 0 all gains are those of the
            scoring network.
        rounds: How often the readout moves; the authors' code has 15. K rounds are the naive greedy choice.
        by_class: Whether each class chooses the same share of its examples by its loss alone, as in DeepCore.
        score_epochs: The epochs of the scoring network; 0 means a tenth of the run, at least 1.
        score_updates: The updates of the scoring network, in place of epochs; 0 means by epochs.
    """

    display_name = "GLISTER"
    bibtex = """
    @inproceedings{killamsetty2021glister,
      title = {{GLISTER}: Generalization based Data Subset Selection for Efficient and Robust Learning},
      author = {Killamsetty, Krishnateja and Sivasubramanian, Durga and Ramakrishnan, Ganesh and Iyer, Rishabh},
      booktitle = {AAAI Conference on Artificial Intelligence},
      year = {2021},
    }
    """

    def __init__(
        self,
        prune_ratio: float,
        *,
        eta: float = 1.0,
        rounds: int = 15,
        by_class: bool = False,
        score_epochs: int = 0,
        score_updates: int = 0,
    ) -> None:
        super().__init__(prune_ratio, score_epochs=score_epochs, score_updates=score_updates)
        if not 0 <= eta < math.inf:
            raise BadInput(f"glister's eta is at least 0 and finite, not {eta:g}")
        if rounds < 1:
            raise BadInput(f"glister's rounds are at least 1, not {rounds}")
        self.eta = eta
        self.rounds = rounds
        self.by_class = by_class

    def choose(self, gradients: Gradients, survey: Survey, num_kept: int) -> tuple[Tensor, Tensor]:
        """Returns the choices of all rounds, each by falling gain, with weight 1."""
        blocks = self.blocks(survey.label_N, by_class=self.by_class)
        chosen = [
            greedy(
                gradients.of(index_M),
                survey.logits_NC[index_M].double(),
                survey.label_N[index_M],
                number,
                self.eta,
                self.rounds,
            )
            for index_M, number in zip(blocks, shares(blocks, num_kept), strict=True)
        ]
        return joined(blocks, chosen, [torch.ones(len(position_k)) for position_k in chosen])


def greedy(
    gradients: Gradients, logits_MC: Tensor, label_M: Tensor, num_chosen: int, eta: float, rounds: int
) -> Tensor:
    """Returns the positions of the highest gains in each round. In the first round the readout is not moved.

    Args:
        gradients: The candidates' gradients. The candidates are the validation set too.
        logits_MC: The candidates' logits, float64.
        label_M: The candidates' classes.
        num_chosen: The number of positions, at most M.
        eta: The learning rate of the step by the mean gradient of the choice.
        rounds: The number of rounds; at most `num_chosen` are made.
    """
    open_M = torch.ones(len(gradients), dtype=torch.bool)
    chosen = torch.empty(0, dtype=torch.int64)
    rounds = min(rounds, num_chosen)
    for turn in range(rounds):
        step_CD = gradients.of(chosen).sum() * (eta / num_chosen)
        moved_MC = logits_MC - gradients.input_ND @ step_CD.T
        moved_error_MC = moved_MC.softmax(1)
        moved_error_MC[torch.arange(len(label_M)), label_M] -= 1
        of_loss_CD = Gradients(moved_error_MC, gradients.input_ND).sum() / len(gradients)
        del moved_MC, moved_error_MC  # memory for the next products
        gain_M = (gradients.input_ND @ of_loss_CD.T).mul_(gradients.error_NC).sum(1)
        number = (turn + 1) * num_chosen // rounds - len(chosen)
        best = gain_M.masked_fill(~open_M, -math.inf).argsort(descending=True, stable=True)[:number]
        open_M[best] = False
        chosen = torch.cat([chosen, best])
    return chosen
