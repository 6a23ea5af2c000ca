"""Where a network's logits come from: which layer put them out, and what became of its steps until the loss saw them.

T time steps, B examples, C classes, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.capture.layer_shapes import arranged
from sadp_bench.capture.per_example_norms import joined
from sadp_bench.core.errors import BadInput

ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}  # of the largest logit; 16 bits: 0.03
NOTHING = "observe each batch once, after its backward pass and before the next forward pass, in training mode"


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A layer's output, the gradient that came back to it, and its input if it had one like it."""

    output_TBC: Tensor
    gradient_TBC: Tensor
    input_TBD: Tensor | None


class Outputs:
    """What a part of a network put out since the batch before: those calls, in training mode, whose gradient came back.

    calls: by place, where the part gives several tensors, and by call: the output, its gradient, a linear layer's input.
    """

    def __init__(self, model: nn.Module, part: nn.Module) -> None:
        self.model, self.part = model, part
        self.calls: dict[int, dict[int, tuple[Tensor, ...]]] = {}
        self._num_calls = 0
        self.handle = part.register_forward_hook(self._see)

    def _see(self, part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not (self.model.training and torch.is_grad_enabled()):
            return
        self._num_calls += 1
        input = (inputs[0].detach(),) if isinstance(part, nn.Linear) else ()
        for place, tensor in enumerate(_tensors(output)):
            if tensor.requires_grad:
                tensor.register_hook(partial(self._keep, place, self._num_calls, tensor.detach(), input))

    def _keep(self, place: int, call: int, output: Tensor, input: tuple[Tensor, ...], gradient: Tensor) -> None:
        self.calls.setdefault(place, {})[call] = output, gradient.detach(), *input

    def shown(self, place: int, batch: int) -> Shown:
        """The steps of all calls. Raises BadInput where there are none, or they do not fit a batch of this size."""
        if not self.calls.get(place):
            raise BadInput(f"nothing was seen of this batch: {NOTHING}")
        calls = [self.calls[place][call] for call in sorted(self.calls[place])]
        output, gradient, *input = (joined([arranged(x, 1, batch) for x in side]) for side in zip(*calls, strict=True))
        return Shown(output, gradient, input[0] if input else None)


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The part whose output is the logits ("same"), or whose steps have the logits as "mean", "sum" or "last".

    Attributes:
        outputs: The outputs of the part.
        place: The tensor's place, where the part gives several.
        relation: "same", "mean", "sum" or "last".
        sure: Whether no other relation fits. Several fit while a readout that starts at zero gives zeros.
    """

    outputs: Outputs
    place: int
    relation: str
    sure: bool

    @property
    def exact(self) -> bool:
        """Whether it is a readout whose own gradient is known exactly: a linear layer with a bias."""
        return isinstance(self.outputs.part, nn.Linear) and self.outputs.part.bias is not None

    def back(self, error_TBC: Tensor, steps: int) -> Tensor:
        """The gradient at the logits -> the gradient at the part's output, of T = `steps`."""
        if self.relation == "same":
            if len(error_TBC) != steps:
                raise BadInput(f"{steps} time steps were seen for logits of {len(error_TBC)}: {NOTHING}")
            return error_TBC
        if self.relation == "last":
            return torch.cat([error_TBC.new_zeros(steps - 1, *error_TBC.shape[1:]), error_TBC])
        return (error_TBC / steps if self.relation == "mean" else error_TBC).expand(steps, -1, -1)


def find_source(candidates: Sequence[Outputs], logits_TBC: Tensor, before: Source | None = None) -> Source | None:
    """Returns the first candidate that gives the logits or their steps, or None.

    A source that was sure before keeps its relation and place.
    """
    for outputs in candidates:
        for place in sorted(outputs.calls):
            try:
                shown = outputs.shown(place, logits_TBC.shape[1])
            except BadInput:
                continue
            found = relations_of(shown, logits_TBC)
            if before is not None and before.sure:
                found = [relation for relation in found if (relation, place) == (before.relation, before.place)]
            if found:
                return Source(outputs, place, found[0], before is not None and before.sure or len(found) == 1)
    return None


def relations_of(shown: Shown, logits_TBC: Tensor) -> list[str]:
    """What the logits may be of an output's steps: the "same", their "mean", "sum" or "last"; to rounding."""
    output = shown.output_TBC.to(logits_TBC.dtype)
    if output.dim() != 3 or output.shape[1:] != logits_TBC.shape[1:]:
        return []
    most = ROUNDING.get(shown.output_TBC.dtype, 0.03) * float(logits_TBC.abs().max())
    made = (
        {"same": output}
        if output.shape == logits_TBC.shape
        else {"mean": output.mean(0)[None], "sum": output.sum(0)[None]}
    )
    if len(output) > 1 and not bool(
        shown.gradient_TBC[:-1].any()
    ):  # otherwise the steps before were a batch of their own
        made["last"] = output[-1:]
    return [
        relation
        for relation, value in made.items()
        if value.shape == logits_TBC.shape and float((value - logits_TBC).abs().max()) <= most
    ]


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        yield from _tensors(list(output.values()))
    elif isinstance(output, list | tuple):
        for part in output:
            yield from _tensors(part)
