"""Trains each registered network, narrow, for some updates on CIFAR-10: loss, firing rates and seconds.

    python tests/benchmarks/networks.py [--backbone spikformer resnet19] [--updates 30] [--timesteps 2]
                                         [--set spikformer.width=96]

256 images in batches of 32, AdamW, rate 0.003, one thread, seed 0. The losses are the means over the first and the last
eight updates. A firing rate is a spiking layer's share of ones in the last training batch; the least and the largest of the
layers are printed. A script, not a test: it asserts nothing. It reads the folder SADP_BENCH_DATA.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from sadp_bench.backbones import BACKBONES
from sadp_bench.capture.layers import spiking_layers
from sadp_bench.capture.spike_counts import SpikeCounts
from sadp_bench.core.rng import stream
from sadp_bench.runs import building, resolve
from sadp_bench.training.data import Loader
from sadp_bench.training.optimizer import make_optimizer
from sadp_bench.training.step import TrainingStep

# Options of a narrow network; any other has a width of 8.
NARROW: dict[str, dict[str, int]] = {
    "mlp": {"width": 64},
    "vgg16": {"width": 16},
    "recurrent": {"width": 64},
    "spikformer": {"width": 48, "depth": 1, "heads": 4},
    "sdt": {"width": 48, "depth": 1, "heads": 4},
    "qkformer": {"width": 64, "depth": 3, "heads": 4},
}
IMAGES, BATCH = 256, 32


def trained(name: str, updates: int, timesteps: int, options: dict[str, int]) -> list[str]:
    """Returns a row of the table."""
    asked = {
        "method": "full",
        "ratio": 0.0,
        "dataset": "cifar10",
        "backbone": name,
        "timesteps": timesteps,
        "threads": 1,
    }
    asked |= {
        "train_examples": IMAGES,
        "batch_size": BATCH,
        "optimizer": "adamw",
        "learning_rate": 0.003,
        "device": "cpu",
    }
    spec, material = resolve.resolve(asked | {"set": {f"backbone.{key}": value for key, value in options.items()}})
    model = building.make_model(spec, material, spec.seed).train()
    data: Loader = building.make_loader(spec, material, material.train)
    step = TrainingStep(model, spec, data, make_optimizer(model, spec))
    counts = SpikeCounts(model)
    losses, begun = [], time.perf_counter()
    for update in range(updates):
        batch_B = torch.randperm(IMAGES, generator=stream(0, "batches", update))[:BATCH]
        counts.clear()
        handles = counts.hook() if update == updates - 1 else []
        seen = step(batch_B, torch.ones(BATCH), stream(0, "draws", update))
        losses.append(float(seen.loss_B.mean()))
        for handle in handles:
            handle.remove()
    seconds = (time.perf_counter() - begun) / updates
    rate_S = counts.total(BATCH).mean((1, 2)) / torch.tensor(counts.neurons_S)
    first, last = (statistics.fmean(part) for part in (losses[:8], losses[-8:]))
    parameters = sum(p.numel() for p in model.parameters())
    sizes = ", ".join(f"{key} {value}" for key, value in options.items())
    rates = f"{float(rate_S.min()):.3f} to {float(rate_S.max()):.3f}"
    layers = len(spiking_layers(model))
    return [f"`{name}`", sizes, f"{parameters:,}", f"{first:.2f}", f"{last:.2f}", str(layers), rates, f"{seconds:.2f}"]


def main() -> None:
    """Prints the table, a row as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name for name in BACKBONES if name != "spikingjelly"]
    parser.add_argument("--backbone", nargs="+", default=names, help="names of networks")
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--timesteps", type=int, default=2)
    parser.add_argument("--set", nargs="*", default=[], help="NAME.KEY=VALUE of a network's option")
    given = parser.parse_args()
    torch.set_num_threads(1)
    head = [
        "network",
        "options",
        "parameters",
        "first loss",
        "last loss",
        "spiking layers",
        "firing rates",
        "s an update",
    ]
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}", flush=True)
    for name in given.backbone:
        options = dict(NARROW.get(name, {"width": 8}))
        for key, _, value in (text.partition("=") for text in given.set):
            if key.startswith(f"{name}."):
                options[key.removeprefix(f"{name}.")] = int(value)
        print(f"| {' | '.join(trained(name, given.updates, given.timesteps, options))} |", flush=True)


if __name__ == "__main__":
    main()
