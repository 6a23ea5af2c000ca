"""The floors: an import only goes down, and what must feel instant never imports torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from sadp_bench.core import registry
from tests.paths import ROOT

FILES = sorted([*(ROOT / "sadp_bench").rglob("*.py"), *(ROOT / "baselines").rglob("*.py")])
STANDARD = sys.stdlib_module_names


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, top_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            # `from sadp_bench import engine` names the module engine, not the package.
            whole = node.module == "sadp_bench"
            found |= {f"{node.module}.{alias.name}" if whole else str(node.module) for alias in node.names}
    return found


def own(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] in ("sadp_bench", "baselines")}


def test_the_floors_hold() -> None:
    """The floors are the contracts of pyproject.toml; CONTRIBUTING.md has the map."""
    answer = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout


def test_records_need_the_standard_library_only() -> None:
    for path in (ROOT / "sadp_bench" / "records").glob("*.py"):
        for name in imports(path, top_only=True) - own(imports(path)):
            assert name.split(".")[0] in STANDARD, f"{module_of(path)} imports {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "baselines").glob("*.py")), ids=module_of)
def test_baselines_use_the_public_contract_only(path):
    allowed = {"sadp_bench.pruner", "sadp_bench.sampling"}
    assert {n for n in own(imports(path)) if not n.startswith("baselines")} <= allowed


def test_no_file_shadows_the_standard_library():
    assert not [path for path in FILES if path.stem in STANDARD and path.parent.name == "baselines"]


@pytest.mark.parametrize("kind", registry.GROUPS)
def test_every_registered_class_loads_and_says_what_it_is_and_whence(kind):
    for entry in registry.entries(kind):
        assert entry.summary.endswith((".", ".)")), f"{entry.name}: {entry.summary!r}"
        assert entry.source, f"{entry.name} names no source"
        assert registry.resolve(kind, entry.name).__doc__


@pytest.mark.parametrize(
    "module", ["sadp_bench", "sadp_bench.cli.app", "sadp_bench.report", "sadp_bench.records.store", "baselines"]
)
def test_what_must_feel_instant_leaves_torch_alone(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'pandas' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
