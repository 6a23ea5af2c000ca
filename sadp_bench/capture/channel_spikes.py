"""Hooks that count the spikes of each channel of a network's last spiking layer. T time steps, B examples, D channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.capture.layer_shapes import multi_step
from sadp_bench.capture.layers import spiking_layers
from sadp_bench.core.errors import BadInput


class ChannelSpikes:
    """Counts the spikes of the spiking layer that a pass calls last. Hooks exist within the context only.

    A channel's count is the sum over time and positions. After a linear layer, each neuron is a channel.

    Args:
        model: The network.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._handles: list[Any] = []
        self._of_layer: dict[nn.Module, Tensor] = {}
        self._last: nn.Module | None = None

    def __enter__(self) -> ChannelSpikes:
        self._handles.append(self._model.register_forward_pre_hook(lambda module, inputs: self._of_layer.clear()))
        for layer in spiking_layers(self._model):
            self._handles.append(layer.register_forward_hook(self._count))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def counts(self) -> Tensor:
        """Returns the counts of the newest pass, float32 [B, D]. Raises BadInput without a spiking layer."""
        if self._last is None or self._last not in self._of_layer:
            raise BadInput(
                "the network calls no spiking layer, so its examples have no spike counts: take other features"
            )
        return self._of_layer[self._last]

    def _count(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        spikes = (output if isinstance(output, Tensor) else output[0]).detach()
        spikes = spikes if multi_step(layer) else spikes[None]
        count_BD = spikes.reshape(*spikes.shape[:3], -1).sum((0, 3), dtype=torch.float32)
        self._of_layer[layer] = self._of_layer[layer] + count_BD if layer in self._of_layer else count_BD
        self._last = layer
