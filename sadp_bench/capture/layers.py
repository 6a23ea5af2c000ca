"""Selections of a network's layers that hooks record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spikingjelly.activation_based.base import MemoryModule
from spikingjelly.activation_based.neuron import BaseNode
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sadp_bench.capture.layer_shapes import BOUNDED, multi_step


def spiking_layers(model: nn.Module) -> list[nn.Module]:
    """Returns the S spiking layers, SpikingJelly's and snnTorch's, in the order of the network's modules."""
    return [module for module in model.modules() if isinstance(module, BaseNode) or _is_snntorchs(module)]


def time_layers(model: nn.Module) -> list[nn.Module]:
    """Returns the spiking layers and SpikingJelly's other multi-step neurons, such as its parallel neurons."""
    spiking = {id(layer) for layer in spiking_layers(model)}
    return [module for module in model.modules() if id(module) in spiking or _is_multi_step_neuron(module)]


def weight_layers(model: nn.Module) -> list[nn.Module]:
    """Returns the L convolution and linear layers but the readout, in the order of the network's modules."""
    readout = getattr(model, "readout", None)
    return [m for m in model.modules() if isinstance(m, BOUNDED) and m is not readout]


def norm_layers(model: nn.Module) -> list[nn.Module]:
    """Returns the batch and group norms, in the order of the network's modules."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm | nn.GroupNorm)]


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """Returns the norms by statistics of the batch, in the order of the network's modules."""
    return [module for module in norm_layers(model) if isinstance(module, _BatchNorm)]


def trains(layer: nn.Module) -> bool:
    """Returns whether any parameter of a layer gets gradients."""
    return any(parameter.requires_grad for parameter in layer.parameters())


def reset_state(model: nn.Module) -> None:
    """Resets the state that SpikingJelly's and snnTorch's layers keep from call to call."""
    for module in model.modules():
        if isinstance(module, MemoryModule):
            module.reset()
        elif _is_snntorchs(module):
            reset: Callable[[], Any] | None = getattr(module, "reset_mem", None)
            if reset is not None:
                reset()


def _is_snntorchs(module: nn.Module) -> bool:
    """Returns whether a module is a neuron of snnTorch. Compares names, because snnTorch may not be installed."""
    return any(
        kind.__name__ == "SpikingNeuron" and kind.__module__.startswith("snntorch") for kind in type(module).__mro__
    )


def _is_multi_step_neuron(module: nn.Module) -> bool:
    """Returns whether a module is a neuron of SpikingJelly that takes all time steps at once."""
    return type(module).__module__.startswith("spikingjelly.activation_based.neuron") and multi_step(module)
