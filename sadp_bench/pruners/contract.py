"""Checks of the values that a pruner returns: signals, selections, and choices within the batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sadp_bench.capture.signals import Signal
from sadp_bench.core.errors import BadInput
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.exchange import Selection


def signals_of(pruner: Pruner, epoch: int) -> frozenset[Signal]:
    """Returns the signals that a pruner's `watch` names for an epoch.

    Raises:
        BadInput: `watch` is an attribute instead of a method, or returns no signals.
    """
    watch: Any = pruner.watch
    if not callable(watch):
        raise BadInput(
            f"{type(pruner).__name__}.watch is a {type(watch).__name__}, and must be a method: write "
            "'def watch(self, epoch): return frozenset({...})' with the same signals"
        )
    signals: Any = watch(epoch)
    names = set(signals) if isinstance(signals, set | frozenset) else None
    if names is None or not names <= set(Signal):
        raise BadInput(
            f"{type(pruner).__name__}.watch({epoch}) returns {signals!r}, and must return a set of signals: "
            f"{', '.join(sorted(Signal))}"
        )
    return frozenset(signals)


def selection_of(pruner: Pruner, epoch: int) -> Selection:
    """Returns a pruner's selection for an epoch. Raises BadInput where it breaks the contract."""
    selection: Any = pruner.select(epoch)
    if not getattr(pruner, "num_examples", 0):
        raise BadInput(
            f"{type(pruner).__name__} has no num_examples: its __init__ must call super().__init__(prune_ratio), and its "
            "prepare super().prepare(context)"
        )
    fault = selection_fault(selection, pruner.num_examples)
    if fault:
        raise BadInput(f"{type(pruner).__name__}.select({epoch}) {fault}")
    chosen: Selection = selection
    return chosen


def updates_of(pruner: Pruner, epoch: int, num_trained: int, batch_size: int) -> int:
    """Returns the number of updates of an epoch. Raises BadInput where the pruner returns another value.

    Args:
        pruner: The pruner.
        epoch: The epoch, from 0.
        num_trained: The number of examples that train in the epoch.
        batch_size: The run's batch size.
    """
    number: Any = pruner.num_updates(epoch, num_trained, batch_size)
    if type(number) is not int or not 0 < number <= num_trained:
        raise BadInput(
            f"{type(pruner).__name__}.num_updates({epoch}, {num_trained}, {batch_size}) returns {number!r}, and must return "
            f"a whole number from 1 to {num_trained}"
        )
    return number


def update_size(pruner: Pruner, num_examples: int, batch_size: int) -> int:
    """Returns the examples of an update of a run on all data at this batch size, for estimates before training."""
    number = updates_of(pruner, 0, num_examples, batch_size)
    return min(num_examples, round(batch_size * -(-num_examples // batch_size) / number))


def selection_fault(selection: Any, num_examples: int) -> str:
    """Returns how a selection breaks the contract of `Selection`, as the rest of a sentence; "" if it does not."""
    index, weight = getattr(selection, "index_K", None), getattr(selection, "weight_K", None)
    if not isinstance(index, Tensor) or not isinstance(weight, Tensor):
        return f"returns a {type(selection).__name__}, and must return Selection(index_K, weight_K) of two tensors"
    if index.dtype != torch.int64 or index.dim() != 1:
        return f"returns index_K as {index.dtype} {list(index.shape)}, and it must be int64 [K]"
    if len(index) == 0:
        return "selects nothing; an epoch trains on one example at least"
    if weight.dtype != torch.float32:
        return f"returns weight_K as {weight.dtype}, and it must be float32"
    if weight.shape != index.shape:
        return f"returns weights of shape {list(weight.shape)} for {len(index)} examples"
    index, weight = index.cpu(), weight.cpu()
    if int(index.min()) < 0 or int(index.max()) >= num_examples:
        return f"selects an index outside [0, {num_examples})"
    if int(torch.zeros(num_examples, dtype=torch.bool).index_fill_(0, index, True).sum()) < len(index):
        return "selects an example twice in an epoch"
    if not bool((weight > 0).all() and weight.isfinite().all()):
        return "gives a weight that is not a finite number above 0"
    return ""


def choice_fault(choice: Any, num_candidates: int, num_trained: int) -> str:
    """Returns how a choice breaks the contract of `Pruner.choose_in_batch`, as the rest of a sentence; "" if it does not."""
    index, weight = getattr(choice, "index_K", None), getattr(choice, "weight_K", None)
    if not isinstance(index, Tensor) or not isinstance(weight, Tensor):
        return f"returns a {type(choice).__name__}, and must return Selection(index_K, weight_K) of two tensors"
    if index.dtype != torch.int64 or index.shape != (num_trained,):
        return f"returns index_K as {index.dtype} {list(index.shape)}, and it must be int64 [{num_trained}]"
    if weight.dtype != torch.float32 or weight.shape != index.shape:
        return f"returns weight_K as {weight.dtype} {list(weight.shape)}, and it must be float32 [{num_trained}]"
    if int(index.min()) < 0 or int(index.max()) >= num_candidates:
        return f"names a place outside [0, {num_candidates})"
    if not bool((weight > 0).all() and weight.isfinite().all()):
        return "gives a weight that is not a finite number above 0"
    return ""
