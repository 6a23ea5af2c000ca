"""Measures the cost of `PrunedSampler`, `watch` and `observe` in a plain SpikingJelly loop, and the net saving.

    python tests/benchmarks/own_loop.py [--rounds 30] [--epochs 8] [--threads 1] [--examples 2560] [--batch-size 128]

The loop, its blocks and its neurons are those of docs/examples/own_loop_spikingjelly.py, on CIFAR-10's first images where
SADP_BENCH_DATA has them, else on random ones of that shape; three blocks of `--width`, twice and four times as many channels,
each pooled; 4 steps.

    a step      plain and watched ones (SADP at ratio 0, so that both train on everything) interleaved A B B A in one process;
                rounds in which B measures the bound_ratio, once an epoch, are reported apart
    inside      the same steps' seconds within sampler, hooks and observe alone, over those of a plain step: less noisy, but
                blind to what caches lose
    efficiency  whole epochs of full data and of SADP at ratio 0.5, selection and bound_ratio included, interleaved A B B A:
                seconds an example of full data over seconds an example of SADP; 1 = dropped examples cost nothing

Seconds of the clock, and of this process alone (its threads' sum), which other jobs on the machine disturb less. The first
steps of each arm are not timed. A script, not a test: it asserts nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from spikingjelly.activation_based import functional, layer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from sadp_bench import SADP, PrunedSampler, watch, with_index
from sadp_bench.capture.example_rows import ExampleRows
from sadp_bench.capture.loop_recorder import LoopRecorder
from sadp_bench.drop_in.logit_source import OutputRecorder
from sadp_bench.runs.environment import keep_freed_memory

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "own_loop_spikingjelly.py"
Seconds = tuple[float, float]  # of the clock, and of this process
Epoch = tuple[Seconds, int]  # and its examples


def example() -> Any:
    spec = importlib.util.spec_from_file_location(EXAMPLE.stem, EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def images(number: int) -> tuple[Tensor, Tensor]:
    root = os.environ.get("SADP_BENCH_DATA")
    if root and (Path(root) / "cifar-10-batches-bin").exists():
        from sadp_bench.datasets.cifar import CIFAR10

        train = CIFAR10(Path(root), 4).train.take(torch.arange(number))
        return train.input_N.float() / 255, train.label_N
    generator = torch.Generator().manual_seed(0)
    return torch.rand(number, 3, 32, 32, generator=generator), torch.arange(number) % 10


class Inside:
    """Counts this process's seconds within functions that it wraps, those of others among them once."""

    def __init__(self) -> None:
        self.seconds, self.depth = 0.0, 0
        for kind, names in (
            (PrunedSampler, ("set_epoch", "weight", "observe")),
            (LoopRecorder, ("_record", "_record_pair")),
            (ExampleRows, ("_look",)),
            (OutputRecorder, ("_record_output", "_record_gradient")),
        ):
            for name in names:
                setattr(kind, name, self.counted(getattr(kind, name)))

    def counted(self, function: Any) -> Any:
        def run(*words: Any, **more: Any) -> Any:
            start, self.depth = time.process_time(), self.depth + 1
            try:
                return function(*words, **more)
            finally:
                self.depth -= 1
                self.seconds += 0 if self.depth else time.process_time() - start

        return run

    def taken(self) -> float:
        seconds, self.seconds = self.seconds, 0.0
        return seconds


class Arm:
    """A loop that goes on by a step, or by an epoch, on call."""

    def __init__(self, options: argparse.Namespace, ratio: float | None, epochs: int) -> None:
        self.functions, self.epochs = example(), epochs
        image, label = images(options.examples)
        torch.manual_seed(0)
        block, pool = self.functions.block, layer.MaxPool2d
        width = options.width
        blocks = [*block(3, width), pool(2), *block(width, 2 * width), pool(2), *block(2 * width, 4 * width), pool(2)]
        self.network = nn.Sequential(*blocks, layer.Flatten(), layer.Linear(4 * width * 4 * 4, 10)).train()
        functional.set_step_mode(self.network, "m")
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.05, momentum=0.9)
        self.sampler: PrunedSampler | None = None
        self.loader: DataLoader[Any] = DataLoader(TensorDataset(image, label), options.batch_size, shuffle=True)
        if ratio is not None:
            self.sampler = PrunedSampler(SADP(ratio), labels=label, epochs=epochs, batch_size=options.batch_size)
            self.loader = DataLoader(with_index(TensorDataset(image, label)), batch_sampler=self.sampler)
            watch(self.network, self.sampler)
        self.measured = False  # the bound_ratio, in the step just made
        self.steps = self.all_steps()

    def all_steps(self) -> Iterator[int]:
        """Yields the number of examples after each step, and 0 after each epoch."""
        for epoch in range(self.epochs):
            if self.sampler is not None:
                self.sampler.set_epoch(epoch)
            for number, (x, y, *index) in enumerate(self.loader):
                logits = self.functions.forward(self.network, x)
                loss = cross_entropy(logits.mean(0), y, reduction="none")
                self.optimizer.zero_grad()
                if self.sampler is None:
                    loss.mean().backward()
                else:
                    (self.sampler.weight(index[0]) * loss).mean().backward()
                    self.sampler.observe(index[0], logits, y)
                    self.measured = number == 0 and "bound_ratio" in self.sampler.pruner.watch(self.sampler.epoch)
                self.optimizer.step()
                yield len(y)
            yield 0

    def step(self) -> Seconds:
        start = now()
        if next(self.steps) == 0:
            start = now()
            next(self.steps)
        return since(start)

    def epoch(self) -> Epoch:
        start, examples = now(), 0
        while number := next(self.steps):
            examples += number
        return since(start), examples


def now() -> Seconds:
    return time.perf_counter(), time.process_time()


def since(start: Seconds) -> Seconds:
    end = now()
    return end[0] - start[0], end[1] - start[1]


def quartiles_text(values: list[float], digits: int) -> str:
    """Returns a text of the median, the quartiles and the number of values."""
    if len(values) < 2:
        return f"{values} ({len(values)})"
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{median:.{digits}f} (quartiles {low:.{digits}f} to {high:.{digits}f}, n = {len(values)})"


def time_steps(options: argparse.Namespace) -> None:
    inside = Inside()
    steps_an_epoch = -(-options.examples // options.batch_size)
    epochs = -(-(2 * options.rounds + 4) // steps_an_epoch) + 1
    plain, watched = Arm(options, None, epochs), Arm(options, 0.0, epochs)
    for arm in (plain, watched, plain, watched):
        arm.step()
    costs: dict[bool, list[Seconds]] = {False: [], True: []}
    noise: list[Seconds] = []
    within: dict[bool, list[float]] = {False: [], True: []}
    inside.taken()
    for _ in range(options.rounds):
        own, measured = [plain.step()], False
        for _ in range(2):
            own.append(watched.step())
            measured |= watched.measured
        own.append(plain.step())
        first, second = ([a + b for a, b in zip(own[i], own[3 - i], strict=True)] for i in (0, 1))
        noise.append((100 * (own[3][0] / own[0][0] - 1), 100 * (own[3][1] / own[0][1] - 1)))
        within[measured].append(100 * inside.taken() / first[1])
        costs[measured].append((100 * (second[0] / first[0] - 1), 100 * (second[1] / first[1] - 1)))
    for at, clock in enumerate(("clock", "process")):
        print(f"plain steps against themselves, % ({clock}): {quartiles_text([n[at] for n in noise], 1)}", flush=True)
    for measured, name in ((False, "a step"), (True, "two steps, of which one measures the bound_ratio")):
        for at, clock in enumerate(("clock", "process")):
            print(f"cost of {name}, % ({clock}): {quartiles_text([c[at] for c in costs[measured]], 1)}", flush=True)
        print(f"cost of {name}, % (inside): {quartiles_text(within[measured], 2)}", flush=True)


def time_epochs(options: argparse.Namespace) -> None:
    epochs = 2 * options.epochs + 2
    full, pruned = Arm(options, None, epochs), Arm(options, 0.5, epochs)
    for arm in (full, pruned):
        arm.epoch()
    found, noise = list[Seconds](), list[Seconds]()
    for _ in range(options.epochs):
        before, first, second, after = [arm.epoch() for arm in (full, pruned, pruned, full)]
        found.append((ratio([before, after], [first, second], 0), ratio([before, after], [first, second], 1)))
        noise.append((ratio([before], [after], 0), ratio([before], [after], 1)))
    for at, clock in enumerate(("clock", "process")):
        print(f"full epochs against themselves ({clock}): {quartiles_text([n[at] for n in noise], 3)}")
        print(f"training efficiency at ratio 0.5 ({clock}): {quartiles_text([f[at] for f in found], 3)}", flush=True)


def ratio(some: list[Epoch], others: list[Epoch], clock: int) -> float:
    """Returns the seconds an example of the first epochs over those of as many others."""
    each = [sum(seconds[clock] / examples for seconds, examples in epochs) for epochs in (some, others)]
    return each[0] / each[1]


def main() -> None:
    parser = argparse.ArgumentParser(description="The cost of pruning in a loop of one's own.")
    parser.add_argument("--rounds", type=int, default=30, help="of two plain and two watched steps")
    parser.add_argument("--epochs", type=int, default=8, help="rounds of two full and two pruned epochs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--examples", type=int, default=2560)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument(
        "--width", type=int, default=32, help="channels of the first block; the next have twice and four times"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    shown = ", ".join(f"{name} {value}" for name, value in vars(options).items())
    print(f"{shown}; load of the machine {os.getloadavg()[0]:.1f}", flush=True)
    if options.rounds:
        time_steps(options)
    if options.epochs:
        time_epochs(options)


if __name__ == "__main__":
    main()
