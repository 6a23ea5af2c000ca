"""One run on several processes (torchrun): every rank draws the same selection and trains its slice of each batch.

Without torchrun there is one rank, and all of this does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn

from sadp_bench.core.errors import BadInput


def size() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def on_this_machine() -> int:
    """How many of the ranks share it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


@contextmanager
def joined(device: str | None = None) -> Iterator[None]:
    """Within, the processes that torchrun started are the ranks of one run, each with a GPU of its own but on "cpu"."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    on_gpus = torch.cuda.is_available() and device != "cpu"
    if on_gpus:
        if on_this_machine() > torch.cuda.device_count():
            raise BadInput(f"--nproc-per-node is at most the {torch.cuda.device_count()} CUDA devices that are visible")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Others may wait for the first to download data, or for a lock, as long as that takes.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout=timedelta(days=7))
    try:
        yield
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


@contextmanager
def first_goes_ahead() -> Iterator[None]:
    """The first rank does what is within while the others wait, then they do it: a download, say."""
    if rank() > 0:
        distributed.barrier()
    yield
    if rank() == 0 and size() > 1:
        distributed.barrier()


def part(batch: Tensor) -> Tensor:
    """This rank's slice of a batch; sizes differ by one at most."""
    return batch.tensor_split(size())[rank()]


def wrapped(model: nn.Module) -> nn.Module:
    """The model whose backward pass averages the gradients over the ranks."""
    return model if size() == 1 else nn.parallel.DistributedDataParallel(model)


def total(value: Tensor) -> Tensor:
    """The sum over the ranks."""
    if size() > 1:
        value = value.clone()
        distributed.all_reduce(value)
    return value


def average_gradients(model: nn.Module) -> None:
    """Of networks that are not `wrapped`, after the backward passes."""
    if size() > 1:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        means = total(torch.cat([gradient.flatten() for gradient in gradients])) / size()
        for gradient, mean in zip(gradients, means.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def agreed(value: bool) -> bool:
    """What the first rank says."""
    if size() == 1:
        return value
    said = torch.tensor(int(value))
    distributed.broadcast(said, 0)
    return bool(said)


def from_first(value: Tensor) -> Tensor:
    """The first rank's value; those of the others are of the same shape."""
    if size() > 1:
        distributed.broadcast(value, 0)
    return value


def share_buffers(model: nn.Module) -> None:
    """Batch norm's running statistics become those of the first rank."""
    if size() > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)


def gather(tensors_N: Iterable[Tensor], visited: Iterable[Tensor]) -> None:
    """Each rank's entries of the examples that it visited come to all ranks, in place and exact to the bit.

    tensors_N: [N, ...] each. visited: int64, the examples of this rank; no two ranks share one.
    """
    if size() == 1:
        return
    mine = torch.cat(list(visited))
    for tensor_N in tensors_N:
        index = mine.to(tensor_N.device)
        # All but one rank add zeros, so the sum is the one's value in any order.
        value_N = torch.zeros_like(tensor_N, dtype=torch.uint8 if tensor_N.dtype == torch.bool else tensor_N.dtype)
        visited_N = torch.zeros(len(tensor_N), dtype=torch.uint8, device=tensor_N.device)
        value_N[index], visited_N[index] = tensor_N[index].to(value_N.dtype), 1
        everyone_N = total(visited_N).bool()
        tensor_N[everyone_N] = total(value_N)[everyone_N].to(tensor_N.dtype)
