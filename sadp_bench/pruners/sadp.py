"""SADP: spike-aware data pruning."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sadp_bench.core import distributed
from sadp_bench.core.errors import BadInput
from sadp_bench.pruners.base import Observation, Pruner, ScoringContext, Selection
from sadp_bench.pruners.sampling import (
    balanced,
    inclusion_probability,
    kept_share,
    scheduled,
    smooth,
    systematic_sample,
    weights,
)

DRAWS = ("balanced", "independent")
SCHEDULES = ("constant", "falling", "rising")
MEMORY_OF_BOUND_RATIO = 0.8  # of the sums that the layers' bound_ratio is made of, from one measurement to the next
MEASURED_EVERY = 4  # epochs, from the fourth on: it hardly changes, and costs up to half a training step


class SADP(Pruner):
    """Draws examples in proportion to an estimate of their gradient's norm, and weights them so that nothing is biased.

    Source: after Ma, Chen, Wu, Tan & Wu, "Spike-Aware Data Pruning", arXiv 2510.04098.

    A reconstruction: of the paper only the abstract and summaries are public to us, not its formula or constants.
    Theirs is the idea: selection probabilities in proportion to the gradient norm to reduce the gradient's variance, an
    efficient bound in place of that norm, which knows of spikes, smoothed probabilities, a schedule. Ours are the bound, its
    calibration and the draw; docs/sadp.md derives them, and has the measurement behind every default.

      score_i  "layers": sqrt(sum_l k_l E_l A_l + readout^2): see `taps` for the errors' and the inputs' (spikes') squares
               E and A, and for k, by how much a layer's bound is too large, measured now and then in an epoch's first batch.
               E and A are read at the middle time step alone: k makes up for the others, at a T-th of the cost.
               "readout": the exact norm of the readout's own gradient. "spikes": the error's norm times the relative
               input squares. All are collected in the training steps, and kept from an example's last visit.
      pi_i     min(1, c ((1 - smoothing) score_i / mean + smoothing)), summing to K; unseen examples have the mean
      draw     exactly K examples, without replacement, with inclusion probabilities pi; over epochs each example's visits
               stay close to the sum of its pi
      weight   K / (N pi_i): the mean over the kept of weight x gradient is, over draws, an unbiased estimate of the full
               data's mean gradient for fixed parameters, whatever the scores are. Mean weight 1 in expectation.

    score: "layers", "readout" or "spikes". calibrate: whether "layers" measures k (otherwise it is 1, and all time steps are
    read: the plain bound).
    gain_limit: of "layers", how far an example's squared error at a layer, relative to that at the logits, may exceed the
    batch's (0: any). Batch norm hands every example a little of the others' errors; those that have none of their own
    would live on it.
    smoothing: the share of uniform sampling mixed in, in (0, 1]; it bounds the weights by about 1 / smoothing.
    memory: in [0, 1), the share of an example's earlier scores in its score (a running mean of the squares).
    draw: "balanced" over epochs, see `sampling.balanced`; or "independent" of what earlier epochs drew, where pi is exact
    whatever the scores depend on.
    schedule: "constant"; "falling" keeps more at the start and less at the end, "rising" the reverse; same budget.
    warmup: the share of the epochs, at the start, that keep everything; the others save more, for the same budget.
    weight_power: 1 = unbiased, 0 = no weights; between them weights^power, scaled to mean 1 in expectation.
    refresh, refresh_share: every so many epochs (0: never) a share of the examples, those scored longest ago, is scored in
    evaluation mode without augmentation; charged, and not part of the budget.
    """

    def __init__(
        self,
        prune_ratio: float,
        *,
        score: str = "layers",
        calibrate: bool = True,
        gain_limit: float = 4.0,
        smoothing: float = 0.2,
        memory: float = 0.7,
        draw: str = "balanced",
        schedule: str = "falling",
        warmup: float = 0.0,
        weight_power: float = 1.0,
        refresh: int = 0,
        refresh_share: float = 0.1,
    ) -> None:
        super().__init__(prune_ratio)
        _check("score", score, score in SCORES, f"one of {', '.join(SCORES)}")
        _check("draw", draw, draw in DRAWS, f"one of {', '.join(DRAWS)}")
        _check("schedule", schedule, schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}")
        _check("gain_limit", gain_limit, gain_limit == 0 or gain_limit >= 1, "0 (no limit) or at least 1")
        _check("smoothing", smoothing, 0 < smoothing <= 1, "above 0 and at most 1")
        _check("memory", memory, 0 <= memory < 1, "at least 0 and below 1")
        _check("warmup", warmup, 0 <= warmup < 1, "at least 0 and below 1")
        _check("weight_power", weight_power, 0 <= weight_power <= 1, "at least 0 and at most 1")
        _check("refresh", refresh, refresh >= 0, "at least 0 epochs")
        _check("refresh_share", refresh_share, 0 < refresh_share <= 1, "above 0 and at most 1")
        self.score = score
        self.calibrate = calibrate
        self.gain_limit = gain_limit
        self.smoothing = smoothing
        self.memory = memory
        self.draw = draw
        self.schedule = schedule
        self.warmup = warmup
        self.weight_power = weight_power
        self.refresh = refresh
        self.refresh_share = refresh_share
        self.fixed_size = schedule == "constant" and warmup == 0
        self.measures = score == "layers" and calibrate
        self.score_sq_N = torch.empty(0)
        self.visit_N = torch.empty(0)
        self.surplus_N = torch.empty(0)
        self.bound_ratio_2L = torch.empty(0)

    @property
    def watch(self) -> frozenset[str]:  # type: ignore[override]
        watched = CALIBRATED if self.score == "layers" and self.calibrate else WATCHED[self.score]
        return watched | ({"bound_ratio"} if self.measures else set())

    def check(self, num_epochs: int) -> None:
        if self._pruned_ratio(num_epochs) >= 1:
            raise BadInput(
                f"sadp with warmup={self.warmup:g} can't save {self.prune_ratio:g} of the visits in the rest of {num_epochs} "
                "epochs: lower warmup or --ratio"
            )

    def prepare(self, context: ScoringContext) -> None:
        super().prepare(context)
        self.check(context.num_epochs)
        fewest = min(map(self.share_kept, range(context.num_epochs))) * context.num_examples
        if fewest < 2 * distributed.size():
            raise BadInput(f"sadp's schedule and warmup leave an epoch {fewest:.1f} examples: lower warmup or --ratio")
        self.score_sq_N = torch.full((context.num_examples,), torch.nan, device=context.device)
        self.visit_N = torch.full((context.num_examples,), -1, dtype=torch.int32, device=context.device)
        self.surplus_N = torch.zeros(context.num_examples)

    def observe(self, seen: Observation) -> None:
        if "bound_ratio" in seen.watched:
            newest_2L = seen.watched["bound_ratio"]
            old_2L = self.bound_ratio_2L if len(self.bound_ratio_2L) else torch.zeros_like(newest_2L)
            self.bound_ratio_2L = MEMORY_OF_BOUND_RATIO * old_2L + newest_2L
        watched = self._with_bound_ratio(seen.watched)
        if self.score == "layers" and self.calibrate:
            watched |= {name: watched[f"middle_{name}"] for name in ("input_squares", "error_squares")}
        if self.score == "layers" and self.gain_limit:
            watched["error_squares"] = limited_error_squares(watched, self.gain_limit)
        new_B = SCORES[self.score](watched).to(self.score_sq_N.dtype)
        old_B = self.score_sq_N[seen.index_B]
        mixed_B = torch.where(old_B.isnan(), new_B, self.memory * old_B + (1 - self.memory) * new_B)
        # NaN marks the unseen: a score that is not a number must be refused, not forgotten.
        self.score_sq_N[seen.index_B] = mixed_B.nan_to_num(nan=torch.inf, posinf=torch.inf)
        self.visit_N[seen.index_B] = seen.epoch

    def to_survey(self, epoch: int) -> Tensor | None:
        if not self.refresh or epoch == 0 or epoch % self.refresh:
            return None
        oldest_N = self.visit_N.cpu().argsort(stable=True)
        return oldest_N[: max(distributed.size(), round(self.refresh_share * self.num_examples))]

    def select(self, epoch: int) -> Selection:
        due = epoch < MEASURED_EVERY or epoch % MEASURED_EVERY == 0
        self.measures = self.score == "layers" and self.calibrate and due
        num_kept = self.num_kept(epoch)
        score_N = self.score_sq_N.cpu().double().sqrt()
        unseen_N = score_N.isnan()
        mean = 1.0 if bool(unseen_N.all()) else score_N.nanmean()
        p_N = inclusion_probability(smooth(torch.where(unseen_N, mean, score_N), self.smoothing), num_kept)
        now_N = balanced(p_N, self.surplus_N, num_kept) if self.draw == "balanced" else p_N
        index_K = systematic_sample(now_N, self.generator(epoch))
        self.surplus_N -= p_N
        self.surplus_N[index_K] += 1
        return Selection(index_K, weights(p_N, num_kept, self.weight_power)[index_K].float())

    def num_kept(self, epoch: int) -> int:
        if self.fixed_size:
            return super().num_kept(epoch)
        return scheduled(self.num_examples, [self.share_kept(e) for e in range(epoch + 1)])

    def share_kept(self, epoch: int) -> float:
        warm = round(self.warmup * self.num_epochs)
        if epoch < warm:
            return 1.0
        done = (epoch - warm + 0.5) / (self.num_epochs - warm)
        return kept_share(self.schedule, self._pruned_ratio(self.num_epochs), done)

    def _pruned_ratio(self, num_epochs: int) -> float:
        """What the epochs after the warm-up must save so that the run saves the ratio."""
        warm = round(self.warmup * num_epochs)
        return self.prune_ratio * num_epochs / (num_epochs - warm) if num_epochs > warm else 1.0

    def _with_bound_ratio(self, watched: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """With `bound_ratio` as one factor a layer, 1 where nothing was measured; a single 1 where it never was."""
        exact_L, bound_L = self.bound_ratio_2L if len(self.bound_ratio_2L) else torch.ones(2, 1)
        factor_L = torch.where(bound_L > 0, exact_L / bound_L, torch.ones_like(bound_L))
        return {**watched, "bound_ratio": factor_L.to(self.score_sq_N.device)}


def layers_square(watched: Mapping[str, Tensor]) -> Tensor:
    """sum_l k_l E_l A_l + the readout's exact squared gradient norm. [B].

    With k = 1, and normalisation statistics that are constants, it is at least the squared norm of the example's gradient of
    all convolution and linear layers: each has the gradient sum e a^T over steps and positions, and by
    Cauchy-Schwarz |sum e a^T|^2 <= (sum |e|^2) (sum |a|^2). Without "features" there is no linear readout, and no such part.
    """
    bound_LB = watched["error_squares"] * watched["input_squares"]
    factor_L = watched["bound_ratio"].to(bound_LB.dtype).expand(len(bound_LB))
    bound_B = factor_L @ bound_LB
    return bound_B + readout_square(watched) if "features" in watched else bound_B


def limited_error_squares(watched: Mapping[str, Tensor], limit: float) -> Tensor:
    """E_l, at most `limit` times as large for an example's squared error at the logits as over the whole batch. [L, B]."""
    error_LB, output_B = watched["error_squares"], watched["logit_errors"].square().sum((0, 2))
    sums = distributed.total(torch.cat([error_LB.sum(1), output_B.sum()[None].to(error_LB.dtype)]))
    most_LB = limit * (sums[:-1] / sums[-1])[:, None] * output_B.to(error_LB.dtype)
    return torch.where(sums[-1] > 0, error_LB.minimum(most_LB), error_LB)


def readout_square(watched: Mapping[str, Tensor]) -> Tensor:
    if "features" not in watched:
        raise BadInput("sadp's score readout needs a linear layer with a bias that gives the logits: take score=layers")
    return readout_gradient_norm(watched["features"], watched["logit_errors"]).square()


def spikes_square(watched: Mapping[str, Tensor]) -> Tensor:
    """|error|^2 (1 + the mean over layers of A_l / its mean over the batch), forward only. [B]."""
    input_LB = watched["input_squares"]
    mean_L1 = distributed.total(input_LB.sum(1, keepdim=True)) / distributed.total(
        torch.tensor(float(input_LB.shape[1]))
    )
    relative_LB = input_LB / mean_L1.clamp_min(torch.finfo(input_LB.dtype).tiny)
    return watched["logit_errors"].sum(0).square().sum(1) * (1 + relative_LB.mean(0))


SCORES: dict[str, Callable[[Mapping[str, Tensor]], Tensor]] = {
    "layers": layers_square,
    "readout": readout_square,
    "spikes": spikes_square,
}
CALIBRATED = frozenset({"features", "logit_errors", "middle_input_squares", "middle_error_squares"})
WATCHED = {
    "layers": frozenset({"features", "logit_errors", "input_squares", "error_squares"}),
    "readout": frozenset({"features", "logit_errors"}),
    "spikes": frozenset({"logit_errors", "input_squares"}),
}


def readout_gradient_norm(features_TBD: Tensor, error_TBC: Tensor) -> Tensor:
    """The norm of each example's gradient of the readout's weight and bias, forward only. [B].

    That gradient is sum_t e[t] [f[t], 1]^T with the loss's gradient e[t] at the logits and the readout's input f[t], so
    its squared norm is sum_{t,s} (e[t] . e[s]) (f[t] . f[s] + 1): exact for every loss, at T^2 products of vectors. For
    a loss on the time-mean of the logits it is ||p - y|| sqrt(||mean f||^2 + 1), EL2N times the spikes' part.
    """
    features_BTD, error_BTC = features_TBD.transpose(0, 1), error_TBC.transpose(0, 1)
    features_BTT = torch.bmm(features_BTD, features_BTD.transpose(1, 2))
    error_BTT = torch.bmm(error_BTC, error_BTC.transpose(1, 2)).to(features_BTT.dtype)
    return ((features_BTT + 1) * error_BTT).sum((1, 2)).clamp_min(0).sqrt()


def _check(name: str, value: object, fits: bool, allowed: str) -> None:
    if not fits:
        shown = f"{value:g}" if isinstance(value, float) else f"{value}"
        raise BadInput(f"sadp's {name} is {allowed}, not {shown}")
