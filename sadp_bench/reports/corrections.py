"""Corrections of verdicts for the number of comparisons in a table."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any

from sadp_bench.core.errors import BadInput
from sadp_bench.records.statistics import ALPHA, holm, p_value
from sadp_bench.reports.rows import RatioRow

CORRECTIONS = ("none", "holm")


def corrected(rows: Iterable[RatioRow], correction: str) -> list[RatioRow]:
    """Returns the rows with the verdicts of each group corrected.

    With "holm" a row has two p-values of paired, two-sided t-tests. One tests a difference to full of -margin, the other a
    difference to random of 0. Holm's method adjusts each kind over all methods and ratios of the group. A verdict stands
    where its adjusted p-value is at most 5 %; otherwise it is "undecided". The verdict "level" always stands, because it
    rejects no difference of 0. Intervals are not adjusted.

    Raises:
        BadInput: There is no such correction.
    """
    if correction not in CORRECTIONS:
        raise BadInput(f"--correct is one of {', '.join(CORRECTIONS)}, not '{correction}'")
    rows = list(rows)
    if correction == "none":
        return rows
    return [row for _, own in itertools.groupby(rows, key=lambda row: row.group) for row in _by_holm(list(own))]


def _by_holm(rows: list[RatioRow]) -> list[RatioRow]:
    """Returns the rows of one group with adjusted p-values."""
    verdicts = holm([p_value(row.accuracy_difference, -row.margin) if row.verdict else None for row in rows])
    to_random = holm([p_value(row.random_difference, 0.0) for row in rows])
    found = []
    for row, p, p_random in zip(rows, verdicts, to_random, strict=True):
        verdict = row.verdict if p is None or p <= ALPHA else "undecided"
        keeps = p_random is None or p_random <= ALPHA or row.random_verdict in (None, "level")
        random_verdict = row.random_verdict if keeps else "undecided"
        changed: dict[str, Any] = {
            "verdict": verdict,
            "random_verdict": random_verdict,
            "verdict_p": p,
            "random_p": p_random,
        }
        found.append(dataclasses.replace(row, **changed))
    return found
