"""Images per second of our training step against the loops of others, on the same network.

    python tests/benchmarks/throughput.py [--backbone cnn] [--threads 1] [--json results/speed/throughput-cnn-1.speed.json]
    python tests/benchmarks/throughput.py --backbone cnn --set backbone.pool_at=before-norm --arms plain,by-hand,ours
    python tests/benchmarks/throughput.py --all results/speed      # every file of docs/speed.md, on a quiet machine
    python tests/benchmarks/throughput.py --table results/speed    # their tables

All arms train on random images of CIFAR's shape, or frames of N-MNIST's, with SGD, interleaved epoch by epoch in one
process. The order turns around every round, and the first round is not timed. Every ratio is of one round: seconds of the
plain loop over seconds of the arm. `--help` shows the arms. Seconds are the clock's and this process's (its CPU seconds);
with one thread the CPU seconds decide, which other processes disturb less. The C library keeps freed memory for ours,
as `sadp-bench run` sets it, and for the others with --allocator-for-both.

A script, not a command of the package: the peers need snnTorch, which only the tests install. It asserts nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from sadp_bench.core.errors import BadInput
from sadp_bench.measure.speed import median_interval
from sadp_bench.runs import environment
from sadp_bench.runs.trainer import threads
from tests.benchmarks.throughput_arms import (
    ARMS,
    COMPILED,
    CONVOLUTIONS,
    DATA,
    OURS,
    PLAIN,
    PLAIN_DEFAULT,
    PLAIN_KEPT,
    Arm,
    Workshop,
)
from tests.benchmarks.throughput_table import read, tables

CLOCKS = ("seconds", "cpu_seconds")
Rounds = dict[str, dict[str, list[float]]]  # by arm, by clock


def request_of(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the request that all arms have in common."""
    settings = {}
    for text in options.set:
        key, equals, value = text.partition("=")
        if not equals or not key.startswith("backbone."):
            raise BadInput(f"--set takes backbone.KEY=VALUE, not '{text}'")
        settings[key] = value
    if options.width is not None:
        settings["backbone.width"] = options.width
    return {
        "dataset": DATA[options.data],
        "train_examples": options.examples,
        "set": settings,
        **{name: getattr(options, name) for name in ("backbone", "batch_size", "threads", "device")},
        **{name: getattr(options, name) for name in ("precision", "kernel")},
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the measurements of one invocation.

    Raises:
        BadInput: The options can't be measured.
    """
    if options.rounds < 2:
        raise BadInput(f"--rounds is at least 2, not {options.rounds}")
    workshop = Workshop(request_of(options), options.rounds + 1, options.allocator_for_both)
    spec = workshop.spec
    if spec.train_examples % spec.batch_size:
        raise BadInput(f"--examples {spec.train_examples} is no multiple of the batch size, {spec.batch_size}")
    device = torch.device(spec.device)
    described = {**workshop.resources.environment, **environment.load("start")}
    with threads(spec.threads):
        arms, skipped = made(workshop, chosen(options.arms))
        rounds = timed(arms, options.rounds, device)
    environment.keep_freed_memory()
    clock = "cpu_seconds" if spec.threads == 1 and device.type == "cpu" else "seconds"
    return {
        **{name: getattr(spec, name) for name in ("backbone", "backbone_options", "timesteps", "batch_size")},
        **{name: getattr(spec, name) for name in ("threads", "device", "precision")},
        "data": options.data,
        "examples": spec.train_examples,
        "rounds": options.rounds,
        "allocator_for_both": options.allocator_for_both,
        "kernel": described["kernel"],
        "clock": clock,
        **compared(rounds, clock, spec.train_examples),
        "precisions": {name: arm.precision for name, arm in arms.items()},
        "skipped": skipped,
        "environment": {**described, **environment.load("end"), "snntorch": installed("snntorch")},
    }


def chosen(text: str) -> list[str]:
    """Returns the names of the arms in the order of a round; the plain loop is always among them."""
    if text == "all":
        return list(ARMS)
    names = text.split(",") if text else [name for name in ARMS if name not in COMPILED]
    if unknown := [name for name in names if name not in ARMS]:
        raise BadInput(f"--arms takes all, or some of {', '.join(ARMS)}, separated by commas, not '{unknown[0]}'")
    return [name for name in ARMS if name in names or name == PLAIN]


def made(workshop: Workshop, names: Sequence[str]) -> tuple[dict[str, Arm], dict[str, str]]:
    """Returns the arms that can be made here, and the reasons of the others, each of which is printed."""
    arms: dict[str, Arm] = {}
    skipped: dict[str, str] = {}
    for name in filter(workshop.makes, names):
        try:
            arms[name] = workshop.make(name)
        except BadInput as error:
            skipped[name] = str(error)
            print(f"left out {name}: {error}", file=sys.stderr)
    return arms, skipped


def timed(arms: Mapping[str, Arm], rounds: int, device: torch.device) -> Rounds:
    """Returns the seconds of every arm in every round but the first, by both clocks."""
    found: Rounds = {name: {clock: [] for clock in CLOCKS} for name in arms}
    for number in range(rounds + 1):
        for name, arm in reversed(arms.items()) if number % 2 else arms.items():
            environment.keep_freed_memory(arm.keeps_memory)
            before = now(device)
            arm.epoch()
            after = now(device)
            if number > 0:
                for clock in CLOCKS:
                    found[name][clock].append(after[clock] - before[clock])
    return found


def now(device: torch.device) -> dict[str, float]:
    """Returns both clocks' seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return {"seconds": time.perf_counter(), "cpu_seconds": time.process_time()}


def compared(rounds: Rounds, clock: str, examples: int) -> dict[str, Any]:
    """Returns every arm's seconds, images per second and ratio to the plain loop, and how ours compares with each."""

    def ratios(slow: str, fast: str, by: str) -> dict[str, Any]:
        return median_of([a / b for a, b in zip(rounds[slow][by], rounds[fast][by], strict=True)])

    peers = [name for name in rounds if name in ARMS and not name.startswith((OURS, CONVOLUTIONS))]
    return {
        "arms": {
            name: {
                **of_arm,
                "images_per_second": median_of([examples / seconds for seconds in of_arm[clock]]),
                "ratio": {by: ratios(PLAIN, name, by) for by in CLOCKS},
            }
            for name, of_arm in rounds.items()
        },
        "ours_over": {name: ratios(name, OURS, clock) for name in peers if OURS in rounds},
        "convolution_share": ratios(CONVOLUTIONS, OURS, clock) if {CONVOLUTIONS, OURS} <= set(rounds) else None,
    }


def median_of(values: Sequence[float]) -> dict[str, float | None]:
    """Returns the median with its interval of about 95 %, None where the values are too few for one."""
    low, high = median_interval(values) or (None, None)
    return {"median": statistics.median(values), "low": low, "high": high}


def installed(package: str) -> str | None:
    """Returns the version of a package, None where it is absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def shown(measured: Mapping[str, Any]) -> str:
    """Returns a text of one line an arm."""
    found, clock = measured["environment"], measured["clock"]
    lines = [
        f"{measured['backbone']} {measured['backbone_options']}, {measured['examples']} {measured['data']}, "
        f"batch {measured['batch_size']}, T = {measured['timesteps']}",
        f"{found['processor']}, {measured['threads']} threads, {measured['precision']}, kernel {measured['kernel']}, "
        f"torch {found['torch']}, load {found['load_average_start']} to {found['load_average_end']}; by {clock}",
    ]
    for name, arm in measured["arms"].items():
        lines.append(f"{name:18} {arm['images_per_second']['median']:9,.1f} images/s  {within(arm['ratio'][clock])}")
    for name in {PLAIN_KEPT, PLAIN_DEFAULT} & set(measured["ours_over"]):
        lines.append(f"ours over {name:28} {within(measured['ours_over'][name])}")
    if measured["convolution_share"]:
        lines.append(f"share of convolutions in a step of ours {within(measured['convolution_share'])}")
    return "\n".join(lines)


def within(of: Mapping[str, float | None]) -> str:
    """Returns a median with its interval."""
    interval = "" if of["low"] is None else f" [{of['low']:.2f}, {of['high']:.2f}]"
    return f"{of['median']:6.2f}{interval}"


AFTER = "--set backbone.pool_at=after-norm"
FEWER = "plain,plain-after-norm,by-hand,plain-kept,ours,ours-python,ours-sadp,convolutions,convolutions-python"
DEEP = "--threads 1 --rounds 6 --arms plain,by-hand,ours,ours-python,ours-sadp,convolutions,convolutions-python"
ALL = {  # the files of docs/speed.md: number of invocations and options of each; about half an hour on two quiet cores
    "cnn-1-thread": (5, f"--threads 1 --examples 384 --rounds 3 --arms {FEWER}"),
    "cnn-after-norm-1-thread": (5, f"--threads 1 --examples 384 --rounds 3 {AFTER}"),
    "cnn-after-norm-1-thread-compiled": (
        1,
        f"--threads 1 --examples 384 --rounds 6 {AFTER} --arms {','.join(COMPILED)},ours",
    ),
    "cnn-2-threads": (1, f"--threads 2 --examples 384 --rounds 6 --arms {FEWER}"),
    "cnn-after-norm-2-threads": (1, f"--threads 2 --examples 384 --rounds 6 {AFTER} --arms {FEWER}"),
    "cnn-events": (1, f"{DEEP} --data events --examples 128"),
    "resnet18-width-16": (1, f"{DEEP} --backbone resnet18 --width 16 --batch-size 32 --examples 64"),
    "resnet18-width-64": (1, f"{DEEP} --backbone resnet18 --width 64 --batch-size 8 --examples 16"),
    "sew-resnet18-width-16": (1, f"{DEEP} --backbone sew-resnet18 --width 16 --batch-size 32 --examples 64"),
    "vgg11-width-64": (1, f"{DEEP} --backbone vgg11 --width 64 --batch-size 16 --examples 32"),
}


def measure_all(folder: Path) -> None:
    """Writes every file of docs/speed.md that a folder lacks, each invocation in a process of its own."""
    start = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    for name, (invocations, words) in ALL.items():
        for number in range(1, invocations + 1):
            path = folder / f"throughput-{name}{f'-{number}' if invocations > 1 else ''}.speed.json"
            left_out = ", which is there" if path.exists() else ""
            print(f"{time.monotonic() - start:6,.0f} s  {path.name}{left_out}: {words}", flush=True)
            if not left_out:
                subprocess.run([sys.executable, __file__, *words.split(), "--json", path], check=True)


def parser() -> argparse.ArgumentParser:
    """Returns the options."""
    found = argparse.ArgumentParser(
        description="Images/s of our training step against the loops of others.",
        epilog="arms: " + "; ".join(f"{name}: {text}" for name, text in ARMS.items()),
    )
    found.add_argument("--backbone", default="cnn", help="cnn, vgg11, resnet18 or sew-resnet18")
    found.add_argument("--width", type=int, help="channels of the first convolution")
    found.add_argument("--set", action="append", default=[], metavar="backbone.KEY=VALUE", help="repeatable")
    found.add_argument("--data", choices=DATA, default="images")
    found.add_argument("--examples", type=int, default=2048)
    found.add_argument("--batch-size", type=int, help="the default of a run: 128 images, or 64 recordings of events")
    found.add_argument("--rounds", type=int, default=6, help="six give an interval")
    found.add_argument("--threads", type=int)
    found.add_argument("--device", default="auto")
    found.add_argument("--kernel", default="auto", choices=("auto", "native", "python"), help="of ours")
    found.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"), help="of ours and by-hand")
    found.add_argument("--allocator-for-both", action="store_true", help="every arm keeps freed memory")
    found.add_argument("--arms", default="", help=f"names, or all; default: all but {', '.join(COMPILED)}")
    found.add_argument("--json", type=Path, metavar="FILE", help="write the measurements")
    found.add_argument("--all", type=Path, metavar="FOLDER", help="write the files of docs/speed.md that it lacks")
    found.add_argument("--table", type=Path, metavar="FOLDER", help="print the tables of the files in it")
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Measures, prints and writes."""
    options = parser().parse_args(words)
    try:
        if options.table:
            print(tables(read(options.table)))
        elif options.all:
            measure_all(options.all)
        else:
            measured = measure(options)
            print(shown(measured))
            if options.json:
                options.json.write_text(json.dumps(measured) + "\n", encoding="utf-8")
    except BadInput as error:
        sys.exit(f"throughput: {error}")


if __name__ == "__main__":
    main()
