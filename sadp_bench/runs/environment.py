"""The environment of a run. The seconds of two runs are comparable only in equal environments. No host or user name."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from spikingjelly.activation_based import functional

import sadp_bench
from sadp_bench.core.errors import BadInput
from sadp_bench.core.text import printable

PACKAGES = ("torch", "torchvision", "spikingjelly", "numpy")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of mallopt(3)


def describe(device: torch.device, threads: int, jobs: int = 1, kernel: str = "python") -> dict[str, Any]:
    """Returns versions, commit, device and settings.

    Args:
        device: The run's device.
        threads: The run's number of threads.
        jobs: Runs that share this machine at the same time.
        kernel: The run's kernel.
    """
    commit, dirty = _commit()
    return {
        "sadp_bench": sadp_bench.__version__,
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
        "device": device.type,
        "processor": printable(torch.cuda.get_device_name(device) if device.type == "cuda" else processor()),
        "threads": threads,
        "cores": os.cpu_count(),
        "jobs": jobs,
        "kernel": implementation(device, kernel),
        "bf16": bf16_is_fast(device),
        **({"tf32": tf32()} if device.type == "cuda" else {}),
    }


def load(when: str) -> dict[str, Any]:
    """Returns the machine's load average over the last minute as an entry of the environment.

    It counts all processes of the machine, with this one. It is None where the system does not measure it.

    Args:
        when: "start" or "end" of the run.
    """
    try:
        average = os.getloadavg()[0]
    except (AttributeError, OSError):
        return {f"load_average_{when}": None}
    return {f"load_average_{when}": round(average, 2)}


def joined_environments(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Returns the environment of a run in two parts. A value that differs becomes "old, then new", and matches no other."""

    def both(name: str, value: Any) -> Any:
        old = before.get(name, value)
        return old if old == value or str(old).endswith(f", then {value}") else f"{old}, then {value}"

    return {name: both(name, value) for name, value in now.items()}


def choose_device(name: str) -> torch.device:
    """Returns the device of that name; "auto" is a GPU where there is one. Raises BadInput for an absent device."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BadInput(f"--device is auto, cpu, cuda, cuda:N or mps, not '{name}'") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise BadInput(f"--device is auto, cpu, cuda, cuda:N or mps, not '{name}'")
    if device.type == "mps" and (device.index or not torch.backends.mps.is_available()):
        raise BadInput(f"--device {name}: PyTorch finds no Apple GPU of that name here; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInput(f"--device {name}: {torch.cuda.device_count()} CUDA devices are visible; use --device cpu")
    return device if device.type == "cuda" else torch.device(device.type)  # there is only one, at any index


def bf16_is_fast(device: torch.device) -> bool:
    """Returns whether the processor computes in bfloat16 natively."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return False  # not examined
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(
        capabilities.get("avx512_bf16")
        or capabilities.get("amx_bf16")
        or capabilities.get("amx_tile")
        or capabilities.get("bf16")
    )


def tf32() -> str:
    """Returns the operations that CUDA rounds to TF32 (10 binary digits) in a run of float32: by default convolutions."""
    on = {
        "convolutions": torch.backends.cudnn.allow_tf32,
        "products": torch.get_float32_matmul_precision() != "highest",
    }
    return " and ".join(name for name, rounds in on.items() if rounds) or "nothing"


def implementation(device: torch.device, kernel: str) -> str:
    """Returns the LIF implementation: the suite's on a CPU, SpikingJelly's choice on a GPU, torch's on an Apple GPU."""
    if kernel == "native":
        return "sadp-bench-triton" if device.type == "cuda" else "sadp-bench-native"
    if device.type in ("cpu", "mps"):
        return "sadp-bench-cpu" if device.type == "cpu" else "torch"
    return str(functional.neuron_implementation("lif", device)["implementation"])


def keep_freed_memory(keep: bool = True) -> None:
    """Makes glibc keep freed memory instead of returning it to the system; does nothing elsewhere.

    Training on a CPU frees and takes the same large blocks in every batch. Mapping their pages anew costs a fifth of the
    time. The setting affects the whole process, so only the command line makes it.

    Args:
        keep: False restores glibc's own choice.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, (2 << 30) - 1 if keep else 64 << 20)


def processor() -> str:
    """Returns the CPU's model, as Linux has it or, elsewhere, Python."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _commit() -> tuple[str | None, bool | None]:
    """Returns the commit of the checkout that the package runs from, and whether it was changed; None if installed.

    Git runs once per process, because a process keeps the code that it has at its start.
    """
    root = Path(sadp_bench.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None, None
    try:
        head = _git(root, "rev-parse", "HEAD").strip()
        return head, bool(_git(root, "status", "--porcelain", "--untracked-files=no").strip())
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True, timeout=10
    ).stdout
