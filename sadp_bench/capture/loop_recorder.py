"""Hooks that record signals from any network in any training loop.

Shape letters: T time steps, B examples, L weight layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.capture.bound_ratio import MAX_EXACT, bound_ratio, num_exact
from sadp_bench.capture.calls import CallSquares
from sadp_bench.capture.example_rows import ExampleRows
from sadp_bench.capture.layer_shapes import arranged, multi_step, num_features
from sadp_bench.capture.layers import spiking_layers, trains
from sadp_bench.capture.per_example_norms import Pair
from sadp_bench.capture.recorder import OF_WEIGHTS, RECORDED, SQUARES
from sadp_bench.capture.signals import Signal
from sadp_bench.capture.spike_counts import SpikeCounts
from sadp_bench.capture.squared_norms import are_spikes, fires_ones, mark_spikes, middle, squares, squares_of_input
from sadp_bench.core import distributed
from sadp_bench.core.errors import BadInput

# A call's input and error, and whether they are [T, b, ...], of the first b examples.
Held = tuple[Tensor, Tensor, bool]


class LoopRecorder:
    """Records signals of a batch of any training loop. Hooks exist from `hook` to `unhook`.

    The loop may step through time outside of the network, with T calls a batch and a backward pass for each. Calls
    accumulate until `seen`, which receives the batch's size. A call counts in training mode with gradients on, if a
    gradient arrives at the layer. So evaluation passes are not recorded. `layer_shapes.arranged` finds the examples'
    dimension. If a layer's shape shows time (SpikingJelly's multi-step layers), only its middle step is read. Otherwise
    all steps are read, and the middle one is selected at the end. The numbers are the same, at T times the cost. Features
    are not recorded.

    Args:
        model: The network.
        signals: The signals to record. Signals that hooks don't record, such as the logits' errors, are ignored.
        layers: The L layers.
        rows: The order of examples and time in rows whose shape leaves it open.

    Attributes:
        layers: The L layers, without one that turns out to be the readout.
        half: Whether an error was float16, which may overflow under a loss scale.
    """

    def __init__(
        self, model: nn.Module, signals: Iterable[str], layers: Sequence[nn.Module], rows: ExampleRows
    ) -> None:
        self.model = model
        self.signals = frozenset(signals) & RECORDED - {Signal.FEATURES}
        self.layers = list(layers)
        self.rows = rows
        self.half = False
        self._begins = True  # Whether the coming batch is the first.
        self._measures = Signal.BOUND_RATIO in self.signals  # True if the coming batch is measured
        self._expected: int | None = None
        self._spikes = SpikeCounts(model, self._counts)
        self._squares = CallSquares()
        self._held: dict[nn.Module, dict[int, Held]] = {}
        self._timed: set[nn.Module] = set()  # layers whose input has the shape [T, B, ...]
        self._handles: list[Any] = []

    def hook(self) -> None:
        """Registers the hooks."""
        if Signal.SPIKE_COUNTS in self.signals:
            self._handles += self._spikes.hook()
        if self.signals & OF_WEIGHTS:
            for layer in filter(fires_ones, spiking_layers(self.model)):
                self._handles.append(layer.register_forward_hook(mark_spikes))
            self._handles += self.rows.hook()
            for layer in self.layers:
                self._handles.append(layer.register_forward_hook(self._record))

    def unhook(self) -> None:
        """Removes the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def expect(self, batch: int) -> None:
        """Receives the coming batch's size before its backward pass. The bound ratio then holds only a few examples."""
        self._expected = batch

    def measure_again(self) -> None:
        """Measures the bound ratio in the coming batch too."""
        self._measures = True

    def forget(self) -> None:
        """Drops all records since the last `seen`."""
        for kept in (self._spikes, self._squares, self._held):
            kept.clear()
        self.rows.forget()
        self._expected = None

    def seen(self, scale_B: Tensor | None, batch: int) -> dict[str, Tensor]:
        """Returns the signals of the newest batch, detached: float32, or float64 for a float64 network.

        Args:
            scale_B: The factor of each example's loss before the backward pass; errors are divided by it.
            batch: The batch's size, B.

        Raises:
            BadInput: Calls do not fit a batch of this size, or the backward pass came twice.
        """
        try:
            return self._signals(scale_B, batch)
        finally:
            self.forget()

    def _signals(self, scale_B: Tensor | None, batch: int) -> dict[str, Tensor]:
        if self._squares.twice:
            raise BadInput("the batch's backward pass came twice: add its losses up, and call backward once")
        self._begins = False
        self.rows.settle(batch)
        self._settle_squares(batch)
        seen: dict[str, Tensor] = {}
        if Signal.SPIKE_COUNTS in self.signals and self._spikes.any:
            seen[Signal.SPIKE_COUNTS] = self._spikes.total(batch)
        if not any(
            map(trains, self.layers)
        ):  # Only the readout trains, as in logistic regression or behind frozen layers.
            zero_LB = torch.zeros(len(self.layers), batch)
            zero_LB = zero_LB if scale_B is None else zero_LB.to(scale_B)
            return seen | dict.fromkeys(self.signals & SQUARES, zero_LB)
        seen |= self._squares.sums(self.layers, scale_B)
        if self._measures and self._expected in (None, batch):
            self._measures = False
            number = num_exact(batch, int(distributed.total(torch.tensor(batch))))
            seen[Signal.BOUND_RATIO] = bound_ratio(self.layers, self._first_examples(batch, number), number, scale_B)
        return seen

    def _settle_squares(self, batch: int) -> None:
        """Arranges the squares of all calls as [T, B], or as [B] for a signal of the middle time step."""
        for name, of_layers in self._squares.by_signal.items():
            for layer in [layer for layer in of_layers if layer not in self.layers]:
                del of_layers[layer]  # The readout, whose gradient is known exactly.
            for layer, calls in of_layers.items():
                for call, square in calls.items():
                    square_TBn = self._in_time(layer, square, 0, batch)
                    square_TB = square_TBn.reshape(*square_TBn.shape[:2], -1).sum(2)
                    calls[call] = middle(square_TB) if name.startswith("middle_") else square_TB

    def _counts(self) -> bool:
        """Returns whether a forward pass counts."""
        return self.model.training and torch.is_grad_enabled()

    def _record(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Registers a hook that records the call when its gradient arrives."""
        if not (self._counts() and output.requires_grad and trains(layer)):
            return
        if self._begins:
            self.rows.add(layer, output)
        input, binary, call = inputs[0].detach(), are_spikes(inputs[0]), self._squares.next_call(layer)

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
        with torch.autocast(error.device.type, enabled=False):  # The loop's backward pass may run in autocast.
            for prefix, alone in (("", False), ("middle_", layer in self._timed)):
                if f"{prefix}input_squares" in self.signals:
                    read = middle(input)[None] if alone else input
                    square = squares_of_input(layer, read, error, lead, binary)
                    self._squares.note(f"{prefix}input_squares", layer, call, square)
                if f"{prefix}error_squares" in self.signals:
                    square = squares(middle(error)[None] if alone else error, lead)
                    self._squares.note(f"{prefix}error_squares", layer, call, square)
        if self._measures:
            self._held.setdefault(layer, {})[call] = self._some(layer, input, error)

    def _some(self, layer: nn.Module, input: Tensor, error: Tensor) -> Held:
        """Returns the first examples' input and error; those of all examples, unchanged, if the batch's size is unknown."""
        if self._expected is not None:
            try:
                features = num_features(layer, input)
                a, d = (self._arranged(layer, x, features, self._expected)[:, :MAX_EXACT] for x in (input, error))
                return a.clone(), d.clone(), True
            except BadInput:
                pass
        return input, error, False

    def _first_examples(self, batch: int, number: int) -> dict[nn.Module, dict[int, Pair]]:
        pairs: dict[nn.Module, dict[int, Pair]] = {}
        for layer, calls in self._held.items():
            if layer not in self.layers:
                continue
            found: dict[int, Pair] = {}
            for call, (input, error, is_arranged) in sorted(calls.items()):
                features = num_features(layer, input)
                a, d = (x if is_arranged else self._in_time(layer, x, features, batch) for x in (input, error))
                # Calls of a shared layer may differ in size. The bound ratio uses the first size.
                if not found or a.shape[2:] == next(iter(found.values()))[0].shape[2:]:
                    found[call] = a[:, :number], d[:, :number]
            pairs[layer] = found
        return pairs

    def _in_time(self, layer: nn.Module, x: Tensor, features: int, batch: int) -> Tensor:
        try:
            return self._arranged(layer, x, features, batch)
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
