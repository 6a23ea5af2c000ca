"""What a loop multiplied each example's gradient with, measured at the logits, and what that tells of its mistakes.

T steps, B examples, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

SURE = 1e-3  # of the batch's largest error: a smaller one tells its scale too roughly
PARALLEL = 0.03  # of the gradient's norm may lie beside the assumed one: far above what bfloat16 rounds
ALIKE = 0.02  # of their mean: numbers that vary by less are taken to be one
WINDOW = 4  # batches in a row whose scales are compared


def gradient_scales(gradient_TBC: Tensor, error_TBC: Tensor, weight_B: Tensor) -> Tensor:
    """scale_i with gradient_i = scale_i error_i: weight, batch mean, loss scaling and all. [B], float32 at least.

    gradient: what came back to the logits. error: the gradient of the example's own, unweighted loss there. By least
    squares, <gradient_i, error_i> / <error_i, error_i>. An example without an error to speak of has its weight times what
    the others' scales have to theirs.
    """
    product_B, square_B = _products(gradient_TBC, error_TBC)
    weight_B = weight_B.to(product_B.dtype)
    common = (product_B * weight_B).sum() / (square_B * weight_B.square()).sum()
    scale_B = torch.where(_sure(square_B), product_B / square_B, common * weight_B)
    return torch.where(square_B.sum() > 0, scale_B, weight_B)


class ScaleChecks:
    """Tells mistakes by the scales of batches in a row. Looks at numbers, so a GPU must be waited for."""

    def __init__(self) -> None:
        self._by_size: list[float] = []
        self._by_weight: list[float] = []

    def look(self, gradient_TBC: Tensor, error_TBC: Tensor, scale_B: Tensor, weight_B: Tensor) -> str | None:
        """What is wrong with a batch's gradients, if anything is: the loss, the weights, or their mean."""
        product_B, square_B = _products(gradient_TBC, error_TBC)
        sure_B = _sure(square_B)
        gradient = gradient_TBC.to(product_B.dtype)
        beside = (gradient - scale_B[:, None] * error_TBC.to(product_B.dtype))[:, sure_B]
        if float(beside.norm()) > PARALLEL * float(gradient[:, sure_B].norm()):
            return OTHER_LOSS
        scale_b, weight_b = scale_B[sure_B].double(), weight_B[sure_B].double()
        if len(scale_b) < 2:
            return None
        ratio_b = scale_b / weight_b
        if not _alike(ratio_b):
            return WEIGHTS_LOST if _alike(scale_b) else OTHER_LOSS
        self._by_size.append(float(ratio_b.mean()) * len(weight_B))
        self._by_weight.append(float(ratio_b.mean()) * float(weight_B.sum()))
        return self._divided()

    def _divided(self) -> str | None:
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


def _sure(square_B: Tensor) -> Tensor:
    return (square_B > 0) & (square_B >= SURE**2 * square_B.max())


def _alike(value_n: Tensor, most: float = ALIKE) -> bool:
    return bool(value_n.std(correction=0) <= most * value_n.mean().abs())
