"""What a run repeats only up to chance, held in bands that the reference's own seeds and examples give.

A mean over seeds of what varies from seed to seed: a prediction interval of the t distribution. The spread is pooled over
the runs of one setting (all but method and ratio), since a few seeds alone hardly tell it; a run's own counts where it is
larger. What visits say has thousands of examples behind it, so its error comes from them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import fdtri, stdtrit

from sadp_bench.gate.findings import BAND, FAILED, MINUS_FULL, PASSED, SKIPPED, WARNING, Finding, Group
from sadp_bench.record import Record
from sadp_bench.visits import unpack

LEVEL = 0.001  # of a false alarm, in each comparison of an unchanged method
FEWEST_FREEDOM = 4  # degrees of freedom; with fewer the spread is not known well enough for a useful band
DEFAULT_MARGIN = 0.05  # of accuracy, where the reference has too few seeds for a band
ERRORS = 4.0  # standard errors that what visits say may be off
SAME_WEIGHT = 1e-5  # relative: a float32 mean's rounding
ROUNDING = 1e-9

BySeed = dict[int, float]


@dataclass(frozen=True, slots=True)
class Spread:
    """The standard deviation over seeds and its degrees of freedom."""

    size: float
    freedom: int

    def half_width(self, n: int, m: int, sides: int) -> float:
        """How far the mean of m new seeds may be off that of n seeds of the reference, to one side or to both.

        Source: the prediction interval of a future sample's mean; Hahn & Meeker, Statistical Intervals, 1991.
        """
        return float(stdtrit(self.freedom, 1 - LEVEL / sides)) * self.size * math.sqrt(1 / n + 1 / m)


def pooled(samples: Iterable[Sequence[float]]) -> Spread:
    """Of samples that have their own means and one spread."""
    several = [sample for sample in samples if len(sample) > 1]
    freedom = sum(len(sample) - 1 for sample in several)
    squares = sum((len(sample) - 1) * statistics.variance(sample) for sample in several)
    return Spread(math.sqrt(squares / freedom) if freedom else 0.0, freedom)


@dataclass(frozen=True, slots=True)
class Sample:
    """One quantity of one group, by seed."""

    group: Group
    reference: BySeed
    now: BySeed

    @property
    def means(self) -> tuple[float, float]:
        return statistics.fmean(self.reference.values()), statistics.fmean(self.now.values())

    def half_width(self, others: Sequence[Sample], sides: int) -> float | None:
        """None where the seeds of all samples together are too few."""
        of_all = pooled([list(sample.reference.values()) for sample in others])
        if of_all.freedom < FEWEST_FREEDOM:
            return None
        own = pooled([list(self.reference.values())])
        spread = Spread(max(of_all.size, own.size), of_all.freedom)
        return spread.half_width(len(self.reference), len(self.now), sides)


def findings(groups: Sequence[Group], margin: float | None) -> list[Finding]:
    """margin: how far a mean accuracy may fall, in [0, 1]; None: the band decides."""
    accuracy = [_sample(group, lambda record: record.test_accuracy) for group in groups]
    over_full = [sample for group in groups if (sample := _over_full(group, groups)) is not None]
    loss = [
        _sample(group, lambda record: float(record.epochs[-1]["train_loss"])) for group in groups if _has_loss(group)
    ]
    found = [_accuracy("accuracy", sample, accuracy, margin) for sample in accuracy]
    found += [_accuracy(MINUS_FULL, sample, over_full, margin) for sample in over_full]
    found += [_train_loss(sample, loss) for sample in loss]
    for group in groups:
        found += [*_weights(group), *_visits(group)]
    return found


def _sample(group: Group, value: Any) -> Sample:
    return Sample(group, {p.seed: value(p.reference) for p in group.pairs}, {p.seed: value(p.now) for p in group.pairs})


def _has_loss(group: Group) -> bool:
    return all(_is_number(record.epochs[-1].get("train_loss")) for record in [*group.references, *group.nows])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _over_full(group: Group, groups: Iterable[Group]) -> Sample | None:
    """A method's accuracy minus that of full data with the same seed, on either side; None where full data is not there."""
    full = {pair.reference.spec.key: pair for other in groups for pair in other.pairs}
    beside = [(pair, full.get(pair.reference.spec.reference().key)) for pair in group.pairs]
    there = [(pair, other) for pair, other in beside if other is not None and other is not pair]
    if not there:
        return None
    return Sample(
        group,
        {pair.seed: pair.reference.test_accuracy - other.reference.test_accuracy for pair, other in there},
        {pair.seed: pair.now.test_accuracy - other.now.test_accuracy for pair, other in there},
    )


def _accuracy(name: str, sample: Sample, all_samples: Sequence[Sample], margin: float | None) -> Finding:
    """Only a fall is a failure; a rise beyond the band is told."""
    alike = [other for other in all_samples if other.group.setting == sample.group.setting]
    width, why = sample.half_width(alike, sides=1), f"{1 - LEVEL:.1%} prediction band"
    if margin is not None:
        width, why = margin, "--accuracy-margin"
    elif width is None:
        width, why = DEFAULT_MARGIN, "the default: the reference has too few seeds for a band"
    smallest = 1 / sample.group.references[0].test_examples
    width = max(width, smallest)
    before, after = sample.means
    change = f"{100 * (after - before):+.2f} points; may fall by {100 * width:.2f}: {why}"
    text = f"{100 * before:.2f} → {100 * after:.2f} % ({change})"
    beyond = abs(after - before) > width + ROUNDING
    outcome = PASSED if not beyond else FAILED if after < before else WARNING
    if outcome == WARNING:
        text += "; it rose by more: no failure, but is it meant?"
    return Finding(sample.group.label, name, BAND, outcome, text, before, after, before - width)


def _train_loss(sample: Sample, all_samples: Sequence[Sample]) -> Finding:
    """Of the last epoch, over the examples that were kept: it tells of other examples, and of another training."""
    label, name = sample.group.label, "train loss"
    width = sample.half_width([s for s in all_samples if s.group.setting == sample.group.setting], sides=2)
    before, after = sample.means
    if width is None:
        return Finding(label, name, BAND, SKIPPED, "the reference has too few seeds for a band", before, after)
    outcome = PASSED if abs(after - before) <= width else FAILED
    text = f"last epoch {before:.4f} → {after:.4f}, allowed ± {width:.4f} ({1 - LEVEL:.1%} prediction band)"
    return Finding(label, name, BAND, outcome, text, before, after, [before - width, before + width])


def _weights(group: Group) -> list[Finding]:
    """Level and spread of the mean weight, over the epochs in which it differs between the reference's seeds."""
    reference_SE, now_SE = _mean_weights(group.references), _mean_weights(group.nows)
    if reference_SE is None or now_SE is None or reference_SE.shape[1] != now_SE.shape[1]:
        return []
    varies_E = np.ptp(reference_SE, axis=0) > SAME_WEIGHT * np.abs(reference_SE).max(axis=0)
    if not varies_E.any():
        return []
    reference, now = (_level_and_spread(x[:, varies_E]) for x in (reference_SE, now_SE))
    return [_weight_level(group, reference, now), _weight_spread(group, reference[1], now[1])]


def _mean_weights(records: Sequence[Record]) -> Any:
    """[S, E], or None where the records do not tell or do not agree on the epochs."""
    rows = [[row.get("mean_weight") for row in record.epochs] for record in records]
    if len({len(row) for row in rows}) != 1 or not all(_is_number(value) for row in rows for value in row):
        return None
    return np.array(rows, dtype=float)


def _level_and_spread(weight_SE: Any) -> tuple[float, Spread]:
    return float(weight_SE.mean()), pooled(weight_SE.T.tolist())


def _weight_level(group: Group, reference: tuple[float, Spread], now: tuple[float, Spread]) -> Finding:
    """The epochs of a run count as one: what moves a method's weights may stay from epoch to epoch."""
    (before, spread), after, name = reference, now[0], "mean weight"
    if spread.freedom < FEWEST_FREEDOM:
        return Finding(group.label, name, BAND, SKIPPED, "too few seeds and epochs for a band", before, after)
    width = spread.half_width(len(group.pairs), len(group.pairs), sides=2)
    outcome = PASSED if abs(after - before) <= width else FAILED
    text = f"{before:.4f} → {after:.4f}, allowed ± {width:.4f} ({1 - LEVEL:.1%} prediction band)"
    return Finding(group.label, name, BAND, outcome, text, before, after, [before - width, before + width])


def _weight_spread(group: Group, before: Spread, after: Spread) -> Finding:
    """The ratio of two variances has an F distribution; half the degrees of freedom, as a run's epochs may hang together."""
    name, told = "spread of the mean weight", f"between seeds {before.size:.4f} → {after.size:.4f}"
    if after.size <= SAME_WEIGHT:
        text = f"{told}: the weights no longer depend on the draw"
        return Finding(group.label, name, BAND, FAILED, text, before.size, after.size)
    if before.freedom < 2 * FEWEST_FREEDOM:
        text = "too few seeds and epochs for a band"
        return Finding(group.label, name, BAND, SKIPPED, text, before.size, after.size)
    freedom = after.freedom / 2, before.freedom / 2
    low, high = (before.size * math.sqrt(fdtri(*freedom, level)) for level in (LEVEL / 2, 1 - LEVEL / 2))
    outcome = PASSED if low <= after.size <= high else FAILED
    text = f"{told}, allowed {low:.4f} to {high:.4f} ({1 - LEVEL:.1%} F band)"
    return Finding(group.label, name, BAND, outcome, text, before.size, after.size, [low, high])


def _visits(group: Group) -> list[Finding]:
    """How unevenly the examples were visited, and whether the same ones more. Nothing where all counts are alike."""
    reference, now = _counts(group.references), _counts(group.nows)
    if reference is None or now is None or not reference.std(axis=1).all():
        return []
    found = [_visit_spread(group, reference, now)]
    if len(reference) > 1 and now.std(axis=1).all():
        found.append(_visit_agreement(group, reference, now))
    return found


def _counts(records: Sequence[Record]) -> Any:
    """[S, N], or None where a record does not tell."""
    if any(record.visits is None for record in records):
        return None
    return np.array([unpack(str(record.visits), record.num_examples) for record in records], dtype=float)


def _visit_spread(group: Group, reference: Any, now: Any) -> Finding:
    before, after, error = visit_spread(reference, now)
    low, high = before * math.exp(-ERRORS * error), before * math.exp(ERRORS * error)
    outcome = PASSED if low <= after <= high else FAILED
    text = (
        f"standard deviation over examples {before:.4f} → {after:.4f}, allowed {low:.4f} to {high:.4f} "
        f"({ERRORS:g} standard errors)"
    )
    return Finding(group.label, "spread of the visits", BAND, outcome, text, before, after, [low, high])


def visit_spread(reference_SN: Any, now_SN: Any) -> tuple[float, float, float]:
    """The geometric means over seeds of the counts' standard deviation, and the standard error of their log ratio.

    The error has two parts: of the examples, by the influence of each on the log, and of the seeds, by how far the
    reference's own are apart.
    """

    def logs(count_SN: Any) -> tuple[Any, Any]:
        square_SN = (count_SN - count_SN.mean(axis=1, keepdims=True)) ** 2
        variance_S = np.maximum(square_SN.mean(axis=1), 1e-12)
        return np.log(variance_S) / 2, (square_SN / variance_S[:, None]).mean(axis=0) / 2

    (reference_S, reference_N), (now_S, now_N) = logs(reference_SN), logs(now_SN)
    of_examples = (now_N - reference_N).std(ddof=1) / math.sqrt(len(now_N))
    of_seeds = float(reference_S.std(ddof=1)) if len(reference_S) > 1 else 0.0
    error = math.hypot(of_examples, of_seeds * math.sqrt(1 / len(reference_S) + 1 / len(now_S)))
    return math.exp(reference_S.mean()), math.exp(now_S.mean()), error


def _visit_agreement(group: Group, reference: Any, now: Any) -> Finding:
    within, across, error = visit_agreement(reference, now)
    low = within - ERRORS * error
    outcome = PASSED if across >= low - ROUNDING else FAILED
    text = (
        f"correlation between seeds {within:.4f} within the reference → {across:.4f} with the runs now, at least {low:.4f} "
        f"({ERRORS:g} standard errors)"
    )
    return Finding(group.label, "agreement of the visits", BAND, outcome, text, within, across, low)


def visit_agreement(reference_SN: Any, now_SN: Any) -> tuple[float, float, float]:
    """The mean correlation of two seeds' counts over the examples: within the reference, and of its seeds with other seeds
    now; and the standard error of their difference. Row s of either is the same seed, which shares its draws and is left out.
    """

    def standard(count_SN: Any) -> Any:
        return (count_SN - count_SN.mean(axis=1, keepdims=True)) / count_SN.std(axis=1, keepdims=True)

    reference_SN, now_SN = standard(reference_SN), standard(now_SN)
    pairs = len(reference_SN) * (len(reference_SN) - 1)
    within_N = (reference_SN.sum(axis=0) ** 2 - (reference_SN**2).sum(axis=0)) / pairs
    across_N = (reference_SN.sum(axis=0) * now_SN.sum(axis=0) - (reference_SN * now_SN).sum(axis=0)) / pairs
    error = (within_N - across_N).std(ddof=1) / math.sqrt(len(within_N))
    return float(within_N.mean()), float(across_N.mean()), float(error)
