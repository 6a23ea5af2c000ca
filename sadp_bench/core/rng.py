"""Named random streams. Every draw takes a generator made from (seed, name, epoch); no global state is touched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def stream_seed(seed: int, name: str, epoch: int = 0) -> int:
    """Returns 63 bits of the SHA-256 of seed, name and epoch."""
    digest = hashlib.sha256(f"{seed}/{name}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def stream(seed: int, name: str, epoch: int = 0) -> torch.Generator:
    """Returns a CPU generator. Draws are made on the CPU and then copied, so they are the same for every device."""
    return torch.Generator().manual_seed(stream_seed(seed, name, epoch))


@contextmanager
def isolated(seed: int, name: str, device: torch.device) -> Iterator[None]:
    """Seeds the global random state within the context, and restores it afterwards.

    It is for code that can only draw from the global state: initialisation and dropout.
    """
    with kept_state(device):
        torch.manual_seed(stream_seed(seed, name))
        yield


@contextmanager
def kept_state(device: torch.device) -> Iterator[None]:
    """Restores the global random state of the CPU and of a GPU after the context."""
    on_apple = torch.mps.get_rng_state() if device.type == "mps" else None  # `fork_rng` does not restore it
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        if on_apple is not None:
            torch.mps.set_rng_state(on_apple)
