"""Imports beyond the contracts of pyproject.toml: the modules that load, and those that stay unloaded."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from sadp_bench.core import registry
from tests.paths import ROOT

RECORDS = ", ".join(f"sadp_bench.records.{path.stem}" for path in (ROOT / "sadp_bench" / "records").glob("[a-z]*.py"))
FEELS_INSTANT = ("sadp_bench", "sadp_bench.cli.app", "sadp_bench.reports", "baselines", RECORDS)
SLOW = ("torch", "pandas", "matplotlib", "scipy", "jinja2")


def imported(path: Path) -> set[str]:
    """Returns the modules that a file imports, at its top or within functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(str(node.module))
    return found


def test_the_import_contracts_hold() -> None:
    answer = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout


def test_baselines_use_the_public_contract_only() -> None:
    allowed = {"sadp_bench.pruner", "sadp_bench.sampling"}
    for path in (ROOT / "baselines").glob("*.py"):
        used = {name for name in imported(path) if name.startswith("sadp_bench")}
        assert used <= allowed, f"{path.name} imports {sorted(used - allowed)}"


def test_every_registered_class_loads_and_has_a_summary_and_a_source() -> None:
    for kind in registry.GROUPS:
        for entry in registry.entries(kind):
            assert entry.summary.endswith((".", ".)")), f"{entry.name}: {entry.summary!r}"
            assert entry.source, f"{entry.name} names no source"
            assert registry.load(entry.path).__doc__


def test_commands_and_reports_start_without_slow_packages() -> None:
    for module in FEELS_INSTANT:
        code = f"import sys, {module}; print(*(name for name in {SLOW} if name in sys.modules))"
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert answer.stdout.strip() == "", f"{module} imports {answer.stdout.strip()}"
