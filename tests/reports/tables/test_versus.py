"""`report --compare`: one method against every other."""

from __future__ import annotations

import math
import statistics

import pytest

from sadp_bench.core.errors import BadInput
from sadp_bench.records.statistics import against, t_interval
from sadp_bench.reports import render
from sadp_bench.reports.contents import Contents
from sadp_bench.reports.versus import versus
from tests.example_records import make_record, make_spec

SEEDS = range(5)
# (method, ratio): accuracy and fitted loss of a seed.
RUNS = {
    ("full", 0.0): lambda seed: (0.800 + 0.01 * seed, 0.100),
    ("random", 0.5): lambda seed: (0.790 + 0.01 * seed + 0.001 * (seed % 2), 0.200 + 0.01 * seed),
    ("hwbs", 0.5): lambda seed: (0.799 + 0.01 * seed - 0.002 * (seed % 2), 0.151 - 0.002 * (seed % 3)),
    ("sadp", 0.5): lambda seed: (0.798 + 0.01 * seed, 0.150),
    ("random", 0.7): lambda seed: (0.700 + 0.02 * (seed % 2), 0.3),
    ("sadp", 0.7): lambda seed: (0.700 + 0.02 * (seed % 3), 0.3 * (1.5 if seed else 0.5)),
}


def record(method, ratio, seed, options=None):
    accuracy, loss = RUNS[method, ratio](seed)
    fitted = {"fitted_loss": loss, "fitted_accuracy": 0.9, "fitted_examples": 1000}
    spec = make_spec(method, ratio, seed, **({"method_options": options} if options else {}))
    return make_record(spec, accuracy, **fitted)


def records():
    return [record(method, ratio, seed) for method, ratio in RUNS for seed in SEEDS]


def found():
    return {(each.ratio, each.rival): each for each in versus(Contents(records()).rows, "sadp", 0.005)}


def test_each_comparison_equals_hand_worked_numbers():
    each = found()[0.5, "random"]
    minus = [RUNS["sadp", 0.5](seed)[0] - RUNS["random", 0.5](seed)[0] for seed in SEEDS]
    logs = [math.log(RUNS["sadp", 0.5](seed)[1] / RUNS["random", 0.5](seed)[1]) for seed in SEEDS]
    assert each.difference.mean == pytest.approx(statistics.fmean(minus))
    assert (each.difference.low, each.difference.high) == pytest.approx(t_interval(minus))
    assert each.loss_factor.mean == pytest.approx(math.exp(statistics.fmean(logs)))
    assert (each.loss_factor.low, each.loss_factor.high) == pytest.approx(tuple(map(math.exp, t_interval(logs))))
    assert each.n == each.difference.n == 5


def test_a_method_is_compared_at_its_ratio_and_with_full_data():
    assert set(found()) == {(0.5, "full"), (0.5, "random"), (0.5, "hwbs"), (0.7, "full"), (0.7, "random")}


def test_verdicts_follow_from_the_intervals():
    verdicts = {key: (each.verdict, each.loss_verdict) for key, each in found().items()}
    assert verdicts[0.5, "random"] == ("better", "better")
    assert verdicts[0.5, "hwbs"] == ("level", "level")
    assert verdicts[0.7, "random"] == ("undecided", "undecided")
    assert verdicts[0.7, "full"][0] == "worse"
    assert verdicts[0.5, "full"] == (None, None)  # the difference is the same at every seed: no width


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.001, 0.002, "better"), (-0.002, -0.001, "worse"), (-0.004, 0.004, "level"), (-0.004, 0.006, "undecided"),
     (-0.006, 0.004, "undecided"), (None, None, None), (0.001, 0.001, None)],
)  # fmt: skip
def test_an_interval_has_one_verdict(low, high, expected):
    assert against(low, high, -0.005, 0.0, 0.005, "better", "worse") == expected


def test_the_table_shows_each_rival_once_and_nothing_else():
    shown = render(records(), format="markdown", compare="sadp")
    assert shown.count("| random |") == 2 and shown.count("| hwbs |") == 1
    assert "At 50 %" in shown and "±0.5 points" in shown and "Bold" not in shown
    for line in render(records(), compare="sadp", width=80).splitlines():
        assert len(line) <= 80


def test_a_method_with_several_settings_is_given_by_its_label():
    others = [each for each in records() if each.spec.method != "sadp"]
    more = [*others, *(record("sadp", 0.5, seed, {"score": score}) for score in ("layers", "exact") for seed in SEEDS)]
    with pytest.raises(BadInput, match=r"may mean sadp \(score=.*\) or sadp \(score=.*\)"):
        render(more, compare="sadp")
    labels = [row.label for row in Contents(more).rows if row.method == "sadp" and row.ratio == 0.5]
    for label in dict.fromkeys(labels):
        assert f"{label} against" in render(more, compare=label)


def test_bad_input_is_one_line():
    with pytest.raises(BadInput, match="takes a method of these records: random, .*; not 'sdap'"):
        render(records(), compare="sdap")
    with pytest.raises(BadInput, match="not 'full'"):
        render(records(), compare="full")
    with pytest.raises(BadInput, match="--compare is for --format text, markdown, latex, not csv"):
        render(records(), format="csv", compare="sadp")
