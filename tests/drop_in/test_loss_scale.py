"""Scales of gradients against the numbers from which they were made."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sadp_bench.core.losses import logit_errors, mean_loss
from sadp_bench.core.rng import stream
from sadp_bench.drop_in.loss_scale import DIVIDED, OTHER_LOSS, WEIGHTS_LOST, ScaleChecks, gradient_scales

WEIGHT = torch.tensor([0.5, 2.0, 1.0, 0.25, 4.0, 1.0])
ERROR = torch.randn(3, 6, 5, generator=stream(0, "scales"), dtype=torch.float64)


def gradient(scale_B: Tensor) -> Tensor:
    return ERROR * scale_B[:, None]


def test_a_scale_is_the_errors_factor_whatever_the_weights_are() -> None:
    for scale_B in (
        *(factor * WEIGHT.double() for factor in (1.0, 1 / 384, 65536.0, -2.0)),
        torch.arange(1.0, 7).double(),
    ):
        torch.testing.assert_close(gradient_scales(gradient(scale_B), ERROR, WEIGHT), scale_B, rtol=1e-12, atol=0)


def test_without_an_error_the_others_ratio_to_their_weights_counts() -> None:
    error, factor_B = ERROR.clone(), torch.tensor([1, 1e-9, 1, 0, 1, 1], dtype=torch.float64)
    error *= factor_B[:, None]
    noise = 1e-12 * torch.randn_like(error)
    found_B = gradient_scales(error * (3 * WEIGHT.double())[:, None] + noise, error, WEIGHT)
    torch.testing.assert_close(found_B, 3 * WEIGHT.double(), rtol=1e-9, atol=0)


def test_scales_are_finite_without_errors_and_not_with_an_infinite_gradient() -> None:
    zero = torch.zeros(3, 6, 5)
    assert torch.equal(gradient_scales(zero, zero, WEIGHT), WEIGHT)
    made = gradient(WEIGHT.double())
    made[1, 2, 3] = torch.inf
    assert not gradient_scales(made, ERROR, WEIGHT).isfinite().all()


def test_scales_are_float32_at_least() -> None:
    half = gradient(WEIGHT.double() / 8).bfloat16()
    found_B = gradient_scales(half, ERROR.float(), WEIGHT)
    assert found_B.dtype == torch.float32
    torch.testing.assert_close(found_B, WEIGHT / 8, rtol=2**-8, atol=0)


def looked(made: Tensor, checks: ScaleChecks | None = None, weight_B: Tensor = WEIGHT) -> str | None:
    return (checks or ScaleChecks()).check(made, ERROR, weight_B)


def test_each_mistake_is_found_and_a_right_loop_has_none() -> None:
    right = gradient(WEIGHT.double() / 6)
    assert looked(right) is None and looked(right.bfloat16()) is None
    for made in (gradient(torch.ones(6).double()), gradient(torch.ones(6).double()).bfloat16()):
        assert looked(made) == WEIGHTS_LOST
    assert looked(gradient(WEIGHT.double().square()).bfloat16()) == OTHER_LOSS
    assert looked(gradient(WEIGHT.double().square())) == OTHER_LOSS  # scales of neither kind
    assert looked(right + 0.05 * right.norm() * torch.ones_like(right) / right.numel() ** 0.5) == OTHER_LOSS
    assert looked(gradient(torch.ones(6).double()), weight_B=torch.ones(6)) is None


def test_logits_of_16_bits_that_are_averaged_before_the_loss_are_no_mistake() -> None:
    label_B, weight_B = torch.arange(200) % 5, torch.rand(200, generator=stream(3, "scales")) + 0.2
    for solved in (0.0, 4.0, 12.0):
        logits_TBC = 6 * torch.randn(4, 200, 5, generator=stream(2, "scales")) + solved * torch.eye(5)[label_B]
        logits_TBC = logits_TBC.bfloat16().requires_grad_()
        loss_B = cross_entropy(logits_TBC.mean(0), label_B, reduction="none")
        assert loss_B.dtype == torch.bfloat16
        [made] = torch.autograd.grad((weight_B * loss_B).mean(), logits_TBC)
        error_TBC = logit_errors(mean_loss, logits_TBC.detach().float(), label_B)
        torch.testing.assert_close(gradient_scales(made, error_TBC, weight_B), weight_B / 200, rtol=0.05, atol=0)
        assert ScaleChecks().check(made, error_TBC, weight_B) is None, solved


def test_errors_as_small_as_rounding_show_no_mistake() -> None:
    assert ScaleChecks().check(1e-5 * gradient(WEIGHT.double().square()), 1e-5 * ERROR, WEIGHT) is None


def test_division_by_the_weights_sum_is_found_after_some_batches_of_uneven_weight() -> None:
    generator = stream(1, "scales")
    weights = [torch.rand(6, generator=generator) + 0.2 for _ in range(6)]
    wrong, right, scaler = ScaleChecks(), ScaleChecks(), ScaleChecks()
    found = [looked(gradient(w.double() / w.sum()), wrong, w) for w in weights]
    assert found[:3] == [None] * 3 and DIVIDED in found
    assert [looked(gradient(w.double() / 6), right, w) for w in weights] == [None] * 6
    growing = [2.0**10 if at < 3 else 2.0**11 for at in range(6)]  # a GradScaler doubles
    assert [looked(gradient(g * w.double() / 6), scaler, w) for g, w in zip(growing, weights, strict=True)] == [
        None
    ] * 6
