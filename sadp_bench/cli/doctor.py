"""What `sadp-bench doctor` examines: versions, device, kernels, data sets, and which package `baselines` is."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sadp_bench
from sadp_bench.core import registry
from sadp_bench.core.text import printable
from sadp_bench.datasets.base import data_root
from sadp_bench.native import library
from sadp_bench.runs import environment

NAME_WIDTH = 14  # characters


def examine(data: Path | None) -> dict[str, Any]:
    """Returns the installed versions, the device and the data sets found here, as values for JSON."""
    device = environment.choose_device("auto")
    root = data_root(data)
    absence = library.absence()
    kernel = "native" if absence is None and device.type == "cpu" else "python"
    return {
        **environment.describe(device, environment.available_threads(), kernel=kernel),
        "c_core_absent": absence,
        "data_root": str(root),
        "datasets": {name: _place(name, root) for name in registry.table("dataset")},
        "baselines": shadowing(),
    }


def _place(name: str, root: Path) -> str | None:
    place = registry.resolve("dataset", name).locate(root)
    return str(place) if place else None


def shadowing() -> str | None:
    """Returns the folder of an unrelated package `baselines` (PyPI has an old one) that hides the project's; else None."""
    expected = Path(sadp_bench.__file__).resolve().parent.parent / "baselines"
    found = find_spec("baselines")
    if found is None or found.origin is None:
        return "missing"
    origin = Path(found.origin).resolve()
    if origin.parent == expected or (origin.parent / "infobatch.py").exists():
        return None
    return str(origin.parent)


def doctor_text(found: dict[str, Any]) -> str:
    """Returns the findings of `examine`, one line each."""
    lines = {name: value for name, value in found.items() if name not in ("datasets", "baselines", "bf16", "jobs")}
    lines["bf16"] = "native: --precision auto takes it" if found["bf16"] else "not native: --precision auto takes fp32"
    lines.pop("c_core_absent")
    lines["C core"] = found["c_core_absent"] or "built: --kernel auto takes it on a CPU"
    lines |= {name: place or "absent" for name, place in found["datasets"].items()}
    lines["baselines"] = (
        "ours"
        if found["baselines"] is None
        else f"WRONG: an unrelated package hides ours ({found['baselines']}); "
        "uninstall it (`pip uninstall baselines`) and reinstall sadp-bench"
    )
    return "\n".join(printable(f"{name:<{NAME_WIDTH}}{value}") for name, value in lines.items())
