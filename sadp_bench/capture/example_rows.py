"""The order of examples and time in the rows of a layer, found from a network's graph.

A network may fold time into the batch around its layers, as [T * B, ...] or as [B * T, ...]. The shapes are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.capture.layer_shapes import multi_step, num_features
from sadp_bench.capture.layers import time_layers
from sadp_bench.core.rng import stream

LEAST_SHARE = 0.5  # Least share of an example's gradient in its rows. Batch norm spreads the rest over other rows.
LEAST_LEAD = 0.2  # Least difference between the shares of the two orders.
ROUNDING = 1e-9  # Share of a sum that may be rounding.
MOST_EXAMPLES = 4  # Examples whose gradients are computed, until the order is clear.


class ExampleRows:
    """Finds which rows of a layer belong to an example, for layers whose shape leaves it open.

    The order of a spiking layer's input is known: [T, B, ...] for a multi-step layer, and [B, ...] for any other. The
    gradient of an example's input with respect to the output of an earlier layer lies in the example's rows of that output.

    Args:
        model: The network.
        given: The order that the user gave. It counts where the graph does not decide.
        usual: The order that is usual for the kind of spiking layers. It decides between time and tokens in dimensions of
            their own, and never between [T * B, ...] and [B * T, ...].

    Attributes:
        time_first: Whether a layer's rows are [T, B, ...] or [T * B, ...]. It has the layers that the graph decides, and
            the readout, which the logits decide.
        unclear: Layers whose rows are in neither order.
        looking: Whether a gradient is being computed to find rows. Hooks ignore it, because training does not use it.
    """

    def __init__(self, model: nn.Module, given: bool | None = None, usual: bool | None = None) -> None:
        self.given, self.usual = given, usual
        self.time_first: dict[nn.Module, bool] = {}
        self.unclear: set[nn.Module] = set()
        self._neurons = time_layers(model)
        self._outputs: dict[nn.Module, Tensor] = {}  # Outputs whose order no spiking layer has shown yet.
        self._new: dict[nn.Module, int] = {}  # The spiking layer's number of examples, by layer decided since `settle`.
        self.looking = False

    def hook(self) -> list[Any]:
        """Registers hooks on the input of each spiking layer, and returns their handles."""
        return [layer.register_forward_pre_hook(self._look) for layer in self._neurons]

    def add(self, layer: nn.Module, output: Tensor) -> None:
        """Receives a layer's output, with its graph."""
        if not self.looking and layer not in self.time_first and layer not in self.unclear:
            self._outputs[layer] = output

    def forget(self) -> None:
        """Drops the outputs."""
        self._outputs.clear()

    def settle(self, batch: int) -> None:
        """Receives the batch's size. A layer whose spiking layer has another number of examples becomes unclear."""
        for layer, seen in self._new.items():
            if seen != batch:
                del self.time_first[layer]
                self.unclear.add(layer)
        self._new.clear()

    def order(self, layer: nn.Module, lead: torch.Size, batch: int) -> bool | None:
        """Returns whether time comes first in a layer's rows; None if that is unknown. See `layer_shapes.arranged`.

        Args:
            layer: The layer.
            lead: The dimensions before its features.
            batch: The number of examples, B.
        """
        if layer in self.time_first:
            return self.time_first[layer]
        if self.given is not None or not _is_open(lead, batch):
            return self.usual if self.given is None else self.given
        return self.shared()

    def shared(self) -> bool | None:
        """Returns the order that all decided layers share; None where they differ, none is decided or no layer spikes."""
        orders = set(self.time_first.values())
        return orders.pop() if self._neurons and len(orders) == 1 else None

    def _look(self, neuron: nn.Module, inputs: tuple[Any, ...]) -> None:
        input = inputs[0] if inputs else None
        if self.looking or not self._outputs or not isinstance(input, Tensor) or not input.requires_grad:
            return
        self.looking = True
        try:
            for layer, output in list(self._outputs.items()):
                of_example = input.transpose(0, 1) if multi_step(neuron) else input
                lead = output.shape[: output.dim() - num_features(layer, output)]
                if _is_open(lead, len(of_example)) and self._decide(layer, of_example, output, lead):
                    self._outputs.pop(layer)
        finally:
            self.looking = False

    def _decide(self, layer: nn.Module, of_example: Tensor, output: Tensor, lead: torch.Size) -> bool:
        """Finds the order of an output's rows. Returns whether the input depends on the output."""
        batch, total = len(of_example), 0.0
        own = {True: 0.0, False: 0.0}  # Sums over the examples so far.
        for example in [*range(1, batch), 0][:MOST_EXAMPLES]:
            gradient = _gradient(of_example[example], output)
            if gradient is None:
                return False
            mass = gradient.detach().double().square().flatten(len(lead)).sum(-1)
            if not bool(mass.sum().isfinite()):
                continue
            total += float(mass.sum())
            for order, mass_of_rows in _own_rows(mass, batch, example):
                own[order] += float(mass_of_rows)
            first = max(own, key=lambda order: own[order])
            if total > 0 and _is_clear(own[first] / total, own[not first] / total):
                self.time_first[layer], self._new[layer] = first, batch
                return True
        if total > 0 and max(own.values()) / total < LEAST_SHARE:
            self.unclear.add(layer)
        return total > 0


def _is_clear(share: float, other: float) -> bool:
    """Returns whether the gradient's share in the examples' rows of an order is clearly above that of the other order.

    Where nothing mixes the examples, the share is 1, and any smaller share of the other order is clear.
    """
    return share >= LEAST_SHARE and (share - other >= LEAST_LEAD or (share > 1 - ROUNDING and other < 1 - 2 * ROUNDING))


def _is_open(lead: torch.Size, batch: int) -> bool:
    """Returns whether a layer's leading dimensions leave open which rows belong to an example."""
    if batch < 2:
        return False
    if len(lead) > 1 and lead[1] == batch:
        return lead[0] == batch
    return lead[0] != batch and lead[0] % batch == 0


def _own_rows(mass: Tensor, batch: int, example: int) -> Iterator[tuple[bool, Tensor]]:
    """Yields for both orders, time first and examples first, the sum over an example's rows."""
    square = mass.dim() > 1 and mass.shape[0] == mass.shape[1] == batch
    rows = mass.flatten(1).sum(1) if mass.dim() > 1 else mass
    yield True, (mass[:, example] if square else rows.view(-1, batch)[:, example]).sum()
    yield False, (rows[example] if square else rows.view(batch, -1)[example]).sum()


def _gradient(input: Tensor, output: Tensor) -> Tensor | None:
    """Returns the gradient of a random sum of an example's input with respect to a layer's output, or None."""
    random = torch.randn(input.shape, generator=stream(0, "example rows")).to(input)
    return torch.autograd.grad(input, output, random, retain_graph=True, allow_unused=True)[0]
