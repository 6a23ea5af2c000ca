"""Data types of at least float32, in which sums and norms of half-precision tensors are taken."""

from __future__ import annotations

import torch
from torch import Tensor


def wide_dtype(*tensors: Tensor) -> torch.dtype:
    """Returns the smallest data type that can represent float32 and each tensor's values."""
    dtype = torch.float32
    for x in tensors:
        if x.dtype != dtype:
            dtype = torch.promote_types(dtype, x.dtype)
    return dtype


def widest_dtype(device: torch.device) -> torch.dtype:
    """Returns the widest data type of real numbers that a device has: float64, but float32 on Apple's GPUs."""
    return torch.float32 if device.type == "mps" else torch.float64


def widened(x: Tensor) -> Tensor:
    """Returns the tensor in at least float32; the tensor itself if it is wide enough."""
    return x.to(wide_dtype(x))
