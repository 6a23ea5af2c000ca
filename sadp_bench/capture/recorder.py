"""Hooks that record signals from a network while it trains.

Shape letters: T time steps, B examples, S spiking layers, L weight layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.capture.bound_ratio import MAX_EXACT, bound_ratio, num_exact
from sadp_bench.capture.calls import Calls, calls_in_order, layer_sums, with_time
from sadp_bench.capture.example_rows import ExampleRows
from sadp_bench.capture.layer_shapes import arranged, by_time, multi_step, num_features
from sadp_bench.capture.layers import spiking_layers, trains, weight_layers
from sadp_bench.capture.per_example_norms import Pair, joined
from sadp_bench.capture.signals import Signal
from sadp_bench.capture.squared_norms import (
    are_spikes,
    error_squares,
    every,
    fires_ones,
    input_squares,
    mark_spikes,
    middle,
    squares,
    squares_of_input,
)
from sadp_bench.core import distributed
from sadp_bench.core.errors import BadInput
from sadp_bench.core.precision import widened

SQUARES = frozenset(signal for signal in Signal if signal.endswith("_squares"))
OF_WEIGHTS = SQUARES | {Signal.BOUND_RATIO}
Steps = Callable[[Tensor], Tensor]  # Selects time steps of [T, ...]
RECORDED = OF_WEIGHTS | {Signal.FEATURES, Signal.SPIKE_COUNTS}


class Recorder:
    """Records signals of one forward pass and the backward pass after it. Hooks exist within the context only.

    A layer may be called once for all time steps, or once for each step. There are two ways to delimit a batch:

    - The suite's networks take [T, B, C, H, W] or [B, C, H, W]. The batch begins with the forward pass, the input has its
      size, and the newest pass counts.
    - Other loops (`of_any_loop`) may step through time outside of the network, with T calls a batch. Calls accumulate until
      `seen`, which receives the batch's size. A call counts in training mode with gradients on; a layer's call counts only
      if a gradient comes back. So evaluation passes are not recorded. `layer_shapes.arranged` finds the examples'
      dimension. If a layer's shape shows time (SpikingJelly's multi-step layers), only its middle step is read. Otherwise
      all steps are read, and the middle is taken at the end: the same numbers, at T times the cost.

    Args:
        model: The network.
        signals: The signals to record. Signals that hooks don't record, such as the logits' errors, are ignored.
        layers: The L layers; by default all weight layers but `model.readout`.
        of_any_loop: Whether calls accumulate until `seen`. Features are then not recorded.
        rows: The order of examples and time in rows whose shape leaves it open.

    Attributes:
        neurons_S: Number of neurons of each spiking layer that was called.
        half: Whether an error came in float16, which a loss scale may overflow.
    """

    def __init__(
        self,
        model: nn.Module,
        signals: Iterable[str],
        layers: Sequence[nn.Module] | None = None,
        *,
        of_any_loop: bool = False,
        rows: ExampleRows | None = None,
    ) -> None:
        self.model = model
        self.signals = frozenset(signals) & (RECORDED - {Signal.FEATURES} if of_any_loop else RECORDED)
        self.layers = weight_layers(model) if layers is None else list(layers)
        self.of_any_loop = of_any_loop
        self.rows = ExampleRows(model) if rows is None else rows
        self.neurons_S: list[int] = []
        self.half = False
        self._begins = True  # Whether the coming batch is the first.
        self._measures = Signal.BOUND_RATIO in self.signals  # True if the coming batch is measured
        self._is_middle = True  # Whether calls may be those of the middle step
        self._expected: int | None = None
        self._batch = self._of_all_ranks = 0
        self._features: list[Tensor] = []
        self._count_STB: dict[int, dict[int, Tensor]] = {}  # by layer and call: [t, B]
        self._squares: dict[str, Calls] = {}  # by signal, layer and call: [t, B]
        self._pairs: dict[nn.Module, dict[int, Pair]] | None = None
        self._held: dict[nn.Module, dict[int, tuple[Tensor, Tensor, int | None]]] = {}
        self._timed: set[nn.Module] = set()  # layers whose input has the shape [T, B, ...]
        self._num_calls: dict[nn.Module, int] = {}
        self._twice = False
        self._handles: list[Any] = []

    def __enter__(self) -> Recorder:
        hooked = self._handles.append
        if self.signals and not self.of_any_loop:
            hooked(self.model.register_forward_pre_hook(self._begin))
        if Signal.FEATURES in self.signals:
            readout: Any = self.model.readout
            hooked(readout.register_forward_pre_hook(lambda module, inputs: self._features.append(inputs[0].detach())))
        if Signal.SPIKE_COUNTS in self.signals:
            layers = spiking_layers(self.model)
            self.neurons_S = [0] * len(layers)
            for place, layer in enumerate(layers):
                hooked(layer.register_forward_hook(self._spike_counter(place)))
        if self.signals & OF_WEIGHTS:
            for layer in filter(fires_ones, spiking_layers(self.model)):
                hooked(layer.register_forward_hook(mark_spikes))
            if self.of_any_loop:
                self._handles += self.rows.hook()
            for layer in self.layers:
                hooked(layer.register_forward_hook(self._record_later if self.of_any_loop else self._record_now))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def expect(self, batch: int) -> None:
        """Receives the coming batch's size before its backward pass; the bound ratio then holds only a few examples."""
        self._expected = batch

    @contextmanager
    def step(self, is_middle: bool) -> Iterator[None]:
        """Receives that the network is called for a single time step within the context.

        Signals of the middle step are read at the middle step alone, so that watching costs a T-th.

        Args:
            is_middle: Whether it is the middle one of the steps that give gradients.
        """
        self._is_middle = is_middle
        try:
            yield
        finally:
            self._is_middle = True

    def measure_again(self) -> None:
        """Measures the bound ratio in the coming batch too."""
        self._measures = True

    def forget(self) -> None:
        """Drops all records since the last `seen`."""
        self._clear()
        self._held.clear()
        self.rows.forget()
        self._pairs, self._expected, self._twice = None, None, False

    def seen(self, scale_B: Tensor | None = None, batch: int | None = None) -> dict[str, Tensor]:
        """Returns the batch's signals: float32 (float64 where the network is), detached.

        Args:
            scale_B: The factor of each example's loss before the backward pass; errors are divided by it.
            batch: The batch's size, if the recorder is `of_any_loop`.

        Raises:
            BadInput: Calls do not fit a batch of this size, or the backward pass came twice.
        """
        if not self.of_any_loop:
            return self._signals(scale_B)
        try:
            return self._accumulated(scale_B, batch or 0)
        finally:
            self.forget()

    def _signals(self, scale_B: Tensor | None) -> dict[str, Tensor]:
        seen: dict[str, Tensor] = {}
        if self._features:
            seen[Signal.FEATURES] = widened(joined(with_time(self._features)))
        if Signal.SPIKE_COUNTS in self.signals and (self._count_STB or not self.of_any_loop):
            seen[Signal.SPIKE_COUNTS] = self._spike_counts()
        for name in self._squares:
            seen[name] = layer_sums(name, self._squares, self.layers)
            if "error" in name and scale_B is not None:
                seen[name] /= scale_B.square()
        if self._pairs is not None:
            number = num_exact(self._batch, self._of_all_ranks)
            seen[Signal.BOUND_RATIO] = bound_ratio(self.layers, self._pairs, number, scale_B)
        return seen

    def _accumulated(self, scale_B: Tensor | None, batch: int) -> dict[str, Tensor]:
        if self._twice:
            raise BadInput("the batch's backward pass came twice: add its losses up, and call backward once")
        self._batch, self._begins = batch, False
        self.rows.settle(batch)
        for name, of_layers in self._squares.items():
            steps = middle if name.startswith("middle_") else every
            for layer in [layer for layer in of_layers if layer not in self.layers]:
                del of_layers[layer]  # The readout, whose gradient is known exactly.
            for layer, calls in of_layers.items():
                for call, square in calls.items():
                    square_TBn = self._in_time(layer, square, 0)
                    calls[call] = steps(square_TBn.reshape(*square_TBn.shape[:2], -1).sum(2))
        trained = any(map(trains, self.layers))
        if not trained:
            self._squares.clear()
        elif self._measures and self._expected in (None, batch):
            self._pairs, self._measures = self._first_examples(), False
        seen = self._signals(scale_B)
        if not trained:  # Only the readout trains, as in logistic regression or behind frozen layers.
            zero_LB = torch.zeros(len(self.layers), batch)
            zero_LB = zero_LB if scale_B is None else zero_LB.to(scale_B)
            seen |= dict.fromkeys(self.signals & SQUARES, zero_LB)
        return seen

    def _clear(self) -> None:
        for kept in (self._features, self._count_STB, self._squares, self._num_calls):
            kept.clear()

    def _begin(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._clear()
        self._batch = inputs[0].shape[-4]
        self._pairs = {} if self._measures and torch.is_grad_enabled() else None
        self._measures = False
        if self._pairs is not None:
            self._of_all_ranks = int(distributed.total(torch.tensor(self._batch)))

    def _counts(self) -> bool:
        """Returns whether a forward pass counts."""
        return not self.of_any_loop or (self.model.training and torch.is_grad_enabled())

    def _spike_counter(self, place: int) -> Any:
        def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
            if self._counts():
                spikes = output if isinstance(output, Tensor) else output[0]
                spikes = spikes.detach() if multi_step(layer) else spikes.detach()[None]
                count_TB = spikes.reshape(*spikes.shape[:2], -1).sum(2, dtype=torch.float32)
                self._count_STB.setdefault(place, {})[self._next_call(layer)] = count_TB
                self.neurons_S[place] = spikes[0, 0].numel()

        return count

    def _spike_counts(self) -> Tensor:
        """Returns the spike counts, [S, T, B]; 0 for layers that were not called."""
        rows = {place: calls_in_order(calls) for place, calls in self._count_STB.items()}
        device = next(self.model.parameters()).device
        nothing_TB = torch.zeros_like(next(iter(rows.values()), torch.zeros(1, self._batch, device=device)))
        return torch.stack([rows.get(place, nothing_TB) for place in range(len(self.neurons_S))])

    def _record_now(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Records a call of a network whose batch size is known."""
        input, call = inputs[0], self._next_call(layer)
        for signal, steps in self._read(Signal.INPUT_SQUARES, Signal.MIDDLE_INPUT_SQUARES):
            self._note(signal, layer, call, input_squares(layer, input, output, self._batch, steps))
        errors = self._read(Signal.ERROR_SQUARES, Signal.MIDDLE_ERROR_SQUARES)
        if output.requires_grad and (errors or self._pairs is not None):
            output.register_hook(partial(self._record_error, layer, call, input.detach(), errors))

    def _read(self, of_every: Signal, of_middle: Signal) -> list[tuple[Signal, Steps]]:
        """Returns those of two signals that the present call shows, and the time steps that they sum over."""
        read = {of_every: every} | ({of_middle: middle} if self._is_middle else {})
        return [(signal, steps) for signal, steps in read.items() if signal in self.signals]

    def _record_error(
        self, layer: nn.Module, call: int, input: Tensor, signals: list[tuple[Signal, Steps]], error: Tensor
    ) -> None:
        for signal, steps in signals:
            self._note(signal, layer, call, error_squares(layer, error, self._batch, steps))
        if self._pairs is not None:
            number = num_exact(self._batch, self._of_all_ranks)
            first = [by_time(layer, x, self._batch)[:, :number].clone() for x in (input, error)]
            self._pairs.setdefault(layer, {})[call] = first[0], first[1]

    def _record_later(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Records a call of a network whose batch size is still unknown, when its gradient comes back."""
        if not (self._counts() and output.requires_grad and trains(layer)):
            return
        if self._begins:
            self.rows.add(layer, output)
        input, binary, call = inputs[0].detach(), are_spikes(inputs[0]), self._next_call(layer)

        def record_error(error: Tensor) -> None:
            if not self.rows.looking:
                self._record_pair(layer, call, input, error.detach(), binary)

        output.register_hook(record_error)

    def _record_pair(self, layer: nn.Module, call: int, input: Tensor, error: Tensor, binary: bool) -> None:
        lead = input.dim() - num_features(layer, input)
        if (
            lead > 1
            and (multi_step(layer) or not isinstance(layer, nn.Linear))
            and self.rows.time_first.get(layer, True)
        ):
            self._timed.add(layer)
        self.half |= error.dtype == torch.float16
        with torch.autocast(error.device.type, enabled=False):  # The loop may go backward in autocast.
            for prefix, steps in (("", every), ("middle_", middle if layer in self._timed else every)):
                if f"{prefix}input_squares" in self.signals:
                    square = squares_of_input(layer, steps(input), error, lead, binary)
                    self._note(f"{prefix}input_squares", layer, call, square)
                if f"{prefix}error_squares" in self.signals:
                    square = squares(steps(error), lead)
                    self._note(f"{prefix}error_squares", layer, call, square)
        if self._measures:
            self._held.setdefault(layer, {})[call] = self._some(layer, input, error)

    def _some(self, layer: nn.Module, input: Tensor, error: Tensor) -> tuple[Tensor, Tensor, int | None]:
        """Returns input and error, [T, b, ...], and b; of a batch of unknown size all examples, unchanged, and None."""
        if self._expected is not None:
            try:
                features = num_features(layer, input)
                first = [self._arranged(layer, x, features, self._expected)[:, :MAX_EXACT] for x in (input, error)]
                return first[0].clone(), first[1].clone(), first[0].shape[1]
            except BadInput:
                pass
        return input, error, None

    def _first_examples(self) -> dict[nn.Module, dict[int, Pair]]:
        self._of_all_ranks = int(distributed.total(torch.tensor(self._batch)))
        number, pairs = num_exact(self._batch, self._of_all_ranks), dict[nn.Module, dict[int, Pair]]()
        for layer, calls in self._held.items():
            if layer not in self.layers:
                continue
            found: dict[int, Pair] = {}
            for call, (input, error, known) in sorted(calls.items()):
                features = num_features(layer, input)
                a, d = (x if known else self._in_time(layer, x, features) for x in (input, error))
                # Calls of a shared layer may differ in size: the bound ratio is that of the first size.
                if not found or a.shape[2:] == next(iter(found.values()))[0].shape[2:]:
                    found[call] = a[:, :number], d[:, :number]
            pairs[layer] = found
        return pairs

    def _in_time(self, layer: nn.Module, x: Tensor, features: int) -> Tensor:
        try:
            return self._arranged(layer, x, features, self._batch)
        except BadInput as error:
            name = next(name for name, module in self.model.named_modules() if module is layer)
            raise BadInput(f"the layer '{name}': {error}") from None

    def _arranged(self, layer: nn.Module, x: Tensor, features: int, batch: int) -> Tensor:
        lead = x.shape[: x.dim() - features]
        if layer in self.rows.unclear:
            raise BadInput(
                f"its rows, {list(lead)} for {batch} examples, are neither [T * B] nor [B * T]: give it [T, B, ...] or "
                "[T * B, ...], with tokens in a dimension of their own"
            )
        return arranged(x, features, batch, layer in self._timed or self.rows.order(layer, lead, batch))

    def _next_call(self, layer: nn.Module) -> int:
        self._num_calls[layer] = self._num_calls.get(layer, 0) + 1
        return self._num_calls[layer]

    def _note(self, name: str, layer: nn.Module, call: int, square_TB: Tensor) -> None:
        """Keeps the squares of a call. Calls come in order forward, and in the reverse order backward."""
        self._twice |= call in self._squares.get(name, {}).get(layer, {})
        self._squares.setdefault(name, {}).setdefault(layer, {})[call] = square_TB
