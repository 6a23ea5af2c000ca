"""Hooks that record signals from a network of the suite while it trains.

Shape letters: T time steps, B examples.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.capture.bound_ratio import bound_ratio, num_exact
from sadp_bench.capture.calls import CallSquares, with_time
from sadp_bench.capture.heads import linear_of_layer
from sadp_bench.capture.layer_shapes import by_time
from sadp_bench.capture.layers import spiking_layers, weight_layers
from sadp_bench.capture.middle_step import MiddleStep
from sadp_bench.capture.per_example_norms import Pair, joined
from sadp_bench.capture.signals import Signal
from sadp_bench.capture.spike_counts import SpikeCounts
from sadp_bench.capture.squared_norms import error_squares, fires_ones, input_squares, mark_spikes
from sadp_bench.core import distributed
from sadp_bench.core.precision import widened

SQUARES = frozenset(signal for signal in Signal if signal.endswith("_squares"))
OF_WEIGHTS = SQUARES | {Signal.BOUND_RATIO}
RECORDED = OF_WEIGHTS | {Signal.FEATURES, Signal.SPIKE_COUNTS}
Reads = list[tuple[Signal, bool]]  # Signals to read in a call, each with whether it is of the middle step alone.


class Recorder:
    """Records signals of one forward pass and the backward pass after it. Hooks exist within the context only.

    The network takes [T, B, C, H, W] or [B, C, H, W]. It calls a layer once for all time steps, or once for each step. A
    batch begins with the network's forward pass, and the newest pass counts. `LoopRecorder` records from other loops.

    Args:
        model: The network.
        signals: The signals to record. `note_loss` records the logits' errors, and hooks record all others.

    Attributes:
        at_middle: Whether calls may be of the middle time step; only such calls are read for that step's signals. A loop
            that calls the layers step by step sets it in each step, and watching then costs a T-th. Each batch begins with
            True.
        spikes: The spike counts.
    """

    def __init__(self, model: nn.Module, signals: Iterable[str]) -> None:
        self.model = model
        self.signals = frozenset(signals) & RECORDED
        self.at_middle = True
        self.spikes = SpikeCounts(model)
        self._layers = weight_layers(model)
        self._head_of_layer = linear_of_layer(model)
        self._input_reads = self._reads(Signal.INPUT_SQUARES, Signal.MIDDLE_INPUT_SQUARES)
        self._error_reads = self._reads(Signal.ERROR_SQUARES, Signal.MIDDLE_ERROR_SQUARES)
        self._notes_errors = Signal.LOGIT_ERRORS in frozenset(signals)
        self._error_TBC: Tensor | None = None
        self._measures = Signal.BOUND_RATIO in self.signals  # True if the coming batch is measured
        self._batch = self._num_exact = 0
        self._features: list[Tensor] = []
        self._squares, self._middle = CallSquares(), MiddleStep()
        self._pairs: dict[nn.Module, dict[int, Pair]] | None = None
        self._handles: list[Any] = []

    def _reads(self, of_every: Signal, of_middle: Signal) -> dict[bool, Reads]:
        """Returns which of two signals are read in a call, by whether the call may be of the middle step."""
        every = [(of_every, False)] if of_every in self.signals else []
        middle = [(of_middle, True)] if of_middle in self.signals else []
        return {True: every + middle, False: every}

    def __enter__(self) -> Recorder:
        hooked = self._handles.append
        if self.signals:
            hooked(self.model.register_forward_pre_hook(self._begin))
        if Signal.FEATURES in self.signals:
            readout: Any = self.model.readout
            hooked(readout.register_forward_pre_hook(lambda module, inputs: self._features.append(inputs[0].detach())))
        if Signal.SPIKE_COUNTS in self.signals:
            self._handles += self.spikes.hook()
        if self.signals & OF_WEIGHTS:
            for layer in filter(fires_ones, spiking_layers(self.model)):
                hooked(layer.register_forward_hook(mark_spikes))
            for layer in self._layers:
                hooked(layer.register_forward_hook(self._record))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def note_loss(self, logits_TBC: Tensor, loss_B: Tensor) -> None:
        """Records the logits' errors, if they are watched. Call it before the backward pass, which frees the loss's graph."""
        if self._notes_errors:
            self._error_TBC = torch.autograd.grad(loss_B.sum(), logits_TBC, retain_graph=True)[0]

    def seen(self, scale_B: Tensor | None = None) -> dict[str, Tensor]:
        """Returns the batch's signals, detached: float32, or float64 for a float64 network.

        Args:
            scale_B: The factor of each example's loss before the backward pass; errors are divided by it.
        """
        seen: dict[str, Tensor] = {}
        if self._features:
            seen[Signal.FEATURES] = widened(joined(with_time(self._features)))
        if Signal.SPIKE_COUNTS in self.signals:
            seen[Signal.SPIKE_COUNTS] = self.spikes.total(self._batch)
        if self._error_TBC is not None:
            seen[Signal.LOGIT_ERRORS] = self._error_TBC
        seen |= self._squares.sums(self._layers, scale_B)
        if self._head_of_layer and self._error_TBC is not None:
            seen |= self._head_errors(seen, self._error_TBC)
        if self._pairs is not None:
            seen[Signal.BOUND_RATIO] = bound_ratio(self._layers, self._pairs, self._num_exact, scale_B)
        return seen

    def _head_errors(self, seen: dict[str, Tensor], error_TBC: Tensor) -> dict[str, Tensor]:
        error_LB = seen.get(Signal.MIDDLE_ERROR_SQUARES, seen.get(Signal.ERROR_SQUARES))
        if error_LB is None:
            return {}
        of_layer = dict(zip(self._layers, error_LB, strict=True))
        of_readout_B = error_TBC.square().sum((0, 2)).to(error_LB.dtype)
        heads = map(self._head_of_layer.get, self._layers)
        return {Signal.HEAD_ERRORS: torch.stack([of_layer[head] if head else of_readout_B for head in heads])}

    def _begin(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        for kept in (self._features, self.spikes, self._squares):
            kept.clear()
        self.at_middle = True
        self._batch = inputs[0].shape[-4]
        self._pairs = {} if self._measures and torch.is_grad_enabled() else None
        self._measures &= not torch.is_grad_enabled()
        if self._pairs is not None:
            self._num_exact = num_exact(self._batch, int(distributed.total(torch.tensor(self._batch))))

    def _record(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Records a forward call, and registers a hook that records its error."""
        input, call = inputs[0], self._squares.next_call(layer)
        for signal, of_middle in self._input_reads[self.at_middle]:
            read = self._middle.input_squares if of_middle else input_squares
            self._squares.note(signal, layer, call, read(layer, input, output, self._batch))
        reads = self._error_reads[self.at_middle]
        if output.requires_grad and (reads or self._pairs is not None):
            held = None if self._pairs is None else input.detach()
            output.register_hook(partial(self._record_error, layer, call, held, reads))

    def _record_error(self, layer: nn.Module, call: int, input: Tensor | None, reads: Reads, error: Tensor) -> None:
        for signal, of_middle in reads:
            read = self._middle.error_squares if of_middle else error_squares
            self._squares.note(signal, layer, call, read(layer, error, self._batch))
        if self._pairs is not None and input is not None:
            a, d = (by_time(layer, x, self._batch)[:, : self._num_exact].clone() for x in (input, error))
            self._pairs.setdefault(layer, {})[call] = a, d
