"""Three measures of a partly trained network's uncertainty about an example."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from baselines.scored import Scored
from sadp_bench.pruner import ScoringContext


class Uncertainty(Scored):
    """Keeps the examples about which a scoring network is least certain, for the whole run. Weight 1.

    p is the softmax of the time-mean of the logits, in evaluation mode, without augmentation. The label is not used.
    """

    bibtex = """
    @inproceedings{coleman2020proxy,
      title = {Selection via Proxy: Efficient Data Selection for Deep Learning},
      author = {Coleman, Cody and Yeh, Christopher and Mussmann, Stephen and Mirzasoleiman, Baharan and Bailis,
        Peter and Liang, Percy and Leskovec, Jure and Zaharia, Matei},
      booktitle = {International Conference on Learning Representations},
      eprint = {1906.11829},
      archiveprefix = {arXiv},
      year = {2020},
    }
    """

    @abstractmethod
    def uncertainty(self, logits_NC: Tensor) -> Tensor:
        """Returns each example's uncertainty, high is uncertain. [N]."""

    def score(self, context: ScoringContext) -> Tensor:
        """Returns each example's uncertainty, averaged over the scoring networks."""
        runs = [
            self.uncertainty(context.survey(self.fit(context, run)).logits_NC.double())
            for run in range(self.score_runs)
        ]
        return torch.stack(runs).mean(0)


class Entropy(Uncertainty):
    """Keeps the highest entropy of the prediction, early in training, for the whole run. Weight 1.

    Source: Coleman et al., "Selection via Proxy: Efficient Data Selection for Deep Learning", ICLR 2020 (arXiv 1906.11829).

    Kind: static.
    Scoring: a tenth of the run and a pass.

    The score is -sum_c p_c log p_c, with p the softmax of the time-mean of the logits in evaluation mode. The label is not
    used. Trap: DeepCore's code without `balance` reverses the order, and so keeps the most certain examples.
    """

    display_name = "Entropy"

    def uncertainty(self, logits_NC: Tensor) -> Tensor:
        """Returns the entropy in nats. [N]."""
        return -(logits_NC.softmax(1) * logits_NC.log_softmax(1)).sum(1)


class Margin(Uncertainty):
    """Keeps the smallest margin between the two likeliest classes, early in training, for the whole run. Weight 1.

    Source: Coleman et al., "Selection via Proxy: Efficient Data Selection for Deep Learning", ICLR 2020 (arXiv 1906.11829).

    Kind: static.
    Scoring: a tenth of the run and a pass.

    The score is p_(2) - p_(1), the second highest probability minus the highest, with p the softmax of the time-mean of the
    logits in evaluation mode. The label is not used. Trap: DeepCore's code without `balance` reverses the order, and so
    keeps the largest margins.
    """

    display_name = "Margin"

    def uncertainty(self, logits_NC: Tensor) -> Tensor:
        """Returns the negative margin. [N]."""
        first_N, second_N = logits_NC.softmax(1).topk(2, 1).values.unbind(1)
        return second_N - first_N


class LeastConfidence(Uncertainty):
    """Keeps the lowest probability of the likeliest class, early in training, for the whole run. Weight 1.

    Source: Coleman et al., "Selection via Proxy: Efficient Data Selection for Deep Learning", ICLR 2020 (arXiv 1906.11829).

    Kind: static.
    Scoring: a tenth of the run and a pass.

    The score is 1 - max_c p_c, with p the softmax of the time-mean of the logits in evaluation mode. The label is not
    used. DeepCore's code takes the highest logit in place of the highest probability. Trap: without `balance` it reverses
    the order, and so keeps the highest logits.
    """

    display_name = "Least confidence"

    def uncertainty(self, logits_NC: Tensor) -> Tensor:
        """Returns one minus the highest probability. [N]."""
        return 1 - logits_NC.softmax(1).max(1).values
