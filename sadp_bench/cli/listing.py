"""The output of `sadp-bench list` for a kind. This module imports neither Typer nor a listed class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sadp_bench.cli.output import Result
from sadp_bench.cli.terminal import BOLD, CYAN, columns, hanging, heading, styled
from sadp_bench.core import registry
from sadp_bench.core.errors import BadInput
from sadp_bench.core.registry import Entry
from sadp_bench.core.text import printable
from sadp_bench.sparsity import SPARSITIES
from sadp_bench.training import BACKPROPS


class Kind(NamedTuple):
    """A kind of names that a run chooses from.

    Attributes:
        about: A description of the kind.
        option: The option of `run` that takes such a name.
        table: The classes by name, or the kind's name in the registry; None for recipes, which have no class.
    """

    about: str
    option: str
    table: Mapping[str, str] | str | None

    def classes(self) -> Mapping[str, str]:
        """Returns the classes by name."""
        return registry.table(self.table) if isinstance(self.table, str) else self.table or {}


RECIPES = "recipes"
KINDS = {
    "methods": Kind("Data-pruning methods", "--method", "method"),
    "backbones": Kind("Spiking networks", "--backbone", "backbone"),
    "datasets": Kind("Data sets", "--dataset", "dataset"),
    "backprop": Kind("Ways in which gradients flow", "--backprop", BACKPROPS),
    "sparsity": Kind("Ways to remove connections", "--sparsity", SPARSITIES),
    RECIPES: Kind("Settings of papers' experiments", "--recipe", None),
}
INDENT = 22  # columns before the text of an entry
# The heading of each kind of method, in the order of the list. Methods of any other kind, or of none, are in "other".
GROUPS = {
    "reference": "Reference",
    "static": "Static: one subset, chosen before training",
    "dynamic": "Dynamic: a new selection in every epoch",
    "within the batch": "Within the batch: a selection from every batch's forward pass",
    "other": "Other",
}


def listed(words: Sequence[str], as_json: bool = False) -> Result:
    """Returns the overview of all kinds, the names of a kind, or the details of a name.

    Args:
        words: [], a key of `KINDS`, or a key and a name.
        as_json: Whether the result is for JSON instead of text.
    """
    if not words:
        return _overview(as_json)
    kind = words[0]
    if kind not in KINDS:
        raise BadInput(f"list what? '{kind}' is unknown{registry.nearest(kind, KINDS)}")
    if len(words) > 1:
        from sadp_bench.cli import detail

        return detail.recipe(words[1], as_json) if kind == RECIPES else detail.detail(kind, words[1], as_json)
    if kind == RECIPES:
        return _recipes(as_json)
    entries = registry.described(KINDS[kind].classes())
    if as_json:
        return Result([row(entry, kind) for entry in entries])
    lines = [*(_grouped(entries) if kind == "methods" else (line for entry in entries for line in _lines(entry)))]
    return _text([*lines, "", f"`sadp-bench list {kind} {entries[0].name}` shows one of them with its settings."])


def _text(lines: Sequence[str]) -> Result:
    return Result(lambda: print("\n".join(lines)))


def _overview(as_json: bool) -> Result:
    """Returns the names of all kinds."""
    from sadp_bench.claims.recipe import recipes

    names = {name: [*recipes()] if name == RECIPES else [*kind.classes()] for name, kind in KINDS.items()}
    if as_json:
        return Result(names)
    lines: list[str] = []
    for name, kind in KINDS.items():
        about = f"{styled(name, BOLD)}  {kind.about}, `{kind.option} NAME`"
        lines += [about, *hanging(", ".join(names[name]), "  ", 2, columns()), ""]
    shown = "`sadp-bench list methods` shows what each does, `sadp-bench list methods sadp` the settings and the paper."
    return _text([*lines, *hanging(shown, "", 0, columns())])


def _recipes(as_json: bool) -> Result:
    """Returns the recipes of papers: the claim, the source, what differs here, and what is not public."""
    from sadp_bench.claims.recipe import read_recipe, recipes

    found = [read_recipe(path) for path in recipes().values()]
    if as_json:
        return Result([recipe.to_json() for recipe in found])
    lines: list[str] = []
    for recipe in found:
        below = [recipe.claim.source, *(f"Differs: {text}." for text in recipe.differs)]
        below += [f"Not public: {text}." for text in recipe.not_public]
        lines += _named(recipe.claim.name, recipe.claim.text, below)
    return _text([*lines, "", f"`sadp-bench run --recipe {found[0].claim.name}` trains one of them."])


def group_of(entry: Entry) -> str:
    """Returns a method's key of `GROUPS`."""
    return entry.kind if entry.kind in GROUPS else "other"


def row(entry: Entry, kind: str) -> dict[str, Any]:
    """Returns an entry for JSON."""
    found = {"name": entry.name, "path": entry.path, "summary": entry.summary, "source": entry.source}
    return found | ({"group": group_of(entry), "scoring": entry.scoring} if kind == "methods" else {})


def _grouped(entries: Sequence[Entry]) -> Iterator[str]:
    """Yields the lines of the methods under the headings of their groups."""
    found = {name: [entry for entry in entries if group_of(entry) == name] for name in GROUPS}
    for number, (name, members) in enumerate((name, members) for name, members in found.items() if members):
        yield from [""] * (number > 0)
        yield heading(GROUPS[name], columns())
        for entry in members:
            yield from _lines(entry, "  ")


def _lines(entry: Entry, margin: str = "") -> list[str]:
    """Returns the summary beside the name, then the source, with the cost of scoring where there is one."""
    cost = f"Scoring: {entry.scoring}." if entry.scoring else ""
    below = " ".join(filter(None, [entry.source, cost]))
    return _named(entry.name, entry.summary, [below] if below else [], margin)


def _named(name: str, text: str, below: Sequence[str], margin: str = "") -> list[str]:
    """Returns a text beside its name, and further texts below it, with a hanging indent."""
    width = columns()
    first, *others = hanging(printable(text), f"{margin}{name} ", INDENT, width)
    lines = [first.replace(name, styled(name, CYAN), 1), *others]
    return [*lines, *(line for more in below for line in hanging(printable(more), "", INDENT, width))]
