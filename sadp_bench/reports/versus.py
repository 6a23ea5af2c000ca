"""One method against every other of its group: paired differences of accuracy and factors of the fitted loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sadp_bench.core.errors import BadInput
from sadp_bench.records.statistics import Estimate, against, paired_difference, paired_factor, to_rival, verdict
from sadp_bench.reports.outcomes import by_seed
from sadp_bench.reports.rows import NOT_MEASURED, RatioRow

LOSS_MARGIN = 0.1  # a factor of the fitted loss within 1 / 1.1 and 1.1 is level


@dataclass(frozen=True, slots=True)
class Versus:
    """A method against another at one ratio; against full data, at ratio 0.

    Attributes:
        group: The group's title.
        label: The method.
        ratio: Its pruning ratio.
        rival: The other method.
        n: Runs of the method.
        difference: Accuracy minus the rival's, a share, paired by seed.
        loss_factor: Fitted loss over the rival's, paired: a geometric mean.
        verdict: On the accuracy; None without an interval.
        loss_verdict: On the fitted loss; None likewise.
    """

    group: str
    label: str
    ratio: float
    rival: str
    n: int
    difference: Estimate
    loss_factor: Estimate
    verdict: str | None
    loss_verdict: str | None


def versus(rows: Iterable[RatioRow], method: str, margin: float) -> list[Versus]:
    """Returns the comparisons of a method with every other, in the order of the rows; by ratio within a group.

    Args:
        rows: Of all groups.
        method: Name of the method, or its label with options where it has several: "sadp (score=layers)".
        margin: The share of accuracy within which two methods are level, and that a lossless one may lose.

    Raises:
        BadInput: No row is the method's, or its name alone stands for several settings.
    """
    done = [row for row in rows if row.n]
    own = [row for row in done if method in (row.label, row.method) and not row.is_full]
    if any(row.label == method for row in own):
        own = [row for row in own if row.label == method]
    _check_one_label(done, own, method)
    return [
        _versus(row, rival, margin)
        for row in own
        for rival in done
        if rival.group == row.group and rival is not row and (rival.is_full or rival.ratio == row.ratio)
    ]


def _check_one_label(rows: Sequence[RatioRow], own: Sequence[RatioRow], method: str) -> None:
    """Raises BadInput where the method has no row, or several labels in a group."""
    if not own:
        labels = dict.fromkeys(row.label for row in rows if not row.is_full)
        raise BadInput(f"--compare takes a method of these records: {', '.join(labels)}; not '{method}'")
    for group in dict.fromkeys(row.group for row in own):
        labels = dict.fromkeys(row.label for row in own if row.group == group)
        if len(labels) > 1:
            raise BadInput(f"--compare {method} may mean {' or '.join(labels)}: give one of these, in quotes")


def _versus(row: RatioRow, rival: RatioRow, margin: float) -> Versus:
    difference = paired_difference(by_seed(row.runs), by_seed(rival.runs)) or NOT_MEASURED
    losses = (by_seed(each.runs, lambda run: run.fitted_loss) for each in (row, rival))
    factor = paired_factor(*losses) or NOT_MEASURED
    ends = difference.low, difference.high
    return Versus(
        row.group,
        row.label,
        row.ratio,
        rival.label,
        row.n,
        difference,
        factor,
        verdict(*ends, margin) if rival.is_full else to_rival(*ends, margin),
        against(factor.low, factor.high, 1 / (1 + LOSS_MARGIN), 1.0, 1 + LOSS_MARGIN, "worse", "better"),
    )
