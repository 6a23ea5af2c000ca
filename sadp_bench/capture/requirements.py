"""What a network must have for a pruner to watch it."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from sadp_bench.capture.recorder import OF_WEIGHTS, spiking_layers, weight_layers


def missing_parts(model: nn.Module, watch: Iterable[str]) -> list[str]:
    """Returns what the network lacks of all that is watched, in words; nothing where it can be watched.

    Args:
        model: The network.
        watch: Names of `Observation.watched`.
    """
    watch, missing = frozenset(watch), []
    if "features" in watch and not isinstance(getattr(model, "readout", None), nn.Module):
        missing.append("a last layer named `readout`")
    if watch & OF_WEIGHTS and not weight_layers(model):
        missing.append("a convolution or linear layer before its readout")
    if "spike_counts" in watch and not spiking_layers(model):
        missing.append("a spiking layer of SpikingJelly or snnTorch")
    return missing
