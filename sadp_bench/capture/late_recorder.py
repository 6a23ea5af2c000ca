"""Taps on a network that someone else's loop calls: in its own way, with batches whose size is known when all is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from sadp_bench.capture.layer_shapes import arranged, by_time, channels_last, multi_step, num_features
from sadp_bench.capture.per_example_norms import Pair
from sadp_bench.capture.recorder import MAX_EXACT, OF_WEIGHTS, Taps
from sadp_bench.capture.squared_norms import are_spikes, every, middle, squares, squares_of_input
from sadp_bench.core import distributed
from sadp_bench.core.errors import BadInput

LATE = frozenset(OF_WEIGHTS | {"spike_counts"})


class LateTaps(Taps):
    """`Taps` whose calls accumulate until `seen`, where the batch's size is told.

    Loops that step through time outside of the network call it T times a batch. What counts is a call of a layer to which a
    gradient came back, and for "spike_counts" one in training mode with gradients on: evaluation passes never get in.

    time_first: how steps, examples and tokens lie where the shape alone does not say, see `layers.arranged`. Where it does
    (SpikingJelly's multi-step layers) the middle step is read alone; elsewhere all are, and the middle is taken in the end:
    the same numbers, at T times the cost. expected: the coming batch's size, if it is known before its backward pass; then
    "bound_ratio" holds on to a few examples, and not to the inputs and errors of all. measures: whether it does so in the
    coming batch: the first one. half: whether an error came in float16, which a loss scale may overflow.
    """

    def __init__(
        self, model: nn.Module, names: Iterable[str], layers: Sequence[nn.Module], time_first: bool | None
    ) -> None:
        super().__init__(model, frozenset(names) & LATE, layers)
        self.time_first = time_first
        self.expected: int | None = None
        self.measures = "bound_ratio" in self.names  # in the coming batch
        self.half = False
        self._twice = False
        self._timed: set[nn.Module] = set()  # layers whose input is [T, B, ...] by its shape
        self._held: dict[nn.Module, dict[int, tuple[Tensor, Tensor, int | None]]] = {}

    def __enter__(self) -> LateTaps:
        self._hook_layers()
        return self

    def seen(self, scale_B: Tensor | None = None, batch: int = 0) -> dict[str, Tensor]:
        """As `Taps.seen`, of all calls since the one before. Raises BadInput where they do not fit a batch of this size."""
        try:
            if self._twice:
                raise BadInput("the batch's backward pass came twice: add its losses up, and call backward once")
            self._batch = batch
            for name, of_layers in self._squares.items():
                steps = middle if name.startswith("middle_") else every
                for layer, calls in of_layers.items():
                    for call, square in calls.items():
                        square_TBn = self._in_time(layer, square, 0)
                        calls[call] = steps(square_TBn.reshape(*square_TBn.shape[:2], -1).sum(2))
            trained = any(map(_trains, self.layers))
            if not trained:
                self._squares.clear()
            elif self.measures and self.expected in (None, batch):
                self._pairs, self.measures = self._first_examples(), False
            seen = super().seen(scale_B)
            if not trained:  # but the readout: logistic regression, or a network that is frozen up to there
                zero_LB = torch.zeros(len(self.layers), batch)
                zero_LB = zero_LB if scale_B is None else zero_LB.to(scale_B)
                seen |= dict.fromkeys(self.names & OF_WEIGHTS - {"bound_ratio"}, zero_LB)
            return seen
        finally:
            self.forget()

    def forget(self) -> None:
        """Drops all that was noted since `seen`."""
        self._clear()
        self._held.clear()
        self._pairs, self.expected, self._twice = None, None, False

    def _listening(self) -> bool:
        return self.model.training and torch.is_grad_enabled()

    def _see_weights(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not (self._listening() and output.requires_grad and _trains(layer)):
            return
        input, binary, call = inputs[0].detach(), are_spikes(inputs[0]), self._next_call(layer)
        output.register_hook(lambda error: self._see_pair(layer, call, input, error.detach(), binary))

    def _see_pair(self, layer: nn.Module, call: int, input: Tensor, error: Tensor, binary: bool) -> None:
        lead = input.dim() - num_features(layer, input)
        if lead > 1 and (multi_step(layer) or not isinstance(layer, nn.Linear)):
            self._timed.add(layer)
        self.half |= error.dtype == torch.float16
        with torch.autocast(error.device.type, enabled=False):  # where the loop goes backward within one
            for name, steps in (("", every), ("middle_", middle if layer in self._timed else every)):
                if f"{name}input_squares" in self.names:
                    square = squares_of_input(layer, steps(input), error, lead, binary, channels_last(input))
                    self._note(f"{name}input_squares", layer, call, square)
                if f"{name}error_squares" in self.names:
                    self._note(
                        f"{name}error_squares", layer, call, squares(steps(error), lead, last=channels_last(error))
                    )
        if self.measures:
            self._held.setdefault(layer, {})[call] = self._some(layer, input, error)

    def _note(self, name: str, layer: nn.Module, call: int, square_TB: Tensor) -> None:
        self._twice |= call in self._squares.get(name, {}).get(layer, {})
        super()._note(name, layer, call, square_TB)

    def _some(self, layer: nn.Module, input: Tensor, error: Tensor) -> tuple[Tensor, Tensor, int | None]:
        """[T, b, ...] of the first b examples, and b; or all as it is, where the batch is not known or does not fit."""
        if self.expected is not None:
            try:
                time_first = layer in self._timed or self.time_first
                first = [by_time(layer, x, self.expected, time_first)[:, :MAX_EXACT] for x in (input, error)]
                return first[0].clone(), first[1].clone(), first[0].shape[1]
            except BadInput:
                pass
        return input, error, None

    def _first_examples(self) -> dict[nn.Module, dict[int, Pair]]:
        self._of_all_ranks = int(distributed.total(torch.tensor(self._batch)))
        number, pairs = self._num_exact(), dict[nn.Module, dict[int, Pair]]()
        for layer, calls in self._held.items():
            found: dict[int, Pair] = {}
            for call, (input, error, known) in sorted(calls.items()):
                features = num_features(layer, input)
                a, d = (x if known else self._in_time(layer, x, features) for x in (input, error))
                # A layer may be shared by places of different sizes: one of them tells its bound_ratio.
                if not found or a.shape[2:] == next(iter(found.values()))[0].shape[2:]:
                    found[call] = a[:, :number], d[:, :number]
            pairs[layer] = found
        return pairs

    def _in_time(self, layer: nn.Module, x: Tensor, features: int) -> Tensor:
        try:
            return arranged(x, features, self._batch, layer in self._timed or self.time_first)
        except BadInput as error:
            name = next(name for name, module in self.model.named_modules() if module is layer)
            raise BadInput(f"the layer '{name}': {error}") from None


def _trains(layer: nn.Module) -> bool:
    return next(layer.parameters()).requires_grad
