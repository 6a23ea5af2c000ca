"""Edits of a document that was whole: drawn as plain values, applied by a pure function.

A document is what JSON or a checkpoint contains: tables, lists, and leaves, of which some may be tensors.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st

# Text that some reader would run, obey or choke on.
PAYLOADS = [
    "", " ", "x", "0", "nan", "1e999", "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "javascript:alert(1)",
    "</style><svg/onload=alert(1)>", "{{7*7}}", "{%raw%}", "<!--", "]]>", "&lt;b&gt;", "\x1b[2J", "\x9b2J", "a\nb", "a\rb",
    "a\x00b", "\u202etxt", "\u2028", "\ud800", "\ufeffx", "a\u00a0b", "=1+1", "+1+1|cmd", "-2+3", "@SUM(1)", "\t=1", "\r=1",
    "\\input{/etc/passwd}", "\\write18{id}", "\\csname x\\endcsname", "$x^{", "100%", "a_b&c#d~", "$(id)", "`id`",
    "; rm x", "../../x", "/dev/zero", "os:path", "nomodule:X", "[red]x[/red]", "[/", "%s%n%9d", "日本", "größe", "x" * 999,
    "sadp", "full", "cifar10", "cpu", "1.0", "2025-01-01T00:00:00+00:00",
]  # fmt: skip
NUMBERS = [
    0, 1, -1, 2, 3, 7, 100, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.5, -0.0, 1.0, 1e-320, 1e-30, 1e30, 1e99, 1e308, -1e308,
    math.nan, math.inf, -math.inf,
]  # fmt: skip


def nested(depth: int, leaf: Any = None) -> Any:
    """Returns lists in lists."""
    for _ in range(depth):
        leaf = [leaf]
    return leaf


CONTAINERS = [[], {}, [None], {"": None}, {"train": "1"}, [[]], [{}], {"a": {"b": [1]}}, nested(40), nested(400)]
SCALARS = [None, True, False, *NUMBERS, *PAYLOADS]
odd_values = st.sampled_from([*SCALARS, *CONTAINERS])


def _like(tensor: Any, value: float) -> Any:
    return torch.full_like(tensor.double(), value)


# Functions that return another tensor in the place of one, by name.
BENDS: dict[str, Any] = {
    "nan": lambda t: _like(t, math.nan),
    "nan of its type": lambda t: torch.full_like(t, math.nan) if t.is_floating_point() else t,
    "one nan": lambda t: torch.where(torch.arange(t.numel()).reshape(t.shape) == 0, math.nan, t) if t.numel() else t,
    "huge": lambda t: torch.full_like(t, 3e38) if t.is_floating_point() else torch.full_like(t, 1),
    "infinite": lambda t: torch.full_like(t, math.inf) if t.is_floating_point() else t,
    "negative": lambda t: -t if t.dtype != torch.bool and t.dtype != torch.uint8 else ~t,
    "out of range": lambda t: t + 10_000 if t.dtype == torch.int64 else t,
    "zero": torch.zeros_like,
    "longer": lambda t: torch.cat([t.flatten(), t.flatten()[:1]]),
    "shorter": lambda t: t.flatten()[:-1],
    "empty": lambda t: t.flatten()[:0],
    "another dimension": lambda t: t[None],
    "flat": torch.flatten,
    "complex": lambda t: t.to(torch.complex64),
    "half": lambda t: t.half() if t.is_floating_point() else t,
    "double": lambda t: t.double(),
    "whole numbers": lambda t: t.nan_to_num().long(),
    "booleans": lambda t: t.bool(),
    "bytes": lambda t: t.bool().to(torch.uint8),
    "a list": lambda t: t.tolist(),
    "sparse": lambda t: t.to_sparse() if t.dim() else t,
    "without data": lambda t: t.to("meta"),
    "wants a gradient": lambda t: t.requires_grad_() if t.is_floating_point() else t,
    "expanded": lambda t: torch.zeros(1, dtype=t.dtype).expand(1_000_000),
}


class Edit(NamedTuple):
    """One change. `at` and `to` are positions among the document's places, counted round and round."""

    kind: str
    at: int
    to: int
    value: Any


KINDS = ["replace", "replace", "delete", "rename", "insert", "swap", "copy", "repeat", "nest", "scale", "bend"]
positions = st.integers(0, 2**20)
edits = st.builds(Edit, st.sampled_from(KINDS), positions, positions, odd_values)
several_edits = st.lists(edits, min_size=1, max_size=4)
bends = st.builds(Edit, st.just("bend"), positions, positions, st.none())
state_edits = st.lists(st.one_of(bends, edits), min_size=1, max_size=3)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield (*path, key)
        yield from _places(item, (*path, key))


def _parent(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        document = document[key]
    return document


def edited(document: Any, changes: list[Edit]) -> Any:
    """Returns a changed copy of a document. A document without places, or a change that does not fit, stays."""
    document = copy.deepcopy(document)
    for change in changes:
        places = list(_places(document))
        if not places:
            break
        # Half of all places are deep in lists of numbers, so the first ones, which are most, are preferred.
        at, to = (
            places[position % (len(places) if position % 2 else min(len(places), 60))] for position in change[1:3]
        )
        _apply(document, change, at, to)
    return document


def _apply(document: Any, change: Edit, at: tuple[Any, ...], to: tuple[Any, ...]) -> None:
    parent, key = _parent(document, at), at[-1]
    old = parent[key]
    if change.kind == "replace":
        parent[key] = copy.deepcopy(change.value)
    elif change.kind == "delete":
        del parent[key]
    elif change.kind == "rename" and isinstance(parent, dict):
        parent[change.value if isinstance(change.value, str) else str(change.value)] = parent.pop(key)
    elif change.kind == "insert" and isinstance(old, dict):
        old[str(change.value)[:50]] = copy.deepcopy(change.value)
    elif change.kind == "insert" and isinstance(old, list):
        old.insert(change.to % (len(old) + 1), copy.deepcopy(change.value))
    elif change.kind == "copy" and at[: len(to)] != to and to[: len(at)] != at:
        parent[key] = copy.deepcopy(_parent(document, to)[to[-1]])
    elif change.kind == "swap" and at[: len(to)] != to and to[: len(at)] != at:
        other = _parent(document, to)
        parent[key], other[to[-1]] = other[to[-1]], old
    elif change.kind == "repeat" and isinstance(old, list):
        parent[key] = old * (change.to % 5)
    elif change.kind == "nest":
        parent[key] = [old] if change.to % 2 else {"a": old}
    elif change.kind == "scale" and isinstance(old, int | float) and not isinstance(old, bool):
        factor = change.value if isinstance(change.value, int | float) else -1
        try:
            parent[key] = old * factor if isinstance(factor, int) or math.isfinite(old) and abs(old) < 1e300 else factor
        except OverflowError:  # a float times a whole number that no float holds
            parent[key] = factor
    elif change.kind == "bend" and isinstance(old, torch.Tensor) and not old.is_sparse and old.device.type == "cpu":
        parent[key] = BENDS[list(BENDS)[change.to % len(BENDS)]](old.detach().clone())


# Functions that damage a file's bytes, by name.
DAMAGES: dict[str, Any] = {
    "cut": lambda content, at: content[: at % (len(content) + 1)],
    "byte order mark": lambda content, at: b"\xef\xbb\xbf" + content,
    "UTF-16": lambda content, at: content.decode("utf-8", "replace").encode("utf-16"),
    "one bit": lambda content, at: _flipped(content, at),
    "zeros": lambda content, at: content[: at % (len(content) + 1)] + bytes(100) + content[at % (len(content) + 1) :],
    "twice": lambda content, at: content * 2,
    "Windows lines": lambda content, at: content.replace(b"\n", b"\r\n"),
    "more": lambda content, at: content + b"}",
    "deep": lambda content, at: b"[" * 50_000,
}


def _flipped(content: bytes, at: int) -> bytes:
    if not content:
        return content
    place = at // 8 % len(content)
    return content[:place] + bytes([content[place] ^ 1 << at % 8]) + content[place + 1 :]


damages = st.one_of(st.none(), st.none(), st.none(), st.tuples(st.sampled_from(sorted(DAMAGES)), positions))


def damaged(content: bytes, damage: tuple[str, int] | None) -> bytes:
    """Returns a file's content after a damage."""
    return content if damage is None else DAMAGES[damage[0]](content, damage[1])
