"""What is here: versions, device, kernels, data sets; and whether `baselines` is ours."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sadp_bench
from sadp_bench.core import registry
from sadp_bench.datasets.base import data_root
from sadp_bench.runs import environment


def examine(data: Path | None) -> dict[str, Any]:
    device = environment.choose_device("auto")
    root = data_root(data)
    return {
        **environment.describe(device, environment.available_threads()),
        "data_root": str(root),
        "datasets": {name: _place(name, root) for name in registry.table("dataset")},
        "baselines": shadowing(),
    }


def _place(name: str, root: Path) -> str | None:
    place = registry.resolve("dataset", name).locate(root)
    return str(place) if place else None


def shadowing() -> str | None:
    """Where an unrelated package named `baselines` (there is an old one on PyPI) hides ours; None where all is well."""
    ours = Path(sadp_bench.__file__).resolve().parent.parent / "baselines"
    found = find_spec("baselines")
    if found is None or found.origin is None:
        return "missing"
    origin = Path(found.origin).resolve()
    if origin.parent == ours or (origin.parent / "infobatch.py").exists():
        return None
    return str(origin.parent)


def text(found: dict[str, Any]) -> str:
    """For a person, one line each."""
    lines = [
        f"{name:<14}{value}" for name, value in found.items() if name not in ("datasets", "baselines", "bf16", "jobs")
    ]
    lines.append(
        f"{'bf16':<14}{'native: --precision auto takes it' if found['bf16'] else 'not native: auto takes fp32'}"
    )
    lines += [f"{name:<14}{place or 'absent'}" for name, place in found["datasets"].items()]
    if found["baselines"] is None:
        lines.append(f"{'baselines':<14}ours")
    else:
        lines.append(
            f"{'baselines':<14}WRONG: an unrelated package hides ours ({found['baselines']}); "
            "uninstall it (`pip uninstall baselines`) and reinstall sadp-bench"
        )
    return "\n".join(lines)
