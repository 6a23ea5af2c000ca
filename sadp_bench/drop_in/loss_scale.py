"""The factor of each example's gradient in a user's loop, measured at the logits, and the mistakes that it reveals.

T steps, B examples, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sadp_bench.core.precision import wide_dtype

MIN_RELATIVE_ERROR = 1e-3  # Share of the batch's largest error; a smaller error gives too rough a scale.
MAX_RESIDUAL = 0.03  # Share of the gradient's norm that may remain unexplained.
MIN_ERROR = 1e-3  # Norm of a batch's largest error; below it, mistakes can't be distinguished from rounding.
COARSE_FACTORS = (
    10,
    100,
)  # Factors of the two limits above for logits of 16 bits, whose losses round by a tenth and more.
MAX_SPREAD = 0.02  # Standard deviation over mean; numbers that vary by less count as equal.
WINDOW = 4  # Number of successive batches whose scales are compared.

OTHER_LOSS = (
    "the gradient at the logits is not that of the assumed loss: pass the loss as watch(..., loss=): 'mean' (cross-entropy "
    "of the logits' mean over time), 'step' (its mean over the steps), or a function (logits_TBC, label_B) -> loss_B, "
    "without the weights"
)
WEIGHTS_LOST = (
    'the weights do not reach the loss: every example\'s gradient has the same scale; take the loss with reduction="none", '
    "multiply it by sampler.weight(index), then take the mean"
)
DIVIDED = (
    "the loss is divided by the sum of the weights, which biases the gradient from batch to batch: take the plain mean of "
    "sampler.weight(index) * loss_B"
)


def gradient_scales(gradient_TBC: Tensor, error_TBC: Tensor, weight_B: Tensor) -> Tensor:
    """Returns scale_i with gradient_i = scale_i error_i, [B], in at least float32.

    The scale contains the weight, the batch mean, and loss scaling. It is a least-squares fit,
    <gradient_i, error_i> / <error_i, error_i>. For an example with a negligible error, it is the weight times the common
    factor between scales and weights of the others. With logits of 16 bits this holds for all examples, because such logits
    determine only the common factor.

    Args:
        gradient_TBC: The gradient at the logits.
        error_TBC: The gradient of each example's unweighted loss at the logits.
        weight_B: The loss weights.
    """
    product_B, square_B = _products(gradient_TBC, error_TBC)
    weight_B = weight_B.to(product_B.dtype)
    reliable_B = (square_B > 0) & (square_B >= MIN_RELATIVE_ERROR**2 * square_B.max())
    if _is_coarse(gradient_TBC):
        reliable_B = torch.zeros_like(reliable_B)
    scale_B = torch.where(reliable_B, product_B / square_B, _common_factor(product_B, square_B, weight_B) * weight_B)
    return torch.where(square_B.sum() > 0, scale_B, weight_B)


class ScaleChecks:
    """Finds mistakes of a loop in the gradients of successive batches. A check waits for a GPU, because it reads numbers."""

    def __init__(self) -> None:
        self._by_size: list[float] = []
        self._by_weight: list[float] = []

    def check(self, gradient_TBC: Tensor, error_TBC: Tensor, weight_B: Tensor) -> str | None:
        """Returns the mistake that a batch's gradients show, or None. Takes the arguments of `gradient_scales`."""
        product_B, square_B = _products(gradient_TBC, error_TBC)
        weight_B, coarse = weight_B.to(product_B.dtype), _is_coarse(gradient_TBC)
        factors = COARSE_FACTORS if coarse else (1, 1)
        max_residual, min_error = factors[0] * MAX_RESIDUAL, factors[1] * MIN_ERROR
        if float(square_B.max()) < min_error**2:
            return None
        gradient, error = gradient_TBC.to(product_B.dtype), error_TBC.to(product_B.dtype)

        def explained(scale_B: Tensor) -> bool:
            return bool((gradient - scale_B[:, None] * error).norm() <= max_residual * gradient.norm())

        factor = _common_factor(product_B, square_B, weight_B)
        if explained(factor * weight_B):
            return None if coarse else self._check_division(float(factor), weight_B)
        unit_B = torch.ones_like(weight_B)
        return WEIGHTS_LOST if explained(_common_factor(product_B, square_B, unit_B) * unit_B) else OTHER_LOSS

    def _check_division(self, factor: float, weight_B: Tensor) -> str | None:
        """Returns DIVIDED where the factors of successive batches follow the sums of weights instead of the sizes."""
        self._by_size.append(factor * len(weight_B))
        self._by_weight.append(factor * float(weight_B.sum()))
        by_size, by_weight = (torch.tensor(values[-WINDOW:]) for values in (self._by_size, self._by_weight))
        divided = not _nearly_equal(by_size, MAX_SPREAD) and _nearly_equal(by_weight, MAX_SPREAD / 4)
        return DIVIDED if len(by_size) == WINDOW and divided else None


def _products(gradient_TBC: Tensor, error_TBC: Tensor) -> tuple[Tensor, Tensor]:
    """Returns <gradient_i, error_i> and <error_i, error_i>. [B]."""
    wide = wide_dtype(gradient_TBC, error_TBC)
    gradient, error = gradient_TBC.to(wide), error_TBC.to(wide)
    return (gradient * error).sum((0, 2)), error.square().sum((0, 2))


def _common_factor(product_B: Tensor, square_B: Tensor, weight_B: Tensor) -> Tensor:
    """Returns the factor for which factor x weight_i x error_i is nearest to gradient_i."""
    return (product_B * weight_B).sum() / (square_B * weight_B.square()).sum()


def _is_coarse(gradient_TBC: Tensor) -> bool:
    return gradient_TBC.dtype.itemsize == 2


def _nearly_equal(value_n: Tensor, max_spread: float) -> bool:
    return bool(value_n.std(correction=0) <= max_spread * value_n.mean().abs())
