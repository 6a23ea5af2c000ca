"""Names of runs, made of the settings in which the runs differ. Settings are a spec as one flat table."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sadp_bench.records.fields import PREFIXES, shown
from sadp_bench.records.former import FORMER_RULES, PLACES
from sadp_bench.records.spec import Spec

Settings = Mapping[str, Any]  # a spec as `Spec.flat` returns it, or a part of it


def differing(tables: Iterable[Settings]) -> set[str]:
    """Returns the names of the settings that differ among the tables. A table that lacks a name differs in it.

    The hash of a file or folder is left out where its path differs too.
    """
    texts = [{name: shown(value) for name, value in table.items()} for table in tables]
    names = set().union(*texts)
    found = {name for name in names if len({text.get(name) for text in texts}) > 1}
    paths = {f"{name.removesuffix(place)}sha256" for name in found for place in PLACES if name.endswith(place)}
    return found - paths


def distinguishing(settings: Settings, rivals: Collection[Settings]) -> set[str]:
    """Returns the names of the options that distinguish a table from its rivals, which include the table.

    They are the names that differ among the rivals, with two exceptions for a rule that was corrected (`FORMER_RULES`). A
    table by the former rule always has its name. Another table has it only if the rivals by the present rule differ in it.
    """
    names = differing(rivals)
    for name, former in FORMER_RULES.items():
        present = {shown(table[name]) for table in rivals if name in table and table[name] != former}
        if name in settings and settings[name] == former:
            names.add(name)
        elif len(present) < 2:
            names.discard(name)
    return names


def settings_text(settings: Settings, names: Collection[str]) -> list[str]:
    """Returns 'smoothing=0.1' for each named setting, in the table's order. A method's options have no prefix."""
    prefix = PREFIXES["method_options"]
    return [f"{name.removeprefix(prefix)}={shown(value)}" for name, value in settings.items() if name in names]


def of_method(spec: Spec) -> Settings:
    """Returns a run's budget and its method's options, which distinguish it from other runs of its method and group."""
    return {"budget": spec.budget, **spec.method_options}


def run_name(spec: Spec) -> str:
    """Returns a run's method and ratio: 'sadp 0.3'."""
    return f"{spec.method} {spec.ratio:g}"


def run_names(specs: Iterable[Spec]) -> dict[str, str]:
    """Returns a short name of each run, by key: 'sadp 0.3 seed=1 smoothing=0.1'.

    A name consists of method and ratio, and of the settings that differ among the runs of this method and ratio.
    """
    rivals: dict[str, dict[str, Settings]] = {}
    for spec in specs:
        rivals.setdefault(run_name(spec), {})[spec.key] = spec.flat()
    return {
        key: " ".join([name, *settings_text(settings, names)])
        for name, tables in rivals.items()
        for names in [differing(tables.values())]
        for key, settings in tables.items()
    }


def method_labels(specs: Iterable[Spec]) -> dict[str, str]:
    """Returns each run's method, by key: 'sadp (smoothing=0.1)'.

    The brackets have the options, and the budget, that distinguish a run from the others of its method, sorted by name.
    """
    keys: dict[str, dict[str, list[str]]] = {}  # keys of the runs by method and options, which most runs share
    options: dict[str, Settings] = {}
    for spec in specs:
        own = of_method(spec)
        text = shown(own)
        options[text] = own
        keys.setdefault(spec.method, {}).setdefault(text, []).append(spec.key)
    found: dict[str, str] = {}
    for method, by_options in keys.items():
        rivals = [options[text] for text in by_options]
        for text, own_keys in by_options.items():
            words = settings_text(dict(sorted(options[text].items())), distinguishing(options[text], rivals))
            found |= dict.fromkeys(own_keys, f"{method} ({', '.join(words)})" if words else method)
    return found
