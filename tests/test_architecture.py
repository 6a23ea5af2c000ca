"""The floors: an import only goes down, and what must feel instant never imports torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from sadp_bench import registry

ROOT = Path(__file__).resolve().parent.parent
FLOORS = [
    {
        "sadp_bench",
        "errors",
        "registry",
        "spec",
        "record",
        "store",
        "lock",
        "metrics",
        "visits",
        "sweepfile",
        "studyfile",
    },
    {
        "significance",
        "streams",
        "sampling",
        "pruner",
        "examples",
        "losses",
        "layers",
        "squares",
        "taps",
        "late_taps",
        "outputs",
        "gradient_scales",
        "gradient_norms",
        "masks",
        "memory",
        "operations",
        "clock",
        "checkpoint",
        "ranks",
        "environment",
        "progress",
    },
    {"pruners", "backbones", "datasets", "backprop", "sparsity", "baselines"},
    {"engine", "lab", "own_lab", "own_loop", "own_scores", "watching"},
    {"parts", "workbench", "experiment", "speed", "checks", "doctor", "sweep", "scheduler", "executors", "ray_cluster"}
    | {"collect", "score_cost", "study"},
    {"cli", "commands", "spec_options", "gate", "terminal", "overview", "report", "study_table", "__main__"},
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
FILES = sorted([*(ROOT / "sadp_bench").rglob("*.py"), *(ROOT / "baselines").rglob("*.py")])
STANDARD = sys.stdlib_module_names


def place(module: str) -> str:
    """'sadp_bench.backbones.spiking' -> 'backbones'; 'baselines.el2n' -> 'baselines'."""
    parts = module.split(".")
    return "baselines" if parts[0] == "baselines" else parts[1] if len(parts) > 1 else "sadp_bench"


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


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_an_import_only_goes_down(path):
    here = place(module_of(path))
    assert here in FLOOR, f"{path.name} stands on no floor: put it on one"
    for name in own(imports(path)):
        there = place(name)
        if there not in FLOOR:  # a name of the package itself, such as __version__
            assert name.rpartition(".")[0] == "sadp_bench"
            continue
        assert FLOOR[there] <= FLOOR[here], f"{module_of(path)} imports {name}, which is above it"


@pytest.mark.parametrize("path", [p for p in FILES if FLOOR.get(place(module_of(p))) == 0], ids=module_of)
def test_the_ground_floor_needs_the_standard_library_only(path):
    for name in imports(path) - own(imports(path)):
        assert name.split(".")[0] in STANDARD, f"{module_of(path)} imports {name}"


def test_imports_form_no_cycle():
    of = {module_of(path): own(imports(path)) - {module_of(path)} for path in FILES}
    TopologicalSorter(of).prepare()


def test_the_engine_is_handed_objects_and_names_none():
    for name in ("engine", "lab"):
        used = {place(n) for n in own(imports(ROOT / "sadp_bench" / f"{name}.py"))}
        assert not used & {"pruners", "backbones", "datasets", "baselines"}


@pytest.mark.parametrize("path", sorted((ROOT / "baselines").glob("*.py")), ids=module_of)
def test_baselines_use_the_public_contract_only(path):
    allowed = {"sadp_bench.pruner", "sadp_bench.sampling"}
    assert {n for n in own(imports(path)) if not n.startswith("baselines")} <= allowed


def test_no_file_shadows_the_standard_library():
    assert not [path for path in FILES if path.stem in STANDARD and path.stem != "__main__"]


@pytest.mark.parametrize("kind", registry.GROUPS)
def test_every_registered_class_loads_and_says_what_it_is_and_whence(kind):
    for entry in registry.entries(kind):
        assert entry.summary.endswith((".", ".)")), f"{entry.name}: {entry.summary!r}"
        assert entry.source, f"{entry.name} names no source"
        assert registry.resolve(kind, entry.name).__doc__


@pytest.mark.parametrize(
    "module", ["sadp_bench", "sadp_bench.cli", "sadp_bench.report", "sadp_bench.store", "baselines"]
)
def test_what_must_feel_instant_leaves_torch_alone(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'pandas' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
