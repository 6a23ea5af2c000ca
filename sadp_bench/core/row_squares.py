"""Sums of squares of a gradient's rows. A kernel computes them while it writes the gradient, without a later pass."""

from __future__ import annotations

from torch import Tensor

NAME = "_sadp_bench_row_squares"  # attribute of a gradient: its version, and the sums


def attach_row_squares(gradient: Tensor, square_N: Tensor) -> None:
    """Attaches the sum of squares of each row to a gradient, [N, C, H, W]. A later change in place makes them invalid.

    Args:
        gradient: The gradient that a backward pass returns.
        square_N: The sums, at least float32, [N].
    """
    setattr(gradient, NAME, (gradient._version, square_N))


def attached_row_squares(x: Tensor) -> Tensor | None:
    """Returns the sums attached to a gradient, or to the gradient of which it is a view [T, B, C, H, W]; None: no sums."""
    for gradient in (x, x._base):
        version, square_N = getattr(gradient, NAME, (None, None))
        if version == x._version and square_N is not None and gradient is not None:
            same_rows = x.numel() == gradient.numel() and x.stride()[-gradient.dim() :] == gradient.stride()
            return square_N if same_rows else None
    return None
