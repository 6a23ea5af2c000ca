"""The output of `sadp-bench list KIND NAME`: the details of a method, network, data set, recipe or other name.

This module imports neither Typer nor the class.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from sadp_bench.cli.listing import GROUPS, KINDS, group_of, row
from sadp_bench.cli.output import Result
from sadp_bench.cli.terminal import CYAN, columns, hanging, heading, styled
from sadp_bench.core import registry, static
from sadp_bench.core.errors import BadInput
from sadp_bench.core.registry import Entry
from sadp_bench.core.static import Setting
from sadp_bench.core.text import printable

PREFIXES = {"methods": "", "backbones": "backbone.", "datasets": "dataset.", "sparsity": "sparsity.", "backprop": ""}
NEURON = "sadp_bench.backbones.spiking:NeuronSettings"
OF_RUN = (
    "backbone",
    "augment",
    "epochs",
    "batch_size",
    "timesteps",
    "learning_rate",
)  # options for which a data set has defaults
NO_TEXT = ("Source:", "Kind:", "Scoring:", "Args:", "Attributes:")  # beginnings of paragraphs that are shown elsewhere
FURTHER = {"methods": " --ratio 0.5", "sparsity": " --density 0.2"}  # options that a name of this kind needs
LABEL, INDENT = 12, 28  # columns before the facts, and before the meaning of a setting


def detail(kind: str, name: str, as_json: bool) -> Result:
    """Returns the details of a registered name.

    Args:
        kind: A key of `KINDS` except recipes.
        name: The name. A family's name may have a member, as in `torchvision:CIFAR10`.
        as_json: Whether the result is for JSON instead of text.
    """
    table = KINDS[kind].classes()
    first = name.partition(":")[0]
    if first not in table:
        raise BadInput(f"there is no '{name}' in the list of {kind}{registry.nearest(first, table)}")
    [entry] = registry.described({first: table[first]})
    settings = static.settings(entry.path)
    neuron = [field for field in static.fields(NEURON) if field.name != "kernel"] if kind == "backbones" else []
    defaults = {of: static.attribute(entry.path, of) for of in OF_RUN} if kind == "datasets" else {}
    bibtex = textwrap.dedent(static.attribute(entry.path, "bibtex") or "").strip() if kind == "methods" else ""
    about = _about(entry.path)
    if as_json:
        found = row(entry, kind) | {"settings": [of._asdict() for of in settings], "about": about}
        found |= {"neuron": [of._asdict() for of in neuron]} if kind == "backbones" else {}
        found |= {"defaults": defaults} if kind == "datasets" else {}
        return Result(found | ({"bibtex": bibtex} if kind == "methods" else {}))
    width = columns()
    lines = [heading(entry.name, width), *hanging(entry.summary, "", 0, width), "", *_facts(kind, entry)]
    lines += _settings("Settings and their defaults", settings, PREFIXES[kind], width)
    lines += _settings("Settings of the neuron", neuron, PREFIXES[kind], width)
    if defaults:
        words = (f"--{of.replace('_', '-')} {_shown(value)}" for of, value in defaults.items())
        lines += _panel("Defaults of a run on it", _listed("", "  ".join(words), 2, width), width)
    for number, paragraph in enumerate(about):
        lines += ["", heading("How it works", width)] if number == 0 else [""]
        lines += _paragraph(paragraph, width)
    lines += _panel("BibTeX", bibtex.splitlines(), width) if bibtex else []
    return Result(lambda: print("\n".join(map(_plain, lines))))


def _plain(line: str) -> str:
    """Returns a line without control characters except those of styles."""
    return "\x1b".join(map(printable, line.split("\x1b")))


def _facts(kind: str, entry: Entry) -> list[str]:
    """Returns the lines about the use of a name and its source."""
    family = static.defines(entry.path, "named") or any(of.name == "name" for of in static.settings(entry.path))
    name = f"{entry.name}:NAME" if family else entry.name
    method = "" if kind == "methods" else " --method sadp --ratio 0.5"
    further = {"full": " --ratio 0", "sltt-k": " --k 2", "dense": ""}.get(name, FURTHER.get(kind, ""))
    facts = {"use": f"sadp-bench run{method} {KINDS[kind].option} {name}{further}"}
    if kind == "methods":
        facts |= {"kind": GROUPS[group_of(entry)], "scoring": entry.scoring or "not known"}
    facts |= {"source": entry.source, "class": entry.path}
    return [line for label, text in facts.items() if text for line in _listed(label, text, LABEL, columns())]


def _listed(label: str, text: str, indent: int, width: int) -> list[str]:
    first, *others = hanging(text, f"  {label}  " if label else "", indent, width)
    return [first.replace(label, styled(label, CYAN), 1) if label else first, *others]


def _panel(title: str, lines: Iterable[str], width: int) -> list[str]:
    return ["", heading(title, width), *lines]


def _settings(title: str, settings: Sequence[Setting], prefix: str, width: int) -> list[str]:
    """Returns a panel of settings as `--set` takes them; [] without settings."""
    rows = [
        line
        for of in settings
        for line in _listed(f"--set {prefix}{of.name}={_shown(of.default)}", of.meaning, INDENT, width)
    ]
    return _panel(title, rows, width) if rows else []


def _shown(value: Any) -> str:
    """Returns a default as `--set` takes it."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _about(path: str) -> list[str]:
    """Returns the paragraphs of a class's docstring that describe how it works."""
    _, *others = static.sections(static.docstring(path))
    return [text for text in others if not text.startswith(NO_TEXT)]


def _paragraph(text: str, width: int) -> list[str]:
    """Returns the lines of a wrapped paragraph. Each item of a list begins a new line."""
    lines: list[str] = []
    for number, part in enumerate(f"\n{text}".split("\n- ")):
        words = " ".join(part.split())
        lines += hanging(words, "- " if number else "", 2 if number else 0, width) if words else []
    return lines


def recipe(name: str, as_json: bool) -> Result:
    """Returns the details of a recipe."""
    from sadp_bench.claims.recipe import find_recipe
    from sadp_bench.records.fields import PREFIXES as TABLES
    from sadp_bench.records.fields import option

    found = find_recipe(name)
    if as_json:
        return Result(found.to_json())
    width, options = columns(), []
    for field, value in found.fields.items():
        if field in TABLES or field == "set":
            prefix = TABLES.get(field, "").removeprefix("method.")
            options += [f"--set {prefix}{key}={_shown(of)}" for key, of in value.items()]
        else:
            options.append(f"{option(field)} {_shown(value)}")
    lines = [heading(found.claim.name, width), *hanging(found.claim.text, "", 0, width), ""]
    lines += _listed("use", f"sadp-bench run --recipe {found.claim.name}", LABEL, width)
    lines += _listed("source", found.claim.source, LABEL, width)
    lines += _panel("Settings (options of the command replace them)", (f"  {text}" for text in options), width)
    for title, texts in (("What differs here", found.differs), ("What is not public", found.not_public)):
        rows = [line for text in texts for line in hanging(f"{text}.", "- ", 2, width)]
        lines += _panel(title, rows, width) if rows else []
    return Result(lambda: print("\n".join(map(_plain, lines))))
