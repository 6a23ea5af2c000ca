"""Records of each example's presentations in a scoring run: training mode, augmented, before the update.

Recorders keep O(N x window) numbers, whatever the run's length. J presentations in a window, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sadp_bench.pruner import KeepAll, Observation, ScoringContext

FLOOR = 1e-8  # added to probabilities before their logarithm, as in TDDS's published code


def probabilities(seen: Observation) -> Tensor:
    """Returns the softmax of the time-mean of the logits. [B, C]."""
    return seen.logits_TBC.mean(0).softmax(1)


def of_label(value_BC: Tensor, label_B: Tensor) -> Tensor:
    """Returns each example's value of its own class. [B]."""
    return value_BC.gather(1, label_B[:, None]).squeeze(1)


class Windows:
    """The probabilities p_y of the right class at each example's last J presentations, and sums over all windows.

    It is a base class of pruners. Its attributes are a part of their state.

    Attributes:
        window: J, the presentations in a window, at least 2.
        history_N: The last J values of p_y, in any order. [N, J].
        visits_N: Number of presentations.
        total_N: Sum of p_y over all presentations.
        spread_N: Sum over the windows of their standard deviation of p_y, with J - 1 in the denominator.
        hard_spread_N: Sum over the windows of the standard deviation times one minus the mean.
    """

    window: int
    history_N: Tensor
    visits_N: Tensor
    total_N: Tensor
    spread_N: Tensor
    hard_spread_N: Tensor

    def start(self, context: ScoringContext, window: int) -> None:
        """Sets all numbers to zero."""
        assert window >= 2
        self.window = window
        self.history_N = torch.zeros(context.num_examples, window, device=context.device)
        self.visits_N = torch.zeros(context.num_examples, dtype=torch.int64, device=context.device)
        self.total_N, self.spread_N, self.hard_spread_N = torch.zeros(3, context.num_examples, device=context.device)

    def note(self, seen: Observation) -> None:
        """Adds a presentation of each example, and the window that it completes."""
        index_B = seen.index_B
        p_B = of_label(probabilities(seen), seen.label_B).to(self.history_N.dtype)
        earlier_B = self.visits_N[index_B]
        self.history_N[index_B, earlier_B % self.window] = p_B
        self.visits_N[index_B] = earlier_B + 1
        self.total_N[index_B] += p_B
        window_BJ = self.history_N[index_B]
        spread_B = window_BJ.std(1) * (earlier_B + 1 >= self.window)
        self.spread_N[index_B] += spread_B
        self.hard_spread_N[index_B] += spread_B * (1 - window_BJ.mean(1))

    def windows_N(self) -> Tensor:
        """Returns the number of windows so far, at least 1."""
        return (self.visits_N - self.window + 1).clamp_min(1)

    def uncertainty(self) -> Tensor:
        """Returns the mean over the windows of the standard deviation of p_y. [N]."""
        return self.spread_N / self.windows_N()

    def hard_uncertainty(self) -> Tensor:
        """Returns the mean over the windows of the standard deviation times one minus the mean of p_y. [N]."""
        return self.hard_spread_N / self.windows_N()

    def mean_probability(self) -> Tensor:
        """Returns the mean of p_y over all presentations. [N]."""
        return self.total_N / self.visits_N.clamp_min(1)


class WindowRecorder(Windows, KeepAll):
    """Records windows of p_y while all examples train.

    Args:
        window: The number of presentations in a window, J.
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def prepare(self, context: ScoringContext) -> None:
        """Sets all numbers to zero."""
        super().prepare(context)
        self.start(context, self.window)

    def observe(self, seen: Observation) -> None:
        """Adds a presentation of each example."""
        self.note(seen)


class MarginRecorder(KeepAll):
    """Sums each example's margin: the right class's logit minus the highest of the others."""

    def prepare(self, context: ScoringContext) -> None:
        """Sets all numbers to zero."""
        super().prepare(context)
        self.margin_N, self.visits_N = torch.zeros(2, context.num_examples, device=context.device)

    def observe(self, seen: Observation) -> None:
        """Adds a presentation of each example."""
        logits_BC, label_B = seen.logits_TBC.mean(0), seen.label_B
        others_BC = logits_BC.scatter(1, label_B[:, None], -torch.inf)
        margin_B = of_label(logits_BC, label_B) - others_BC.max(1).values
        self.margin_N[seen.index_B] += margin_B.to(self.margin_N.dtype)
        self.visits_N[seen.index_B] += 1

    def mean_margin(self) -> Tensor:
        """Returns the mean margin over all presentations: the area under the margin. [N]."""
        return self.margin_N / self.visits_N.clamp_min(1)


class DivergenceRecorder(KeepAll):
    """Records how far each example's prediction moves from presentation to presentation, and how that varies.

    d = sum_c |p_c log((p_c + 1e-8) / (q_c + 1e-8))| for the prediction p at a presentation and q at the one before. A
    window of J presentations has J - 1 such terms; R is the norm of their deviations from their mean. The score S starts
    at 0, and each window sets S <- (1 - decay) S + decay R.

    Args:
        window: The number of presentations in a window, J.
        decay: The last window's share of S.
    """

    def __init__(self, window: int, decay: float) -> None:
        super().__init__()
        self.window, self.decay = window, decay

    def prepare(self, context: ScoringContext) -> None:
        """Sets all numbers to zero."""
        super().prepare(context)
        num_examples, device = context.num_examples, context.device
        self.last_N = torch.zeros(num_examples, context.num_classes, device=device)
        self.moves_N = torch.zeros(num_examples, self.window - 1, device=device)
        self.visits_N = torch.zeros(num_examples, dtype=torch.int64, device=device)
        self.score_N = torch.zeros(num_examples, device=device)

    def observe(self, seen: Observation) -> None:
        """Adds a presentation of each example, and the window that it completes."""
        index_B, p_BC = seen.index_B, probabilities(seen).to(self.last_N.dtype)
        earlier_B = self.visits_N[index_B]
        log_ratio_BC = (p_BC + FLOOR).log() - (self.last_N[index_B] + FLOOR).log()
        move_B = (p_BC * log_ratio_BC).abs().sum(1)
        # The first presentation has no move: its place is overwritten as the first window is completed.
        self.moves_N[index_B, earlier_B % (self.window - 1)] = move_B
        moves_BJ = self.moves_N[index_B]
        spread_B = (moves_BJ - moves_BJ.mean(1, keepdim=True)).norm(dim=1)
        score_B = self.score_N[index_B]
        complete_B = earlier_B + 1 >= self.window
        self.score_N[index_B] = torch.where(complete_B, (1 - self.decay) * score_B + self.decay * spread_B, score_B)
        self.last_N[index_B], self.visits_N[index_B] = p_BC, earlier_B + 1
