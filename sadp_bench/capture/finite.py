"""A check that a network's numbers are finite: its parameters and buffers, its input, membranes and logits.

A spiking neuron turns NaN into "no spike", so the loss stays finite where weights and membranes are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.capture.layers import spiking_layers
from sadp_bench.core import distributed

SHOWN = 3  # places that a message names


class FiniteWatch:
    """Records where a network's numbers are NaN or infinite. Only `places` waits for the device.

    A buffer that is infinite when the watch is made is taken for a constant, such as an attention's mask. It is not watched.

    Args:
        model: The network, on its device.
    """

    def __init__(self, model: nn.Module) -> None:
        buffers = {name: value for name, value in model.named_buffers() if _is_inexact(value)}
        constant = torch.stack([value.isinf().any() for value in buffers.values()]).tolist() if buffers else []
        self._buffers = [name for name, is_constant in zip(buffers, constant, strict=True) if not is_constant]
        self._model = model
        neurons = set(spiking_layers(model))
        self._neurons = {name: module for name, module in model.named_modules() if module in neurons}
        self._flows = ["the input", *(f"the membranes of {name}" for name in self._neurons), "the logits"]
        device = next((parameter.device for parameter in model.parameters()), None)
        self._bad = torch.zeros(len(self._flows), dtype=torch.int32, device=device)

    @contextmanager
    def passes(self) -> Iterator[None]:
        """Watches the input, the neurons' currents and membranes, and the logits of all passes within the context."""
        hooks = [self._model.register_forward_pre_hook(lambda _, inputs: self._note(0, *inputs))]
        for place, neuron in enumerate(self._neurons.values(), 1):
            hooks.append(neuron.register_forward_hook(partial(self._note_neuron, place)))
        hooks.append(self._model.register_forward_hook(lambda _, __, logits: self._note(-1, logits)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _note_neuron(self, place: int, neuron: nn.Module, inputs: tuple[Any, ...], _: Any) -> None:
        self._note(place, *inputs, *(getattr(neuron, name, None) for name in ("v", "mem")))

    def _note(self, place: int, *values: Any) -> None:
        for value in values:
            if isinstance(value, Tensor) and _is_inexact(value):
                self._bad[place] += _not_finite(value.detach())

    def places(self) -> list[str]:
        """Returns where a number was not finite in a watched pass or is not now, on any rank. Waits for the device."""
        model = self._model
        buffers = {f"the buffer {name}": model.get_buffer(name) for name in self._buffers}
        state = {name: value.detach() for name, value in model.named_parameters() if _is_inexact(value)} | buffers
        now = [_not_finite(value).to(self._bad) for value in state.values()]
        bad = distributed.total(torch.stack([*self._bad, *now])).tolist()
        return [name for name, count in zip([*self._flows, *state], bad, strict=True) if count]


def some_of(places: list[str]) -> str:
    """Returns the first places as text: 'the input, stem.0.weight, stem.1.weight and 12 more'."""
    more = len(places) - SHOWN
    return ", ".join(places[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _not_finite(value: Tensor) -> Tensor:
    """Returns whether any number is NaN or infinite, by the sum. This takes a twentieth of the time of testing each number.

    A sum of finite numbers is infinite only if they are near the largest float, as in a diverged network.
    """
    narrow = value.dtype in (torch.float16, torch.bfloat16)
    return ~value.sum(dtype=torch.float32 if narrow else None).isfinite()


def _is_inexact(value: Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()
