"""Checks of a user's loop, and their messages."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch.distributed
from torch import Tensor

from sadp_bench.core import distributed
from sadp_bench.core.errors import BadInput
from sadp_bench.drop_in.epoch_batches import EpochBatches
from sadp_bench.drop_in.watching import Watching
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.exchange import Survey


def observes(pruner: Pruner) -> bool:
    """Returns whether a pruner uses the loop's observations."""
    return type(pruner).observe is not Pruner.observe


def settings_of(pruner: Pruner) -> dict[str, Any]:
    """Returns the values of a pruner's settings: its budget, and the keyword arguments of its `__init__` that it keeps."""
    parameters = inspect.signature(type(pruner)).parameters.values()
    names = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    kept = {name: vars(pruner)[name] for name in names if name in vars(pruner)}
    plain = {name: value for name, value in kept.items() if isinstance(value, bool | int | float | str | None)}
    return {"budget": pruner.budget, **plain}


def check_forward(pruner: Pruner) -> None:
    """Raises BadInput for a pruner that passes examples forward itself: the sampler has no network."""
    if type(pruner).choose_in_batch is not Pruner.choose_in_batch or type(pruner).revisit is not Pruner.revisit:
        raise BadInput(
            f"{type(pruner).__name__} needs forward passes between the training steps, and a sampler has no network: run it "
            "with sadp-bench run, or take a method that learns from the training steps alone"
        )


def no_survey(pruner: Pruner) -> Callable[[frozenset[str]], Survey]:
    """Returns a survey for `Pruner.rescore` that raises BadInput: the sampler has no network."""

    def refuse(watch: frozenset[str]) -> Survey:
        raise BadInput(
            f"{type(pruner).__name__} with these settings passes over all examples before each epoch, and a sampler has no "
            "network: run it with sadp-bench run, or take a score that learns from the training steps alone"
        )

    return refuse


def check_processes() -> None:
    """Raises BadInput where several processes can't exchange tensors on the CPU."""
    if distributed.size() > 1 and "cpu" not in torch.distributed.get_backend_config():
        raise BadInput(
            f"{torch.distributed.get_backend_config()} can't exchange pruners' tensors on the CPU: "
            'call init_process_group("cpu:gloo,cuda:nccl")'
        )


def check_share(now: EpochBatches, index_B: Tensor | Sequence[int], epoch: int) -> None:
    """Checks that a process's first batch in an epoch is its own part of a batch, and not of a later one.

    Raises:
        BadInput: The batches were divided among the processes again, for example by a launcher.
    """
    on_gpu = isinstance(index_B, Tensor) and index_B.device.type != "cpu"
    if distributed.size() == 1 or now.used or on_gpu or len(index_B) == 0:
        return
    index = [int(i) for i in index_B]
    parts = [distributed.part(whole_B).tolist() for whole_B in now.batches]
    at = next((k for k, part in enumerate(parts) if index[0] in part), None)
    if at is not None and (0 < at == distributed.rank() or not set(index) <= set(parts[at])):
        raise BadInput(
            f"process {distributed.rank()} began epoch {epoch} with another batch than its part of the first: PrunedSampler "
            "gives each process its part of every batch, so nothing may divide its loader again (do not pass it to "
            "accelerate's prepare)"
        )


def unobserved(now: EpochBatches, epoch: int, pruner: Pruner) -> str | None:
    """Returns a warning where batches of the ending epoch were not observed; otherwise None."""
    name = type(pruner).__name__
    if now.num_given and not now.num_observed and observes(pruner):
        return (
            f"no batch of epoch {epoch} was observed, so {name} selects without it: call "
            "sampler.observe(index, logits, label) after each backward pass"
        )
    if 0 < now.num_observed < now.num_examples:
        return (
            f"only {now.num_observed} of the {now.num_examples} examples of epoch {epoch} were observed, so {name} selects "
            "with earlier scores of the others: train on every batch of the loader, and observe it"
        )
    return None


def looks_at(loss_B: Tensor, watching: Watching | None) -> bool:
    """Returns whether a batch's losses are checked at once: on a CPU, or where `watch` waits for the GPU anyway."""
    return loss_B.device.type == "cpu" or (watching is not None and watching.waits)


def lost_batch(example: int, epoch: int) -> str:
    """Returns a warning for a batch with a loss that is not finite."""
    return (
        f"the loss of example {example}, in epoch {epoch}, is not finite: its batch is left out of the scores; look at its "
        "input, and keep the optimiser from a step on this batch"
    )


def lost_losses(lost_N: Tensor, epoch: int) -> str:
    """Returns a message for losses that were not finite, seen at the epoch's end."""
    return (
        f"the losses of {int(lost_N.sum())} examples of epoch {epoch} are not finite, the first that of example "
        f"{int(lost_N.nonzero()[0])}: look at its input; try a lower learning rate"
    )
