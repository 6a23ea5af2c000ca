"""SADP: spike-aware data pruning.

T time steps, B batch, N training examples, K kept, L weight layers but the readout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sadp_bench.capture.signals import Signal
from sadp_bench.core import distributed
from sadp_bench.core.errors import BadInput, Diverged
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.exchange import Observation, ScoringContext, Selection, Survey
from sadp_bench.pruners.sampling import (
    balanced,
    inclusion_probability,
    smooth,
    storage,
    systematic_sample,
    weights,
)

DRAWS = ("independent", "balanced")
EXACT = "exact"  # the score from a pass over all examples before each epoch, and not from training steps
BOUND_RATIO_MEMORY = 0.8  # share of the earlier sums in a layer's bound ratio at each new measurement
BOUND_RATIO_EVERY = 4  # epochs, from the fourth on: the ratio hardly changes, and takes up to half a training step


class SADP(Pruner):
    """Draws examples in proportion to an estimate of their gradient's norm, and weights them by the inverse probability.

    Source: After Ma, Chen, Wu, Tan & Wu, "Spike-Aware Data Pruning", arXiv 2510.04098, 2025.

    Kind: dynamic.
    Scoring: none.

    This is a reconstruction: the paper's abstract and summaries are public, but not its formula or constants. The paper has
    four ideas. Selection probabilities in proportion to the gradient norm reduce the gradient's variance. An efficient
    bound by the spikes takes the place of that norm. Probabilities are smoothed. The fourth idea is a schedule: a budget,
    which any dynamic method can have (`Pruner.with_budget`). The bound, its calibration and the draw are new here.
    docs/sadp.md derives them, and contains the measurement behind every default.

    - score_i: `LayersScore`, `ReadoutScore` or `SpikesScore`. Hooks record E, A and the bound ratio in the training steps:
      `sadp_bench.capture.recorder` holds the hooks, `sadp_bench.capture.squared_norms` the sums, and `Signal` defines them.
      An example keeps the score of its last visit.
    - pi_i: min(1, c ((1 - smoothing) score_i / mean + smoothing)), summing to K; unseen examples have the mean.
    - Draw: exactly K examples, without replacement, with inclusion probabilities pi, whatever was drawn before.
    - Weight: K / (N pi_i). Over draws, the kept examples' mean of weight x gradient is an unbiased estimate of the full
      data's mean gradient. It is so for the parameters at the epoch's start and for any scores. The mean weight is 1 in
      expectation.

    Args:
        prune_ratio: The share of visits to save.
        score: "layers", "readout" or "spikes"; or "exact", a control: the gradient's exact norm over all parameters. It
            comes from a pass of the present network over all examples before each epoch, which is charged to select. The
            pass is in evaluation mode, with batch norm's running statistics, and without augmentation. `memory` then has no
            effect.
        calibrate: Whether "layers" measures the bound ratio k. Otherwise k is 1 and all time steps are read: the plain bound.
        gain_limit: For "layers": the highest factor by which an example's squared error at a layer, relative to the squared
            error at the logits, may exceed the batch's; 0: no limit. Batch norm gives every example a little of the other
            examples' errors. Without a limit, the score of an example without an error would consist of these.
        smoothing: The share of uniform sampling mixed in, in (0, 1]; it bounds the weights by about 1 / smoothing.
        memory: The share of an example's earlier scores in its score (a running mean of the squares), in [0, 1).
        draw: "independent" of earlier epochs: pi is exact for scores of any origin. "balanced" over epochs, see
            `sampling.balanced`: biased, because a visit changes an example's score (docs/sadp.md, section 1).
        weight_power: The exponent of the weights: 1 is unbiased with independent draws, and 0 means no weights. Values
            between have weights scaled to mean 1 in expectation.
    """

    display_name = "SADP"
    bibtex = """
    @misc{ma2025sadp,
      title = {Spike-Aware Data Pruning},
      author = {Ma and Chen and Wu and Tan and Wu},
      eprint = {2510.04098},
      archiveprefix = {arXiv},
      year = {2025},
    }
    """
    takes_budget = True

    def __init__(
        self,
        prune_ratio: float,
        *,
        score: str = "layers",
        calibrate: bool = True,
        gain_limit: float = 4.0,
        smoothing: float = 0.2,
        memory: float = 0.7,
        draw: str = "independent",
        weight_power: float = 1.0,
    ) -> None:
        super().__init__(prune_ratio)
        _check("score", score, score in (*SCORES, EXACT), f"one of {', '.join((*SCORES, EXACT))}")
        _check("draw", draw, draw in DRAWS, f"one of {', '.join(DRAWS)}")
        _check("gain_limit", gain_limit, gain_limit == 0 or 1 <= gain_limit < math.inf, "0 (no limit) or at least 1")
        _check("smoothing", smoothing, 0 < smoothing <= 1, "above 0 and at most 1")
        _check("memory", memory, 0 <= memory < 1, "at least 0 and below 1")
        _check("weight_power", weight_power, 0 <= weight_power <= 1, "at least 0 and at most 1")
        self.score = score
        self.calibrate = calibrate
        self.gain_limit = gain_limit
        self.smoothing = smoothing
        self.memory = memory
        self.draw = draw
        self.weight_power = weight_power
        self.score_sq_N = torch.empty(0)  # NaN: not seen yet
        self.surplus_N = torch.empty(0)
        self.bound_ratio_2L = torch.empty(0)
        self.factor_L = torch.empty(0)  # k; empty: to be computed

    def watch(self, epoch: int) -> frozenset[Signal]:
        """Returns the signals of the score; the bound ratio in the first four epochs and then in every fourth."""
        if self.score == EXACT:
            return frozenset()
        due = epoch < BOUND_RATIO_EVERY or epoch % BOUND_RATIO_EVERY == 0
        return self._score().watch - (frozenset() if due else {Signal.BOUND_RATIO})

    def prepare(self, context: ScoringContext) -> None:
        """Makes room for the scores. Raises BadInput where the score "exact" would run on several processes."""
        super().prepare(context)
        if self.score == EXACT and distributed.size() > 1:
            raise BadInput("sadp's score exact runs on one process: take score=layers, or one process")
        self.score_sq_N = torch.full((context.num_examples,), torch.nan, device=context.device)
        self.surplus_N = torch.zeros(context.num_examples)

    def rescore(self, epoch: int, survey: Callable[[frozenset[str]], Survey]) -> None:
        """Replaces all scores by the exact norms of the present network, where these are the score."""
        if self.score != EXACT:
            return
        norm_N = survey(frozenset({"gradient_norms"})).gradient_norm_N
        assert norm_N is not None
        self.score_sq_N = _seen(norm_N.square()).to(self.score_sq_N.device)

    def observe(self, seen: Observation) -> None:
        """Keeps the scores of the batch's examples."""
        if self.score == EXACT:
            return
        if Signal.BOUND_RATIO in seen.watched:
            newest_2L = seen.watched[Signal.BOUND_RATIO]
            old_2L = self.bound_ratio_2L if len(self.bound_ratio_2L) else torch.zeros_like(newest_2L)
            self.bound_ratio_2L = BOUND_RATIO_MEMORY * old_2L + newest_2L
        if Signal.BOUND_RATIO in seen.watched or not self.factor_L.numel():
            self.factor_L = self._bound_ratio()
        new_B = self._score().squared(seen.watched, self.factor_L).to(self.score_sq_N.dtype)
        old_B = self.score_sq_N.index_select(0, seen.index_B)
        mixed_B = torch.where(old_B.isnan(), new_B, self.memory * old_B + (1 - self.memory) * new_B)
        self.score_sq_N.index_copy_(0, seen.index_B, _seen(mixed_B))

    def select(self, epoch: int) -> Selection:
        """Draws an epoch's examples, and weights them. Raises Diverged where a score is not finite."""
        num_kept = self.num_kept(epoch)
        if num_lost := int(self.score_sq_N.isinf().sum()):
            raise Diverged(
                f"training diverged: the sadp scores of {num_lost} examples are not finite after epoch {epoch}, although the "
                "loss may be; try a lower learning rate",
                max(0, epoch - 1),
            )
        p_N = inclusion_probability(smooth(self.final_scores(), self.smoothing), num_kept)
        now_N = balanced(p_N, self.surplus_N, num_kept) if self.draw == "balanced" else p_N
        index_K = systematic_sample(now_N, self.generator(epoch))
        self.surplus_N -= p_N
        self.surplus_N[index_K] += 1
        return Selection(index_K, weights(p_N, num_kept, self.weight_power)[index_K].float())

    def final_scores(self) -> Tensor:
        """Returns the scores by which the next epoch would be drawn; unseen examples have the mean."""
        score_N = self.score_sq_N.cpu().to(storage(self.num_examples)).sqrt()
        unseen_N = score_N.isnan()
        return torch.where(unseen_N, 1.0 if bool(unseen_N.all()) else score_N.nanmean(), score_N)

    def _score(self) -> Score:
        return LayersScore(self.calibrate, self.gain_limit) if self.score == "layers" else SCORES[self.score]()

    def _bound_ratio(self) -> Tensor:
        """Returns k, [L]: 1 for a layer that was not measured, and a single 1 before any measurement."""
        if not len(self.bound_ratio_2L):
            return torch.ones(1, device=self.score_sq_N.device)
        exact_L, bound_L = self.bound_ratio_2L.to(self.score_sq_N.device)
        return torch.where(bound_L > 0, exact_L / bound_L, 1.0)


def _seen(score_sq_B: Tensor) -> Tensor:
    """Returns squared scores with infinity in place of NaN, which marks unseen examples. `select` raises for infinity."""
    return score_sq_B.nan_to_num(nan=torch.inf, posinf=torch.inf)


class Score(Protocol):
    """A score of SADP.

    Attributes:
        watch: The signals that `squared` reads, and those that calibrate it.
    """

    @property
    def watch(self) -> frozenset[Signal]:
        """The signals that the score needs."""

    def squared(self, watched: Mapping[str, Tensor], bound_ratio_L: Tensor) -> Tensor:
        """Returns the squared score of each example of a batch. [B]."""


@dataclass(frozen=True)
class LayersScore:
    """sqrt(sum_l k_l E_l A_l + the readout's exact squared gradient norm).

    With k = 1 and constant normalisation statistics, it is at least the norm of the example's gradient of all convolution
    and linear layers. A layer's gradient is the sum of e a^T over steps and positions, and by Cauchy-Schwarz
    |sum e a^T|^2 <= (sum |e|^2) (sum |a|^2). k_l is the bound ratio of layer l: the exact squared norms over their
    bounds. With a measured k, E and A are read at the middle time step alone. k then also corrects for the other steps, at
    a T-th of the cost.

    Args:
        calibrate: Whether k is measured. Otherwise it is 1, and E and A are sums over all time steps.
        gain_limit: See `limited_error_squares`; 0 means no limit.
    """

    calibrate: bool = True
    gain_limit: float = 4.0

    @property
    def watch(self) -> frozenset[Signal]:
        """The readout's signals, E, A, and the bound ratio if it is measured."""
        if self.calibrate:
            return ReadoutScore.watch | {
                Signal.MIDDLE_INPUT_SQUARES,
                Signal.MIDDLE_ERROR_SQUARES,
                Signal.BOUND_RATIO,
            }
        return ReadoutScore.watch | {Signal.INPUT_SQUARES, Signal.ERROR_SQUARES}

    def squared(self, watched: Mapping[str, Tensor], bound_ratio_L: Tensor) -> Tensor:
        """Returns sum_l k_l E_l A_l, plus the readout's part where there is a linear readout. [B]."""
        input_LB = watched[Signal.MIDDLE_INPUT_SQUARES if self.calibrate else Signal.INPUT_SQUARES]
        error_LB = watched[Signal.MIDDLE_ERROR_SQUARES if self.calibrate else Signal.ERROR_SQUARES]
        if self.gain_limit:
            heads_LB = watched.get(Signal.HEAD_ERRORS)
            error_LB = limited_error_squares(error_LB, watched[Signal.LOGIT_ERRORS], self.gain_limit, heads_LB)
        bound_LB = error_LB * input_LB
        bound_B = bound_ratio_L.to(bound_LB.dtype).expand(len(bound_LB)) @ bound_LB
        if Signal.FEATURES not in watched:
            return bound_B
        return bound_B + ReadoutScore().squared(watched, bound_ratio_L)


@dataclass(frozen=True)
class ReadoutScore:
    """The exact norm of the example's gradient of the readout's weight and bias, forward only."""

    watch = frozenset({Signal.FEATURES, Signal.LOGIT_ERRORS})

    def squared(self, watched: Mapping[str, Tensor], bound_ratio_L: Tensor) -> Tensor:
        """Returns the squared norm. [B]. Raises BadInput without a linear readout with a bias."""
        if Signal.FEATURES not in watched:
            raise BadInput(
                "sadp's score readout needs a linear layer with a bias that gives the logits: take score=layers"
            )
        return readout_gradient_norm(watched[Signal.FEATURES], watched[Signal.LOGIT_ERRORS]).square()


@dataclass(frozen=True)
class SpikesScore:
    """|error| sqrt(1 + the mean over layers of A_l / its mean over the batch), forward only."""

    watch = frozenset({Signal.LOGIT_ERRORS, Signal.INPUT_SQUARES})

    def squared(self, watched: Mapping[str, Tensor], bound_ratio_L: Tensor) -> Tensor:
        """Returns the squared error at the logits' sum over time, times the examples' relative input squares. [B]."""
        input_LB = watched[Signal.INPUT_SQUARES]
        mean_L1 = distributed.total(input_LB.sum(1, keepdim=True)) / distributed.total(
            torch.tensor(float(input_LB.shape[1]))
        )
        relative_LB = input_LB / mean_L1.clamp_min(torch.finfo(input_LB.dtype).tiny)
        return watched[Signal.LOGIT_ERRORS].sum(0).square().sum(1) * (1 + relative_LB.mean(0))


SCORES: dict[str, type[LayersScore] | type[ReadoutScore] | type[SpikesScore]] = {
    "layers": LayersScore,
    "readout": ReadoutScore,
    "spikes": SpikesScore,
}


def limited_error_squares(
    error_LB: Tensor, logit_errors_TBC: Tensor, limit: float, heads_LB: Tensor | None = None
) -> Tensor:
    """Returns E_l, limited: its ratio to the squared error at the logits is at most `limit` times the batch's ratio. [L, B].

    Args:
        error_LB: E_l.
        logit_errors_TBC: The examples' errors at the logits.
        limit: The limit, at least 1.
        heads_LB: With local learning, the squared errors at the logits of the head, or readout, that trains each layer.
    """
    output = logit_errors_TBC.square().sum((0, 2)) if heads_LB is None else heads_LB
    total = output.sum() if heads_LB is None else heads_LB.sum(1, keepdim=True)
    error_L1, total = distributed.totals(error_LB.sum(1, keepdim=True), total.to(error_LB.dtype))
    most_LB = limit * (error_L1 / total) * output.to(error_LB.dtype)
    return error_LB.fmin(most_LB)  # Where no example has an error, the limit is NaN, which fmin ignores.


def readout_gradient_norm(features_TBD: Tensor, error_TBC: Tensor) -> Tensor:
    """Returns the norm of each example's gradient of the readout's weight and bias, forward only. [B].

    That gradient is sum_t e[t] [f[t], 1]^T with the loss's gradient e[t] at the logits and the readout's input f[t]. So
    its squared norm is sum_{t,s} (e[t] . e[s]) (f[t] . f[s] + 1). This is exact for every loss, with T^2 products of
    vectors. For a loss on the time-mean of the logits the norm is ||p - y|| sqrt(||mean f||^2 + 1): EL2N times a factor
    from the spikes.
    """
    features_BTD, error_BTC = features_TBD.transpose(0, 1), error_TBC.transpose(0, 1)
    features_BTT = torch.bmm(features_BTD, features_BTD.transpose(1, 2))
    error_BTT = torch.bmm(error_BTC, error_BTC.transpose(1, 2)).to(features_BTT.dtype)
    return ((features_BTT + 1) * error_BTT).sum((1, 2)).clamp_min(0).sqrt()


def _check(name: str, value: object, fits: bool, allowed: str) -> None:
    if not fits:
        shown = f"{value:g}" if isinstance(value, float) else f"{value}"
        raise BadInput(f"sadp's {name} is {allowed}, not {shown}")
