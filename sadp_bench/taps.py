"""What a network shows while it runs, for those who ask; a network that nobody watches has no hooks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from spikingjelly.activation_based.neuron import BaseNode
from torch import Tensor, nn

TAPPED = frozenset({"features", "spike_counts"})


def spiking_layers(model: nn.Module) -> list[nn.Module]:
    """The S spiking layers, in the order of the network's modules."""
    return [module for module in model.modules() if isinstance(module, BaseNode)]


class Taps:
    """Keeps the newest forward pass's "features" (T, B, D), the input of `model.readout`, and "spike_counts" (S, T, B).

    Use as a context: the hooks are there within and gone after.
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        self.model = model
        self.names = frozenset(names) & TAPPED
        self.neurons_S: list[int] = []
        self._features: Tensor | None = None
        self._count_STB: list[Tensor] = []
        self._handles: list[Any] = []

    def __enter__(self) -> Taps:
        if "features" in self.names:
            readout = cast(nn.Module, self.model.readout)
            self._handles.append(readout.register_forward_pre_hook(self._see_features))
        if "spike_counts" in self.names:
            layers = spiking_layers(self.model)
            self.neurons_S = [0] * len(layers)
            self._count_STB = [torch.empty(0)] * len(layers)
            for place, layer in enumerate(layers):
                self._handles.append(layer.register_forward_hook(self._spike_counter(place)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def seen(self) -> dict[str, Tensor]:
        """Float32, detached, of the newest forward pass."""
        seen = {}
        if self._features is not None:
            seen["features"] = self._features.float()
        if self._count_STB:
            seen["spike_counts"] = torch.stack(self._count_STB)
        return seen

    def _see_features(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0].detach()

    def _spike_counter(self, place: int) -> Any:
        def count(module: nn.Module, inputs: tuple[Tensor, ...], spikes: Tensor) -> None:
            over = tuple(range(2, spikes.dim()))
            self._count_STB[place] = spikes.detach().sum(over, dtype=torch.float32)
            self.neurons_S[place] = spikes[0, 0].numel()

        return count
