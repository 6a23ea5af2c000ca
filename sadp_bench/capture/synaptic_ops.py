"""Counts of the synaptic operations of an inference, and an estimate of their energy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.capture.layer_shapes import WEIGHT_LAYERS
from sadp_bench.core.evaluation_mode import evaluation_mode
from sadp_bench.core.precision import widest_dtype

# Joules an operation: 32-bit floating point in 45 nm CMOS at 0.9 V (Horowitz, ISSCC 2014).
ACCUMULATE_JOULES = 0.9e-12
MULTIPLY_ACCUMULATE_JOULES = 4.6e-12


@dataclass(frozen=True, slots=True)
class Count:
    """Operations by one rule, a mean per example over all time steps.

    Attributes:
        accumulates: Additions of a weight.
        multiply_accumulates: Products with a weight, each with its addition.
    """

    accumulates: float
    multiply_accumulates: float

    @property
    def energy_joules(self) -> float:
        """Energy of an inference: 4.6 pJ a multiply-accumulate and 0.9 pJ an accumulate (Horowitz, ISSCC 2014: 45 nm CMOS).

        Papers on spiking networks make the same estimate. It omits memory access, which often costs more. It also omits
        biases, neurons, norms, pools and the additions of shortcuts.
        """
        return MULTIPLY_ACCUMULATE_JOULES * self.multiply_accumulates + ACCUMULATE_JOULES * self.accumulates

    def __add__(self, other: Count) -> Count:
        return Count(self.accumulates + other.accumulates, self.multiply_accumulates + other.multiply_accumulates)

    def __truediv__(self, number: float) -> Count:
        return Count(self.accumulates / number, self.multiply_accumulates / number)


@dataclass(frozen=True, slots=True)
class LayerOperations(Count):
    """Mean operations of a layer per example, over all time steps. At least one of the two numbers is 0.

    Attributes:
        name: The layer's name in the network.
        by_rate: Operations by the field's formula; see `operations`.
        effective: Operations by NeuroBench's rule; see `operations`.
    """

    name: str
    by_rate: Count
    effective: Count


@dataclass(frozen=True, slots=True)
class Operations(Count):
    """Mean operations of a network per example, over all time steps and layers.

    Attributes:
        by_rate: Operations by the field's formula; see `operations`.
        effective: Operations by NeuroBench's rule; see `operations`.
        layers: The layers' operations, in the order of the network's modules.
    """

    by_rate: Count
    effective: Count
    layers: list[LayerOperations]


NOTHING = Count(0.0, 0.0)


def operations(model: nn.Module, batches: Iterable[Tensor], masks: Mapping[str, Tensor] = {}) -> Operations:
    """Counts the operations of a network's convolution and linear layers, per example, in evaluation mode.

    A layer whose inputs are spikes, or sums of spikes (whole numbers), does one accumulate for each unit of input and live
    connection that it enters. Connections into the padding, or past the last stride, do not count. Any other layer does one
    multiply-accumulate for each live connection at each output position and time step. By custom, connections into the
    padding then count. Operations count at each call: a stem that is computed once for a static image counts once.

    The values in all batches decide a layer's kind. The layer that a pass calls first is an exception, because it reads
    data. Its operations are multiply-accumulates for binary data, counts of events and images alike. So event frames count
    in full, although hardware for events could skip their zeros. Transposed convolutions, and products that are not calls of
    a module (as in attention), are not counted.

    Papers compare such numbers across tools, so two other rules are also computed:

    - `by_rate`, the field's formula (as in syops-counter). A layer whose inputs are all 0 or 1 does firing rate x T x
      connections accumulates, with connections at all positions, padding included. Any other layer does one
      multiply-accumulate for each connection. So sums of spikes, as in SEW networks, cost as much as an image.
    - `effective` (as NeuroBench's synaptic operations). A live connection counts once for each number other than 0 that
      enters it. If all inputs of the layer are -1, 0 or 1, data included, these are accumulates, and otherwise
      multiply-accumulates.

    Args:
        model: The network; returns logits, [T, B, C]. Its mode is restored afterwards.
        batches: The input of each batch.
        masks: A tensor of the weight's shape, by the weight's name in `state_dict`. A connection is live where its mask is
            not 0, or where its weight has no mask.

    Raises:
        ValueError: There are no examples, or a mask fits no weight.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, WEIGHT_LAYERS)}
    live = _live_connections(layers, masks)
    counters: dict[nn.Module, _Counter] = {}

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if layer not in counters:
            counters[layer] = _Counter(layer, live[layer], fed_data=not counters)
        counters[layer].count(inputs[0], output)

    examples = 0
    with evaluation_mode(model), torch.no_grad(), ExitStack() as hooks:
        for layer in layers.values():
            hooks.callback(layer.register_forward_hook(count).remove)
        for input in batches:
            logits_TBC = model(input)
            examples += logits_TBC.shape[1]
    if examples == 0:
        raise ValueError(
            "the batches hold no examples, and operations are a mean over examples: pass at least one example"
        )
    rows = []
    for name, layer in layers.items():
        own, by_rate, effective = (
            count / examples for count in (counters[layer].totals() if layer in counters else (NOTHING,) * 3)
        )
        rows.append(LayerOperations(own.accumulates, own.multiply_accumulates, name, by_rate, effective))
    accumulates, multiplies = (sum(getattr(row, n) for row in rows) for n in ("accumulates", "multiply_accumulates"))
    by_rate, effective = sum((row.by_rate for row in rows), NOTHING), sum((row.effective for row in rows), NOTHING)
    return Operations(accumulates, multiplies, by_rate, effective, rows)


class Products:
    """Counts the products of an inference on dense hardware, where inputs of 0 count too.

    A layer does one product for each connection at each output position and time step, padding included.

    Args:
        model: The network; returns logits, [T, B, C].
        input: The input of one batch.
    """

    def __init__(self, model: nn.Module, input: Tensor) -> None:
        self.layers = {name: module for name, module in model.named_modules() if isinstance(module, WEIGHT_LAYERS)}
        self.positions = dict.fromkeys(self.layers.values(), 0.0)

        def count(layer: Any, _: tuple[Tensor, ...], output: Tensor) -> None:
            self.positions[layer] += output.numel() // len(layer.weight)

        with evaluation_mode(model), torch.no_grad(), ExitStack() as hooks:
            for layer in self.layers.values():
                hooks.callback(layer.register_forward_hook(count).remove)
            examples = model(input).shape[1]
        self.positions = {layer: number / examples for layer, number in self.positions.items()}

    def count(self, masks: Mapping[str, Tensor] = {}) -> float:
        """Returns the products of the live connections, per example; see `operations` for the masks."""
        return sum(self.by_layer(masks).values())

    def by_layer(self, masks: Mapping[str, Tensor] = {}) -> dict[str, float]:
        """Returns the products by layer name. Weights may have changed shape since construction, but not outputs' sides."""
        live = _live_connections(self.layers, masks)
        return {name: self.positions[of] * int(live[of].count_nonzero()) for name, of in self.layers.items()}


class _Counter:
    """Counts the calls of a layer. The kind of its operations is known after the last call."""

    def __init__(self, layer: nn.Module, live: Tensor, fed_data: bool) -> None:
        self.layer = layer
        self.live = live
        self.num_live = int(live.count_nonzero())
        self.fed_data = fed_data
        self.whole = self.binary = self.ternary = True  # of all inputs: whole numbers from 0 on; 0 and 1; -1, 0 and 1
        self.accumulates = self.multiply_accumulates = 0.0
        self.effective = 0.0
        self._fan_out: dict[torch.Size, Tensor] = {}  # by an input's shape
        self._units: dict[torch.Size, float] = {}  # by an input's shape, the sum of all inputs
        self._products: dict[torch.Size, float] = {}  # by an input's shape, products for each number of it

    def count(self, input: Tensor, output: Tensor) -> None:
        """Adds a call's operations of all kinds."""
        products = self.num_live * (output.numel() // len(self.live))
        self.multiply_accumulates += products
        x = input.reshape(
            -1, *input.shape[input.dim() - self.live.dim() + 1 :]
        )  # Steps, batch and tokens share a dimension.
        if not x.numel():
            return
        low, high, whole = float(x.min()), float(x.max()), bool((x.frac() == 0).all())
        self.whole = self.whole and whole and low >= 0
        self.binary = self.binary and whole and low >= 0 and high <= 1
        self.ternary = self.ternary and whole and low >= -1 and high <= 1
        if x.shape[1:] not in self._fan_out:
            self._fan_out[x.shape[1:]] = fan_out(self.layer, self.live, x.shape[1:])
        entered = float((x.sum(0, dtype=widest_dtype(x.device)) * self._fan_out[x.shape[1:]]).sum())
        self.accumulates += entered if self.whole and not self.fed_data else 0.0
        if self.binary and not self.fed_data:
            self._units[x.shape[1:]] = self._units.get(x.shape[1:], 0.0) + float(x.sum(dtype=widest_dtype(x.device)))
            self._products[x.shape[1:]] = products / x.numel()
            self.effective += entered
        else:
            active = (x != 0).sum(0, dtype=widest_dtype(x.device))
            self.effective += float((active * self._fan_out[x.shape[1:]]).sum())

    def totals(self) -> tuple[Count, Count, Count]:
        """Returns the operations of all calls: by our rule, by the field's formula, and by NeuroBench's rule."""
        dense = Count(0.0, float(self.multiply_accumulates))
        own = Count(self.accumulates, 0.0) if self.whole and not self.fed_data else dense
        at_rate = sum(units * self._products[shape] for shape, units in self._units.items())
        by_rate = Count(at_rate, 0.0) if self.binary and not self.fed_data else dense
        effective = Count(self.effective, 0.0) if self.ternary else Count(0.0, self.effective)
        return own, by_rate, effective


def fan_out(layer: nn.Module, live: Tensor, shape: torch.Size) -> Tensor:
    """Returns how many live connections each number of a layer's input enters.

    The result is the gradient of the summed output of the layer with its live weights set to 1; strides, padding and
    groups are the layer's.

    Args:
        layer: The layer.
        live: 1 for each live connection and 0 for the others, in the weight's shape.
        shape: The shape of an input.

    Returns:
        A tensor of that shape and the device's widest type.
    """
    ones: Any = live.to(widest_dtype(live.device))
    convolution: Any = layer
    with torch.enable_grad():
        x = torch.zeros((1, *shape), dtype=ones.dtype, device=live.device, requires_grad=True)
        linear = isinstance(layer, nn.Linear)
        output = nn.functional.linear(x, ones) if linear else _convolved(convolution, x, ones)
        return torch.autograd.grad(output.sum(), x)[0][0]


def _convolved(convolution: Any, x: Tensor, live: Tensor) -> Tensor:
    """Returns the convolution of x with the live connections themselves, in the layer's strides, padding and groups."""
    kind: Any = next(kind for kind in WEIGHT_LAYERS if isinstance(convolution, kind))
    output: Tensor = kind._conv_forward(convolution, x, live, None)
    return output


def _live_connections(layers: Mapping[str, Any], masks: Mapping[str, Tensor]) -> dict[nn.Module, Tensor]:
    """Returns, by layer, 1 for each live weight and 0 for the others."""
    weights: dict[str, Any] = {f"{name}.weight" if name else "weight": layer.weight for name, layer in layers.items()}
    of_weight: dict[int, Tensor] = {}  # by the weight's id, because layers may share a weight
    for name, mask in masks.items():
        if name not in weights:
            raise ValueError(
                f"a mask is for {name}, which is no convolution's or linear layer's weight of this network: "
                f"name one of {', '.join(weights)}"
            )
        if mask.shape != weights[name].shape:
            raise ValueError(
                f"{name} is {list(weights[name].shape)}, and its mask {list(mask.shape)}: pass a mask of the same shape"
            )
        of_weight[id(weights[name])] = (mask != 0).to(weights[name])
    live = {
        layer: of_weight[id(weight)] if id(weight) in of_weight else torch.ones_like(weight)
        for layer, weight in zip(layers.values(), weights.values(), strict=True)
    }
    return {
        layer: layer.live_connections(mask) if hasattr(layer, "live_connections") else mask
        for layer, mask in live.items()
    }
