"""The kinds of metrics: pure functions of one run, or of two runs to compare. None: a run has no such number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from sadp_bench.records.metrics import realised_ratio
from sadp_bench.records.record import Record, is_number

Scores = Any  # a number for each training example, [N], that NumPy can read


def accuracy(of: Record) -> float:
    """Returns the test accuracy of a run after its last epoch, in percent."""
    return 100 * of.test_accuracy


def accuracy_difference(of: Record, against: Record) -> float | None:
    """Returns the test accuracy of a run minus that of another, in points; None where their data differ."""
    if of.data_sha256 != against.data_sha256:
        return None
    return 100 * (of.test_accuracy - against.test_accuracy)


def visits_saved(of: Record) -> float:
    """Returns the share of the example visits that a run saved, in percent."""
    return 100 * realised_ratio(of)


def late_gain(of: Record) -> float | None:
    """Returns the test accuracy at the end minus that after two thirds of the epochs, in points."""
    row = of.epochs[max(0, round(2 * len(of.epochs) / 3) - 1)]
    early = row.get("test_accuracy")
    return 100 * (of.test_accuracy - early) if is_number(early) and 0 <= early <= 1 else None


def gradient_cosine(of: Record) -> float | None:
    """Returns the cosine of SLTT's gradient with BPTT's after the last epoch."""
    cosine = of.gradient_cosine.get("last")
    return float(cosine) if is_number(cosine) else None


def score_correlation(of_N: Scores, against_N: Scores) -> float | None:
    """Returns Spearman's rank correlation of two runs' scores; None: numbers of examples differ, or all scores are equal."""
    import numpy
    from scipy.stats import rankdata

    if len(of_N) != len(against_N):
        return None
    rank_N, other_N = (rankdata(numpy.asarray(score_N, dtype=numpy.float64)) for score_N in (of_N, against_N))
    if not rank_N.std() or not other_N.std():
        return None
    return float(numpy.corrcoef(rank_N, other_N)[0, 1])


def never_forgotten(of_N: Scores) -> float:
    """Returns the share of examples that were learned and never forgotten, in percent: those with forgetting score 0.

    An example that was never learned has a score above 0 (see `baselines.forgetting`).
    """
    return 100 * sum(float(score) == 0 for score in of_N) / len(of_N)


def never_forgotten_difference(of_N: Scores, against_N: Scores) -> float:
    """Returns the share of examples never forgotten in a run minus that in another, in points."""
    return never_forgotten(of_N) - never_forgotten(against_N)


class Kind(NamedTuple):
    """A kind of metric.

    Attributes:
        value: The function of one run, or of a run and the run to compare it with.
        of_pairs: Whether it compares two runs.
        of_scores: Whether its arguments are the runs' scores instead of their records.
        unit: Unit of its values in texts: "points", "%" or "".
        digits: Decimals of its values in texts.
    """

    value: Callable[..., float | None]
    of_pairs: bool
    of_scores: bool
    unit: str
    digits: int


KINDS = {
    "accuracy": Kind(accuracy, False, False, "%", 2),
    "accuracy_difference": Kind(accuracy_difference, True, False, "points", 2),
    "visits_saved": Kind(visits_saved, False, False, "%", 1),
    "late_gain": Kind(late_gain, False, False, "points", 2),
    "gradient_cosine": Kind(gradient_cosine, False, False, "", 4),
    "score_correlation": Kind(score_correlation, True, True, "", 3),
    "never_forgotten_difference": Kind(never_forgotten_difference, True, True, "points", 1),
}
