"""Names of methods, backbones and data sets, and the classes behind them.

Each package has one table, `{"el2n": "baselines.el2n:EL2N", ...}`, and one entry point that names the table.
`package.module:Class` works wherever a name does. It imports that module, and so runs its code. A registered class with a
method `named` is a family: `family:NAME` is the class that `named` returns for NAME.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_type_hints

from sadp_bench.core import static, strangers
from sadp_bench.core.errors import BadInput

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUPS = {"method": "sadp_bench.pruners", "backbone": "sadp_bench.backbones", "dataset": "sadp_bench.datasets"}


class Entry(NamedTuple):
    """One row of `sadp-bench list`.

    Attributes:
        name: The registered name.
        path: Its `module:Class`.
        summary: The first line of the class's docstring.
        source: The docstring's `Source:`, or "".
        kind: The docstring's `Kind:` without its full stop, such as "static", or "".
        scoring: The docstring's `Scoring:` without its full stop: the visits before training, in words; or "".
    """

    name: str
    path: str
    summary: str
    source: str
    kind: str = ""
    scoring: str = ""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Returns "; did you mean 'el2n'?" where an allowed name is close to this one, otherwise all allowed names."""
    allowed = sorted(allowed)
    close = difflib.get_close_matches(name, allowed, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; allowed: {', '.join(allowed) or 'none'}"


@functools.cache
def published(group: str) -> tuple[EntryPoint, ...]:
    """Returns the entry points of a group, this project's first, as they are at the first call in a process."""
    from importlib.metadata import entry_points  # slower than all other imports here; reads a file of each package

    return tuple(sorted(entry_points(group=group), key=lambda point: (point.name != "sadp_bench", point.name)))


def table(kind: str) -> dict[str, str]:
    """Returns every registered name of a kind (`method`, `backbone` or `dataset`) with its `module:Class`."""
    names: dict[str, str] = {}
    for found in _tables(kind):
        for name, path in found.items():
            names.setdefault(name, path)
    return names


def _tables(kind: str) -> Iterator[dict[str, str]]:
    """Yields the table of each package, this project's first."""
    for point in published(GROUPS[kind]):
        what = f"the table '{point.name}' of {kind}s ({point.value}), which an installed package publishes,"
        with _loading(what):
            found = point.load()
        if not isinstance(found, dict) or not all(isinstance(text, str) for row in found.items() for text in row):
            raise BadInput(f"{what} is no table of names and 'package.module:Class'; mend or uninstall that package")
        yield found


@functools.cache
def display_name(kind: str, name: str) -> str:
    """Returns the display name of a registered name: `display_name` in the body of its class, or else the name itself.

    It imports no class. It reads the tables of other packages only for a name that this project lacks. An unregistered
    name, and the name of a class that can't be read, is its own display name.
    """
    try:
        path = next((found[name] for found in _tables(kind) if name in found), None)
        with _loading(f"{kind} '{name}'"):
            found = static.attribute(path, "display_name", inherited=False) if path else None
    except BadInput:
        return name
    return found if found and isinstance(found, str) else name


def resolve(kind: str, name: str) -> Any:
    """Returns the class behind a registered name or a `package.module:Class`.

    Args:
        kind: `method`, `backbone` or `dataset`.
        name: The name or the path.

    Raises:
        BadInput: The name is unknown (the message has the nearest one), or the path can't be imported.
    """
    names = table(kind)
    first, _, member = name.partition(":")
    if first in names:
        found = load(names[first], f"{kind} '{name}'")
        if hasattr(found, "named"):
            return found.named(member)
        if not member:
            return found
    if ":" not in name:
        raise BadInput(f"unknown {kind} '{name}'{nearest(name, names)} (or package.module:Class)")
    # A console script, unlike `python -m`, does not import from the folder in which it was started.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    return load(name, f"{kind} '{name}'")


def load(path: str, what: str = "") -> Any:
    """Returns the class of a `package.module:Class`.

    Args:
        path: The path.
        what: The user's name for it, for messages.

    Raises:
        BadInput: There is no such module, its import raises, or it has no class of that name.
    """
    module_name, _, class_name = path.partition(":")
    what = what or f"'{path}'"
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise BadInput(f"{what}: no module named '{module_name}' here or on PYTHONPATH")
    strangers.note_loaded(module_name, what)
    with _loading(what, module_name):
        found = getattr(importlib.import_module(module_name), class_name, None)
    if not isinstance(found, type):
        raise BadInput(f"{what}: module {module_name} has no class '{class_name}'")
    return found


@contextmanager
def _loading(what: str, module_name: str = "") -> Iterator[None]:
    """Turns any error of an import within the context into one line."""
    try:
        yield
    except BadInput:
        raise
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module_name}.".startswith(f"{missing}."):
            raise BadInput(f"{what}: no module named '{module_name}' here or on PYTHONPATH") from error
        raise BadInput(f"{what} can't be imported: {strangers.described(error)}") from error


def entries(kind: str) -> list[Entry]:
    """Returns a row for every registered name."""
    return described(table(kind))


def described(table: Mapping[str, str]) -> list[Entry]:
    """Returns a row for every name of a table, read from its class's docstring without importing the module."""
    rows = []
    for name, path in table.items():
        doc = static.docstring(path)
        summary = doc.partition("\n")[0].strip()
        kind, scoring = (_entry(doc, of).removesuffix(".") for of in ("Kind", "Scoring"))
        rows.append(Entry(name, path, summary, _entry(doc, "Source"), kind, scoring))
    return rows


def _entry(doc: str, name: str) -> str:
    """Returns the text after "name:" in a docstring, up to an empty line or the next such entry; "": there is none."""
    found = re.search(rf"^[ \t]*{name}:(.*(?:\n[ \t]*(?![ \t]|[A-Z]\w*:)\S.*)*)", doc, re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def options(cls: type) -> dict[str, tuple[type, Any]]:
    """Returns the keyword-only settings of a class's `__init__`: name -> (type, default)."""
    import inspect  # takes half the time of this module's import, which would delay `list` and the help

    settings = [p for p in inspect.signature(cls).parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    try:
        hints = get_type_hints(cls.__init__) if settings else {}  # type: ignore[misc]
    except Exception as error:  # an annotation may be any expression
        raise BadInput(f"{cls.__qualname__}'s annotations can't be read: {strangers.described(error)}") from error
    found = {parameter.name: (hints.get(parameter.name, str), parameter.default) for parameter in settings}
    for name, (_, default) in found.items():
        if not isinstance(default, bool | int | float | str | None):
            raise BadInput(
                f"{cls.__qualname__}'s setting '{name}' has no plain default: every keyword-only argument of __init__ has a "
                "number, a text, True, False or None as its default"
            )
    return found


def settle(owner: str, allowed: dict[str, tuple[type, Any]], given: dict[str, Any]) -> dict[str, Any]:
    """Returns all settings of an owner: the given ones, checked, and the defaults of the others.

    Args:
        owner: A name of the owner, for messages.
        allowed: Name -> type and default.
        given: Name -> text (from `--set`) or a value of the type (from a sweep file or a program).

    Raises:
        BadInput: A name is unknown (the message has the nearest one), or a value is of the wrong type.
    """
    for name in given:
        if name not in allowed:
            raise BadInput(f"{owner} has no setting '{name}'{nearest(name, allowed)}")
    return {
        name: _converted(f"{owner}'s setting '{name}'", kind, given[name]) if name in given else default
        for name, (kind, default) in allowed.items()
    }


def _converted(what: str, kind: Any, value: Any) -> Any:
    if kind is bool:
        if str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
        raise BadInput(f"{what} is true or false, not '{value}'")
    optional = kind not in (int, float, str)
    if optional and str(value).lower() == "none":
        return None
    kind = next((k for k in (int, float, str) if k in getattr(kind, "__args__", ())), str) if optional else kind
    try:
        if kind is not str and not math.isfinite(float(value)) or kind is int and float(value) % 1:
            raise ValueError
        return kind(float(value)) if kind is int else kind(value)
    except (ValueError, OverflowError):
        wanted = {int: "a whole number", float: "a number"}[kind]
        raise BadInput(f"{what} is {wanted}, not '{value}'") from None
