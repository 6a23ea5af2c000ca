"""What the page's words mean."""

from __future__ import annotations

from sadp_bench.records.metrics import ACCURACY_SLACK
from sadp_bench.report.page.markup import Markup, pairs
from sadp_bench.report.page.wording import plain

TERMS = (
    ("Pruning ratio", "The share of example visits saved over the whole run, against training on all data."),
    (
        "Accuracy",
        "The last epoch's, never the best epoch's: the mean over n seeds, and in brackets its 95 % t-interval, which one "
        "seed has not.",
    ),
    (
        "Against full, against random",
        "Mean difference in percentage points to the run of the same seed, initial weights and order of examples that "
        "trained on all data, or on as many examples drawn at random; with the 95 % t-interval of the paired "
        "differences. In the drawing the solid upright line is no difference, the dashed one the margin.",
    ),
    ("Speed-up", "Charged seconds of full over charged seconds of the run, both measured in the same environment."),
    (
        "Charged seconds",
        "Preparing (scoring), selecting and training. Evaluation and writing files are not charged.",
    ),
    (
        "Ceiling",
        "Visits that full data makes over visits that the run made: what the speed-up would be if a dropped example cost "
        "nothing and pruning took no time.",
    ),
    ("Efficiency", "Speed-up over ceiling. At 1 the theoretical maximum is reached."),
)


def guide(margin: float | None) -> Markup:
    """margin: of the verdict, a share."""
    slack = plain(100 * ACCURACY_SLACK, 0)
    to_accuracy = (
        f"Charged seconds until an evaluation first shows full's final accuracy minus {slack} point, over the seeds that "
        "reach it. Only evaluated epochs can show it, so it is late by up to the gap between two."
    )
    return pairs([*TERMS, ("To accuracy", to_accuracy), ("Verdict", _verdict(margin))], class_="guide")


def _verdict(margin: float | None) -> str:
    points = "the margin" if margin is None else f"{plain(100 * margin, 2).rstrip('0').rstrip('.')} points"
    return (
        f"Lossless (●): all of the interval against full lies above a loss of {points}. Worse (▼): all of it lies below. "
        "Undecided (○): neither, so more seeds are needed. Each is a one-sided test at 2.5 %, not corrected for the number "
        "of methods: of many comparisons a few will err."
    )
