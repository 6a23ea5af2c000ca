"""What `sadp-bench list` prints. It imports neither Typer nor a listed class."""

from __future__ import annotations

from sadp_bench.cli.output import Result
from sadp_bench.core import registry
from sadp_bench.core.errors import BadInput

KINDS = {"methods": "method", "backbones": "backbone", "datasets": "dataset"}


def registered(kind: str, as_json: bool = False) -> Result:
    """Returns the registered classes of a kind with their summaries and sources.

    Args:
        kind: A key of `KINDS`.
        as_json: Whether the result is a list for JSON instead of text.
    """
    if kind not in KINDS:
        raise BadInput(f"list what? '{kind}' is unknown{registry.nearest(kind, KINDS)}")
    entries = registry.entries(KINDS[kind])
    if as_json:
        return Result([{"name": e.name, "path": e.path, "summary": e.summary, "source": e.source} for e in entries])
    text = "\n".join(f"{entry.name:<14}{entry.summary}\n{'':<14}{entry.source}" for entry in entries)
    return Result(lambda: print(text))
