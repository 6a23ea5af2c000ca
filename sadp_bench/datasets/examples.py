"""Labelled examples in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sadp_bench.core.errors import BadInput

INPUT_DTYPES = (torch.uint8, torch.float32)
SHAPES = {1: "[N]", 4: "[N, C, H, W]", 5: "[N, T, C, H, W]"}  # by dimensions


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Inputs and labels, on the CPU.

    Attributes:
        input_N: uint8 or float32, [N, C, H, W] (static images) or [N, T, C, H, W] (frames of events).
        label_N: int64, [N].

    Raises:
        BadInput: A tensor is of another type or shape.
    """

    input_N: Tensor
    label_N: Tensor

    def __post_init__(self) -> None:
        _check("input_N", self.input_N, INPUT_DTYPES, (4, 5))
        _check("label_N", self.label_N, (torch.int64,), (1,))
        if len(self.input_N) != len(self.label_N):
            raise BadInput(f"Examples has {len(self.input_N):,} inputs and {len(self.label_N):,} labels; give as many")

    def __len__(self) -> int:
        return len(self.label_N)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.input_N.shape[-3:]
        return channels, height, width

    def take(self, index_K: Tensor) -> Examples:
        """Returns a copy of some examples, in the order of their indices."""
        return Examples(self.input_N[index_K], self.label_N[index_K])

    def digest(self) -> hashlib._Hash:
        """Returns the SHA-256 of labels and inputs."""
        digest = hashlib.sha256(self.label_N.contiguous().numpy().data)
        digest.update(self.input_N.contiguous().numpy().data)
        return digest


def _check(name: str, found: Any, dtypes: tuple[torch.dtype, ...], dims: tuple[int, ...]) -> None:
    """Raises BadInput where a field of `Examples` differs from the documentation of the class."""
    wanted = f"Examples.{name} is a tensor {' or '.join(SHAPES[dim] for dim in dims)}"
    wanted += f" of {' or '.join(map(str, dtypes))} on the CPU, without gradient"
    if not isinstance(found, Tensor):
        raise BadInput(f"{wanted}, not a {type(found).__name__}")
    plain = found.device.type == "cpu" and found.layout == torch.strided and not found.requires_grad
    if found.dtype not in dtypes or found.dim() not in dims or not plain:
        how = f" on {found.device}, {found.layout}" + ", with gradient" * found.requires_grad
        raise BadInput(f"{wanted}, not {list(found.shape)} of {found.dtype}" + ("" if plain else how))


def stratified_order(label_N: Tensor, generator: torch.Generator) -> Tensor:
    """Returns a shuffled order whose every beginning contains the classes in near-equal numbers. Int64, [N].

    The i-th example of each class, in shuffled order, comes before the i+1-th of any class.
    """
    shuffled_N = torch.randperm(len(label_N), generator=generator)
    label_N = label_N[shuffled_N]
    rank_N = torch.empty_like(label_N)
    for label in label_N.unique():
        of_class = (label_N == label).nonzero().squeeze(1)
        rank_N[of_class] = torch.arange(len(of_class))
    return shuffled_N[rank_N.argsort(stable=True)]
