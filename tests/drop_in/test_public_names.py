"""The public names: these, typed, and no others."""

from __future__ import annotations

import ast
from pathlib import Path

import sadp_bench

PUBLIC = {
    "BadInput",
    "LoggedRun",
    "Logger",
    "Observation",
    "PrunedSampler",
    "Pruner",
    "SADP",
    "Selection",
    "Signal",
    "export",
    "load",
    "load_model",
    "report",
    "run",
    "score_with",
    "scores",
    "sweep",
    "visits",
    "watch",
    "weighted_batch_norm",
    "weighted_statistics",
    "with_index",
    "__version__",
}


def test_the_public_names_are_these_and_no_others_and_typed() -> None:
    assert (
        set(sadp_bench.__all__)
        == PUBLIC
        == {name for name in dir(sadp_bench) if name in PUBLIC} | set(sadp_bench._HOME)
    )
    for name in PUBLIC - {"__version__"}:
        home = sadp_bench._HOME[name]
        assert getattr(sadp_bench, name).__module__ == home and getattr(sadp_bench, name).__doc__
        assert getattr(sadp_bench, name) is getattr(__import__(home, fromlist=[name]), name)
    stub = ast.parse((Path(sadp_bench.__file__).parent / "__init__.pyi").read_text())
    homes = {
        alias.asname: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert homes == sadp_bench._HOME
