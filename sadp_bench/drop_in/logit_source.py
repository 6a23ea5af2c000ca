"""The layer that a network's logits come from, and how the logits follow from its time steps.

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

ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}  # Share of the largest logit.
COARSE_ROUNDING = 0.03  # Share of the largest logit, at 16 bits.
HOW_TO_OBSERVE = "observe each batch once, after its backward pass and before the next forward pass, in training mode"


@dataclass(frozen=True, slots=True, eq=False)
class LayerSteps:
    """A layer's time steps in a batch.

    Attributes:
        output_TBC: The layer's output.
        gradient_TBC: The gradient at the output.
        input_TBD: A linear layer's input; None for the others.
    """

    output_TBC: Tensor
    gradient_TBC: Tensor
    input_TBD: Tensor | None


class OutputRecorder:
    """Records a module's outputs since the last batch: the calls in training mode whose gradient came back.

    Args:
        model: The network, whose mode counts.
        module: The network itself or a layer of it.

    Attributes:
        calls: By place, where the module returns several tensors, and by call: the output, its gradient, and a linear
            layer's input.
    """

    def __init__(self, model: nn.Module, module: nn.Module) -> None:
        self.model, self.module = model, module
        self.calls: dict[int, dict[int, tuple[Tensor, ...]]] = {}
        self._num_calls = 0
        self.handle = module.register_forward_hook(self._record_output)

    def _record_output(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not (self.model.training and torch.is_grad_enabled()):
            return
        self._num_calls += 1
        input = (inputs[0].detach(),) if isinstance(module, nn.Linear) else ()
        for place, tensor in enumerate(_tensors(output)):
            if tensor.requires_grad:
                record = partial(self._record_gradient, place, self._num_calls, tensor.detach(), input)
                tensor.register_hook(record)

    def _record_gradient(
        self, place: int, call: int, output: Tensor, input: tuple[Tensor, ...], gradient: Tensor
    ) -> None:
        self.calls.setdefault(place, {})[call] = output, gradient.detach(), *input

    def steps(self, place: int, batch: int) -> LayerSteps:
        """Returns the steps of all calls.

        Args:
            place: The tensor's place among the module's outputs.
            batch: B.

        Raises:
            BadInput: There are no steps, or they do not fit a batch of this size.
        """
        if not self.calls.get(place):
            raise BadInput(f"nothing was recorded of this batch: {HOW_TO_OBSERVE}")
        calls = [self.calls[place][call] for call in sorted(self.calls[place])]
        output, gradient, *input = (joined([arranged(x, 1, batch) for x in side]) for side in zip(*calls, strict=True))
        return LayerSteps(output, gradient, input[0] if input else None)


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The module whose output, or whose steps, give the logits.

    Attributes:
        recorder: The recorder of the module's outputs.
        place: The tensor's place, where the module returns several.
        relation: The logits are the "same" as the output, or the "mean", "sum" or "last" of its steps.
        certain: Whether no other relation fits. Several fit while a readout that starts at zero returns zeros.
    """

    recorder: OutputRecorder
    place: int
    relation: str
    certain: bool

    @property
    def exact(self) -> bool:
        """Whether the gradient of the module's parameters is known exactly: it is a linear layer with a bias."""
        return isinstance(self.recorder.module, nn.Linear) and self.recorder.module.bias is not None

    def output_error(self, error_TBC: Tensor, num_steps: int) -> Tensor:
        """Returns the gradient at the module's output, [T, B, C], from the gradient at the logits.

        Args:
            error_TBC: The gradient at the logits.
            num_steps: T of the module's output.

        Raises:
            BadInput: The logits have another number of steps than the output that they equal.
        """
        if self.relation == "same":
            if len(error_TBC) != num_steps:
                raise BadInput(f"{num_steps} time steps were recorded for logits of {len(error_TBC)}: {HOW_TO_OBSERVE}")
            return error_TBC
        if self.relation == "last":
            return torch.cat([error_TBC.new_zeros(num_steps - 1, *error_TBC.shape[1:]), error_TBC])
        return (error_TBC / num_steps if self.relation == "mean" else error_TBC).expand(num_steps, -1, -1)


def find_source(
    candidates: Sequence[OutputRecorder], logits_TBC: Tensor, previous: Source | None = None
) -> Source | None:
    """Returns the first candidate whose output or steps give the logits, or None.

    Args:
        candidates: The recorders, the likeliest first.
        logits_TBC: The observed logits.
        previous: The source of earlier batches. A certain source keeps its relation and place.
    """
    for recorder in candidates:
        for place in sorted(recorder.calls):
            try:
                steps = recorder.steps(place, logits_TBC.shape[1])
            except BadInput:
                continue
            found = relations_of(steps, logits_TBC)
            if previous is not None and previous.certain:
                found = [relation for relation in found if (relation, place) == (previous.relation, previous.place)]
            if found:
                certain = previous is not None and previous.certain or len(found) == 1
                return Source(recorder, place, found[0], certain)
    return None


def relations_of(steps: LayerSteps, logits_TBC: Tensor) -> list[str]:
    """Returns the relations ("same", "mean", "sum", "last") that hold between an output and the logits, to rounding."""
    output = steps.output_TBC.to(logits_TBC.dtype)
    if output.dim() != 3 or output.shape[1:] != logits_TBC.shape[1:]:
        return []
    tolerance = ROUNDING.get(steps.output_TBC.dtype, COARSE_ROUNDING) * float(logits_TBC.abs().max())
    if output.shape == logits_TBC.shape:
        candidates = {"same": output}
    else:
        candidates = {"mean": output.mean(0)[None], "sum": output.sum(0)[None]}
    # Gradients at earlier steps mean that these steps were a batch by themselves.
    if len(output) > 1 and not bool(steps.gradient_TBC[:-1].any()):
        candidates["last"] = output[-1:]
    return [
        relation
        for relation, value in candidates.items()
        if value.shape == logits_TBC.shape and float((value - logits_TBC).abs().max()) <= tolerance
    ]


def _tensors(output: Any) -> Iterator[Tensor]:
    """Yields the tensors of a module's output, in order."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        yield from _tensors(list(output.values()))
    elif isinstance(output, list | tuple):
        for part in output:
            yield from _tensors(part)
