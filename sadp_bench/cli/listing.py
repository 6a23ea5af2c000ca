"""What `sadp-bench list` prints. It imports neither Typer nor a listed class."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from sadp_bench.cli.output import Result
from sadp_bench.core import registry
from sadp_bench.core.errors import BadInput
from sadp_bench.core.registry import Entry
from sadp_bench.core.text import printable

KINDS = {"methods": "method", "backbones": "backbone", "datasets": "dataset"}
RECIPES = "recipes"
WIDTH = 80  # columns
INDENT = 22  # columns before the text of an entry
# By a method's kind, in the order of the list, the heading. A method of any other kind, or of none, is in the group "other".
GROUPS = {
    "reference": "Reference",
    "static": "Static: one subset, chosen before training",
    "dynamic": "Dynamic: a new selection in every epoch",
    "within the batch": "Within the batch: a selection from every batch's forward pass",
    "other": "Other",
}


def registered(kind: str, as_json: bool = False) -> Result:
    """Returns the registered classes of a kind with their summaries and sources; methods by group, with scoring costs.

    Args:
        kind: A key of `KINDS`, or `RECIPES`.
        as_json: Whether the result is a list for JSON instead of text.
    """
    if kind == RECIPES:
        return _recipes(as_json)
    if kind not in KINDS:
        raise BadInput(f"list what? '{kind}' is unknown{registry.nearest(kind, [*KINDS, RECIPES])}")
    entries = registry.entries(KINDS[kind])
    if as_json:
        return Result([_row(entry, kind) for entry in entries])
    lines = _grouped(entries) if kind == "methods" else (line for entry in entries for line in _lines(entry))
    text = "\n".join(lines)
    return Result(lambda: print(text))


def _recipes(as_json: bool) -> Result:
    """Returns the recipes of papers: what they claim, the source, what differs here, and what is not public."""
    from sadp_bench.claims.recipe import read_recipe, recipes

    found = [read_recipe(path) for path in recipes().values()]
    if as_json:
        return Result([recipe.to_json() for recipe in found])
    lines = []
    for recipe in found:
        lines += _wrapped(printable(recipe.claim.text), f"{recipe.claim.name} ".ljust(INDENT))
        below = [recipe.claim.source, *(f"Differs: {text}." for text in recipe.differs)]
        below += [f"Not public: {text}." for text in recipe.not_public]
        for text in below:
            lines += _wrapped(printable(text), " " * INDENT)
    text = "\n".join(lines)
    return Result(lambda: print(text))


def group_of(entry: Entry) -> str:
    """Returns the key of `GROUPS` of a method."""
    return entry.kind if entry.kind in GROUPS else "other"


def _row(entry: Entry, kind: str) -> dict[str, str]:
    row = {"name": entry.name, "path": entry.path, "summary": entry.summary, "source": entry.source}
    return row | ({"group": group_of(entry), "scoring": entry.scoring} if kind == "methods" else {})


def _grouped(entries: Sequence[Entry]) -> Iterator[str]:
    """Yields the lines of the methods under the headings of their groups."""
    found = {name: [entry for entry in entries if group_of(entry) == name] for name in GROUPS}
    for number, (name, members) in enumerate((name, members) for name, members in found.items() if members):
        yield from [""] * (number > 0)
        yield GROUPS[name]
        for entry in members:
            yield from _lines(entry, "  ")


def _lines(entry: Entry, margin: str = "") -> Iterator[str]:
    """Yields the summary beside the name, then the source, with the cost of scoring where there is one."""
    cost = f"Scoring: {entry.scoring}." if entry.scoring else ""
    below = " ".join(filter(None, [entry.source, cost]))
    yield from _wrapped(entry.summary, f"{margin}{entry.name} ".ljust(INDENT))
    yield from _wrapped(below, " " * INDENT) if below else ()


def _wrapped(text: str, first: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * INDENT) or [first.rstrip()]
