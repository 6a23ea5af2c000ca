"""Comparisons with a tolerance band, which comes from the spread of the reference's seeds and examples.

Means over seeds have a prediction interval of the t distribution. Their spread is pooled over the runs that differ only in
method and ratio, because a few seeds estimate it poorly. A run's own spread replaces it where it is larger. The error of
statistics of the visits comes from the thousands of examples and from the seeds.

All bands together fail an unchanged package with probability FALSE_ALARM_LEVEL at most. Each band gets an equal share of
this probability (Bonferroni), so all bands are collected before the first one is evaluated.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.special import fdtri

from sadp_bench.core.text import percent
from sadp_bench.gate.findings import BAND, FAILED, MINUS_FULL, PASSED, SKIPPED, WARNING, Finding, Group
from sadp_bench.gate.spread import Spread, of_seeds, pooled, together
from sadp_bench.records.record import Record, is_number
from sadp_bench.records.visit_counts import unpack

FALSE_ALARM_LEVEL = 0.005  # probability of a false alarm in a whole check of an unchanged package
MIN_FREEDOM = 3  # degrees of freedom; with fewer the estimated spread is too uncertain for a useful band
# Share of a pooled spread's degrees of freedom that counts. Methods with the same seed share weights and order, so their
# results correlate; their spreads also differ. Box's formula (Annals of Mathematical Statistics 25, 1954), (tr C)^2 / tr C^2
# of the methods' covariance C, gives about a half (measured: docs/ci.md).
SHARED_SEEDS = 0.5
MIN_SEEDS_OF_BANDS = 3  # seeds that are needed to estimate their spread
DEFAULT_MARGIN = 0.05  # accuracy in [0, 1]; used where the reference has too few seeds for a band
SAME_WEIGHT = 1e-5  # relative rounding error of a float32 mean
BAND_ROUNDING = 1e-9  # absolute

BySeed = dict[int, float]
Band = Callable[[float], Finding]  # its argument is its share of FALSE_ALARM_LEVEL


@dataclass(frozen=True, slots=True)
class Sample:
    """A quantity of a group by seed, in the reference and now."""

    group: Group
    reference: BySeed
    now: BySeed

    @property
    def means(self) -> tuple[float, float]:
        """The means over seeds, of the reference and now."""
        return statistics.fmean(self.reference.values()), statistics.fmean(self.now.values())

    def width(self, others: Iterable[Sample], level: float, sides: int) -> float | None:
        """Returns the allowed difference between the means now and of the reference; None for too few reference seeds.

        It is the narrower of two bands, each with half of the level. The first uses the reference's spread. The second uses
        the spread of both sides. Its estimate is better, but it is large where a change made some seeds collapse.

        Args:
            others: The samples of the same quantity, of all groups.
            level: The probability of leaving the band without a change.
            sides: 1 where only a fall counts; 2 where a rise counts too.
        """
        alike = [other for other in others if other.group.setting == self.group.setting]
        alone = self._spread([[sample.reference] for sample in alike], [self.reference])
        both = self._spread([[sample.reference, sample.now] for sample in alike], [self.reference, self.now])
        if alone.freedom < MIN_FREEDOM:
            return None
        return min(spread.reach(level / 2, sides) for spread in (alone, both))

    def _spread(self, alike: Iterable[Sequence[BySeed]], this: Sequence[BySeed]) -> Spread:
        """Returns the spread pooled over all samples, or this sample's where it is larger."""
        of_all = pooled([list(side.values()) for sample in alike for side in sample])
        of_this = pooled([list(side.values()) for side in this])
        freedom = max(of_this.freedom, SHARED_SEEDS * of_all.freedom)
        return Spread(max(of_all.size, of_this.size), freedom).of_means(len(self.reference), len(self.now))


def band_findings(groups: Sequence[Group], margin: float | None) -> list[Finding]:
    """Returns all comparisons in bands.

    Args:
        groups: The groups with the same data in the reference and now.
        margin: The allowed fall of a mean accuracy, in [0, 1]; None for a band.
    """
    accuracy = [_sample(group, lambda record: record.test_accuracy) for group in groups]
    over_full = [sample for group in groups if (sample := _over_full(group, groups)) is not None]
    loss = [
        _sample(group, lambda record: float(record.epochs[-1]["train_loss"])) for group in groups if _has_loss(group)
    ]
    bands: list[Band] = [partial(_accuracy, "accuracy", sample, accuracy, margin) for sample in accuracy]
    bands += [partial(_accuracy, MINUS_FULL, sample, over_full, margin) for sample in over_full]
    bands += [partial(_train_loss, sample, loss) for sample in loss]
    for group in groups:
        bands += [*_weights(group), *_visits(group)]
    return [band(FALSE_ALARM_LEVEL / len(bands)) for band in bands]


def _sample(group: Group, value: Any) -> Sample:
    return Sample(group, {p.seed: value(p.reference) for p in group.pairs}, {p.seed: value(p.now) for p in group.pairs})


def _has_loss(group: Group) -> bool:
    return all(is_number(record.epochs[-1].get("train_loss")) for record in [*group.references, *group.nows])


def _over_full(group: Group, groups: Iterable[Group]) -> Sample | None:
    """Returns a method's accuracy minus full data's with the same seed, on both sides; None without full data."""
    full = {pair.reference.spec.key: pair for other in groups for pair in other.pairs}
    beside = [(pair, full.get(pair.reference.spec.reference().key)) for pair in group.pairs]
    found = [(pair, other) for pair, other in beside if other is not None and other is not pair]
    if not found:
        return None
    return Sample(
        group,
        {pair.seed: pair.reference.test_accuracy - other.reference.test_accuracy for pair, other in found},
        {pair.seed: pair.now.test_accuracy - other.now.test_accuracy for pair, other in found},
    )


def _accuracy(name: str, sample: Sample, all_samples: Sequence[Sample], margin: float | None, level: float) -> Finding:
    """Compares a mean accuracy. A fall beyond the band is a failure, a rise beyond it a warning."""
    width, why = sample.width(all_samples, level, sides=1), f"{_share(level)} prediction band"
    if margin is not None:
        width, why = margin, "--accuracy-margin"
    elif width is None:
        width, why = DEFAULT_MARGIN, "the default: the reference has too few seeds for a band"
    smallest = 1 / sample.group.references[0].test_examples
    width = max(width, smallest)
    before, after = sample.means
    change = f"{100 * (after - before):+.2f} points; may fall by {100 * width:.2f}: {why}"
    text = f"{100 * before:.2f} → {percent(after, 2)} ({change})"
    beyond = abs(after - before) > width + BAND_ROUNDING
    outcome = PASSED if not beyond else FAILED if after < before else WARNING
    if outcome == WARNING:
        text += "; it rose by more than the band, so check whether this is intended"
    return Finding(sample.group.label, name, BAND, outcome, text, before, after, before - width)


def _share(level: float) -> str:
    return f"{100 * (1 - level):.4g} %"


def _train_loss(sample: Sample, all_samples: Sequence[Sample], level: float) -> Finding:
    """Compares the last epoch's loss over the kept examples. It depends on the choice of examples and on training."""
    width, means = sample.width(all_samples, level, sides=2), sample.means
    if width is None:
        return _skipped(sample.group, "train loss", *means)
    return _within(sample.group, "train loss", "last epoch ", *means, width, level)


def _skipped(group: Group, name: str, before: float | None = None, after: float | None = None) -> Finding:
    text = "the reference has too few seeds for a band"
    return Finding(group.label, name, BAND, SKIPPED, text, before, after)


def _within(group: Group, name: str, prefix: str, before: float, after: float, width: float, level: float) -> Finding:
    """Compares a mean with a two-sided prediction interval."""
    outcome = PASSED if abs(after - before) <= width + BAND_ROUNDING else FAILED
    text = f"{prefix}{before:.4f} → {after:.4f}, allowed ± {width:.4f} ({_share(level)} prediction band)"
    return Finding(group.label, name, BAND, outcome, text, before, after, [before - width, before + width])


def _weights(group: Group) -> list[Band]:
    """Returns the bands of the mean weight's level and spread, over the epochs in which the reference's seeds differ.

    A method's weights may be high or low over many epochs in a row, so all epochs of a run count as one value.
    """
    reference_SE, now_SE = _mean_weights(group.references), _mean_weights(group.nows)
    if reference_SE is None or now_SE is None or reference_SE.shape[1] != now_SE.shape[1]:
        return []
    varies_E = np.ptp(reference_SE, axis=0) > SAME_WEIGHT * np.abs(reference_SE).max(axis=0)
    if not varies_E.any():
        return []
    both = reference_SE[:, varies_E], now_SE[:, varies_E]
    return [partial(_weight_level, group, *both), partial(_weight_spread, group, *both)]


def _mean_weights(records: Sequence[Record]) -> Any:
    """Returns [S, E]; None where records lack mean weights or differ in their number of epochs."""
    rows = [[row.get("mean_weight") for row in record.epochs] for record in records]
    if len({len(row) for row in rows}) != 1 or not all(is_number(value) for row in rows for value in row):
        return None
    return np.array(rows, dtype=float)


def _weight_level(group: Group, reference_SE: Any, now_SE: Any, level: float) -> Finding:
    reference_S, now_S = reference_SE.mean(axis=1), now_SE.mean(axis=1)
    means = float(reference_S.mean()), float(now_S.mean())
    if len(reference_S) < MIN_SEEDS_OF_BANDS:
        return _skipped(group, "mean weight", *means)
    width = of_seeds(reference_S, now_S).reach(level, sides=2)
    return _within(group, "mean weight", "", *means, width, level)


def _weight_spread(group: Group, reference_SE: Any, now_SE: Any, level: float) -> Finding:
    """Compares the spread over seeds, by the F distribution of a ratio of two variances."""
    name = "spread of the mean weight"
    before, after = (float(np.sqrt(weight_SE.var(axis=0, ddof=1).mean())) for weight_SE in (reference_SE, now_SE))
    change = f"between seeds {before:.4f} → {after:.4f}"
    if after <= SAME_WEIGHT:
        text = f"{change}: the weights no longer depend on the draw"
        return Finding(group.label, name, BAND, FAILED, text, before, after)
    if len(reference_SE) < MIN_SEEDS_OF_BANDS:
        return _skipped(group, name, before, after)
    freedom = len(now_SE) - 1, len(reference_SE) - 1
    low, high = (before * math.sqrt(fdtri(*freedom, share)) for share in (level / 2, 1 - level / 2))
    outcome = PASSED if low <= after <= high else FAILED
    text = f"{change}, allowed {low:.3g} to {high:.3g} ({_share(level)} F band)"
    return Finding(group.label, name, BAND, outcome, text, before, after, [low, high])


def _visits(group: Group) -> list[Band]:
    """Returns the bands of the visits' spread over examples and of their agreement; [] where all counts are equal."""
    reference, now = _counts(group.references), _counts(group.nows)
    if reference is None or now is None or not reference.std(axis=1).all():
        return []
    agreement = [partial(_visit_agreement, group, reference, now)] if now.std(axis=1).all() else []
    return [partial(_visit_spread, group, reference, now), *agreement]


def _counts(records: Sequence[Record]) -> Any:
    """Returns [S, N]; None where a record lacks the visits."""
    if any(record.visits is None for record in records):
        return None
    return np.array([unpack(str(record.visits), record.num_examples) for record in records], dtype=float)


def _visit_spread(group: Group, reference: Any, now: Any, level: float) -> Finding:
    name = "spread of the visits"
    if len(reference) < MIN_SEEDS_OF_BANDS:
        return _skipped(group, name)
    before, after, error = visit_spread(reference, now)
    reach = error.reach(level, sides=2)
    low, high = before * math.exp(-reach), before * math.exp(reach)
    outcome = PASSED if low <= after <= high else FAILED
    text = f"standard deviation over examples {before:.4f} → {after:.4f}, allowed {low:.4f} to {high:.4f}"
    return Finding(group.label, name, BAND, outcome, f"{text} ({_share(level)})", before, after, [low, high])


def visit_spread(reference_SN: Any, now_SN: Any) -> tuple[float, float, Spread]:
    """Returns the geometric means over seeds of the counts' standard deviation, and the error of their log ratio.

    The error has two parts. One comes from the examples, by the influence of each on the logarithm; the other comes from
    the seeds, by their spread on both sides.

    Args:
        reference_SN: The visits in the reference, by seed and example.
        now_SN: The visits in the new runs, by seed and example.
    """

    def logs(count_SN: Any) -> tuple[Any, Any]:
        square_SN = (count_SN - count_SN.mean(axis=1, keepdims=True)) ** 2
        variance_S = np.maximum(square_SN.mean(axis=1), 1e-12)
        return np.log(variance_S) / 2, (square_SN / variance_S[:, None]).mean(axis=0) / 2

    (reference_S, reference_N), (now_S, now_N) = logs(reference_SN), logs(now_SN)
    error = together(_of_examples(now_N - reference_N), of_seeds(reference_S, now_S))
    return math.exp(reference_S.mean()), math.exp(now_S.mean()), error


def _of_examples(influence_N: Any) -> Spread:
    return Spread(float(influence_N.std(ddof=1)) / math.sqrt(len(influence_N)), len(influence_N) - 1)


def _visit_agreement(group: Group, reference: Any, now: Any, level: float) -> Finding:
    name = "agreement of the visits"
    if len(reference) < MIN_SEEDS_OF_BANDS:
        return _skipped(group, name)
    within, across, error = visit_agreement(reference, now)
    low = within - error.reach(level, sides=1)
    outcome = PASSED if across >= low - BAND_ROUNDING else FAILED
    text = f"correlation between seeds {within:.4f} within the reference → {across:.4f} with the runs now, at least {low:.4f}"
    return Finding(group.label, name, BAND, outcome, f"{text} ({_share(level)})", within, across, low)


def visit_agreement(reference_SN: Any, now_SN: Any) -> tuple[float, float, Spread]:
    """Returns the mean correlations of two seeds' counts within the reference and across both sides, and their error.

    Across both sides a seed is paired only with other seeds, because row s of both has the same seed and the same draws.
    The error is that of the difference of the two means. One part comes from the examples. The other comes from the seeds,
    because some seeds agree with all others more than other seeds do.

    Args:
        reference_SN: The visits in the reference, by seed and example.
        now_SN: The visits in the new runs, by seed and example.
    """

    def standard(count_SN: Any) -> Any:
        return (count_SN - count_SN.mean(axis=1, keepdims=True)) / count_SN.std(axis=1, keepdims=True)

    def strength(standard_SN: Any) -> Any:
        """Returns a seed's strength: its mean correlation with the other n - 1 seeds, times (n - 1) / (n - 2)."""
        with_all_S = standard_SN @ standard_SN.sum(axis=0) / standard_SN.shape[1]
        return (with_all_S - 1) / (len(standard_SN) - 2)

    reference_SN, now_SN = standard(reference_SN), standard(now_SN)
    pairs = len(reference_SN) * (len(reference_SN) - 1)
    within_N = (reference_SN.sum(axis=0) ** 2 - (reference_SN**2).sum(axis=0)) / pairs
    across_N = (reference_SN.sum(axis=0) * now_SN.sum(axis=0) - (reference_SN * now_SN).sum(axis=0)) / pairs
    error = together(_of_examples(within_N - across_N), of_seeds(strength(reference_SN), strength(now_SN)))
    return float(within_N.mean()), float(across_N.mean()), error
