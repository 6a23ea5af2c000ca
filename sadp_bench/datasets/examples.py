"""Labelled examples in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Inputs and labels.

    Attributes:
        input_N: uint8 or float32, [N, C, H, W] (static images) or [N, T, C, H, W] (frames of events).
        label_N: int64, [N].
    """

    input_N: Tensor
    label_N: Tensor

    def __post_init__(self) -> None:
        assert self.input_N.dim() in (4, 5) and len(self.input_N) == len(self.label_N)
        assert self.label_N.dtype == torch.int64

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
        digest = hashlib.sha256(self.label_N.numpy().data)
        digest.update(self.input_N.contiguous().numpy().data)
        return digest


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
