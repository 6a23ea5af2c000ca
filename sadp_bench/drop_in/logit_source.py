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

from sadp_bench.capture.example_rows import ExampleRows
from sadp_bench.capture.layer_shapes import arranged, time_of_batch_first
from sadp_bench.capture.per_example_norms import joined
from sadp_bench.core.errors import BadInput

ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}  # Share of the largest logit.
MOST_SPREAD = 0.03  # Share of the largest gradient.
COMPARED_CALLS = 16  # Calls of a module, from the first in an epoch, that are compared with the call before.
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
    """Records a module's outputs since the last batch, for calls in training mode that received a gradient.

    Args:
        model: The network, whose mode counts.
        module: The network itself or a layer of it.
        rows: The order of rows. Gradients of its own passes are not recorded.

    Attributes:
        calls: The output, its gradient and a linear layer's input, by the tensor's place among the outputs and by call.
        fed_back: The places whose tensors the next call reads, such as membrane potentials. The gradient at an earlier step
            then includes that of later steps.
    """

    def __init__(self, model: nn.Module, module: nn.Module, rows: ExampleRows) -> None:
        self.model, self.module, self.rows = model, module, rows
        self.calls: dict[int, dict[int, tuple[Tensor, ...]]] = {}
        self.fed_back: set[int] = set()
        self._num_calls = 0
        self._previous: dict[int, Any] = {}  # by place: the graph node of the last call's tensor
        self.handle = module.register_forward_hook(self._record_output)

    def _record_output(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not (self.model.training and torch.is_grad_enabled()):
            return
        self._num_calls += 1
        input = (inputs[0].detach(),) if isinstance(module, nn.Linear) else ()
        for place, tensor in enumerate(_tensors(output)):
            if tensor.requires_grad:
                self._compare(place, tensor)
                record = partial(self._record_gradient, place, self._num_calls, tensor.detach(), input)
                tensor.register_hook(record)

    def _record_gradient(
        self, place: int, call: int, output: Tensor, input: tuple[Tensor, ...], gradient: Tensor
    ) -> None:
        if not self.rows.looking:
            self.calls.setdefault(place, {})[call] = output, gradient.detach(), *input

    def _compare(self, place: int, tensor: Tensor) -> None:
        """Tests in the first calls whether a call reads the tensor of the previous call."""
        node = self._previous.pop(place, None)
        if node is not None and _reaches(tensor.grad_fn, node):
            self.fed_back.add(place)
        elif self._num_calls < COMPARED_CALLS and place not in self.fed_back:
            self._previous[place] = tensor.grad_fn

    def a_step_each(self, batch: int) -> bool:
        """Returns whether each call's output is a single time step, [B, ...]."""
        return all(x.dim() == 2 and len(x) == batch for calls in self.calls.values() for x, *_ in calls.values())

    def steps(self, place: int, batch: int, batch_first: bool = False) -> LayerSteps:
        """Returns the steps of all calls.

        Args:
            place: The tensor's place among the module's outputs.
            batch: B.
            batch_first: Whether the steps are [B, T, ...] or [B * T, ...].

        Raises:
            BadInput: There are no steps, or they do not fit a batch of this size.
        """
        if not self.calls.get(place):
            raise BadInput(f"nothing was recorded of this batch: {HOW_TO_OBSERVE}")
        calls = [self.calls[place][call] for call in sorted(self.calls[place])]
        in_order = time_of_batch_first if batch_first else arranged
        output, gradient, *input = (joined([in_order(x, 1, batch) for x in side]) for side in zip(*calls, strict=True))
        return LayerSteps(output, gradient, input[0] if input else None)


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The module whose output, or whose steps, give the logits.

    Attributes:
        recorder: The recorder of the module's outputs.
        place: The tensor's place, where the module returns several.
        relation: The logits are the "same" as the output, or the "mean", "sum" or "last" of its steps.
        batch_first: Whether the output is [B, T, ...] or [B * T, ...].
        certain: Whether no other relation or order fits. Several can fit while a readout that starts at zero returns zeros.
        batch: The number of examples in the batch where the source was found.
    """

    recorder: OutputRecorder
    place: int
    relation: str
    batch_first: bool
    certain: bool
    batch: int

    @property
    def exact(self) -> bool:
        """Whether the gradient of the module's parameters is known exactly: it is a linear layer with a bias."""
        return isinstance(self.recorder.module, nn.Linear) and self.recorder.module.bias is not None

    @property
    def time_first(self) -> bool | None:
        """Whether time comes first in the rows of a folded output; None if it is uncertain or not folded."""
        outputs = [output for output, *_ in self.recorder.calls[self.place].values()]
        folded = self.certain and any(output.dim() == 2 and len(output) != self.batch for output in outputs)
        return not self.batch_first if folded else None

    @property
    def measured_steps(self) -> slice:
        """The steps whose gradient comes from the loss alone: all, or the last where each step reads the step before."""
        return slice(-1, None) if self.place in self.recorder.fed_back else slice(None)

    def steps(self, batch: int) -> LayerSteps:
        """Returns the steps of a batch of B examples."""
        return self.recorder.steps(self.place, batch, self.batch_first)

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
    candidates: Sequence[OutputRecorder],
    logits_TBC: Tensor,
    previous: Source | None = None,
    batch_first: Sequence[bool] = (False, True),
) -> Source | None:
    """Returns the first candidate whose output or steps give the logits, or None.

    Args:
        candidates: The recorders, the likeliest first.
        logits_TBC: The observed logits.
        previous: The source of earlier batches. A certain source keeps its relation, order and place.
        batch_first: The orders of examples and time to try, the likelier first.
    """
    for recorder in candidates:
        for place in sorted(recorder.calls):
            found = [
                (relation, order)
                for order in batch_first
                for relation in _relations_in_order(recorder, place, logits_TBC, order)
            ]
            if previous is not None and previous.certain:
                found = [x for x in found if (*x, place) == (previous.relation, previous.batch_first, previous.place)]
            if len(found) > 1:
                found.sort(key=lambda x: _varies(recorder.steps(place, logits_TBC.shape[1], x[1]), x[0]))  # noqa: B023
            if found:
                certain = previous is not None and previous.certain or len(found) == 1
                return Source(recorder, place, *found[0], certain, logits_TBC.shape[1])
    return None


def _relations_in_order(recorder: OutputRecorder, place: int, logits_TBC: Tensor, batch_first: bool) -> list[str]:
    """Returns the relations that hold if the output has this order of examples and time."""
    batch = logits_TBC.shape[1]
    if batch_first and not any(_has_time(output, batch) for output, *_ in recorder.calls[place].values()):
        return []
    try:
        steps = recorder.steps(place, batch, batch_first)
    except BadInput:
        return []
    return relations_of(steps, logits_TBC, place in recorder.fed_back)


def _varies(steps: LayerSteps, relation: str) -> bool:
    """Returns whether the gradient varies over the steps of a mean or a sum, which contradicts the order."""
    spread = (steps.gradient_TBC - steps.gradient_TBC[:1]).abs().max()
    return relation in ("mean", "sum") and bool(spread > MOST_SPREAD * steps.gradient_TBC.abs().max())


def _has_time(output: Tensor, batch: int) -> bool:
    """Returns whether an output may be [B, T, C] or [B * T, C] with more than one step."""
    if output.dim() == 3:
        return output.shape[0] == batch and output.shape[1] > 1
    return output.shape[0] != batch


def relations_of(steps: LayerSteps, logits_TBC: Tensor, fed_back: bool = False) -> list[str]:
    """Returns the relations ("same", "mean", "sum", "last") that hold between an output and the logits, to rounding."""
    output = steps.output_TBC.to(logits_TBC.dtype)
    if output.dim() != 3 or output.shape[1:] != logits_TBC.shape[1:]:
        return []
    tolerance = ROUNDING.get(steps.output_TBC.dtype, COARSE_ROUNDING) * float(logits_TBC.abs().max())
    if output.shape == logits_TBC.shape:
        candidates = {"same": output}
    else:
        candidates = {"mean": output.mean(0)[None], "sum": output.sum(0)[None]}
    # Gradients at earlier steps mean that these steps were a batch by themselves, unless the last step reads them.
    if len(output) > 1 and (fed_back or not bool(steps.gradient_TBC[:-1].any())):
        candidates["last"] = output[-1:]
    return [
        relation
        for relation, value in candidates.items()
        if value.shape == logits_TBC.shape and float((value - logits_TBC).abs().max()) <= tolerance
    ]


def _reaches(node: Any, other: Any) -> bool:
    """Returns whether a graph's node depends on another."""
    visited, nodes = set[Any](), [node]
    while nodes:
        node = nodes.pop()
        if node is other:
            return True
        if node is not None and node not in visited:
            visited.add(node)
            nodes += [next_node for next_node, _ in node.next_functions]
    return False


def _tensors(output: Any) -> Iterator[Tensor]:
    """Yields the tensors of a module's output, in order."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        yield from _tensors(list(output.values()))
    elif isinstance(output, list | tuple):
        for part in output:
            yield from _tensors(part)
