"""The numbers of a bias from R independent rounds of estimates: its squared size as a share, and a cosine."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def pair_mean(product_RR: Tensor) -> Tensor:
    """Returns the mean of the products of different rounds.

    Two rounds are independent, so the mean of x_r . y_s over r != s is an unbiased estimate of E[x] . E[y]. The product of
    a round with itself would add its noise.
    """
    rounds = len(product_RR)
    return (product_RR.sum() - product_RR.diagonal().sum()) / (rounds * (rounds - 1))


def square_of_bias(error_RR: Tensor, full_RR: Tensor) -> dict[str, float | None]:
    """Returns the squared bias divided by the squared length of the true value. Noise can make it negative.

    Args:
        error_RR: The products of the rounds' errors. The expectation of an error is the bias.
        full_RR: The products of the rounds' estimates of the true value.

    Returns:
        "square", and "square_error": its standard error by the jackknife over the rounds. This error is too large by a
        factor of up to sqrt(2 (R - 1) / (R - 2)) where the noise exceeds the bias.
    """
    square, error = jackknife(
        lambda at: float(pair_mean(error_RR[at][:, at]) / pair_mean(full_RR[at][:, at])), error_RR
    )
    return {"square": square, "square_error": error}


def cosine_of_draw(error_RR: Tensor, mixed_RR: Tensor, full_RR: Tensor) -> float | None:
    """Returns the cosine between the expectations of the drawn and the full gradient; None where one of them is 0.

    Args:
        error_RR: Products of the rounds' errors.
        mixed_RR: Products of the rounds' errors with the rounds' full gradients.
        full_RR: Products of the rounds' full gradients.
    """
    full, mixed = pair_mean(full_RR), pair_mean(mixed_RR)
    drawn = pair_mean(error_RR) + 2 * mixed + full
    squared = float(drawn * full)
    if not 0 < squared < math.inf or not full > 0:
        return None
    return max(-1.0, min(1.0, float(full + mixed) / math.sqrt(squared)))


def jackknife(number: Callable[[Tensor], float], over_R: Tensor) -> tuple[float, float]:
    """Returns a number of all rounds and its standard error. The error comes from leaving out one round at a time.

    Args:
        number: Returns the number of the rounds at the given places.
        over_R: A tensor with an entry for each round; only its length is used.

    Source: Efron & Stein, "The jackknife estimate of variance", Annals of Statistics, 1981.
    """
    rounds = len(over_R)
    all_R = torch.arange(rounds)
    without = torch.tensor([number(all_R[all_R != left]) for left in range(rounds)], dtype=torch.float64)
    return number(all_R), float(without.std(correction=0)) * math.sqrt(rounds - 1)
