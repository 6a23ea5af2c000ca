"""Checks and times every CUDA path, in about ten minutes on one GPU.

    python tests/benchmarks/gpu.py --out FOLDER [--minutes 10] [--only card,kernels]
    python tests/benchmarks/gpu.py --out FOLDER --rehearse      # the same on the CPU, tiny: nothing it times means anything

    card                the device: products in bf16 a second, bytes a second, operations of a training step
    kernels, network-*  equality with the CPU, in float64 and in float32 without TF32 (`gpu_checks.py`)
    selections, tests   the same examples selected; the tests that need a GPU, such as that no step waits for it
    blocks              norm + neuron as one function against torch's and SpikingJelly's, forward and backward
    throughput-*        `resnet18` of width 64, T = 4: ours against the plain loop, with each implementation of the neuron
                        that SpikingJelly has here; images/s and the share of the card's bf16 products
    efficiency          `sadp-bench speed` of random and SADP at 0.5 on it; full data against itself beside
    records             runs of full data, random and SADP, with their records
    ranks               a run on two GPUs under torchrun

Each section is a process with a limit of time, so a failure or a hang is printed and the next section follows. FOLDER gets
each section's log and measurements. CIFAR-10 is used where SADP_BENCH_DATA has it, else random images of its shape,
and digits for the records.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
BACKBONES = ("cnn", "vgg11", "resnet18", "sew-resnet18")
SHOWN = 30  # last lines of a section's log


@dataclass(frozen=True)
class Section:
    """A command.

    Args:
        name: Name of its files.
        words: Arguments of the Python interpreter.
        seconds: Limit of its time.
        beside: Whether it times nothing, and so runs beside the others of its kind.
        environment: Environment variables.
    """

    name: str
    words: list[str]
    seconds: float
    beside: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


def sections(out: Path, rehearse: bool) -> Iterator[Section]:
    """Yields the sections in their order."""
    device = "cpu" if rehearse else "cuda"

    def check(part: str, seconds: float, beside: bool = True) -> Section:
        words = [str(HERE / "gpu_checks.py"), *part.split("-", 1), "--device", device]
        return Section(part, words, seconds, beside)

    yield check("card", 60, beside=False)
    yield check("kernels", 240)
    for backbone in BACKBONES:
        yield check(f"network-{backbone}", 240)
    yield check("selections", 240)
    tests = ["tests/training/test_waits.py", "tests/training/test_optimizer.py", "tests/runs/test_peak_memory.py"]
    yield Section("tests", ["-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *tests], 240, beside=True)
    yield check("blocks", 60, beside=False)
    yield from throughput(out, device, rehearse)
    yield from runs(out, device, rehearse)


def throughput(out: Path, device: str, rehearse: bool) -> Iterator[Section]:
    """Yields the comparisons with the loops of others."""
    sizes = "--width 8 --batch-size 4 --examples 8 --rounds 2" if rehearse else "--width 64 --batch-size 256 --rounds 6"
    sizes += f" --kernel {'auto' if rehearse else 'native'}"
    arms = {
        "auto": "plain,by-hand,ours,ours-python,ours-sadp,convolutions",
        "triton": "plain,by-hand",
        "torch": "plain",
    }
    for implementation, names in arms.items():
        words = [str(HERE / "throughput.py"), "--backbone", "resnet18", "--device", device, *sizes.split()]
        words += ["--arms", names, "--json", str(out / f"throughput-{implementation}.json")]
        chosen = {"SJ_LIF_CUDA_IMPLEMENTATION": implementation}
        yield Section(f"throughput-{implementation}", words, 150, environment=chosen)


def runs(out: Path, device: str, rehearse: bool) -> Iterator[Section]:
    """Yields the commands of the package itself."""
    root = os.environ.get("SADP_BENCH_DATA")
    cifar = root is not None and (Path(root) / "cifar-10-batches-bin").exists() and not rehearse
    ours = ["-m", "sadp_bench"]
    device = f"--device {device} --kernel {'auto' if rehearse else 'native'}"
    network = f"{device} --backbone resnet18 --set backbone.width={8 if rehearse else 64}"
    data = "cifar10" if cifar else "tests.benchmarks.throughput_arms:Images"
    size = "--batch-size 4 --train-examples 16 --rounds 2" if rehearse else "--batch-size 256 --rounds 15"
    words = f"speed --dataset {data} {network} {size} --methods random,sadp --ratios 0.5 --minutes 2 --quiet --json"
    yield Section("efficiency", [*ours, *words.split()], 200)
    small = f"{network} --dataset cifar10 --epochs 3" if cifar else f"{device} --epochs {1 if rehearse else 10}"
    for method in ("random", "sadp"):
        words = f"run --method {method} --ratio 0.5 {small} --quiet --out {out / 'records'}"
        yield Section(f"records-{method}", [*ours, *words.split()], 90)
    if rehearse or gpus() >= 2:
        words = f"run --method sadp --ratio 0.5 {small} --quiet --out {out / 'ranks'}"
        launcher = "-m torch.distributed.run --standalone --nproc-per-node 2"
        yield Section("ranks", [*launcher.split(), *ours, *words.split()], 120)


def gpus() -> int:
    import torch

    return torch.cuda.device_count()


class Running:
    """A section's process, which writes its log.

    Args:
        section: The section.
        out: Folder of the log.
        left: Seconds that are left for all sections.
    """

    def __init__(self, section: Section, out: Path, left: float) -> None:
        self.section, self.path = section, out / f"{section.name}.log"
        self.limit, self.start = min(section.seconds, left), time.monotonic()
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        more = {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **section.environment}
        with self.path.open("w") as log:
            words = [sys.executable, *section.words]
            self.process = subprocess.Popen(
                words, cwd=ROOT, env=os.environ | more, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait(self) -> str:
        """Waits for the end, prints the log, and returns "ok" or what went wrong."""
        try:
            code = self.process.wait(max(0.1, self.start + self.limit - time.monotonic()))
            result = "ok" if code == 0 else f"FAILED with code {code}"
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)  # and the processes that it started
            self.process.wait()
            result = f"STOPPED after {self.limit:.0f} s"
        print(f"\n=== {self.section.name}: {result}, {time.monotonic() - self.start:.0f} s", flush=True)
        for line in self.path.read_text(errors="replace").splitlines()[-SHOWN:]:
            print(line[:300], flush=True)
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Checks and times every CUDA path.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--only", help="sections, separated by commas; network means all that begin so")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, tiny")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if not options.rehearse and not gpus():
        sys.exit("gpu.py: torch finds no CUDA device; --rehearse tries the sections on the CPU")
    results: dict[str, str] = {}
    end = time.monotonic() + 60 * options.minutes
    wanted = tuple(options.only.split(",")) if options.only else ("",)
    found = [section for section in sections(out, options.rehearse) if section.name.startswith(wanted)]
    together = [section for section in found if section.beside and not options.rehearse]
    for section in found:
        if section.name in results:
            continue
        left = end - time.monotonic()
        if left < 5:
            results[section.name] = "LEFT OUT: the time is over"
            continue
        group = together if section in together else [section]
        running = [Running(member, out, left) for member in group]
        results |= {one.section.name: one.wait() for one in running}
    summary = {"results": results, "throughput": shares(out)}
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    print("\n=== summary")
    for name, result in results.items():
        print(f"{name:24} {result}")
    for name, arms in summary["throughput"].items():
        for arm, (rate, ratio, share) in arms.items():
            print(f"{name:24} {arm:14} {rate:10,.0f} images/s  {ratio:6.2f} x plain  {share:6.1%} of the bf16 products")
    sys.exit(0 if all(result == "ok" for result in results.values()) else 1)


def shares(out: Path) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Returns each throughput file's images/s, ratio to plain, and share of the card's bf16 products, by arm."""
    card = last_json(out / "card.log")
    found = {}
    for path in sorted(out.glob("throughput-*.json")):
        measured = json.loads(path.read_text())
        found[path.stem] = {
            name: (
                arm["images_per_second"]["median"],
                arm["ratio"][measured["clock"]]["median"],
                arm["images_per_second"]["median"] * card["operations_per_image"] / card["bf16_products_per_second"]
                if card
                else float("nan"),
            )
            for name, arm in measured["arms"].items()
        }
    return found


def last_json(path: Path) -> dict[str, Any]:
    """Returns the JSON object in the last line of a log; an empty one where there is none."""
    try:
        return dict(json.loads(path.read_text().splitlines()[-1]))
    except (OSError, ValueError, IndexError):
        return {}


if __name__ == "__main__":
    main()
