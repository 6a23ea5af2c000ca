"""The numbers of a study, which compare a score with the exact gradient norms of n examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sadp_bench.measure.study_file import KEEPS, OWN
from sadp_bench.pruners.sampling import inclusion_probability, smooth

SMOOTHING = 0.02  # share of uniform sampling mixed into a score, so that single zeros do not decide the comparison
OPTIMUM_SMOOTHING = 1e-6  # share of uniform sampling mixed into the optimum, the exact norm, to avoid division by 0
MIN_VARIANCE = 1e-6  # share of uniform sampling's variance; no ratio to a smaller optimum is computed


def drawing(score_n: Tensor, keep: float, smoothing: float) -> Tensor:
    """Returns the inclusion probabilities pi, in proportion to the smoothed score.

    Args:
        score_n: The scores. All pi are NaN where a score is negative or not finite.
        keep: The share of the examples that is kept.
        smoothing: The share of uniform sampling that is mixed in.
    """
    if not bool(torch.isfinite(score_n).all()) or bool((score_n < 0).any()):
        return torch.full_like(score_n, torch.nan, dtype=torch.float64)
    return inclusion_probability(smooth(score_n, smoothing), num_kept(len(score_n), keep))


def num_kept(num_examples: int, keep: float) -> int:
    """Returns K, the number of kept examples."""
    return max(1, round(keep * num_examples))


def draw_variance(norm_n: Tensor, score_n: Tensor, keep: float, smoothing: float) -> float:
    """Returns V = sum_i g_i^2 (1 / pi_i - 1), with the exact norms g and the pi of `drawing`.

    V is the trace of the covariance of sum_i S_i g_i / pi_i, the unbiased estimate of the examples' summed gradient. It
    assumes Poisson sampling, which draws each example independently with probability pi_i (Saerndal, Swensson & Wretman
    1992, section 3.5).
    """
    return float((norm_n.square() * (1 / drawing(score_n, keep, smoothing) - 1)).sum())


def batch_gain(norm_n: Tensor, score_n: Tensor, keep: float, smoothing: float) -> float | None:
    """Returns tau = sum_i g_i^2 N / K / sum_i g_i^2 / pi_i, with the exact norms g and the pi of `drawing`.

    An example is in a batch of B with probability B pi_i / K, and its weight is K / (N pi_i). So the batch's mean gradient
    has the second moment sum_i g_i^2 K / (B N^2 pi_i), without the products of different examples. Uniform sampling has the
    same second moment with a batch tau times as large. tau is 1 for uniform sampling, and at most N / K for any score.
    """
    square_n, uniform = norm_n.square(), len(norm_n) / num_kept(len(norm_n), keep)
    return ratio(float(square_n.sum()) * uniform, float((square_n / drawing(score_n, keep, smoothing)).sum()))


def compared(norm_n: Tensor, score_n: Tensor, smoothing: float = SMOOTHING) -> dict[str, Any]:
    """Compares a score with the exact norm. Undefined numbers are None.

    Returns:
        "spearman", "pearson": the correlations. "over_uniform", "over_optimum": V divided by that of uniform sampling and
        of the optimum, by the share kept. "tau": `batch_gain`, by the share kept.
    """
    cell: dict[str, Any] = {**correlations(norm_n, score_n), "over_uniform": {}, "over_optimum": {}, "tau": {}}
    for keep in KEEPS:
        variance = draw_variance(norm_n, score_n, keep, smoothing)
        uniform = draw_variance(norm_n, torch.ones_like(norm_n), keep, smoothing)
        optimum = draw_variance(norm_n, norm_n, keep, OPTIMUM_SMOOTHING)
        cell["over_uniform"][f"{keep:g}"] = ratio(variance, uniform)
        cell["over_optimum"][f"{keep:g}"] = ratio(variance, optimum) if optimum > MIN_VARIANCE * uniform else None
        cell["tau"][f"{keep:g}"] = batch_gain(norm_n, score_n, keep, smoothing)
    return cell


def correlations(norm_n: Tensor, score_n: Tensor) -> dict[str, float | None]:
    """Returns Spearman's and Pearson's correlation; None where a side is constant or not finite."""
    from scipy import stats

    finite = bool(torch.isfinite(norm_n).all() and torch.isfinite(score_n).all())
    if not finite or norm_n.unique().numel() < 2 or score_n.unique().numel() < 2:
        return {"spearman": None, "pearson": None}
    pair = norm_n.numpy(), score_n.numpy()
    found = {"spearman": stats.spearmanr(*pair).statistic, "pearson": stats.pearsonr(*pair).statistic}
    return {name: float(value) if math.isfinite(value) else None for name, value in found.items()}


def ratio(value: float, base: float) -> float | None:
    """Returns value / base; None where it is not finite or the base is not positive."""
    return value / base if base > 0 and math.isfinite(value) and math.isfinite(base) else None


def variation(value_n: Tensor) -> float | None:
    """Returns the standard deviation divided by the mean."""
    return ratio(float(value_n.double().std(correction=0)), float(value_n.double().mean()))


def by_name(
    norm_n: Tensor, coming_n: Tensor, values: Mapping[str, Mapping[str, Tensor]], own_smoothing: float
) -> dict[str, Any]:
    """Compares every score of every source with its truth. `OWN` is SADP's score with SADP's own smoothing.

    Args:
        norm_n: The exact norms now: the truth of "frozen" and "training", and the optimum as a score.
        coming_n: The norms of the next epoch: the truth of collected scores.
        values: The scores, by source and name.
        own_smoothing: The share of uniform sampling in SADP's draw.

    Returns:
        The comparisons, by name and source.
    """
    found: dict[str, Any] = {}
    for source, scores in values.items():
        for name, score_n in (dict(scores) | {OWN: scores["sadp"]}).items():
            smoothing = {("exact", "frozen"): OPTIMUM_SMOOTHING, (OWN, source): own_smoothing}.get(
                (name, source), SMOOTHING
            )
            truth_n = coming_n if source.startswith("age") else norm_n
            found.setdefault(name, {})[source] = compared(truth_n, score_n, smoothing)
    return found


def finite(value: Any) -> Any:
    """Returns the value with None in place of numbers that are not finite, because JSON has none."""
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
