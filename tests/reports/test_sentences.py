"""The findings in words: they state what the rows' intervals show, and no more."""

from __future__ import annotations

import pytest

from sadp_bench.reports import render
from sadp_bench.reports.corrections import corrected
from sadp_bench.reports.grouping import rows
from sadp_bench.reports.sentences import findings
from tests.example_records import make_record, make_spec
from tests.reports.helpers import row_of

# With three seeds, t is 4.302653 at 2 degrees of freedom: the half-width is 2.484138 times the standard deviation.
WOBBLE = (-0.001, 0.0, 0.001)  # half-width 0.248 points


def study(**differences: tuple[float, ...]):
    """Returns runs at 30, 50 and 70 % with the given differences to random in points. random is 10 below full."""
    found = []
    for seed in range(3):
        found.append(make_record(make_spec(seed=seed), 0.7))
        for place, ratio in enumerate((0.3, 0.5, 0.7)):
            random = 0.6 + 0.01 * seed
            found.append(make_record(make_spec("random", ratio, seed), random))
            for method, points in differences.items():
                if place < len(points):
                    accuracy = random + points[place] / 100 + WOBBLE[seed]
                    found.append(make_record(make_spec(method, ratio, seed), accuracy))
    return found


def test_verdict_against_random_is_that_of_the_interval():
    table = rows(study(sadp=(0.26, 0.24, -0.26)))
    found = [row_of(table, "sadp", ratio) for ratio in (0.3, 0.5, 0.7)]
    assert [row.random_difference.low for row in found] == pytest.approx(
        [0.00011586, -0.00008414, -0.00508414], abs=1e-7
    )
    assert [row.random_verdict for row in found] == ["better", "level", "worse"]
    assert row_of(rows(study(sadp=(0.26,)), margin=0.004), "sadp", 0.3).random_verdict == "better"
    assert row_of(rows(study(sadp=(0.24,)), margin=0.004), "sadp", 0.3).random_verdict == "undecided"
    assert {row_of(table, name, ratio).random_verdict for name, ratio in (("full", 0), ("random", 0.3))} == {None}
    assert found[0].columns()["random_verdict"] == "better"


def test_methods_of_the_same_answers_share_a_sentence():
    shown = findings(rows(study(a=(3, 3, 3), b=(2, 2, 2), c=(3, -3, 0), d=(0.4, 0.4), sadp=(0.0,)), margin=0.002))
    assert shown[1:5] == [
        "a and b are better than random sampling at every ratio (30, 50 and 70 %).",
        "c is better than random sampling at 30 %, is worse than random sampling at 50 %, and cannot be told apart from "
        "random sampling at 70 %.",
        "d is better than random sampling at every ratio (30 and 50 %).",
        "SADP cannot be told apart from random sampling at 30 %.",
    ]
    assert "SADP cannot be told apart from random sampling at any ratio (30, 50 and 70 %)." in findings(
        rows(study(sadp=(0.1, 0, -0.1)), margin=0.002)
    )
    level = findings(rows(study(sadp=(0.1, 0, -0.1))))
    assert "SADP is level with random sampling, within 0.5 points, at every ratio (30, 50 and 70 %)." in level


def test_full_data_has_its_sentence_and_many_methods_are_counted():
    shown = findings(rows(study(a=(0, 0, 0), b=(1, 1, 1), c=(2, 2, 2))))
    assert shown[0] == "Full data: 70.00 % [70.00, 70.00] in 100.0 s (n = 3). No method is shown to be lossless."
    assert shown[-1] == "All 4 methods lose more than 0.5 points to full data at every ratio (30, 50 and 70 %)."


def test_one_seed_and_no_random_claim_nothing():
    alone = [record for record in study(sadp=(9, 9, 9)) if record.spec.seed == 0]
    assert findings(rows(alone)) == [
        "Full data: 70.00 % in 100.0 s (n = 1). No verdict: fewer than two seeds are paired with full data.",
        "No verdict against random sampling: it takes two paired seeds at a ratio.",
    ]
    without = [record for record in study(sadp=(9, 9, 9)) if record.spec.method != "random"]
    assert not any("random" in sentence for sentence in findings(rows(without)))


def test_holm_takes_back_a_verdict_against_random_that_one_comparison_allowed():
    # t is 0.26 / (0.1 / sqrt(3)) = 4.50, p = 0.046: too much beside another comparison of p = 1.
    table = rows(study(sadp=(0.26, 0.0)))
    kept, after = (row_of(corrected(table, name), "sadp", 0.3) for name in ("none", "holm"))
    assert (kept.random_verdict, after.random_verdict) == ("better", "undecided")
    assert 0.05 < after.random_p == pytest.approx(2 * 0.0460, abs=2e-3)
    assert row_of(corrected(table, "holm"), "sadp", 0.5).random_verdict == "level"
    shown = render(study(sadp=(0.26, 0.0)), correction="holm", summary=True)
    assert "SADP is level with random sampling, within 0.5 points, at 50 %, and cannot be told" in " ".join(
        shown.split()
    )


def test_findings_stand_before_the_tables_in_text_and_markdown():
    for format in ("text", "markdown"):
        shown = render(study(sadp=(3, 3, 3)), format=format, width=200)
        assert 0 < shown.index("- SADP is better than random sampling") < shown.index("70.00 ±0.00")


def test_summary_is_verdicts_and_findings_alone_and_the_largest_study_is_first():
    small = [make_record(make_spec(method, ratio, dataset="a"), 0.5) for method, ratio in (("full", 0), ("sadp", 0.3))]
    shown = render([*small, *study(sadp=(3, 0.1, -3))], summary=True, format="markdown")
    assert shown.index("### digits") < shown.index("### a ·")
    assert "| Random | worse -9.00 | worse -9.00 | worse -9.00 |" in shown
    assert "| SADP | worse -6.00<br>better +3.00 | worse -8.90<br>level +0.10 | worse -12.00<br>worse -3.00 |" in shown
    assert "speed-up" not in shown and "Measured on" not in shown
    assert "| SADP | 0.00 |" in shown, "one seed has a difference and no verdict"
