"""Headings of the page's groups: the settings that set a group apart, and those that all groups share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DOT = " · "


@dataclass(frozen=True, slots=True)
class Heading:
    """A group's heading.

    Attributes:
        title: The group's title, as in all tables.
        short: The parts of the title that set the group apart from the others.
        more: Further settings that differ among groups; "" where there are none.
    """

    title: str
    short: str
    more: str


def headings(titles: Sequence[str]) -> tuple[str, dict[str, Heading]]:
    """Returns the parts that all titles share, and the headings by title.

    The headings of groups with the same data, network and epochs name as few settings ("learning-rate=0.1") as tell the
    groups apart. Other settings that differ stand below the heading. A single group has its whole title.
    """
    parts = {title: title.split(DOT) for title in titles}
    common = [part for part in parts[titles[0]] if all(part in own for own in parts.values())] if len(parts) > 1 else []
    found = {}
    for title, own in parts.items():
        rivals = [other for other in parts.values() if _plain(other) == _plain(own)]
        telling = _telling(own, rivals)
        short = [part for part in own if part not in common and (_is_plain(part) or part in telling)]
        more = [part for part in own if part not in common and part not in short]
        found[title] = Heading(title, DOT.join(short) or title, DOT.join(more))
    return DOT.join(common), found


def _telling(own: Sequence[str], rivals: Sequence[Sequence[str]]) -> set[str]:
    """Returns settings that together set a group apart from all rivals: in order, each that excludes a further rival."""
    telling: set[str] = set()
    left = list(rivals)
    for part in own:
        alike = [other for other in left if part in other]
        if not _is_plain(part) and len(alike) < len(left):
            telling.add(part)
            left = alike
    return telling


def _plain(parts: Sequence[str]) -> list[str]:
    return [part for part in parts if _is_plain(part)]


def _is_plain(part: str) -> bool:
    """Returns whether a part is a main setting, such as T=4 or a name with options in brackets, and not 'name=value'."""
    name, equals, _ = part.partition("=")
    return not equals or name == "T" or " " in name
