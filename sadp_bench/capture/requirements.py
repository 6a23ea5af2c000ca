"""Check that a network has the parts whose signals a pruner watches."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from sadp_bench.capture.layer_shapes import unbounded_layers
from sadp_bench.capture.layers import spiking_layers, weight_layers
from sadp_bench.capture.recorder import OF_WEIGHTS
from sadp_bench.capture.signals import Signal


def missing_parts(model: nn.Module, watch: Iterable[str]) -> list[str]:
    """Returns the parts, in words, that the network lacks for the watched signals; an empty list if it lacks none.

    Args:
        model: The network.
        watch: The watched signals.
    """
    watch, missing = frozenset(watch), []
    readout = getattr(model, "readout", None)
    if Signal.FEATURES in watch and not isinstance(readout, nn.Module):
        missing.append("a last layer named `readout`")
    elif Signal.FEATURES in watch and not (isinstance(readout, nn.Linear) and readout.bias is not None):
        missing.append("a `readout` that is a linear layer with a bias")
    if watch & OF_WEIGHTS and not weight_layers(model):
        missing.append("a convolution or linear layer before its readout")
    if watch & OF_WEIGHTS:
        missing += [f"a bound of its layer '{name}', a {kind}" for name, kind in unbounded_layers(model)]
    if Signal.SPIKE_COUNTS in watch and not spiking_layers(model):
        missing.append("a spiking layer of SpikingJelly or snnTorch")
    return missing
