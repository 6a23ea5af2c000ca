"""Per-example losses of an SNN's logits, and their gradient at the logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

# (logits_TBC, target) -> loss_B. The target is label_B, int64, or the classes' shares of each example's label, [B, C].
Loss = Callable[[Tensor, Tensor], Tensor]
MSE_WEIGHT = 0.05  # weight of the squared distance in `WITH_MSE`


def mean_loss(logits_TBC: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """Returns the cross-entropy of the logits' mean over time. [B].

    Args:
        logits_TBC: The logits.
        target: See `Loss`.
        smoothing: The share of the target that is uniform over the classes.
    """
    return cross_entropy(logits_TBC.mean(0), target, reduction="none", label_smoothing=smoothing)


def step_loss(logits_TBC: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """Returns the mean over time of each step's cross-entropy. [B].

    Source: TET (Deng et al., ICLR 2022), without its regularising MSE term.
    """
    num_steps = len(logits_TBC)
    repeated = target.repeat(num_steps, *(1,) * (target.dim() - 1))
    loss_TB = cross_entropy(logits_TBC.flatten(0, 1), repeated, reduction="none", label_smoothing=smoothing)
    return loss_TB.view(num_steps, -1).mean(0)


def step_mse_loss(logits_TBC: Tensor, target: Tensor, weight: float = MSE_WEIGHT, smoothing: float = 0.0) -> Tensor:
    """Returns the mean over time of (1 - weight) * cross-entropy + weight * squared distance of the logits from 1. [B].

    The squared distance is the mean over the classes.

    Source: TET (Deng et al., ICLR 2022, with lambda = 0.05 and all targets 1), as SLTT trains (Meng et al., ICCV 2023).
    """
    distance_B = (logits_TBC - 1).square().mean((0, 2))
    return (1 - weight) * step_loss(logits_TBC, target, smoothing) + weight * distance_B


def step_mse_onehot_loss(
    logits_TBC: Tensor, target: Tensor, weight: float = MSE_WEIGHT, smoothing: float = 0.0
) -> Tensor:
    """Returns `step_mse_loss` with the squared distance from the one-hot label, or the label's shares, unsmoothed. [B].

    Source: SLTT on CIFAR10-DVS (Meng et al., ICCV 2023; its code's option `mse_n_reg`).
    """
    target_BC = one_hot(target, logits_TBC.shape[2]) if target.dim() == 1 else target
    distance_B = (logits_TBC - target_BC.to(logits_TBC.dtype)).square().mean((0, 2))
    return (1 - weight) * step_loss(logits_TBC, target, smoothing) + weight * distance_B


WITH_MSE: dict[str, Callable[..., Tensor]] = {"step-mse": step_mse_loss, "step-mse-onehot": step_mse_onehot_loss}
LOSSES: dict[str, Callable[..., Tensor]] = {"mean": mean_loss, "step": step_loss, **WITH_MSE}


def loss_of(name: str, mse_weight: float, smoothing: float = 0.0) -> Loss:
    """Returns the loss of that name.

    Args:
        name: A key of `LOSSES`.
        mse_weight: Weight of the squared distance in `WITH_MSE`.
        smoothing: The share of the cross-entropy's target that is uniform over the classes.
    """
    weight = {"weight": mse_weight} if name in WITH_MSE else {}
    return partial(LOSSES[name], **weight, smoothing=smoothing)


@dataclass(frozen=True, slots=True, eq=False)
class WeightedLoss:
    """The loss of a batch: the sum of weight_B * loss_B, divided by a number.

    Args:
        loss: Returns the loss of each example.
        target: The labels, or the classes' shares of them; see `Loss`.
        weight_B: Weights of the losses, float32.
        divisor: The size of the whole batch divided by the number of processes, whose gradients are averaged.
    """

    loss: Loss
    target: Tensor
    weight_B: Tensor
    divisor: float

    def of_examples(self, logits_TBC: Tensor) -> Tensor:
        """Returns loss_B, each example's loss before weighting."""
        return self.loss(logits_TBC, self.target)

    def total(self, loss_B: Tensor) -> Tensor:
        """Returns the weighted loss of the batch."""
        return (loss_B * self.weight_B.to(loss_B.dtype)).sum() / self.divisor


def logit_errors(loss: Loss, logits_TBC: Tensor, target: Tensor) -> Tensor:
    """Returns the gradient of each example's loss at its logits, [T, B, C], for any loss."""
    with torch.enable_grad():
        logits_TBC = logits_TBC.detach().requires_grad_()
        return torch.autograd.grad(loss(logits_TBC, target).sum(), logits_TBC)[0]
