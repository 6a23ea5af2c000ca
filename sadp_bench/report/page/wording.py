"""Numbers as the page shows them."""

from __future__ import annotations

NOTHING = "–"
LONGEST = 1e7  # beyond that the digits say less than the power of ten


def plain(value: float | None, digits: int = 2, unit: str = "") -> str:
    """'1,234.50 s'; no zero is negative."""
    if value is None:
        return NOTHING
    text = f"{value:.3g}" if abs(value) >= LONGEST else f"{round(value, digits) + 0.0:,.{digits}f}"
    return text.replace("-", "−") + unit


def signed(value: float | None, digits: int = 2) -> str:
    text = plain(value, digits)
    return f"+{text}" if value is not None and round(value, digits) > 0 else text


def between(low: float | None, high: float | None, digits: int = 2, scale: float = 1.0) -> str:
    """'[61.20, 63.90]', and nothing where there is no interval."""
    if low is None or high is None:
        return ""
    return f"[{plain(scale * low, digits)}, {plain(scale * high, digits)}]"


def many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def listed(names: list[str]) -> str:
    """'a, b and c'."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
