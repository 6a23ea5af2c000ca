"""Verdicts: where an interval lies against the band, and how the metrics' verdicts make the claim's."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest

from sadp_bench.claims.claim_file import Metric
from sadp_bench.claims.measure import Finding
from sadp_bench.claims.verdict import Band, Verdict, joined
from sadp_bench.records.statistics import t_interval

HELD, NOT_HELD, UNDECIDED, UNTESTABLE = Verdict.HELD, Verdict.NOT_HELD, Verdict.UNDECIDED, Verdict.UNTESTABLE
AT_MOST, AT_LEAST, BOTH = Band(None, 0.3), Band(-0.7, None), Band(25.0, 36.0)


@pytest.mark.parametrize(
    ("band", "interval", "expected"),
    [
        (AT_MOST, (0.1, 0.2), HELD),
        (AT_MOST, (-5.0, 0.3), HELD),  # the end belongs to the band
        (AT_MOST, (0.2, 0.4), UNDECIDED),
        (AT_MOST, (0.3, 0.4), UNDECIDED),  # touches the band
        (AT_MOST, (0.31, 0.4), NOT_HELD),
        (AT_LEAST, (-0.7, 9.0), HELD),
        (AT_LEAST, (-0.71, 9.0), UNDECIDED),
        (AT_LEAST, (-9.0, -0.71), NOT_HELD),
        (BOTH, (25.0, 36.0), HELD),
        (BOTH, (24.9, 30.0), UNDECIDED),
        (BOTH, (30.0, 36.1), UNDECIDED),
        (BOTH, (20.0, 40.0), UNDECIDED),  # contains the whole band
        (BOTH, (10.0, 24.9), NOT_HELD),
        (BOTH, (36.1, 50.0), NOT_HELD),
        (BOTH, (30.0, 30.0), HELD),  # equal values
        (BOTH, None, UNDECIDED),  # one seed
    ],
)
def test_an_interval_within_the_band_holds_outside_does_not_and_across_an_end_is_undecided(band, interval, expected):
    assert band.verdict(interval) is expected


def test_a_band_is_shown_in_words():
    assert (AT_MOST.text(), AT_LEAST.text(), BOTH.text()) == ("at most 0.3", "at least -0.7", "25 to 36")


def finding(values, band):
    interval = t_interval(values)
    return Finding(Metric("m", "", {}, None, band), tuple(values), interval, band.verdict(interval))


def test_an_undecided_metric_states_the_seeds_that_decide_it():
    solver = pytest.importorskip("statsmodels.stats.power", reason="statsmodels is not installed").TTestPower()
    for values in ((25.5, 24.9, 25.2, 25.4), (20.0, 30.0, 38.0), (35.0, 36.0, 36.2)):
        found = finding(values, BOTH)
        assert found.verdict is UNDECIDED
        distance = min(abs(statistics.fmean(values) - end) for end in (25.0, 36.0))
        expected = solver.solve_power(distance / statistics.stdev(values), alpha=0.05, power=0.8)
        assert found.seeds_needed == math.ceil(expected) == found.to_json()["seeds_needed"]
    for values, band in (((26.0, 26.1), BOTH), ((24.0, 26.0), BOTH), ((30.0,), BOTH), ((0.1, 0.11), AT_MOST)):
        assert finding(values, band).seeds_needed is None, values  # decided, at an end of the band, one seed


def test_a_claim_holds_if_all_hold_and_falls_with_one():
    for verdicts in itertools.product((HELD, NOT_HELD, UNDECIDED), repeat=3):
        expected = NOT_HELD if NOT_HELD in verdicts else UNDECIDED if UNDECIDED in verdicts else HELD
        assert joined((False, verdict) for verdict in verdicts) is expected, verdicts
        with_untestable = [(False, UNTESTABLE), *((False, verdict) for verdict in verdicts)]
        assert joined(with_untestable) is expected, verdicts


def test_without_a_testable_metric_nothing_is_testable():
    assert joined([]) is UNTESTABLE and joined([(False, UNTESTABLE)] * 2) is UNTESTABLE


def test_a_premise_that_is_not_held_leaves_the_claim_undecided():
    for premise, other in itertools.product((NOT_HELD, UNDECIDED), (HELD, NOT_HELD, UNDECIDED)):
        assert joined([(True, premise), (False, other)]) is UNDECIDED
    assert joined([(True, HELD), (False, NOT_HELD)]) is NOT_HELD
    assert joined([(True, HELD), (False, HELD)]) is HELD
