"""Reads docstring, settings and attributes of classes from the source text, without import. So `list` needs no torch.

A class is found by its `package.module:Class`. Its bases are followed within its own package and this project.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import itertools
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sadp_bench.core.files import read_text

OURS = ("sadp_bench", "baselines")
Place = tuple[str, ast.ClassDef]  # the module of a class, and the class
DEFINED = (ast.ClassDef, ast.FunctionDef)


class Setting(NamedTuple):
    """A setting of a method, a network, a data set or a way to prune connections.

    Attributes:
        name: The name in `--set`.
        type: Its annotation.
        default: The value, or its source text where only an import would compute it.
        meaning: The text in the docstring's `Args:`, or "".
    """

    name: str
    type: str
    default: Any
    meaning: str


def docstring(path: str) -> str:
    """Returns the docstring of a `package.module:Class` or `package.module:function`, with its indent."""
    module_name, _, name = path.partition(":")
    found = next((node for node in _body(module_name) if isinstance(node, DEFINED) and node.name == name), None)
    return ast.get_docstring(found, clean=False) or "" if found else ""  # cleaning imports `inspect`


def settings(path: str) -> list[Setting]:
    """Returns the keyword-only arguments of a class's `__init__`, which may be inherited."""
    classes = list(_lineage(path))
    meanings = _meanings(classes)
    for module, node in classes:
        for member in node.body:
            if isinstance(member, ast.FunctionDef) and member.name == "__init__":
                arguments = zip(member.args.kwonlyargs, member.args.kw_defaults, strict=True)
                return [_setting(module, a.arg, a.annotation, default, meanings) for a, default in arguments if default]
    return []


def fields(path: str) -> list[Setting]:
    """Returns the fields of a dataclass."""
    classes = list(_lineage(path))
    meanings = _meanings(classes)
    return [
        _setting(module, member.target.id, member.annotation, member.value, meanings)
        for module, node in classes
        for member in node.body
        if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name) and member.value is not None
    ]


def attribute(path: str, name: str, inherited: bool = True) -> Any:
    """Returns the value of a class attribute; None: there is none.

    Args:
        path: The class's path.
        name: The attribute's name.
        inherited: Whether a base's attribute counts.
    """
    for module, node in _lineage(path) if inherited else itertools.islice(_lineage(path), 1):
        value = _assigned(node.body, name)
        if value is not None:
            return _value(module, value)
    return None


def defines(path: str, name: str) -> bool:
    """Returns whether a class, or one that it inherits from, has a method of this name."""
    members = (member for _, node in _lineage(path) for member in node.body)
    return any(isinstance(member, ast.FunctionDef) and member.name == name for member in members)


@functools.cache
def _body(module_name: str) -> list[ast.stmt]:
    """Returns a module's statements; an empty list where its source can't be found."""
    found = importlib.util.find_spec(module_name)
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        return []
    return ast.parse(read_text(Path(found.origin))).body


def _lineage(path: str) -> Iterator[Place]:
    """Yields a class and its bases, nearest first, as far as they can be read."""
    module, _, name = path.partition(":")
    followed = (module.partition(".")[0], *OURS)
    found = _named(module, name, followed)
    if found is not None and isinstance(found[1], ast.ClassDef):
        place = found[0], found[1]
        yield place
        for base in place[1].bases:
            if isinstance(base, ast.Name):
                yield from _lineage(f"{place[0]}:{base.id}")


def _named(module: str, name: str, followed: tuple[str, ...]) -> tuple[str, ast.AST] | None:
    """Returns the class or value that a name of a module refers to, and the module that defines it."""
    if module.partition(".")[0] not in followed:
        return None
    body = _body(module)
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _named(node.module, alias.name, followed)
    value = _assigned(body, name)
    return None if value is None else (module, value)


def _assigned(body: list[ast.stmt], name: str) -> ast.expr | None:
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            value: ast.expr | None = getattr(node, "value", None)
            return value
    return None


def _value(module: str, node: ast.expr) -> Any:
    """Returns the value of an expression that is a literal or the name of a literal; otherwise its source text."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        found = _named(module, node.id, (module.partition(".")[0], *OURS)) if isinstance(node, ast.Name) else None
        if found is not None and isinstance(found[1], ast.expr):
            return _value(found[0], found[1])
        return ast.unparse(node)


def _setting(
    module: str, name: str, annotation: ast.expr | None, default: ast.expr, meanings: dict[str, str]
) -> Setting:
    kind = ast.unparse(annotation) if annotation else "str"
    return Setting(name, kind, _value(module, default), meanings.get(name, ""))


def _meanings(classes: list[Place]) -> dict[str, str]:
    """Returns the text on each argument in the docstrings of the classes; the nearest class counts."""
    found: dict[str, str] = {}
    for _, node in classes:
        for name, text in arguments(ast.get_docstring(node, clean=False) or "").items():
            found.setdefault(name, text)
    return found


def sections(doc: str) -> list[str]:
    """Returns the paragraphs of a docstring without its indent."""
    first, _, others = doc.partition("\n")
    return re.split(r"\n\s*\n", f"{first.strip()}\n{textwrap.dedent(others)}".strip())


def arguments(doc: str) -> dict[str, str]:
    """Returns the entries of the sections `Args:` and `Attributes:` of a docstring."""
    found: dict[str, str] = {}
    for section in sections(doc):
        head, _, body = section.partition("\n")
        if head in ("Args:", "Attributes:"):
            for entry in re.split(r"^ {4}(?! )", body, flags=re.MULTILINE)[1:]:
                name, _, text = entry.partition(":")
                found[name] = " ".join(text.split())
    return found
