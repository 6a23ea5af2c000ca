"""Per-example losses of an SNN's logits, and their gradient at the logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

Loss = Callable[[Tensor, Tensor], Tensor]  # (logits_TBC, label_B) -> loss_B
MSE_WEIGHT = 0.05  # of the squared distance in `WITH_MSE`


def mean_loss(logits_TBC: Tensor, label_B: Tensor) -> Tensor:
    """Returns the cross-entropy of the logits' mean over time. [B]."""
    return cross_entropy(logits_TBC.mean(0), label_B, reduction="none")


def step_loss(logits_TBC: Tensor, label_B: Tensor) -> Tensor:
    """Returns the mean over time of each step's cross-entropy. [B].

    Source: TET (Deng et al., ICLR 2022), without its regularising MSE term.
    """
    num_steps = len(logits_TBC)
    loss_TB = cross_entropy(logits_TBC.flatten(0, 1), label_B.repeat(num_steps), reduction="none")
    return loss_TB.view(num_steps, -1).mean(0)


def step_mse_loss(logits_TBC: Tensor, label_B: Tensor, weight: float = MSE_WEIGHT) -> Tensor:
    """Returns the mean over time of (1 - weight) cross-entropy + weight squared distance of the logits from 1. [B].

    The squared distance is the mean over the classes.

    Source: TET (Deng et al., ICLR 2022, with lambda = 0.05 and all targets 1), as SLTT trains (Meng et al., ICCV 2023).
    """
    return (1 - weight) * step_loss(logits_TBC, label_B) + weight * (logits_TBC - 1).square().mean((0, 2))


def step_mse_onehot_loss(logits_TBC: Tensor, label_B: Tensor, weight: float = MSE_WEIGHT) -> Tensor:
    """Returns `step_mse_loss` with the squared distance from the one-hot label. [B].

    Source: SLTT on CIFAR10-DVS (Meng et al., ICCV 2023; its code's option `mse_n_reg`).
    """
    target_BC = one_hot(label_B, logits_TBC.shape[2]).to(logits_TBC.dtype)
    return (1 - weight) * step_loss(logits_TBC, label_B) + weight * (logits_TBC - target_BC).square().mean((0, 2))


WITH_MSE: dict[str, Callable[..., Tensor]] = {"step-mse": step_mse_loss, "step-mse-onehot": step_mse_onehot_loss}
LOSSES: dict[str, Loss] = {"mean": mean_loss, "step": step_loss, **WITH_MSE}


def loss_of(name: str, mse_weight: float) -> Loss:
    """Returns the loss of that name; `mse_weight` is that of the squared distance in `WITH_MSE`."""
    return partial(WITH_MSE[name], weight=mse_weight) if name in WITH_MSE else LOSSES[name]


@dataclass(frozen=True, slots=True, eq=False)
class WeightedLoss:
    """The loss of a batch: the sum of weight_B * loss_B, divided by a number.

    Args:
        loss: Returns the loss of each example.
        label_B: The labels, int64.
        weight_B: Weights of the losses, float32.
        divisor: The size of the whole batch divided by the number of processes, whose gradients are averaged.
    """

    loss: Loss
    label_B: Tensor
    weight_B: Tensor
    divisor: float

    def of_examples(self, logits_TBC: Tensor) -> Tensor:
        """Returns loss_B, each example's loss before weighting."""
        return self.loss(logits_TBC, self.label_B)

    def total(self, loss_B: Tensor) -> Tensor:
        """Returns the weighted loss of the batch."""
        return (loss_B * self.weight_B.to(loss_B.dtype)).sum() / self.divisor


def logit_errors(loss: Loss, logits_TBC: Tensor, label_B: Tensor) -> Tensor:
    """Returns the gradient of each example's loss at its logits, [T, B, C], for any loss."""
    with torch.enable_grad():
        logits_TBC = logits_TBC.detach().requires_grad_()
        return torch.autograd.grad(loss(logits_TBC, label_B).sum(), logits_TBC)[0]
