"""Networks and inputs for the tests of backbones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.backbones.resnet import LEAST_WIDTH
from sadp_bench.backbones.spiking import NeuronSettings
from sadp_bench.core import registry
from tests.helpers import ours

BACKBONES = ours()
MIN_WIDTHS = {name: LEAST_WIDTH for name in BACKBONES if "resnet" in name}


def randn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def build(name: str, shape: tuple[int, int, int], timesteps: int = 2, classes: int = 10, **options: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = registry.resolve("backbone", name)(
            shape, classes, timesteps, NeuronSettings(), **{"width": MIN_WIDTHS.get(name, 4), **options}
        )
    return model


def settled(module: nn.Module, seed: int = 0) -> nn.Module:
    """Returns the module in evaluation mode, with norms that change their input and give enough current for spikes."""
    module.double().eval()
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.copy_(0.1 * torch.randn(part.num_features, generator=generator))
            part.running_var.copy_(0.1 + torch.rand(part.num_features, generator=generator) / 5)
            part.weight.data.copy_(2 + torch.rand(part.num_features, generator=generator))
            part.bias.data.copy_(torch.rand(part.num_features, generator=generator))
    return module
