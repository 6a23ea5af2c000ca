"""Text for people: safe on any terminal; durations, numbers, plurals and lists."""

from __future__ import annotations

from collections.abc import Sequence

NOTHING = "–"  # shown in place of an absent number
MAX_WITH_DIGITS = 1e7  # from this value on the power of ten is shown, because further digits mean nothing


def printable(text: str) -> str:
    """Returns any text or file name as one line without control characters, which is safe on a terminal."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def duration(seconds: float) -> str:
    """Returns '45 s', '3 min 20 s' or '2 h 05 min'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def number(value: float | None, digits: int = 2, unit: str = "") -> str:
    """Returns '1,234.50 s', and '–' for None. A value that rounds to zero has no sign."""
    if value is None:
        return NOTHING
    text = f"{value:.3g}" if abs(value) >= MAX_WITH_DIGITS else f"{round(value, digits) + 0.0:,.{digits}f}"
    return text + unit


def signed(value: float | None, digits: int = 2, unit: str = "") -> str:
    """Returns `number` with a '+' before values that round to more than zero."""
    sign = "+" if value is not None and round(value, digits) > 0 else ""
    return sign + number(value, digits, unit)


def compact(value: float | None) -> str:
    """Returns a number in at most six characters, with up to three decimals; '–' for None."""
    if value is None:
        return NOTHING
    size = abs(value)
    if size >= 10_000:
        return f"{value:.0e}"
    return f"{value:.{3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0}f}"


def percent(share: float | None, digits: int | None = None) -> str:
    """Returns '30 %' for 0.3, and '–' for None. Without `digits` it shows up to six significant ones."""
    if share is None:
        return NOTHING
    return f"{100 * share:g} %" if digits is None else f"{100 * share:.{digits}f} %"


def interval(low: float | None, high: float | None, digits: int = 2, scale: float = 1.0) -> str:
    """Returns '[61.20, 63.90]', or "" where one of the bounds is None. `scale` is a factor of both bounds."""
    if low is None or high is None:
        return ""
    return f"[{number(scale * low, digits)}, {number(scale * high, digits)}]"


def count(quantity: int, noun: str) -> str:
    """Returns '1 run', '1,200 runs'."""
    return f"{quantity:,} {noun}{'' if quantity == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """Returns 'a, b and c'."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
