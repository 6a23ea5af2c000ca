"""The findings of a group in sentences. Methods with the same verdicts share a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sadp_bench.core.text import interval, listed, number, percent
from sadp_bench.reports.rows import RatioRow

ALL = 4  # from this number of methods on, "All 7 methods" replaces their names
Answers = tuple[tuple[float, str], ...]  # (ratio, verdict), rising by ratio

# The predicate of each verdict, for one method and for several. {margin} is in points.
TO_RANDOM = {
    "better": ("is better than random sampling", "are better than random sampling"),
    "worse": ("is worse than random sampling", "are worse than random sampling"),
    "level": (
        "is level with random sampling, within {margin} points,",
        "are level with random sampling, within {margin} points,",
    ),
    "undecided": ("cannot be told apart from random sampling",) * 2,
}
TO_FULL = {
    "lossless": ("is lossless", "are lossless"),
    "worse": ("loses more than {margin} points to full data", "lose more than {margin} points to full data"),
    "undecided": ("is undecided against full data", "are undecided against full data"),
}


def findings(rows: Sequence[RatioRow]) -> list[str]:
    """Returns the findings of a group: full data and the fastest lossless method, then the verdicts in words.

    The verdicts are those of the rows: by 95 % intervals of paired differences, or corrected.

    Args:
        rows: The rows of one group.
    """
    found = [fastest_lossless(rows)] if any(row.n and row.is_full or row.verdict for row in rows) else []
    found += _answers(rows, lambda row: row.random_verdict, TO_RANDOM)
    rivals = any(row.method == "random" and row.n for row in rows)
    others = any(row.prunes and row.method != "random" and row.n for row in rows)
    if rivals and others and not any(row.random_verdict for row in rows):
        found.append("No verdict against random sampling: it takes two paired seeds at a ratio.")
    return found + _answers(rows, lambda row: row.verdict, TO_FULL)


def _answers(
    rows: Sequence[RatioRow], verdict: Callable[[RatioRow], str | None], words: dict[str, tuple[str, str]]
) -> list[str]:
    """Returns a sentence for each set of methods with the same verdicts at the same ratios, in the order of the rows."""
    by_label: dict[str, list[tuple[float, str]]] = {}
    for row in rows:
        if (answer := verdict(row)) is not None:
            by_label.setdefault(row.display_label, []).append((row.ratio, answer))
    alike: dict[Answers, list[str]] = {}
    for label, answers in by_label.items():
        alike.setdefault(tuple(sorted(answers)), []).append(label)
    margin = f"{100 * rows[0].margin:g}" if rows else ""
    filled = {
        name: (one.format(margin=margin), several.format(margin=margin)) for name, (one, several) in words.items()
    }
    return [
        f"{_subject(labels, len(by_label))} {_predicates(answers, filled, len(labels) > 1)}."
        for answers, labels in alike.items()
    ]


def _subject(labels: Sequence[str], methods: int) -> str:
    """Returns the names of methods, or 'All 7 methods'."""
    return f"All {methods} methods" if len(labels) == methods >= ALL else listed(labels)


def _predicates(answers: Answers, words: dict[str, tuple[str, str]], several: bool) -> str:
    """Returns 'is better than random sampling at 30 %, and cannot be told apart from random sampling at 50 and 70 %'."""
    parts = []
    for verdict, forms in words.items():
        ratios = [ratio for ratio, found in answers if found == verdict]
        if ratios:
            whole = len(ratios) == len(answers) > 1
            quantity = f"at {'any' if forms[0].startswith('cannot') else 'every'} ratio ({_shares(ratios)})"
            parts.append(f"{forms[several]} {quantity if whole else f'at {_shares(ratios)}'}")
    return listed(parts) if len(parts) < 2 else f"{', '.join(parts[:-1])}, and {parts[-1]}"


def _shares(ratios: Sequence[float]) -> str:
    """Returns '30, 50 and 70 %'."""
    return f"{listed([f'{100 * ratio:g}' for ratio in ratios])} %"


def fastest_lossless(rows: Sequence[RatioRow]) -> str:
    """Returns the accuracy of full data and the fastest lossless method, in one or two sentences."""
    full = next((row for row in rows if row.is_full and row.n), None)
    reference = ""
    if full:
        found = full.accuracy
        shown = f"{number(100 * found.mean)} % {interval(found.low, found.high, scale=100)}".rstrip()
        spent = f"{number(full.seconds.mean, 1, ' s')}{full.mark}" if full.seconds.n else ""
        reference = f"Full data: {shown}{' in ' * bool(spent)}{spent} (n = {full.n}). "
    lossless = [row for row in rows if row.verdict == "lossless"]
    timed = [row for row in lossless if row.speedup.n]
    if timed:
        best = max(timed, key=lambda row: row.speedup.mean)
        name = f"{best.display_label} {percent(best.ratio)}"
        return f"{reference}Fastest lossless method: {name}, {number(best.speedup.mean)}× (n = {best.speedup.n})."
    if lossless:
        return f"{reference}No lossless method was timed."
    if any(row.verdict for row in rows):
        return f"{reference}No method is shown to be lossless."
    return f"{reference}No verdict: fewer than two seeds are paired with full data."
