"""What a loop multiplied each example's gradient with, measured at the logits, and what that tells of its mistakes.

T steps, B examples, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

SURE = 1e-3  # of the batch's largest error: a smaller one tells its scale too roughly
APART = 0.03  # of the gradient's norm may lie beside what is assumed
MIN_ERROR = 1e-3  # largest error of a batch whose gradients tell mistakes from rounding
COARSE = 10, 100  # times as much of the two where the logits have 16 bits, in which losses round by a tenth and more
ALIKE = 0.02  # of their mean: numbers that vary by less are taken to be one
WINDOW = 4  # batches in a row whose scales are compared


def gradient_scales(gradient_TBC: Tensor, error_TBC: Tensor, weight_B: Tensor) -> Tensor:
    """scale_i with gradient_i = scale_i error_i: weight, batch mean, loss scaling and all. [B], float32 at least.

    gradient: what came back to the logits. error: the gradient of the example's own, unweighted loss there. By least
    squares, <gradient_i, error_i> / <error_i, error_i>. An example without an error to speak of has its weight times what
    the others' scales have to theirs; so have all where the logits have 16 bits, which tell that factor and no more.
    """
    product_B, square_B = _products(gradient_TBC, error_TBC)
    weight_B = weight_B.to(product_B.dtype)
    sure_B = (square_B > 0) & (square_B >= SURE**2 * square_B.max())
    if _coarse(gradient_TBC):
        sure_B = torch.zeros_like(sure_B)
    scale_B = torch.where(sure_B, product_B / square_B, _common(product_B, square_B, weight_B) * weight_B)
    return torch.where(square_B.sum() > 0, scale_B, weight_B)


class ScaleChecks:
    """Tells mistakes by the gradients of batches in a row. Looks at numbers, so a GPU must be waited for."""

    def __init__(self) -> None:
        self._by_size: list[float] = []
        self._by_weight: list[float] = []

    def look(self, gradient_TBC: Tensor, error_TBC: Tensor, weight_B: Tensor) -> str | None:
        """What is wrong with a batch's gradients, if anything is: the loss, the weights, or their mean."""
        product_B, square_B = _products(gradient_TBC, error_TBC)
        weight_B, coarse = weight_B.to(product_B.dtype), _coarse(gradient_TBC)
        apart, least = (
            factor * most for factor, most in zip(COARSE if coarse else (1, 1), (APART, MIN_ERROR), strict=True)
        )
        if float(square_B.max()) < least**2:
            return None
        gradient, error = gradient_TBC.to(product_B.dtype), error_TBC.to(product_B.dtype)

        def explained(scale_B: Tensor) -> bool:
            return bool((gradient - scale_B[:, None] * error).norm() <= apart * gradient.norm())

        factor = _common(product_B, square_B, weight_B)
        if explained(factor * weight_B):
            return None if coarse else self._divided(float(factor), weight_B)
        none_B = torch.ones_like(weight_B)
        return WEIGHTS_LOST if explained(_common(product_B, square_B, none_B) * none_B) else OTHER_LOSS

    def _divided(self, factor: float, weight_B: Tensor) -> str | None:
        self._by_size.append(factor * len(weight_B))
        self._by_weight.append(factor * float(weight_B.sum()))
        by_size, by_weight = (torch.tensor(seen[-WINDOW:]) for seen in (self._by_size, self._by_weight))
        if len(by_size) == WINDOW and not _alike(by_size, ALIKE) and _alike(by_weight, ALIKE / 4):
            return DIVIDED
        return None


OTHER_LOSS = (
    "the gradient at the logits is not that of the assumed loss: tell watch(..., loss=) which it is: 'mean' (cross-entropy "
    "of the logits' mean over time), 'step' (its mean over the steps), or a function (logits_TBC, label_B) -> loss_B, "
    "without the weights"
)
WEIGHTS_LOST = (
    'the weights do not reach the loss: every example\'s gradient has the same scale; take the loss with reduction="none", '
    "multiply it with sampler.weight(index), then take the mean"
)
DIVIDED = (
    "the loss is divided by the sum of the weights, which biases the gradient from batch to batch: take the plain mean of "
    "sampler.weight(index) * loss_B"
)


def _products(gradient_TBC: Tensor, error_TBC: Tensor) -> tuple[Tensor, Tensor]:
    """<gradient_i, error_i> and <error_i, error_i>. [B]."""
    wide = torch.promote_types(torch.promote_types(gradient_TBC.dtype, error_TBC.dtype), torch.float32)
    gradient, error = gradient_TBC.to(wide), error_TBC.to(wide)
    return (gradient * error).sum((0, 2)), error.square().sum((0, 2))


def _common(product_B: Tensor, square_B: Tensor, weight_B: Tensor) -> Tensor:
    """The factor of which gradient_i is nearest to factor x weight_i x error_i."""
    return (product_B * weight_B).sum() / (square_B * weight_B.square()).sum()


def _coarse(gradient_TBC: Tensor) -> bool:
    return gradient_TBC.dtype.itemsize == 2


def _alike(value_n: Tensor, most: float) -> bool:
    return bool(value_n.std(correction=0) <= most * value_n.mean().abs())
