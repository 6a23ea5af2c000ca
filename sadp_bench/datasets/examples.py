"""Labelled examples in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from sadp_bench.core.errors import BadInput

INPUT_DTYPES = (torch.uint8, torch.float32)
CHUNK = 1024  # examples that are hashed together
SHAPES = {1: "[N]", 4: "[N, C, H, W]", 5: "[N, T, C, H, W]"}  # number of dimensions -> shape


class Source(Protocol):
    """Makes inputs when a batch needs them, such as images that are decoded.

    Attributes:
        sha256: The hash of all inputs.
    """

    sha256: str

    def expect(self, rows: Iterable[Tensor]) -> None:
        """Announces the coming batches, in order. They replace the batches that were announced before."""

    def read(self, row_B: Tensor, ahead: bool) -> Tensor:
        """Returns the inputs of these rows, [B, H, W, C], on the CPU.

        Args:
            row_B: The rows, int64.
            ahead: Whether to make the next expected batches meanwhile.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Inputs and labels, on the CPU.

    Attributes:
        input_N: uint8 or float32, [N, C, H, W] (static images) or [N, T, C, H, W] (frames of events).
        label_N: int64, [N].
        row_N: The row of each example in `input_N`, int64, [N], where `input_N` maps a file that stays on the disk. A part
            of the examples has the same map and fewer rows. None: the rows are the examples, in order.
        source: Makes the inputs of `row_N`. `input_N` is then on the device "meta", and has only their shape and type.
            None: `input_N` has the inputs.

    Raises:
        BadInput: A tensor is of another type or shape.
    """

    input_N: Tensor
    label_N: Tensor
    row_N: Tensor | None = None
    source: Source | None = None

    def __post_init__(self) -> None:
        _check("input_N", self.input_N, INPUT_DTYPES, (4, 5), "cpu" if self.source is None else "meta")
        _check("label_N", self.label_N, (torch.int64,), (1,))
        number = len(self.input_N) if self.row_N is None else len(self.row_N)
        if number != len(self.label_N):
            raise BadInput(f"Examples has {number:,} inputs and {len(self.label_N):,} labels; give as many")

    def __len__(self) -> int:
        return len(self.label_N)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.input_N.shape[-3:]
        return channels, height, width

    def take(self, index_K: Tensor) -> Examples:
        """Returns some examples, in the order of their indices: a copy, or rows of the same map."""
        if self.row_N is not None:
            return Examples(self.input_N, self.label_N[index_K], self.row_N[index_K], self.source)
        return Examples(self.input_N[index_K], self.label_N[index_K])

    def inputs(self, index_B: Tensor) -> Tensor:
        """Returns the inputs of some examples, [B, C, H, W] or [B, T, C, H, W]."""
        row_B = index_B if self.row_N is None else self.row_N[index_B]
        return self.input_N[row_B] if self.source is None else self.source.read(row_B, False).movedim(-1, -3)

    def digest(self) -> hashlib._Hash:
        """Returns the SHA-256 of labels and inputs. The hash and the rows of a source stand for its inputs."""
        digest = hashlib.sha256(self.label_N.contiguous().numpy().data)
        if self.source is not None and self.row_N is not None:
            digest.update(self.source.sha256.encode())
            digest.update(self.row_N.contiguous().numpy().data)
            return digest
        for index_B in torch.arange(len(self)).split(CHUNK):
            digest.update(self.inputs(index_B).contiguous().numpy().data)
        return digest


def _check(name: str, found: Any, dtypes: tuple[torch.dtype, ...], dims: tuple[int, ...], device: str = "cpu") -> None:
    """Raises BadInput where a field of `Examples` is not as the class describes it."""
    wanted = f"Examples.{name} is a tensor {' or '.join(SHAPES[dim] for dim in dims)}"
    wanted += f" of {' or '.join(map(str, dtypes))} on the CPU, without gradient"
    if not isinstance(found, Tensor):
        raise BadInput(f"{wanted}, not a {type(found).__name__}")
    plain = found.device.type == device and found.layout == torch.strided and not found.requires_grad
    if found.dtype not in dtypes or found.dim() not in dims or not plain:
        how = f" on {found.device}, {found.layout}" + ", with gradient" * found.requires_grad
        raise BadInput(f"{wanted}, not {list(found.shape)} of {found.dtype}" + ("" if plain else how))


def stratified_order(label_N: Tensor, generator: torch.Generator) -> Tensor:
    """Returns a shuffled order whose first n examples have near-equal numbers of each class, for every n. Int64, [N].

    The i-th example of each class, in shuffled order, comes before the i+1-th of any class.
    """
    shuffled_N = torch.randperm(len(label_N), generator=generator)
    label_N = label_N[shuffled_N]
    rank_N = torch.empty_like(label_N)
    for label in label_N.unique():
        of_class = (label_N == label).nonzero().squeeze(1)
        rank_N[of_class] = torch.arange(len(of_class))
    return shuffled_N[rank_N.argsort(stable=True)]
