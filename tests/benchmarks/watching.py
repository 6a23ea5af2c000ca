"""The cost of sadp's watching: steps that watch, and steps that measure the bound ratio, against steps that do neither.

    python tests/benchmarks/watching.py [--backbone cnn resnet18 vgg11] [--backprop bptt sltt sltt-k] [--precision fp32]
                                         [--events] [--rounds 15] [--batch-size 128] [--timesteps 4]
                                         [--width W] [--kernel python] [--json]

Random images of CIFAR's shape, or with --events random frames of N-MNIST's. The three steps take the same batch and the
same network, which hardly changes; they alternate in one process, on one thread, in CPU seconds. A ratio is the median
over the rounds of a step's seconds over those of the plain step beside it; the quartiles follow. Then each part's share of
a step: its least seconds over the least seconds of a plain step. A script, not a test: it asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch

from sadp_bench.backbones.spiking import NeuronSettings
from sadp_bench.capture import recorder
from sadp_bench.capture.middle_step import MiddleStep
from sadp_bench.capture.signals import Signal
from sadp_bench.core import registry
from sadp_bench.core.rng import isolated, stream
from sadp_bench.datasets.examples import Examples
from sadp_bench.pruners.sadp import SADP
from sadp_bench.records.spec import Spec
from sadp_bench.runs import building, environment, resolve
from sadp_bench.training.data import Loader
from sadp_bench.training.optimizer import make_optimizer
from sadp_bench.training.step import TrainingStep

ARMS = ("plain", "watched", "measured")
# Each part's name, and the class and function that is timed for it.
PARTS: list[tuple[str, Any, str]] = [
    ("error squares", MiddleStep, "error_squares"),
    ("input squares", MiddleStep, "input_squares"),
    ("logit errors", recorder.Recorder, "note_loss"),
    ("observe", SADP, "observe"),
    ("bound ratio", recorder, "bound_ratio"),
]


class Bench:
    """Makes the three kinds of steps of one network.

    Args:
        options: Options of the command line.
        backbone: The network.
        backprop: The backward pass.
        precision: "fp32" or "bf16".
    """

    def __init__(self, options: argparse.Namespace, backbone: str, backprop: str, precision: str) -> None:
        batch, steps = options.batch_size, options.timesteps
        shape = (2, 34, 34) if options.events else (3, 32, 32)
        g = torch.Generator().manual_seed(0)
        if options.events:
            input_N = torch.poisson(torch.full((batch, steps, *shape), 0.1), generator=g).byte()
        else:
            input_N = torch.randint(0, 256, (batch, *shape), dtype=torch.uint8, generator=g)
        examples = Examples(input_N, torch.randint(0, 10, (batch,), generator=g))
        scale, mean, std = (1.0, (0.0,) * 2, (1.0,) * 2) if options.events else (255.0, (0.5,) * 3, (0.25,) * 3)
        requested = {
            "method": "sadp", "ratio": 0.5, "backbone": backbone, "backprop": backprop, "precision": precision,
            "batch_size": batch, "timesteps": steps, "k": 2 if backprop == "sltt-k" else None,
            "learning_rate": 1e-9, "device": "cpu", "epochs": 100,
        }  # fmt: skip
        self.spec: Spec = resolve.RunRequest.of(requested).spec(batch)
        device = torch.device("cpu")
        width = {} if options.width is None else {"width": options.width}
        with isolated(0, "init", device):
            model = registry.resolve("backbone", backbone)(
                shape, 10, steps, NeuronSettings(kernel=options.kernel), **width
            )
        self.model = model.to(memory_format=torch.channels_last).train()
        self.data = Loader(examples, scale, mean, std, device)
        self.step = TrainingStep(self.model, self.spec, self.data, make_optimizer(self.model, self.spec))
        self.pruner = building.make_pruner(self.spec)
        self.pruner.prepare(_Context(max(64, batch)))
        self.batch_B, self.weight_B = torch.arange(batch), torch.ones(batch)

    def seconds(self, arm: str) -> float:
        """Takes a step and returns its CPU seconds."""
        watch = frozenset() if arm == "plain" else self.pruner.watch(0) - {Signal.BOUND_RATIO}
        if arm == "measured":
            watch |= {Signal.BOUND_RATIO}
        with self.step.recording(watch) if watch else nullcontext():
            start = time.process_time()
            observe = self.pruner.observe if watch else None
            self.step(self.batch_B, self.weight_B, stream(0, "steps"), observe=observe)
            return time.process_time() - start


class _Context:
    def __init__(self, num_examples: int) -> None:
        self.num_examples, self.num_epochs, self.seed = num_examples, 100, 0
        self.device = torch.device("cpu")


@contextmanager
def timed(seconds: dict[str, float]) -> Any:
    """Adds the CPU seconds of each part to `seconds` within the context."""

    def wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[name] += time.process_time() - start

        return call

    patches = [patch.object(place, name, wrapped(part, getattr(place, name))) for part, place, name in PARTS]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


def measure(bench: Bench, rounds: int) -> dict[str, Any]:
    """Returns the ratios of each arm to the plain step, and the parts' shares of a plain step."""
    for arm in ARMS:
        bench.seconds(arm)
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    ratios: dict[str, list[float]] = {arm: [] for arm in ARMS[1:]}
    parts: dict[str, dict[str, list[float]]] = {arm: defaultdict(list) for arm in ARMS[1:]}
    for number in range(rounds):
        for arm in ARMS if number % 2 else ARMS[::-1]:
            seconds[arm].append(bench.seconds(arm))
        for arm in ARMS[1:]:
            ratios[arm].append(seconds[arm][-1] / seconds["plain"][-1])
    for _ in range(max(3, rounds // 3)):
        for arm in ARMS[1:]:
            of_parts: dict[str, float] = defaultdict(float)
            with timed(of_parts):
                bench.seconds(arm)
            for name, value in of_parts.items():
                parts[arm][name].append(value)
    least = min(seconds["plain"])  # Other programs only lengthen a step.
    return {
        "seconds": least,
        "ratios": {arm: statistics.quantiles(ratios[arm], n=4) for arm in ratios},
        "parts": {arm: {name: min(values) / least for name, values in parts[arm].items()} for arm in parts},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The cost of sadp's watching.")
    parser.add_argument("--backbone", nargs="+", default=["cnn", "resnet18", "vgg11"])
    parser.add_argument("--backprop", nargs="+", default=["bptt", "sltt", "sltt-k"])
    parser.add_argument("--precision", nargs="+", default=["fp32"])
    parser.add_argument("--events", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--timesteps", type=int, default=4)
    parser.add_argument("--width", type=int)
    parser.add_argument("--kernel", default="python", choices=("python", "native"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    environment.keep_freed_memory()
    for backbone in options.backbone:
        for backprop in options.backprop:
            for precision in options.precision:
                result = measure(Bench(options, backbone, backprop, precision), options.rounds)
                named = {"backbone": backbone, "backprop": backprop, "precision": precision, "events": options.events}
                print(json.dumps(named | result) if options.json else _shown(named, result), flush=True)


def _shown(named: dict[str, Any], result: dict[str, Any]) -> str:
    events = " events" if named["events"] else ""
    title = f"{named['backbone']}{events} {named['backprop']} {named['precision']}: {1000 * result['seconds']:.0f} ms a step"
    lines = [title]
    for arm, (low, middle, high) in result["ratios"].items():
        shares = ", ".join(f"{name} {100 * share:.2f} %" for name, share in result["parts"][arm].items())
        total = 100 * sum(result["parts"][arm].values())
        lines.append(f"  {arm:8} {middle:.3f} [{low:.3f}, {high:.3f}]   parts {total:.2f} %: {shares}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
