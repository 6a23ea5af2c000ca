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
    """A comparison of a method at one ratio with another method at the same ratio, or with full data.

    Attributes:
        group: The group's title.
        label: The method.
        ratio: Its pruning ratio.
        rival: The other method.
        n: Runs of the method.
        difference: The accuracy minus the rival's, as a share, paired by seed.
        loss_factor: The fitted loss divided by the rival's, the geometric mean over paired seeds.
        verdict: The verdict on the accuracy; None without an interval.
        loss_verdict: The verdict on the fitted loss; None without an interval.
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
    """Returns the comparisons of a method with every other, in the order of the rows.

    Args:
        rows: The rows of all groups.
        method: A method's name, or its label "sadp (score=layers)" where the name has several settings.
        margin: The share of accuracy within which two methods are level. A lossless method may lose it.

    Raises:
        BadInput: No row has this method, or its name stands for several settings of a group.
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
