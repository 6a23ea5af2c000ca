"""The findings of `sadp-bench doctor`: versions, device, kernels, extras, data sets, and the package `baselines`."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import sadp_bench
from sadp_bench.cli.terminal import BOLD, DIM, GREEN, RED, columns, hanging, heading, shows, styled
from sadp_bench.core import registry, static
from sadp_bench.core.cores import available_threads
from sadp_bench.core.text import printable

# For each extra of `pyproject.toml`: its package, and what it adds.
EXTRAS = {
    "ray": ("ray", "sweep --executor ray"),
    "slurm": ("submitit", "sweep --executor slurm"),
    "wandb": ("wandb", "--log wandb"),
    "hdf5": ("h5py", "the data sets shd and ssc"),
    "hf": ("datasets", "the data sets hf:NAME"),
}
OF_USER = ("file", "folder", "name")  # settings of a data set whose examples are the user's
STYLES = {True: GREEN, False: RED, None: DIM}
MARKS = {True: ("✓", "ok"), False: ("✗", "--"), None: ("·", "  ")}  # on a terminal with these characters, and elsewhere
INDENT = 21  # columns before the text of a finding


class Finding(NamedTuple):
    """The finding about a part.

    Attributes:
        name: The part.
        fine: Whether the part is present; None where it is optional or depends on the user.
        text: A description of the part, or what to do about it.
        needed: Whether every run needs it.
    """

    name: str
    fine: bool | None
    text: str
    needed: bool = False


def title() -> str:
    """Returns the first line."""
    words = f"sadp-bench {sadp_bench.__version__}, Python {platform.python_version()}, {platform.system()}"
    return styled(printable(words), BOLD)


def examine(data: Path | None) -> dict[str, Any]:
    """Returns the installed versions, the device, the extras and the data sets found here, as values for JSON."""
    from sadp_bench.datasets.base import data_root
    from sadp_bench.native import library
    from sadp_bench.runs import environment

    device = environment.choose_device("auto")
    root = data_root(data)
    absence = library.absence()
    kernel = "native" if absence is None and device.type == "cpu" else "python"
    return {
        **environment.describe(device, available_threads(), kernel=kernel),
        "c_core_absent": absence,
        "data_root": str(root),
        "extras": {extra: _version(package) for extra, (package, _) in EXTRAS.items()},
        "datasets": {name: _place(name, root) for name in registry.table("dataset")},
        "baselines": shadowing(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _place(name: str, root: Path) -> str | None:
    place = registry.resolve("dataset", name).locate(root)
    return str(place) if place else None


def shadowing() -> str | None:
    """Returns the folder of another package `baselines` (PyPI has one) that hides this project's; else None."""
    expected = Path(sadp_bench.__file__).resolve().parent.parent / "baselines"
    found = find_spec("baselines")
    if found is None or found.origin is None:
        return "missing"
    origin = Path(found.origin).resolve()
    if origin.parent == expected or (origin.parent / "infobatch.py").exists():
        return None
    return str(origin.parent)


def findings(found: Mapping[str, Any]) -> dict[str, list[Finding]]:
    """Returns the findings by panel of the output.

    Args:
        found: The result of `examine`.
    """
    panels = {
        "Installation": _installation(found),
        "Device": _device(found),
        "Extras": [_extra(extra, found["extras"][extra]) for extra in EXTRAS],
        f"Data sets in {found['data_root']}": [_data(name, place) for name, place in found["datasets"].items()],
    }
    panels["Extras"].append(
        Finding("torchvision", True, f"{found['torchvision']}: the data sets torchvision:NAME")
        if found["torchvision"]
        else Finding("torchvision", False, "the data sets torchvision:NAME need it: pip install torchvision")
    )
    return panels


def _installation(found: Mapping[str, Any]) -> list[Finding]:
    commit = f"commit {found['commit'][:10]}{', changed' if found['dirty'] else ''}" if found["commit"] else "a release"
    packages = [Finding(name, True, found[name]) for name in ("torch", "spikingjelly", "numpy")]
    absent, hidden = found["c_core_absent"], found["baselines"]
    core = Finding(
        "C core",
        absent is None,
        "built: --kernel auto takes it on a CPU"
        if absent is None
        else f"{absent}; until then runs take --kernel python, which is slower",
    )
    methods = Finding(
        "baselines",
        hidden is None,
        "ours: the methods that SADP is compared with"
        if hidden is None
        else f"an unrelated package hides ours ({hidden}): pip uninstall baselines, then install sadp-bench again",
        needed=True,
    )
    return [Finding("sadp-bench", True, f"{found['sadp_bench']}, {commit}"), *packages, core, methods]


def _device(found: Mapping[str, Any]) -> list[Finding]:
    cpu = f"{found['processor']}, {found['threads']} of {found['cores']} cores"
    has_gpu = found["device"] != "cpu"
    device = Finding(found["device"], True, found["processor"] if has_gpu else cpu)
    gpu = [] if has_gpu else [Finding("GPU", None, "none that PyTorch can use; every command runs on the CPU")]
    native = "native: --precision auto takes it" if found["bf16"] else "not native: --precision auto takes fp32"
    return [device, *gpu, Finding("bf16", found["bf16"] or None, native), Finding("kernel", True, found["kernel"])]


def _extra(extra: str, installed: str | None) -> Finding:
    package, adds = EXTRAS[extra]
    if installed:
        return Finding(extra, True, f"{package} {installed}: {adds}")
    return Finding(extra, False, f"{adds}: pip install 'sadp-bench[{extra}]'")


def _data(name: str, place: str | None) -> Finding:
    if place:
        return Finding(name, True, place)
    path = registry.table("dataset")[name]
    given = next((of.name for of in static.settings(path) if of.name in OF_USER), None)
    if given == "name":
        return Finding(name, None, f"needs a name: --dataset {name}:NAME")
    if given:
        return Finding(name, None, f"needs your data: --set dataset.{given}=PATH")
    if "by hand" in " ".join(static.docstring(path).split()):
        return Finding(name, False, f"download it by hand: `sadp-bench list datasets {name}` has files and address")
    return Finding(name, False, "the first run downloads it")


def doctor_text(found: Mapping[str, Any]) -> str:
    """Returns the findings of `examine` in panels with a mark before each, and a closing sentence."""
    width, panels, lines = columns(), findings(found), [title()]
    for panel, rows in panels.items():
        lines += ["", heading(printable(panel), width)]
        for row in rows:
            first, *others = hanging(printable(row.text), f"  {_mark(row.fine)} {row.name}  ", INDENT, width)
            lines += [first.replace(_mark(row.fine), styled(_mark(row.fine), STYLES[row.fine]), 1), *others]
    broken = [row.name for rows in panels.values() for row in rows if row.fine is False and row.needed]
    missing = sum(row.fine is False and not row.needed for rows in panels.values() for row in rows)
    end = f"Repair {' and '.join(broken)} first." if broken else "All parts that every run needs are present."
    end += (
        f" Optional parts that are missing: {missing}. The lines with {_mark(False).strip()} show what to do."
        if missing
        else ""
    )
    return "\n".join([*lines, "", *hanging(end, "", 0, width)])


def _mark(fine: bool | None) -> str:
    sign, word = MARKS[fine]
    return f"{sign} " if shows(sign) else word
