"""One run on several processes (torchrun): every rank draws the same selection and trains on its part of each batch.

Without torchrun there is one rank, and these functions return their arguments.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from sadp_bench.core.errors import BadInput, PartnerLost

PARTNER_SECONDS = 600  # seconds within which all processes must start, and each must respond during training
LOST = r"(?i)connection (closed|reset|refused)|broken pipe|timed out|gloo"  # torch's messages when a process is lost
WAY_OUT = "start all processes with torchrun, or unset WORLD_SIZE for a run on one"
_waits: Any = None  # the group for waits for the first rank's work, such as a download, with a limit of days


def size() -> int:
    """Returns the number of ranks."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Returns this process's rank, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def on_this_machine() -> int:
    """Returns the number of ranks that share this machine."""
    return _from_environment("LOCAL_WORLD_SIZE", 1)


def _from_environment(name: str, usual: int, lowest: int = 1) -> int:
    text = os.environ.get(name, "")
    if text and not (text.isdecimal() and int(text) >= lowest):
        raise BadInput(
            f"the environment has {name}={text}, and it must be a whole number of at least {lowest}: {WAY_OUT}"
        )
    return int(text or usual)


@contextmanager
def process_group(device: str | None = None) -> Iterator[None]:
    """Makes the processes that torchrun started the ranks of one run, within the context.

    Args:
        device: With "cpu" the ranks share the CPU. Otherwise each has its own GPU, where there are GPUs.

    Raises:
        BadInput: The environment is not torchrun's.
        PartnerLost: Another process did not start, has ended, or has not responded for `PARTNER_SECONDS`.
    """
    global _waits
    size = _from_environment("WORLD_SIZE", 1)
    if size == 1:
        yield
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise BadInput(f"the environment has WORLD_SIZE={size}, but no {', '.join(missing)}: {WAY_OUT}")
    if _from_environment("RANK", 0, 0) >= size or _from_environment("MASTER_PORT", 0) >= 1 << 16:
        raise BadInput(
            f"the environment's RANK is at least its WORLD_SIZE {size}, or MASTER_PORT is no port: {WAY_OUT}"
        )
    on_gpus = torch.cuda.is_available() and device != "cpu"
    if on_gpus:
        if on_this_machine() > torch.cuda.device_count():
            raise BadInput(f"--nproc-per-node is at most the {torch.cuda.device_count()} CUDA devices that are visible")
        torch.cuda.set_device(_from_environment("LOCAL_RANK", 0, 0))
    limit = timedelta(seconds=PARTNER_SECONDS)
    try:
        distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout=limit)
        _waits = distributed.new_group(backend="gloo", timeout=timedelta(days=7))
    except (RuntimeError, ValueError) as error:
        if distributed.is_initialized():
            distributed.destroy_process_group()
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise PartnerLost(
            f"the {size} processes of this run did not meet at {place} within {PARTNER_SECONDS} seconds "
            f"({_first_sentence(error)}): {WAY_OUT}"
        ) from error
    try:
        yield
        distributed.barrier()
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or re.search(LOST, str(error)):
            raise PartnerLost(
                f"another of the {size} processes of this run has ended or does not answer ({_first_sentence(error)}); the "
                "same command on all of them goes on from the last checkpoint"
            ) from error
        raise
    finally:
        _waits = None
        distributed.destroy_process_group()


def _first_sentence(error: Exception) -> str:
    """Returns the first sentence of torch's error, without the place in torch's code."""
    line = re.sub(r"^\[\S+:\d+\] ", "", str(error).strip().partition("\n")[0])
    return line.partition(". ")[0].rstrip(".")


@contextmanager
def first_goes_ahead() -> Iterator[None]:
    """Makes the other ranks begin the context after the first has finished it: for downloads and reads of checkpoints."""
    if rank() > 0:
        distributed.barrier(_waits)
    yield
    if rank() == 0 and size() > 1:
        distributed.barrier(_waits)


def part(batch: Tensor) -> Tensor:
    """Returns this rank's part of a batch. Sizes differ by one at most."""
    return batch.tensor_split(size())[rank()]


def wrapped(model: nn.Module) -> nn.Module:
    """Returns a model whose backward pass averages the gradients over the ranks."""
    return model if size() == 1 else nn.parallel.DistributedDataParallel(model)


def total(value: Tensor) -> Tensor:
    """Returns the sum over the ranks."""
    if size() > 1:
        value = value.clone()
        distributed.all_reduce(value)
    return value


def totals(*values: Tensor) -> Sequence[Tensor]:
    """Returns the sums over the ranks of tensors of one type, in one exchange."""
    if size() == 1:
        return values
    flat = total(torch.cat([value.flatten() for value in values]))
    parts = flat.split([value.numel() for value in values])
    return [part.view_as(value) for part, value in zip(parts, values, strict=True)]


def average_gradients(model: nn.Module) -> None:
    """Averages the gradients over the ranks, after the backward passes of a network that is not `wrapped`."""
    if size() > 1:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        for gradient, sum_of_ranks in zip(gradients, totals(*gradients), strict=True):
            gradient.copy_(sum_of_ranks / size())


def agreed(value: bool) -> bool:
    """Returns the first rank's value, for which the other ranks may wait long, as for a lock."""
    if size() == 1:
        return value
    first = torch.tensor(int(value))
    distributed.broadcast(first, 0, _waits)
    return bool(first)


def from_first(value: Tensor) -> Tensor:
    """Returns the first rank's tensor. The other ranks pass tensors of the same shape, which it overwrites."""
    if size() > 1:
        distributed.broadcast(value, 0)
    return value


def share_buffers(model: nn.Module) -> None:
    """Gives every rank the buffers of the first: batch norm's running statistics."""
    if size() > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)


def gather(tensors_N: Iterable[Tensor], visited: Iterable[Tensor]) -> None:
    """Copies the entries of the examples that each rank visited to every rank, in place and bit for bit.

    Args:
        tensors_N: Tensors [N, ...].
        visited: Examples that this rank visited, int64. No two ranks share an example.
    """
    if size() == 1:
        return
    mine = torch.cat(list(visited))
    for tensor_N in tensors_N:
        index = mine.to(tensor_N.device)
        # All ranks but one add zeros, so the sum is exact in any order.
        value_N = torch.zeros_like(tensor_N, dtype=torch.uint8 if tensor_N.dtype == torch.bool else tensor_N.dtype)
        visited_N = torch.zeros(len(tensor_N), dtype=torch.uint8, device=tensor_N.device)
        value_N[index], visited_N[index] = tensor_N[index].to(value_N.dtype), 1
        everyone_N = total(visited_N).bool()
        tensor_N[everyone_N] = total(value_N)[everyone_N].to(tensor_N.dtype)
