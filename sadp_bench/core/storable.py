"""The rule for values that a record may contain, so that reports, terminals and pages can show them."""

from __future__ import annotations

import sys
from typing import Any

LARGEST = sys.float_info.max
MAX_DEPTH = 10  # levels of lists and tables


def not_storable(value: Any, depth: int = 0) -> str | None:
    """Returns a description of a part of a value that a record may not contain; None: it may contain the value.

    A record may contain text without control characters, finite numbers, true, false, null, and lists and tables of these.
    A control character is one that `str.isprintable` refuses: also each line end, and each space except the plain one.
    """
    if depth > MAX_DEPTH:
        return "values nested too deep"
    if isinstance(value, str):
        if value.isprintable():
            return None
        sign = next(sign for sign in value if not sign.isprintable())
        return f"control characters (U+{ord(sign):04X})"
    if isinstance(value, int | float):
        return None if abs(value) <= LARGEST else "a number that is not finite"
    if isinstance(value, dict | list | tuple):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            # Nearly all parts of a record are texts and floats; a call for each takes three times as long.
            kind = type(part)
            if depth < MAX_DEPTH and (
                kind is str and part.isprintable() or kind is float and -LARGEST <= part <= LARGEST
            ):
                continue
            if wrong := not_storable(part, depth + 1):
                return wrong
        return None
    return None if value is None else f"a value of type {type(value).__name__}"
