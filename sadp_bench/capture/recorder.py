"""What a network shows while it trains, for those who ask; a network that nobody watches has no hooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from spikingjelly.activation_based.neuron import BaseNode
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sadp_bench.capture.layer_shapes import BOUNDED, by_time, multi_step, num_features
from sadp_bench.capture.per_example_norms import Pair, joined, square_norms
from sadp_bench.capture.squared_norms import (
    every,
    fires_ones,
    input_squares,
    mark_spikes,
    middle,
    norm_input_squares,
    squares,
    squares_of_input,
    wide_type,
)
from sadp_bench.core import distributed

OF_WEIGHTS = {"input_squares", "error_squares", "middle_input_squares", "middle_error_squares", "bound_ratio"}
TAPPED = frozenset({"features", "spike_counts", "norm_input_squares", "norm_error_squares"} | OF_WEIGHTS)
MAX_EXACT = 32  # examples whose exact gradient norms `bound_ratio` takes
SHARE_EXACT = 4  # and at most one in so many of the batch, so that the first of several processes has them all


def spiking_layers(model: nn.Module) -> list[nn.Module]:
    """The S spiking layers, SpikingJelly's and snnTorch's, in the order of the network's modules."""
    return [module for module in model.modules() if isinstance(module, BaseNode) or _is_snntorchs(module)]


def weight_layers(model: nn.Module) -> list[nn.Module]:
    """The L convolution and linear layers but the readout, in the order of the network's modules."""
    readout = getattr(model, "readout", None)
    return [m for m in model.modules() if isinstance(m, BOUNDED) and m is not readout]


def norm_layers(model: nn.Module) -> list[nn.Module]:
    """The M batch norms, in the order of the network's modules."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


class Taps:
    """Keeps what the newest forward pass, and the backward pass after it, showed. The hooks are there within the context,
    and gone after. T steps, B examples; S spiking, L weight and M norm layers.

    "features" (T, B, D): the input of `model.readout`. "spike_counts" (S, T, B).
    "input_squares" (L, B), A_l: the squares of a layer's inputs, each as often as a patch takes it (for spikes a count), and
    one for every output position where there is a bias; summed over time. "error_squares" (L, B), E_l: the squares of the
    gradient of the example's own loss at the layer's output. By Cauchy-Schwarz the squared norm of the example's gradient of
    the layer's parameters is at most E_l A_l; where batch norm trains, its mixing of the examples is in E_l.
    "middle_input_squares", "middle_error_squares" (L, B): the same of the middle time step alone (of a layer without time:
    of all there is), so that what it costs to read them does not grow with T.
    "norm_input_squares", "norm_error_squares" (M, B): the same of norm layers; A is the largest channel's.
    "bound_ratio" (2, L): in the first batch of the context only, the sums over its first examples (at most 32) of the exact
    squared norm (of all time steps), and of the middle step's E_l A_l. Of several processes the first one's, for all.

    A layer may be called once for all time steps, or once a step. See `LateTaps` for networks that are called so themselves.
    """

    def __init__(self, model: nn.Module, names: Iterable[str], layers: Sequence[nn.Module] | None = None) -> None:
        self.model = model
        self.names = frozenset(names) & TAPPED
        self.layers = weight_layers(model) if layers is None else list(layers)
        self.time_first: bool | None = True
        self.neurons_S: list[int] = []
        self._features: list[Tensor] = []
        self._count_STB: dict[int, dict[int, Tensor]] = {}  # by layer and call: [t, B]
        self._squares: dict[str, dict[nn.Module, dict[int, Tensor]]] = {}  # by name, layer, call: [t, B]
        self._pairs: dict[nn.Module, dict[int, Pair]] | None = None
        self._num_calls: dict[nn.Module, int] = {}
        self._batch = 0
        self._of_all_ranks = 0
        self._passes = 0
        self._handles: list[Any] = []

    def __enter__(self) -> Taps:
        hooked = self._handles.append
        if self.names:
            hooked(self.model.register_forward_pre_hook(self._begin))
        if "features" in self.names:
            readout: Any = self.model.readout
            hooked(readout.register_forward_pre_hook(lambda module, inputs: self._features.append(inputs[0].detach())))
        self._hook_layers()
        return self

    def _hook_layers(self) -> None:
        hooked = self._handles.append
        if "spike_counts" in self.names:
            layers = spiking_layers(self.model)
            self.neurons_S = [0] * len(layers)
            for place, layer in enumerate(layers):
                hooked(layer.register_forward_hook(self._spike_counter(place)))
        if self.names & OF_WEIGHTS:
            for layer in filter(fires_ones, spiking_layers(self.model)):
                hooked(layer.register_forward_hook(mark_spikes))
            for layer in self.layers:
                hooked(layer.register_forward_hook(self._see_weights))
        if self.names & {"norm_input_squares", "norm_error_squares"}:
            for layer in norm_layers(self.model):
                hooked(layer.register_forward_hook(self._see_norm))

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def seen(self, scale_B: Tensor | None = None) -> dict[str, Tensor]:
        """Float32 (float64 where the network is), detached, of the newest forward pass and the backward pass after it.

        scale_B: what the example's loss was multiplied with before the backward pass; the errors are divided by it.
        """
        seen = {}
        if self._features:
            features = joined(_with_time(self._features))
            seen["features"] = features.to(wide_type(features))
        if "spike_counts" in self.names:
            seen["spike_counts"] = self._spike_counts()
        for name in self._squares:
            seen[name] = self._of_layers(name)
            if "error" in name and scale_B is not None:
                seen[name] /= scale_B.square()
        if self._pairs is not None:
            seen["bound_ratio"] = self._bound_ratio(self._pairs, scale_B)
        return seen

    def _spike_counts(self) -> Tensor:
        """[S, T, B]; 0 of layers that were not called."""
        rows = {place: in_order(calls) for place, calls in self._count_STB.items()}
        device = next(self.model.parameters()).device
        nothing_TB = torch.zeros_like(next(iter(rows.values()), torch.zeros(1, self._batch, device=device)))
        return torch.stack([rows.get(place, nothing_TB) for place in range(len(self.neurons_S))])

    def _clear(self) -> None:
        for kept in (self._features, self._count_STB, self._squares, self._num_calls):
            kept.clear()

    def _begin(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._clear()
        self._batch = inputs[0].shape[-4]
        self._pairs = {} if "bound_ratio" in self.names and self._passes == 0 and torch.is_grad_enabled() else None
        self._passes += 1
        if self._pairs is not None:
            self._of_all_ranks = int(distributed.total(torch.tensor(self._batch)))

    def _listening(self) -> bool:
        """Whether a forward pass counts."""
        return True

    def _spike_counter(self, place: int) -> Any:
        def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
            if self._listening():
                spikes = output if isinstance(output, Tensor) else output[0]
                spikes = spikes.detach() if multi_step(layer) else spikes.detach()[None]
                count_TB = spikes.reshape(*spikes.shape[:2], -1).sum(2, dtype=torch.float32)
                self._count_STB.setdefault(place, {})[self._next_call(layer)] = count_TB
                self.neurons_S[place] = spikes[0, 0].numel()

        return count

    def _see_weights(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        input, held, call = inputs[0], inputs[0].detach(), self._next_call(layer)
        for name, steps in (("input_squares", every), ("middle_input_squares", middle)):
            if name in self.names:
                self._note(name, layer, call, input_squares(layer, input, output, self._batch, steps))

        def see_error(error: Tensor) -> None:
            for name, steps in (("error_squares", every), ("middle_error_squares", middle)):
                if name in self.names:
                    self._note(name, layer, call, squares(steps(by_time(layer, error, self._batch))))
            if self._pairs is not None:
                first = [by_time(layer, x, self._batch)[:, : self._num_exact()].clone() for x in (held, error)]
                self._pairs.setdefault(layer, {})[call] = first[0], first[1]

        if output.requires_grad:
            output.register_hook(see_error)

    def _see_norm(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        call = self._next_call(layer)
        if "norm_input_squares" in self.names:
            self._note("norm_input_squares", layer, call, norm_input_squares(layer, inputs[0], self._batch))

        def see_error(error: Tensor) -> None:
            self._note("norm_error_squares", layer, call, squares(by_time(layer, error, self._batch)))

        if "norm_error_squares" in self.names and output.requires_grad:
            output.register_hook(see_error)

    def _next_call(self, layer: nn.Module) -> int:
        self._num_calls[layer] = self._num_calls.get(layer, 0) + 1
        return self._num_calls[layer]

    def _note(self, name: str, layer: nn.Module, call: int, square_TB: Tensor) -> None:
        """Of the steps of one call; calls come in order forward, and in the reverse backward."""
        self._squares.setdefault(name, {}).setdefault(layer, {})[call] = square_TB

    def _of_layers(self, name: str) -> Tensor:
        """One row a layer, 0 where it was not called."""
        steps = middle if name.startswith("middle_") else every
        row = {layer: steps(in_order(calls)).sum(0) for layer, calls in self._paired(name).items()}
        nothing = torch.zeros_like(next(iter(row.values())))
        layers = norm_layers(self.model) if name.startswith("norm_") else self.layers
        return torch.stack([row.get(layer, nothing) for layer in layers])

    def _paired(self, name: str) -> dict[nn.Module, dict[int, Tensor]]:
        """Of inputs whose errors are noted too, those of calls to which an error came: not every step need give gradients."""
        noted, errors = self._squares[name], self._squares.get(name.replace("input", "error"))
        if errors is None:
            return noted
        paired = {
            layer: {call: square for call, square in calls.items() if call in errors.get(layer, {})}
            for layer, calls in noted.items()
        }
        return {layer: calls for layer, calls in paired.items() if calls}

    def _num_exact(self) -> int:
        return max(1, min(MAX_EXACT, self._of_all_ranks // SHARE_EXACT, self._batch))

    def _bound_ratio(self, pairs: dict[nn.Module, dict[int, Pair]], scale_B: Tensor | None) -> Tensor:
        number = self._num_exact()
        sums = []
        for layer in self.layers:
            if layer not in pairs:  # frozen, or not used
                sums.append(torch.zeros(2, device=next(layer.parameters()).device))
                continue
            calls = [pair for _, pair in sorted(pairs[layer].items())]
            exact_b = square_norms(layer, calls, number)
            a, d = (middle(joined([middle(by_time(layer, pair[side], number)) for pair in calls])) for side in (0, 1))
            of_tokens = squares_of_input(layer, a, d, a.dim() - num_features(layer, a), binary=False)
            bound_b = of_tokens.reshape(1, number, -1).sum((0, 2)) * squares(d).sum(0)
            both = torch.stack([exact_b.to(bound_b.dtype), bound_b])
            sums.append((both if scale_B is None else both / scale_B[:number].square()).sum(1))
        return distributed.from_first(torch.stack(sums, 1))


def in_order(calls: dict[int, Tensor]) -> Tensor:
    """The time steps of all of a layer's calls."""
    return joined([calls[call] for call in sorted(calls)])


def _with_time(features: list[Tensor]) -> list[Tensor]:
    """[T, B, D] of one call for all steps, or of a call a step."""
    return features if features[0].dim() == 3 else [x.unsqueeze(0) for x in features]


def _is_snntorchs(module: nn.Module) -> bool:
    """By name, as snnTorch need not be installed."""
    return any(
        kind.__name__ == "SpikingNeuron" and kind.__module__.startswith("snntorch") for kind in type(module).__mro__
    )
