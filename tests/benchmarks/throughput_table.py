"""Makes the tables of docs/speed.md from the files of tests/benchmarks/throughput.py.

A cell is the median of the invocations' medians. Its bracket reaches from the least of them to the greatest. For a single
invocation it is the interval of about 95 % over the rounds.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.throughput_arms import (
    ARMS,
    CONVOLUTIONS,
    CONVOLUTIONS_PYTHON,
    OURS,
    OURS_SADP,
    PLAIN,
    PLAIN_DEFAULT,
    PLAIN_KEPT,
)

FILES = "throughput-*.speed.json"
NONE = "–"
Measured = dict[str, Any]
Group = tuple[str, list[Measured]]  # a label, and the invocations of one request
SAME = (
    *("data", "backbone", "backbone_options", "timesteps", "batch_size", "examples", "threads", "device", "precision"),
    *("kernel", "allocator_for_both"),
)


def read(folder: Path) -> list[Measured]:
    """Returns the contents of all files of throughput in a folder."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(FILES))]


def tables(files: Iterable[Measured]) -> str:
    """Returns the tables in Markdown: every arm on `cnn`, then every network. Without files: an empty text."""
    found: dict[str, list[Measured]] = {}
    for file in files:
        found.setdefault(json.dumps([file[name] for name in SAME], sort_keys=True), []).append(file)
    groups = [(label(invocations[0]), invocations) for invocations in found.values()]
    if not groups:
        return ""
    detailed = [(name, some) for name, some in groups if some[0]["backbone"] == "cnn" and some[0]["data"] == "images"]
    parts = [by_arm(detailed)] if detailed else []
    return "\n\n".join([*parts, by_network(groups)])


def label(file: Measured) -> str:
    """Returns the name of a request, as a table shows it."""
    options = file["backbone_options"]
    parts = [file["backbone"], f"width {options['width']}", f"{file['threads']} thread{'s' * (file['threads'] > 1)}"]
    place = options.get("pool_at", options.get("pool"))  # older files name the place "pool"
    if place is not None:
        parts.insert(1, f"pool {place.replace('-', ' ')}")
    if file["data"] == "events":
        parts.insert(1, "events")
    if file["allocator_for_both"]:
        parts.append("all keep freed memory")
    return ", ".join(parts)


def by_arm(groups: Sequence[Group]) -> str:
    """Returns a table of one row an arm and one column a request, in multiples of the plain loop of the same order."""
    rows = [[f"{PLAIN}, images/s", *(cell(some, rate_of(PLAIN), 0) for _, some in groups)]]
    rows += [[name, *(cell(some, ratio_of(name)) for _, some in groups)] for name in ARMS if name != PLAIN]
    for name in (PLAIN_KEPT, PLAIN_DEFAULT):
        rows.append([f"ours over {name}", *(cell(some, over(name)) for _, some in groups)])
    shown = [row for row in rows if set(row[1:]) != {NONE}]
    return markdown(["arm", *(name for name, _ in groups)], shown)


def by_network(groups: Sequence[Group]) -> str:
    """Returns a table of one row a request."""
    columns: dict[str, Callable[[Sequence[Measured]], str]] = {
        "plain, images/s": lambda some: cell(some, rate_of(PLAIN), 1),
        "by hand": lambda some: cell(some, ratio_of("by-hand")),
        "ours": lambda some: cell(some, ratio_of(OURS)),
        "SADP at 0.5": lambda some: cell(some, ratio_of(OURS_SADP)),
        "convolutions alone": lambda some: cell(some, ratio_of(CONVOLUTIONS)),
        "torch's alone": lambda some: cell(some, ratio_of(CONVOLUTIONS_PYTHON)),
        "share of convolutions in a step": lambda some: cell(some, lambda file: file["convolution_share"]),
        "precision, kernel": lambda some: f"{some[0]['precision']}, {some[0]['kernel']}",
        "batch": lambda some: f"{some[0]['batch_size']}",
        "invocations, rounds": lambda some: f"{len(some)}, {sum(file['rounds'] for file in some)}",
    }
    rows = [[name, *(column(some) for column in columns.values())] for name, some in groups]
    return markdown(["network", *columns], rows)


def rate_of(name: str) -> Callable[[Measured], Any]:
    """Returns a function of a file: images per second of an arm."""
    return lambda file: file["arms"].get(name, {}).get("images_per_second")


def ratio_of(name: str) -> Callable[[Measured], Any]:
    """Returns a function of a file: an arm's ratio to the plain loop, by the clock that decides."""
    return lambda file: file["arms"].get(name, {}).get("ratio", {}).get(file["clock"])


def over(name: str) -> Callable[[Measured], Any]:
    """Returns a function of a file: the ratio of ours to an arm."""
    return lambda file: file["ours_over"].get(name)


def cell(files: Sequence[Measured], value: Callable[[Measured], Any], digits: int = 2) -> str:
    """Returns "3.61 [3.55, 3.70]", or a dash where no file has the value."""
    found = [value(file) for file in files if value(file) is not None]
    if not found:
        return NONE
    medians = [each["median"] for each in found]
    low, high = (min(medians), max(medians)) if len(found) > 1 else (found[0]["low"], found[0]["high"])
    within = "" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{statistics.median(medians):.{digits}f}{within}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
