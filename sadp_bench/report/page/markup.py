"""HTML and SVG in which all text is escaped unless it was made here."""

from __future__ import annotations

import html
from collections.abc import Iterable

VOID = frozenset({"meta", "link"})


class Markup(str):
    """Text that is markup already. Only `element`, `joined` and what reads the page's own files make it."""

    __slots__ = ()


Part = str | int | None


def escaped(part: Part) -> Markup:
    """Whatever a record says is text and nothing else."""
    if isinstance(part, Markup):
        return part
    return Markup("" if part is None else html.escape(str(part)))


def joined(parts: Iterable[Part], between: str = "") -> Markup:
    return Markup(html.escape(between).join(map(escaped, parts)))


def element(name: str, /, *parts: Part, **attributes: str | int | float | None) -> Markup:
    """`<name ...>parts</name>`. In attributes `class_` is class and `aria_label` aria-label; None leaves one out."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{told}>" + ("" if name in VOID else f"{joined(parts)}</{name}>"))


def pairs(items: Iterable[tuple[str, Part]], class_: str | None = None) -> Markup:
    """A description list."""
    return element(
        "dl", *(element("div", element("dt", name), element("dd", value)) for name, value in items), class_=class_
    )


def named(label: str) -> Markup:
    """A method, and smaller the settings by which it differs: 'sadp (smoothing=0.2)'."""
    method, bracket, options = label.partition(" (")
    small = element("small", f"({options}", class_="options") if bracket else None
    return joined([element("strong", method), *([" ", small] if small else [])])


def with_code(text: str) -> Markup:
    """A sentence in which `commands` stand between backticks."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick of the text's own
        return escaped(text)
    return joined(element("code", part) if number % 2 else part for number, part in enumerate(parts))


def scrolling(content: Markup, label: str) -> Markup:
    """A box of its own for what is wider than a narrow window; the keyboard can scroll it."""
    return element("div", content, class_="scroll", role="region", aria_label=label, tabindex=0)
