"""Comparisons without tolerance, of numbers that every machine reproduces, or only the reference's environment.

A value that is equal for all seeds of the reference depends neither on random draws nor on training. It must be the same
on every machine: counts, and weights that are functions of counts. Other values are exact in one environment only.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sadp_bench.gate.findings import ANYWHERE, FAILED, HERE, PASSED, SKIPPED, Finding, Group, RecordPair
from sadp_bench.records.metrics import BUDGET_TOLERANCE, realised_ratio
from sadp_bench.records.record import Record
from sadp_bench.records.visit_counts import unpack

MIN_SEEDS = 3  # seeds with the same value show that it does not depend on the seed; two may agree by chance
ALWAYS, BY_SEEDS, ONLY_HERE = "always", "by seeds", "only here"


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity of a record that is compared value by value.

    Attributes:
        name: The name in findings.
        values: Returns the quantity's values by name.
        rule: The values that must be the same on any machine. ALWAYS: all. BY_SEEDS: those that are equal for all seeds of
            the reference. ONLY_HERE: none.
        whole: Whether seeds that differ in one value count as differing in all.
        tolerance: The relative difference that is allowed between machines.
    """

    name: str
    values: Callable[[Record], dict[str, Any]]
    rule: str = BY_SEEDS
    whole: bool = False
    tolerance: float = 0.0


def _by_epoch(name: str, prefix: str = "") -> Callable[[Record], dict[str, Any]]:
    return lambda record: {
        f"{prefix}epoch {number}": row[name] for number, row in enumerate(record.epochs, 1) if name in row
    }


def _counts(record: Record) -> dict[str, Any]:
    totals = {
        "epochs": len(record.epochs),
        "examples seen": record.examples_seen,
        "scoring visits": record.prepare_examples,
    }
    return _by_epoch("kept", "kept in ")(record) | totals


def _accuracy(record: Record) -> dict[str, Any]:
    return _by_epoch("test_accuracy")(record) | {"last": record.test_accuracy}


def _visits(record: Record) -> dict[str, Any]:
    return {} if record.visits is None else {"visits": unpack(record.visits, record.num_examples)}


def _data(record: Record) -> dict[str, Any]:
    digest = record.data_sha256[:12]
    return {"data_sha256": digest, "training examples": record.num_examples, "test examples": record.test_examples}


DATA = Quantity("data", _data, ALWAYS)
QUANTITIES = (
    Quantity("parameters", lambda record: {"parameters": record.num_parameters}, ALWAYS),
    Quantity("counts", _counts, whole=True),
    Quantity("learning rate", _by_epoch("learning_rate"), tolerance=1e-6),
    Quantity("mean weight", _by_epoch("mean_weight"), tolerance=1e-6),  # a mean in float32
    Quantity("visits", _visits, whole=True),
    Quantity("train loss", _by_epoch("train_loss"), ONLY_HERE),
    Quantity("test accuracy", _accuracy, ONLY_HERE),
)


def data(group: Group) -> Finding:
    """Compares the data. Where the data differ, no other comparison is valid."""
    return _compared(group, DATA, group.pairs, set(DATA.values(group.references[0])), ANYWHERE)


def exact_findings(group: Group, exact: bool) -> list[Finding]:
    """Returns all exact comparisons except that of the data.

    Args:
        group: The pairs of one run.
        exact: Whether to compare the numbers that only the same environment reproduces.
    """
    found = [_budget(group)]
    here = [pair for pair in group.pairs if exact and not pair.differing]
    for quantity in QUANTITIES:
        names = {name for record in group.references for name in quantity.values(record)}
        anywhere = _agreed(group, quantity, names)
        if anywhere:
            found.append(_compared(group, quantity, group.pairs, anywhere, ANYWHERE))
        if not names:
            found.append(Finding(group.label, quantity.name, HERE, SKIPPED, f"the reference has no {quantity.name}"))
        elif rest := names - anywhere:
            found.append(_here(group, quantity, here, rest, exact))
    return found


def _agreed(group: Group, quantity: Quantity, names: set[str]) -> set[str]:
    """Returns the values that must be the same on any machine."""
    if quantity.rule == ALWAYS:
        return names
    if quantity.rule == ONLY_HERE or len(group.pairs) < MIN_SEEDS:
        return set()
    first, *others = [quantity.values(record) for record in group.references]
    agreed = {n for n in names if all(_same(first.get(n), other.get(n), quantity.tolerance) for other in others)}
    return set() if quantity.whole and agreed != names else agreed


def _here(group: Group, quantity: Quantity, pairs: list[RecordPair], names: set[str], exact: bool) -> Finding:
    if pairs:
        return _compared(group, quantity, pairs, names, HERE)
    why = "; ".join(sorted({phrase for pair in group.pairs for phrase in pair.differing}))
    text = f"not compared: another environment ({why})" if exact else "not compared: left out by --no-exact"
    return Finding(group.label, quantity.name, HERE, SKIPPED, text)


def _compared(group: Group, quantity: Quantity, pairs: list[RecordPair], names: set[str], kind: str) -> Finding:
    """Compares values of all pairs. The text shows the first pair that differs and counts the others."""
    tolerance = quantity.tolerance if kind == ANYWHERE else 0.0
    wrong = []
    for pair in pairs:
        reference, now = quantity.values(pair.reference), quantity.values(pair.now)
        off = [n for n in reference if n in names and not _same(reference[n], now.get(n), tolerance)]
        if off:
            wrong.append((reference[off[0]], now.get(off[0]), off))
    if not wrong:
        claim = "the same in any environment" if kind == ANYWHERE else "the same, bit for bit"
        return Finding(group.label, quantity.name, kind, PASSED, f"{claim}, {_seeds(len(pairs))}")
    before, after, off = wrong[0]
    more = f", and {len(off) - 1} more of its values" if len(off) > 1 else ""
    text = f"{_change(off[0], before, after)}{more}, in {len(wrong)} of {_seeds(len(pairs))}; must be the same"
    return Finding(group.label, quantity.name, kind, FAILED, text, _short(before), _short(after), _short(before))


def _budget(group: Group) -> Finding:
    """Compares the share of saved visits with the ratio, unless the reference itself saved another share."""
    ratio = group.spec.ratio
    if max(abs(realised_ratio(record) - ratio) for record in group.references) > BUDGET_TOLERANCE:
        text = f"not compared: the reference saved another share than {ratio:g}"
        return Finding(group.label, "budget", ANYWHERE, SKIPPED, text)
    now = max((realised_ratio(record) for record in group.nows), key=lambda saved: abs(saved - ratio))
    outcome = PASSED if abs(now - ratio) <= BUDGET_TOLERANCE else FAILED
    text = f"saved {now:.4f} of the visits, must be {ratio:g} ± {BUDGET_TOLERANCE:g}"
    allowed = [ratio - BUDGET_TOLERANCE, ratio + BUDGET_TOLERANCE]
    return Finding(group.label, "budget", ANYWHERE, outcome, text, ratio, now, allowed)


def _same(first: Any, second: Any, tolerance: float) -> bool:
    if isinstance(first, float) and isinstance(second, int | float):
        return math.isclose(first, second, rel_tol=tolerance)
    return bool(first == second)


def _change(name: str, before: Any, after: Any) -> str:
    if isinstance(before, list) and isinstance(after, list):
        changed = sum(a != b for a, b in zip(before, after, strict=True))
        return f"{changed:,} of {len(before):,} examples were shown another number of times"
    return f"{name}: {' → '.join(_distinct(before, after))}"


def _distinct(before: Any, after: Any) -> tuple[str, str]:
    """Returns both values with six digits, or with all digits where six digits are equal."""
    short = tuple(
        "nothing" if v is None else f"{v:.6g}" if isinstance(v, float) else str(_short(v)) for v in (before, after)
    )
    return (short[0], short[1]) if short[0] != short[1] else (repr(before), repr(after))


def _short(value: Any) -> Any:
    """Returns a value, or the hash of a list."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12] if isinstance(value, list) else value


def _seeds(number: int) -> str:
    return f"{number} seed{'s' * (number != 1)}"
