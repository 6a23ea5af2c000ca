"""Helpers for the tests of methods: small real runs, a context without a run, and made-up observations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sadp_bench.backbones import BACKBONES
from sadp_bench.backbones.resnet import LEAST_WIDTH
from sadp_bench.backbones.spiking import Backbone, NeuronSettings
from sadp_bench.core.progress import Progress
from sadp_bench.core.registry import load, options, resolve
from sadp_bench.core.rng import stream
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.exchange import Observation
from sadp_bench.pruners.sampling import systematic_sample
from sadp_bench.runs.trainer import RunTrainer
from tests.small_runs import make_trainer, resolved

SIZES = {"epochs": 4, "batch_size": 17, "train_examples": 101}


class Updates(Progress):
    """Counts the batches that were trained on."""

    def __init__(self) -> None:
        self.count = 0

    def advance(self, visits: int) -> None:
        self.count += 1


def bench(method: str, ratio: float, progress: Progress | None = None, **requested: Any) -> RunTrainer:
    """Returns a run of `method` on a hundred digits, ready to prepare and train."""
    return make_trainer(*resolved(**SIZES | {"method": method, "ratio": ratio} | requested), progress)


@dataclass
class PlainContext:
    """A context with the parts that most pruners need."""

    num_examples: int
    num_epochs: int = 10
    seed: int = 0
    num_classes: int = 10
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    label_N: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    data_sha256: str = ""

    def scores(self, score: Callable[[], Tensor]) -> Tensor:
        return score()


def prepared(pruner: Pruner, num_examples: int, num_epochs: int = 10, seed: int = 0) -> Any:
    pruner.prepare(PlainContext(num_examples, num_epochs, seed))
    return pruner


def prepared_for(pruner: Pruner, label_N: Tensor, num_epochs: int = 10, seed: int = 0) -> Any:
    """Returns the pruner, prepared for examples of these classes."""
    pruner.prepare(PlainContext(len(label_N), num_epochs, seed, int(label_N.max()) + 1, label_N=label_N))
    return pruner


def classes_of(*sizes: int, seed: int = 0) -> Tensor:
    """Returns shuffled labels with so many examples of each class."""
    label_N = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return label_N[torch.randperm(len(label_N), generator=stream(seed, "labels"))]


def seen(index_B: Tensor, *, loss_B: Tensor | None = None, epoch: int = 0, **rest: Any) -> Observation:
    """Returns an observation of the given examples; fields that are not given are empty or zero."""
    batch = len(index_B)
    label_B = rest.pop("label_B", torch.zeros(batch, dtype=torch.int64))
    logits_TBC = rest.pop("logits_TBC", torch.zeros(1, batch, 2))
    return Observation(epoch, index_B, label_B, logits_TBC, torch.zeros(batch) if loss_B is None else loss_B, rest)


def weighted_sums(pruner: Pruner, value_ND: Tensor, draws: int, first_epoch: int = 0) -> Tensor:
    """Returns the mean of weight x value over the kept examples of each of so many selections, [draws, D]."""
    means = []
    for epoch in range(first_epoch, first_epoch + draws):
        selection = pruner.select(epoch)
        means.append((selection.weight_K.double() @ value_ND[selection.index_K]) / len(selection.index_K))
    return torch.stack(means)


def in_standard_errors(sample_RD: Tensor, expected_D: Tensor) -> Tensor:
    """Returns the distance of the sample's mean from the expected value in standard errors, [D]."""
    error_D = sample_RD.std(0) / len(sample_RD) ** 0.5
    return (sample_RD.mean(0) - expected_D).abs() / error_D.clamp_min(1e-12)


# Options of small networks, by name; other networks have a width of 3, or of `LEAST_WIDTH`.
SMALLEST: dict[str, dict[str, int]] = {
    "spikformer": {"width": 8, "depth": 1, "heads": 2},
    "sdt": {"width": 8, "depth": 1, "heads": 2},
    "qkformer": {"width": 64, "depth": 3, "heads": 2},
}


def ours() -> list[str]:
    """Returns the registered backbones that are made of the suite's own layers."""
    return [name for name in BACKBONES if issubclass(load(BACKBONES[name]), Backbone)]


def norm_option(backbone: str, norm: str) -> dict[str, str]:
    """Returns the option of that norm where the backbone has one."""
    return {"norm": norm} if "norm" in options(resolve("backbone", backbone)) else {}


def network(backbone: str, norm: str, events: bool, side: int = 8, **settings: Any) -> tuple[nn.Module, Tensor]:
    """Returns a network and three examples. The network is in float64 and evaluation mode; its batch norm's statistics,
    scales and shifts are not the initial ones."""
    steps, batch = 3, 3
    sizes = SMALLEST.get(backbone, {"width": LEAST_WIDTH if "resnet" in backbone else 3})
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = resolve("backbone", backbone)(
            (2, side, side),
            5,
            steps,
            NeuronSettings(threshold=0.6),
            **sizes,
            **norm_option(backbone, norm),
            **settings,
        ).double()
        for part in model.modules():
            if isinstance(part, _BatchNorm):
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, 0.2, 0.3)
        input = torch.randn(2 * batch, 2, side, side).double()
        if events:
            input = torch.poisson(torch.ones(steps, 2 * batch, 2, side, side)).double()
        for _ in range(3):
            model.train()(input)
    return model.eval(), input.narrow(1 if events else 0, 0, batch)


def drawn(p_N: Tensor, num_draws: int) -> Tensor:
    """Returns 1 for each example that a draw took and 0 for the others, [draws, N]."""
    taken_RN = torch.zeros(num_draws, len(p_N))
    generator = stream(7, "draws")
    for row in taken_RN:
        row[systematic_sample(p_N, generator)] = 1
    return taken_RN
