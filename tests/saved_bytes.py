"""Bytes that autograd saves for the backward pass."""

from __future__ import annotations

from typing import Any
from weakref import finalize

from torch import Tensor


class Saved:
    """Bytes that graphs keep now, and their peak; a storage that several operations saved counts once."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.held: dict[int, int] = {}

    def pack(self, tensor: Tensor) -> Any:
        held = Held(tensor)
        pointer, size = tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()
        self.held[pointer] = self.held.get(pointer, 0) + 1
        self.now += size if self.held[pointer] == 1 else 0
        self.most = max(self.most, self.now)
        finalize(held, self.free, pointer, size)
        return held

    def free(self, pointer: int, size: int) -> None:
        self.held[pointer] -= 1
        self.now -= size if self.held[pointer] == 0 else 0


class Held:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
