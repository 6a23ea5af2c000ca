"""Images per second of our training loop against a plain SpikingJelly loop, on the same `cnn`.

    python tests/benchmarks/throughput.py [--rounds 5] [--backbone cnn] [--batch-size 128] [--device auto]
                                           [--allocator-for-both] [--json]

Both arms train on CIFAR-shaped random images with SGD, interleaved epoch by epoch in one process, the first round
untimed. The plain arm is what SpikingJelly's tutorials show: its layers and `LIFNode` with their defaults in
step mode "m", float32, contiguous, the image repeated T times before the first convolution, `reset_net` after each batch.
Its images are ready-made float tensors. Ours runs `sadp-bench run --method full` as it is: uint8 images, crop and mirror,
precision auto, and the C library set to keep freed memory; the plain arm has the C library's default again, or ours
too with --allocator-for-both. A script, not a test: it asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from sadp_bench.backbones.spiking import LIF
from sadp_bench.core.progress import Progress
from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.examples import Examples
from sadp_bench.runs import environment, resolve
from sadp_bench.runs.resources import Resources
from sadp_bench.runs.trainer import RunTrainer


class CIFARShaped(Dataset):
    """Random images of CIFAR's shape."""

    augment, mean, std = "crop-flip", (0.5,) * 3, (0.25,) * 3
    class_names = tuple(map(str, range(10)))

    def __init__(self, root: object, timesteps: int) -> None:
        g = torch.Generator().manual_seed(0)
        image = torch.randint(0, 256, (NUM_EXAMPLES, 3, 32, 32), dtype=torch.uint8, generator=g)
        self.train = Examples(image, torch.randint(0, 10, (NUM_EXAMPLES,), generator=g))
        self.test = self.train.take(torch.arange(256))

    @classmethod
    def locate(cls, root: object) -> None:
        return None


class Plain(nn.Module):
    """Our backbone's layers in order, each as SpikingJelly gives it, on the image repeated over time."""

    def __init__(self, ours: nn.Module, timesteps: int) -> None:
        super().__init__()
        self.timesteps = timesteps
        resolve = [_default(module) for module in (*ours.stem, *ours.body)]  # type: ignore[misc]
        self.net = nn.Sequential(*resolve, layer.Flatten(), layer.Linear(ours.readout.in_features, 10))
        functional.set_step_mode(self, "m")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.net(image.unsqueeze(0).repeat(self.timesteps, 1, 1, 1, 1))


def _default(module: nn.Module) -> nn.Module:
    if isinstance(module, LIF):
        return neuron.LIFNode()
    if isinstance(module, nn.Conv2d):
        return layer.Conv2d(module.in_channels, module.out_channels, 3, padding=1, bias=False)
    if isinstance(module, nn.BatchNorm2d):
        return layer.BatchNorm2d(module.num_features)
    return layer.AvgPool2d(2)


def plain_epochs(model: nn.Module, spec: resolve.Spec, examples: Examples):
    device = torch.device(spec.device)
    image, label = examples.input_N.float().div(255).to(device), examples.label_N.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=spec.learning_rate, momentum=0.9, weight_decay=5e-4)
    while True:
        start = _now(device)
        for index in torch.randperm(len(label)).split(spec.batch_size):
            index = index.to(device)
            loss = nn.functional.cross_entropy(model(image[index]).mean(0), label[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            functional.reset_net(model)
        yield _now(device) - start


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description="Images/s of sadp-bench against a plain SpikingJelly loop.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--backbone", default="cnn", choices=("cnn", "vgg11"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--examples", type=int, default=2048)
    parser.add_argument("--allocator-for-both", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    global NUM_EXAMPLES
    NUM_EXAMPLES = options.examples
    resolve.registry.resolve = _with_shapes(resolve.registry.resolve)
    requested = {
        "method": "full", "ratio": 0.0, "dataset": "cifar-shaped", "backbone": options.backbone,
        "batch_size": options.batch_size, "device": options.device, "epochs": options.rounds + 1,
    }  # fmt: skip
    spec, material = resolve.resolve(requested)
    torch.set_num_threads(spec.threads)
    bench = RunTrainer(spec, Resources(spec, material), Progress())
    bench.pruner.prepare(bench.context)
    plain = Plain(bench.model, spec.timesteps).to(spec.device)
    ours_epochs, others_epochs = bench.rows(), plain_epochs(plain, spec, material.train)
    ours, others = [], []
    for _ in range(options.rounds + 1):
        environment.keep_freed_memory(options.allocator_for_both)
        others.append(next(others_epochs))
        environment.keep_freed_memory()
        ours.append(next(ours_epochs)["seconds"])
    ratios = [b / a for a, b in zip(ours[1:], others[1:], strict=True)]
    result = {
        "ours": NUM_EXAMPLES / statistics.median(ours[1:]),
        "plain": NUM_EXAMPLES / statistics.median(others[1:]),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "device": spec.device,
        "precision": spec.precision,
        "threads": spec.threads,
        "batch_size": spec.batch_size,
    }
    if options.json:
        print(json.dumps(result))
    else:
        print(f"ours   {result['ours']:8,.0f} images/s  ({spec.precision}, channels last)")
        print(f"plain  {result['plain']:8,.0f} images/s  (SpikingJelly's defaults)")
        print(f"ratio  {result['ratio']:8.2f}  median of {len(ratios)} rounds, {min(ratios):.2f} to {max(ratios):.2f}")


def _with_shapes(resolve):
    return lambda kind, name: CIFARShaped if name == "cifar-shaped" else resolve(kind, name)


NUM_EXAMPLES = 2048
if __name__ == "__main__":
    main()
