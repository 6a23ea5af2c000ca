"""What must be the same to the last digit: on any machine, or on a machine like the reference's.

What the reference's seeds agree on depends neither on the draws nor on the training, so it must be the same on every machine:
the counts, the weights that are functions of counts. What they differ in is exact only where the arithmetic is.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sadp_bench.gate.findings import ANYWHERE, FAILED, HERE, PASSED, SKIPPED, Finding, Group, Pair
from sadp_bench.records.metrics import BUDGET_TOLERANCE, realised_ratio
from sadp_bench.records.record import Record
from sadp_bench.records.visit_counts import unpack

MIN_SEEDS = 3  # that tell what does not depend on the seed; two may agree by chance
ALWAYS, BY_SEEDS, ONLY_HERE = "always", "by seeds", "only here"


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something of a record that is compared value by value.

    values: named. rule: ALWAYS the same on any machine; BY_SEEDS: the values that the reference's seeds agree on are;
    ONLY_HERE: none is. whole: seeds that differ in one value agree on none. tolerance: relative, between machines.
    """

    name: str
    values: Callable[[Record], dict[str, Any]]
    rule: str = BY_SEEDS
    whole: bool = False
    tolerance: float = 0.0


def _by_epoch(name: str, before: str = "") -> Callable[[Record], dict[str, Any]]:
    return lambda record: {
        f"{before}epoch {number}": row[name] for number, row in enumerate(record.epochs, 1) if name in row
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
    Quantity("mean weight", _by_epoch("mean_weight"), tolerance=1e-6),  # a float32 mean
    Quantity("visits", _visits, whole=True),
    Quantity("train loss", _by_epoch("train_loss"), ONLY_HERE),
    Quantity("test accuracy", _accuracy, ONLY_HERE),
)


def data(group: Group) -> Finding:
    """Whether both were trained and evaluated on the same data; otherwise nothing else can be compared."""
    return _compared(group, DATA, group.pairs, set(DATA.values(group.references[0])), ANYWHERE)


def findings(group: Group, exact: bool) -> list[Finding]:
    """All but the data's. exact: whether to compare what is exact on the same machine only."""
    found = [_budget(group)]
    here = [pair for pair in group.pairs if exact and not pair.differing]
    for quantity in QUANTITIES:
        names = {name for record in group.references for name in quantity.values(record)}
        anywhere = _agreed(group, quantity, names)
        if anywhere:
            found.append(_compared(group, quantity, group.pairs, anywhere, ANYWHERE))
        if not names:
            found.append(Finding(group.label, quantity.name, HERE, SKIPPED, f"the reference holds no {quantity.name}"))
        elif rest := names - anywhere:
            found.append(_here(group, quantity, here, rest, exact))
    return found


def _agreed(group: Group, quantity: Quantity, names: set[str]) -> set[str]:
    """The values that are the same on any machine."""
    if quantity.rule == ALWAYS:
        return names
    if quantity.rule == ONLY_HERE or len(group.pairs) < MIN_SEEDS:
        return set()
    first, *others = [quantity.values(record) for record in group.references]
    agreed = {n for n in names if all(_same(first.get(n), other.get(n), quantity.tolerance) for other in others)}
    return set() if quantity.whole and agreed != names else agreed


def _here(group: Group, quantity: Quantity, pairs: list[Pair], names: set[str], exact: bool) -> Finding:
    if pairs:
        return _compared(group, quantity, pairs, names, HERE)
    why = "; ".join(sorted({phrase for pair in group.pairs for phrase in pair.differing}))
    text = f"not compared: another environment ({why})" if exact else "not compared: left out by --no-exact"
    return Finding(group.label, quantity.name, HERE, SKIPPED, text)


def _compared(group: Group, quantity: Quantity, pairs: list[Pair], names: set[str], kind: str) -> Finding:
    """The first pair that differs speaks for the others, which are counted."""
    tolerance = quantity.tolerance if kind == ANYWHERE else 0.0
    wrong = []
    for pair in pairs:
        reference, now = quantity.values(pair.reference), quantity.values(pair.now)
        off = [n for n in reference if n in names and not _same(reference[n], now.get(n), tolerance)]
        if off:
            wrong.append((reference[off[0]], now.get(off[0]), off))
    if not wrong:
        what = "the same in any environment" if kind == ANYWHERE else "the same, bit for bit"
        return Finding(group.label, quantity.name, kind, PASSED, f"{what}, {_seeds(len(pairs))}")
    before, after, off = wrong[0]
    more = f", and {len(off) - 1} more of its values" if len(off) > 1 else ""
    text = f"{_told(off[0], before, after)}{more}, in {len(wrong)} of {_seeds(len(pairs))}; must be the same"
    return Finding(group.label, quantity.name, kind, FAILED, text, _short(before), _short(after), _short(before))


def _budget(group: Group) -> Finding:
    """Whether the share of visits saved is still the one asked for. Of methods exempt from it, as the reference shows,
    nothing is asked."""
    asked = group.spec.ratio
    off = [abs(realised_ratio(record) - asked) for record in group.references]
    if max(off) > BUDGET_TOLERANCE:
        text = f"not compared: the reference itself saved other than {asked:g}"
        return Finding(group.label, "budget", ANYWHERE, SKIPPED, text)
    now = max((realised_ratio(record) for record in group.nows), key=lambda ratio: abs(ratio - asked))
    outcome = PASSED if abs(now - asked) <= BUDGET_TOLERANCE else FAILED
    text = f"saved {now:.4f} of the visits, asked for {asked:g} ± {BUDGET_TOLERANCE:g}"
    allowed = [asked - BUDGET_TOLERANCE, asked + BUDGET_TOLERANCE]
    return Finding(group.label, "budget", ANYWHERE, outcome, text, asked, now, allowed)


def _same(one: Any, other: Any, tolerance: float) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=tolerance)
    return bool(one == other)


def _told(name: str, before: Any, after: Any) -> str:
    if isinstance(before, list) and isinstance(after, list):
        others = sum(a != b for a, b in zip(before, after, strict=True))
        return f"{others:,} of {len(before):,} examples were shown another number of times"
    return f"{name}: {' → '.join(_plain(before, after))}"


def _plain(before: Any, after: Any) -> tuple[str, str]:
    """Both with six digits, or with as many as it takes to tell them apart."""
    short = tuple(
        "nothing" if v is None else f"{v:.6g}" if isinstance(v, float) else str(_short(v)) for v in (before, after)
    )
    return (short[0], short[1]) if short[0] != short[1] else (repr(before), repr(after))


def _short(value: Any) -> Any:
    """A long list by its hash."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12] if isinstance(value, list) else value


def _seeds(number: int) -> str:
    return f"{number} seed{'s' * (number != 1)}"
