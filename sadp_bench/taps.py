"""What a network shows while it trains, for those who ask; a network that nobody watches has no hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from spikingjelly.activation_based.neuron import BaseNode, IFNode, LIFNode, ParametricLIFNode
from torch import Tensor, nn
from torch.nn.functional import fold, unfold
from torch.nn.modules.batchnorm import _BatchNorm

from sadp_bench import ranks
from sadp_bench.gradient_norms import Pair, by_time, joined, square_norms

TAPPED = frozenset(
    {
        "features",
        "spike_counts",
        "input_squares",
        "error_squares",
        "middle_input_squares",
        "middle_error_squares",
        "norm_input_squares",
        "norm_error_squares",
        "tightness",
    }
)
OF_WEIGHTS = {"input_squares", "error_squares", "middle_input_squares", "middle_error_squares", "tightness"}
MOST_EXACT = 32  # examples whose exact gradient norms `tightness` takes
SHARE_EXACT = 4  # and at most one in so many of the batch, so that the first of several processes has them all
SPIKES = "_sadp_bench_spikes"  # marks a spiking layer's output: 0 or 1, whoever takes it as it is


def spiking_layers(model: nn.Module) -> list[nn.Module]:
    """The S spiking layers, in the order of the network's modules."""
    return [module for module in model.modules() if isinstance(module, BaseNode)]


def weight_layers(model: nn.Module) -> list[nn.Module]:
    """The L convolution and linear layers but the readout, in the order of the network's modules."""
    readout = model.readout
    return [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear) and m is not readout]


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
    "tightness" (2, L): in the first batch of the context only, the sums over its first examples (at most 32) of the exact
    squared norm (of all time steps), and of the middle step's E_l A_l. Of several processes the first one's, for all.

    A layer may be called once for all time steps, or once a step.
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        self.model = model
        self.names = frozenset(names) & TAPPED
        self.neurons_S: list[int] = []
        self._features: list[Tensor] = []
        self._count_STB: list[Tensor] = []
        self._squares: dict[str, dict[int, dict[int, Tensor]]] = {}  # by name, layer and call, of each step: [t, B]
        self._pairs: dict[nn.Module, dict[int, Pair]] | None = None
        self._num_calls: dict[nn.Module, int] = {}
        self._num_weights, self._num_norms = len(weight_layers(model)), len(norm_layers(model))
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
        if "spike_counts" in self.names:
            layers = spiking_layers(self.model)
            self.neurons_S = [0] * len(layers)
            self._count_STB = [torch.empty(0)] * len(layers)
            for place, layer in enumerate(layers):
                hooked(layer.register_forward_hook(self._spike_counter(place)))
        if self.names & OF_WEIGHTS:
            for layer in filter(_fires_ones, spiking_layers(self.model)):
                hooked(layer.register_forward_hook(lambda module, inputs, spikes: setattr(spikes, SPIKES, True)))
            for place, layer in enumerate(weight_layers(self.model)):
                hooked(layer.register_forward_hook(self._see_weights(place)))
        if self.names & {"norm_input_squares", "norm_error_squares"}:
            for place, layer in enumerate(norm_layers(self.model)):
                hooked(layer.register_forward_hook(self._see_norm(place)))
        return self

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
            seen["features"] = _wide(joined(_with_time(self._features)))
        if self._count_STB:
            seen["spike_counts"] = torch.stack(self._count_STB)
        for name in self._squares:
            seen[name] = self._of_layers(name)
            if "error" in name and scale_B is not None:
                seen[name] /= scale_B.square()
        if self._pairs is not None:
            seen["tightness"] = self._tightness(self._pairs, scale_B)
        return seen

    def _begin(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._batch = inputs[0].shape[-4]
        self._features.clear()
        self._squares.clear()
        self._num_calls.clear()
        self._pairs = {} if "tightness" in self.names and self._passes == 0 and torch.is_grad_enabled() else None
        self._passes += 1
        if self._pairs is not None:
            self._of_all_ranks = int(ranks.total(torch.tensor(self._batch)))

    def _spike_counter(self, place: int) -> Any:
        def count(module: nn.Module, inputs: tuple[Tensor, ...], spikes: Tensor) -> None:
            over = tuple(range(2, spikes.dim()))
            self._count_STB[place] = spikes.detach().sum(over, dtype=torch.float32)
            self.neurons_S[place] = spikes[0, 0].numel()

        return count

    def _see_weights(self, place: int) -> Any:
        def see(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            input, batch, call = inputs[0], self._batch, self._next_call(layer)
            for name, steps in (("input_squares", every), ("middle_input_squares", middle)):
                if name in self.names:
                    self._note(name, place, call, input_squares(layer, input, output, batch, steps))
            if output.requires_grad:
                output.register_hook(lambda error: see_error(layer, call, input.detach(), error))

        def see_error(layer: nn.Module, call: int, input: Tensor, error: Tensor) -> None:
            for name, steps in (("error_squares", every), ("middle_error_squares", middle)):
                if name in self.names:
                    self._note(name, place, call, squares(steps(by_time(layer, error, self._batch))))
            if self._pairs is not None:
                first = [by_time(layer, x, self._batch)[:, : self._num_exact()].clone() for x in (input, error)]
                self._pairs.setdefault(layer, {})[call] = first[0], first[1]

        return see

    def _see_norm(self, place: int) -> Any:
        def see(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            call = self._next_call(layer)
            if "norm_input_squares" in self.names:
                self._note("norm_input_squares", place, call, norm_input_squares(layer, inputs[0], self._batch))
            if "norm_error_squares" in self.names and output.requires_grad:
                output.register_hook(lambda error: see_error(layer, call, error))

        def see_error(layer: nn.Module, call: int, error: Tensor) -> None:
            self._note("norm_error_squares", place, call, squares(by_time(layer, error, self._batch)))

        return see

    def _next_call(self, layer: nn.Module) -> int:
        self._num_calls[layer] = self._num_calls.get(layer, 0) + 1
        return self._num_calls[layer]

    def _note(self, name: str, place: int, call: int, square_TB: Tensor) -> None:
        """Of the steps of one call; calls come in order forward, and in the reverse backward."""
        self._squares.setdefault(name, {}).setdefault(place, {})[call] = square_TB

    def _of_layers(self, name: str) -> Tensor:
        """One row a layer, 0 where it was not called."""
        of_place = self._squares[name]
        steps = middle if name.startswith("middle_") else every
        row = {place: steps(in_order(calls)).sum(0) for place, calls in of_place.items()}
        number = self._num_norms if name.startswith("norm_") else self._num_weights
        nothing = torch.zeros_like(next(iter(row.values())))
        return torch.stack([row.get(place, nothing) for place in range(number)])

    def _num_exact(self) -> int:
        return max(1, min(MOST_EXACT, self._of_all_ranks // SHARE_EXACT, self._batch))

    def _tightness(self, pairs: dict[nn.Module, dict[int, Pair]], scale_B: Tensor | None) -> Tensor:
        number = self._num_exact()
        sums = []
        for layer in weight_layers(self.model):
            if layer not in pairs:  # frozen, or not used
                sums.append(torch.zeros(2, device=next(layer.parameters()).device))
                continue
            calls = [pair for _, pair in sorted(pairs[layer].items())]
            exact_b = square_norms(layer, calls, number)
            a, d = (middle(joined([by_time(layer, pair[side], number) for pair in calls])) for side in (0, 1))
            bound_b = input_squares(layer, a, d, number).sum(0) * squares(d).sum(0)
            both = torch.stack([exact_b.to(bound_b.dtype), bound_b])
            sums.append((both if scale_B is None else both / scale_B[:number].square()).sum(1))
        return ranks.from_first(torch.stack(sums, 1))


def every(x: Tensor) -> Tensor:
    """All of T time steps."""
    return x


def middle(x: Tensor) -> Tensor:
    """The middle one of T time steps, of two the later: [1, ...] of [T, ...]."""
    return x[len(x) // 2 :][:1]


def in_order(calls: dict[int, Tensor]) -> Tensor:
    """The time steps of all of a layer's calls."""
    return joined([calls[call] for call in sorted(calls)])


def squares(x: Tensor, times: Tensor | None = None, binary: bool = False) -> Tensor:
    """The sum of the squares of each step and example, of a layer's input or output, [T, B, ...]. [T, B].

    times: how often each number counts, [height x width x channels]. binary: all are 0 or 1, and so their own squares.
    """
    steps, batch, wide = *x.shape[:2], _wide_type(x)
    x = (x.movedim(2, -1) if x.dim() == 5 else x).reshape(steps * batch, -1)  # as it lies in memory
    if binary and times is not None:
        square = x @ times
    elif x.dtype == torch.bfloat16 and x.device.type == "cpu":
        # Its norms would first make a float32 copy; its products accumulate in float32 as they are, many times as fast.
        square = torch.bmm(x[:, None], (x if times is None else x * times)[:, :, None])
    elif times is None:
        square = torch.linalg.vector_norm(x, dim=1, dtype=wide).square()
    else:
        square = x.to(wide).square() @ times.to(wide)
    return square.view(steps, batch).to(wide)


def input_squares(
    layer: nn.Module, input: Tensor, output: Tensor, batch: int, steps: Callable[[Tensor], Tensor] = every
) -> Tensor:
    """A_l by step: the squares of a layer's inputs, each as often as a patch takes it, and the bias's ones. [T, B].

    steps: which of the time steps, of [T, ...].
    """
    times = _patches(layer, input) if isinstance(layer, nn.Conv2d) else None
    x = steps(by_time(layer, input.detach(), batch))
    square_TB = squares(x, times, binary=getattr(input, SPIKES, False))
    if getattr(layer, "bias", None) is None:
        return square_TB
    return square_TB + by_time(layer, output, batch).shape[3:].numel()


def norm_input_squares(layer: nn.Module, input: Tensor, batch: int) -> Tensor:
    """Of batch norm: the normalised input's squares and a one (the shift's) for every position and step, of the channel
    where that is most. [1, B].

    With the batch's own statistics in training mode, with the running ones in evaluation mode.
    """
    x = input.detach().to(_wide_type(input))
    norm: Any = layer
    over = [d for d in range(x.dim()) if d != x.dim() - 3]
    mean_C, var_C = (
        (x.mean(over), x.var(over, correction=0)) if norm.training else (norm.running_mean, norm.running_var)
    )
    x = (x - mean_C[:, None, None]).square_() / (var_C + norm.eps)[:, None, None]
    square_BC = (x + 1).sum((-1, -2)).reshape(-1, batch, x.shape[-3]).sum(0)
    return square_BC.amax(1)[None]


def _patches(layer: nn.Conv2d, input: Tensor) -> Tensor | None:
    """How many patches of a convolution take each number of its input, [height x width x channels]; None: one each."""
    if layer.kernel_size == layer.stride == (1, 1):
        return None
    kind = layer.kernel_size, layer.dilation, layer.padding, layer.stride
    return _times_taken(*input.shape[-3:], *kind, input.dtype, input.device)


@cache
def _times_taken(
    channels: int, height: int, width: int, size: Any, dilation: Any, padding: Any, stride: Any, dtype: Any, device: Any
) -> Tensor:
    patches = unfold(torch.ones(1, 1, height, width), size, dilation, padding, stride)
    times_HW = fold(torch.ones_like(patches), (height, width), size, dilation, padding, stride)[0, 0]
    return times_HW[..., None].expand(-1, -1, channels).flatten().to(device, dtype)


def _fires_ones(layer: nn.Module) -> bool:
    """Whether its output is 0 or 1, and not graded."""
    surrogate: Any = getattr(layer, "surrogate_function", None)
    return isinstance(layer, IFNode | LIFNode | ParametricLIFNode) and getattr(surrogate, "spiking", False)


def _with_time(features: list[Tensor]) -> list[Tensor]:
    """[T, B, D] of one call for all steps, or of a call a step."""
    return features if features[0].dim() == 3 else [x.unsqueeze(0) for x in features]


def _wide_type(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _wide(x: Tensor) -> Tensor:
    return x.to(_wide_type(x))
