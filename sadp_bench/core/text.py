"""Text for people: safe on any terminal, durations, numbers."""

from __future__ import annotations


def printable(text: str) -> str:
    """One line that can't steer a terminal, whatever a stranger's file says or is called."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def duration(seconds: float) -> str:
    """'45 s', '3 min 20 s', '2 h 05 min'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
