"""Synaptic operations of one inference, counted, and an estimate of the energy they take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.capture.layer_shapes import WEIGHT_LAYERS

ACCUMULATE_JOULES = 0.9e-12  # 32-bit floating point in 45 nm CMOS at 0.9 V (Horowitz, ISSCC 2014)
MULTIPLY_ACCUMULATE_JOULES = 4.6e-12


@dataclass(frozen=True, slots=True)
class LayerOperations:
    """Of one layer, by its name in the network: means per example, over all time steps. One of the two numbers is 0."""

    name: str
    accumulates: float
    multiply_accumulates: float


@dataclass(frozen=True, slots=True)
class Operations:
    """Means per example, over all time steps and layers; `layers` in the order of the network's modules."""

    accumulates: float
    multiply_accumulates: float
    layers: list[LayerOperations]

    @property
    def energy_joules(self) -> float:
        """Of one inference: 4.6 pJ a multiply-accumulate and 0.9 pJ an accumulate (Horowitz, ISSCC 2014: 45 nm CMOS).

        An estimate, as spiking networks' papers make it. It leaves out what often costs more: memory access; and biases,
        neurons, norms, pools and shortcuts' additions.
        """
        return MULTIPLY_ACCUMULATE_JOULES * self.multiply_accumulates + ACCUMULATE_JOULES * self.accumulates


def operations(model: nn.Module, batches: Iterable[Tensor], masks: Mapping[str, Tensor] = {}) -> Operations:
    """What the convolution and linear layers of `model`, [T, B, C] logits of an input, do for an example of `batches`.

    A layer whose inputs are spikes, or sums of spikes (whole numbers), does one accumulate for each unit of input and live
    connection that it enters: a connection into the padding, or past the last stride, is none. Any other layer does one
    multiply-accumulate for each live connection at each output position and step, the padding's too, as is customary.
    Both as often as the network computes the layer: a stem that is computed once for a static image counts once.

    What its inputs are is told by the values in all batches, but of the layer that a pass calls first: it is fed with
    data, and its operations are multiply-accumulates, be the data binary, counts of events, or images. So event frames
    count in full too, though hardware for events could skip their zeros.

    masks: by weight, as the network's `state_dict` names it, [like the weight]; a connection is live where its mask is not
    0, or where there is none. The network is in evaluation mode meanwhile, and as it was after. Layers that are not called
    as modules (attention's own products) and transposed convolutions are not counted.
    Raises ValueError for no examples, and for a mask that fits no weight.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, WEIGHT_LAYERS)}
    live = _live_connections(layers, masks)
    counters: dict[nn.Module, _Counter] = {}

    def see(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if layer not in counters:
            counters[layer] = _Counter(layer, live[layer], fed_data=not counters)
        counters[layer].see(inputs[0], output)

    examples = 0
    with _evaluating(model), torch.no_grad(), ExitStack() as hooks:
        for layer in layers.values():
            hooks.callback(layer.register_forward_hook(see).remove)
        for input in batches:
            logits_TBC = model(input)
            examples += logits_TBC.shape[1]
    if examples == 0:
        raise ValueError("operations are a mean over examples: there is none in the batches")
    rows = []
    for name, layer in layers.items():
        accumulates, multiplies = counters[layer].totals() if layer in counters else (0.0, 0.0)
        rows.append(LayerOperations(name, accumulates / examples, multiplies / examples))
    return Operations(sum(row.accumulates for row in rows), sum(row.multiply_accumulates for row in rows), rows)


class _Counter:
    """Counts the calls of one layer. Which kind its operations are is known after the last of them."""

    def __init__(self, layer: nn.Module, live: Tensor, fed_data: bool) -> None:
        self.layer = layer
        self.live = live
        self.num_live = int(live.count_nonzero())
        self.by_spikes = not fed_data
        self.accumulates = self.multiply_accumulates = 0.0
        self._fan_out: dict[torch.Size, Tensor] = {}  # by the shape of one input

    def see(self, input: Tensor, output: Tensor) -> None:
        self.multiply_accumulates += self.num_live * (output.numel() // len(self.live))
        x = input.reshape(-1, *input.shape[input.dim() - self.live.dim() + 1 :])  # steps, batch and tokens in one
        self.by_spikes = self.by_spikes and bool(((x >= 0) & (x.frac() == 0)).all())
        if self.by_spikes:
            if x.shape[1:] not in self._fan_out:
                self._fan_out[x.shape[1:]] = fan_out(self.layer, self.live, x.shape[1:])
            self.accumulates += float((x.sum(0, dtype=torch.float64) * self._fan_out[x.shape[1:]]).sum())

    def totals(self) -> tuple[float, float]:
        return (self.accumulates, 0.0) if self.by_spikes else (0.0, self.multiply_accumulates)


def fan_out(layer: nn.Module, live: Tensor, shape: torch.Size) -> Tensor:
    """How many live connections each number of one input of a layer enters. Float64, of that shape.

    The gradient of the layer's summed output, where its live weights are 1: with its own strides, padding and groups.
    """
    ones: Any = live.double()
    own: Any = layer
    with torch.enable_grad():
        x = torch.zeros((1, *shape), dtype=torch.float64, device=live.device, requires_grad=True)
        linear = isinstance(layer, nn.Linear)
        output = nn.functional.linear(x, ones) if linear else own._conv_forward(x, ones, None)
        return torch.autograd.grad(output.sum(), x)[0][0]


def _live_connections(layers: Mapping[str, Any], masks: Mapping[str, Tensor]) -> dict[nn.Module, Tensor]:
    """By layer: 1 for each weight that exists and 0 for the others."""
    weights: dict[str, Any] = {f"{name}.weight" if name else "weight": layer.weight for name, layer in layers.items()}
    of_weight: dict[int, Tensor] = {}  # layers may share one
    for name, mask in masks.items():
        if name not in weights:
            raise ValueError(
                f"a mask is for {name}, which is no convolution's or linear layer's weight of this network"
            )
        if mask.shape != weights[name].shape:
            raise ValueError(f"{name} is {list(weights[name].shape)}, and its mask {list(mask.shape)}")
        of_weight[id(weights[name])] = (mask != 0).to(weights[name])
    return {
        layer: of_weight[id(weight)] if id(weight) in of_weight else torch.ones_like(weight)
        for layer, weight in zip(layers.values(), weights.values(), strict=True)
    }


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    trained = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in trained:
            module.training = True
