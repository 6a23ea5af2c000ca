"""The C core against torch's batch norm and pool and SpikingJelly's neuron, in float64."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, surrogate
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from sadp_bench.core.lif_equation import LIFEquation
from sadp_bench.core.row_squares import attached_row_squares
from sadp_bench.native.library import absence
from sadp_bench.native.norm_pool_lif import norm_pool_lif
from tests.gpu.oracle import weighted_norm_by_hand

pytestmark = pytest.mark.skipif(absence() is not None, reason=f"{absence()}")

SURROGATES = {
    "atan": surrogate.ATan(alpha=2.0),
    "sigmoid": surrogate.Sigmoid(alpha=4.0),
    "triangle": surrogate.PiecewiseQuadratic(alpha=1.0),
}
# T, B, C, H, W: odd sides; one channel and one step; more channels than a run of numbers holds; a last, shorter run.
SHAPES = [(4, 3, 5, 7, 9), (1, 2, 1, 6, 6), (2, 2, 600, 3, 3), (3, 2, 70, 4, 15)]


def norm_of(channels: int, training: bool) -> nn.BatchNorm2d:
    """Returns a norm whose weights and statistics are not the initial ones."""
    norm = nn.BatchNorm2d(channels).train(training)
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensor, low, high in (
            (norm.weight, 0.5, 1.5), (norm.bias, -0.3, 0.6), (norm.running_mean, 0.0, 1.0), (norm.running_var, 0.5, 2.0)
        ):  # fmt: skip
            tensor.uniform_(low, high, generator=g)
    return norm


def reference(
    y: Tensor,
    norm: nn.BatchNorm2d | None,
    equation: LIFEquation,
    timesteps: int,
    pool: int,
    still: bool,
    before: Tensor,
    share_B: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the spikes, the membranes after the last step, and the current, by torch and SpikingJelly."""
    if norm is None:
        x = y
    else:
        x = norm(y) if share_B is None else weighted_norm_by_hand(y, norm, share_B.repeat(len(y) // len(share_B)))
    x = avg_pool2d(x, 2) if pool == 2 else x
    x = x.expand(timesteps, *x.shape) if still else x.unflatten(0, (timesteps, -1))
    spikes, after, _ = functional.lif_multi_step(
        equation.gain * x, before, equation.tau, False, equation.threshold, None if equation.soft else 0.0,
        SURROGATES[equation.surrogate], True,
    )  # fmt: skip
    return spikes.flatten(0, 1), after, x


def inputs(shape: tuple[int, ...], pool: int, still: bool) -> tuple[Tensor, Tensor]:
    """Returns y, and membranes to start from."""
    timesteps, batch, channels, height, width = shape
    g = torch.Generator().manual_seed(0)
    y = 1.5 * torch.randn(batch if still else timesteps * batch, channels, height, width, generator=g)
    y += 0.5 * (torch.arange(channels) % 3)[:, None, None]
    return y, 0.5 * torch.rand(batch, channels, height // pool, width // pool, generator=g)


def close(found: Tensor, wanted: Tensor, relative: float) -> bool:
    """Returns whether the tensors differ by at most a share of the wanted one's norm, with a floor for sums that cancel."""
    found, wanted = found.double(), wanted.double()
    return bool((found - wanted).norm() <= relative * wanted.norm() + relative)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_equals_torch_and_spikingjelly(shape: tuple[int, ...]) -> None:
    settings = itertools.product(
        (False, True), SURROGATES, (1, 2), (False, True), ("training", "evaluation", "no norm")
    )
    for soft, name, pool, still, mode in settings:
        equation = LIFEquation(2.3, 1.7, 0.8, soft, name)
        norms = [None if mode == "no norm" else norm_of(shape[2], mode == "training") for _ in range(2)]
        y, before = inputs(shape, pool, still)
        ours, theirs = y.clone().requires_grad_(), y.double().requires_grad_()
        seen: list[Any] = []
        hooked = ours * 1
        hooked.register_hook(lambda dy, seen=seen: seen.append(attached_row_squares(dy)))
        spikes, after = norm_pool_lif(hooked, norms[0], equation, shape[0], pool, still, before)
        norm = None if norms[1] is None else norms[1].double()
        wanted, wanted_after, _ = reference(theirs, norm, equation, shape[0], pool, still, before.double())
        error = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(1))
        spikes.backward(error)
        wanted.backward(error.double())
        case = f"{soft=} {name} {pool=} {still=} {mode}"
        assert torch.equal(spikes, wanted.float()), case
        assert ours.grad is not None and seen and close(seen[0], ours.grad.double().square().sum((1, 2, 3)), 1e-5), case
        assert 0.05 < spikes.mean() < 0.95 and not after.requires_grad, case
        pairs: list[Any] = [(after, wanted_after), (ours.grad, theirs.grad)]
        if norms[0] is not None and norm is not None:
            pairs += [(p.grad, q.grad) for p, q in zip(norms[0].parameters(), norm.parameters(), strict=True)]
            pairs += zip(norms[0].buffers(), norm.buffers(), strict=True)
        assert all(close(found, wanted, 1e-5) for found, wanted in pairs), case


def test_shares_of_examples_weight_the_moments_forward_and_backward() -> None:
    """Odd sides, rows of several images' pixels, one step and one channel, static images, carried membranes, bfloat16."""
    cases = [*itertools.product(SHAPES[:1], (1, 2), (False, True), (torch.float32, torch.bfloat16))]
    cases += itertools.product(SHAPES[1:], (2,), (False,), (torch.float32,))
    for shape, pool, still, dtype in cases:
        equation = LIFEquation(2.3, 1.7, 0.8, False, "atan")
        norms = norm_of(shape[2], True), norm_of(shape[2], True).double()
        y, before = inputs(shape, pool, still)
        y = y.to(dtype)
        ours, theirs = y.clone().requires_grad_(), y.double().requires_grad_()
        share_B = 0.01 + 3 * torch.rand(shape[1], generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        share_B[0] = 0 if shape[1] > 2 else share_B[0]
        spikes, after = norm_pool_lif(ours, norms[0], equation, shape[0], pool, still, before, share_B)
        wanted, wanted_after, _ = reference(
            theirs, norms[1], equation, shape[0], pool, still, before.double(), share_B.float().double()
        )
        error = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        spikes.backward(error)
        wanted.backward(error.double())
        case = f"{shape} {pool=} {still=} {dtype}"
        assert torch.equal(spikes.double(), wanted) and 0.05 < spikes.float().mean() < 0.95, case
        pairs: list[Any] = [(p.grad, q.grad) for p, q in zip(*(norm.parameters() for norm in norms), strict=True)]
        pairs += [(after, wanted_after), *zip(*(norm.buffers() for norm in norms), strict=True)]
        assert all(close(found, value, 1e-5) for found, value in pairs), case
        assert ours.grad is not None and theirs.grad is not None
        assert close(ours.grad, theirs.grad, 1e-5 if dtype == torch.float32 else 4e-3), case


def test_equal_shares_are_no_shares_to_rounding_and_evaluation_has_none() -> None:
    y, before = inputs((4, 3, 5, 7, 9), 2, False)
    found = []
    for share_B in (None, torch.full((3,), 0.7)):
        norm, x = norm_of(5, True), y.clone().requires_grad_()
        spikes, after = norm_pool_lif(x, norm, LIFEquation(2.0, 1.0, 1.0, True, "atan"), 4, 2, False, before, share_B)
        spikes.backward(torch.ones_like(spikes))
        found.append([spikes, after, x.grad, *(p.grad for p in norm.parameters()), *norm.buffers()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_bfloat16_differs_by_the_rounding_of_what_comes_in_and_goes_out() -> None:
    for pool, still in itertools.product((1, 2), (False, True)):
        y, before = inputs((4, 3, 40, 7, 9), pool, still)
        equation = LIFEquation(2.0, 1.0, 1.0, False, "atan")
        norms = norm_of(40, True), norm_of(40, True).double()
        ours, theirs = y.bfloat16().requires_grad_(), y.bfloat16().double().requires_grad_()
        spikes, _ = norm_pool_lif(ours, norms[0], equation, 4, pool, still, before)
        wanted, _, _ = reference(theirs, norms[1], equation, 4, pool, still, before.double())
        error = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
        spikes.backward(error)
        wanted.backward(error.double())
        assert spikes.dtype == torch.bfloat16 and torch.equal(spikes.double(), wanted)
        assert ours.grad is not None and theirs.grad is not None and ours.grad.dtype == torch.bfloat16
        assert close(ours.grad, theirs.grad, 4e-3)  # half a unit in the last of 8 bits
        assert norms[0].weight.grad is not None and close(norms[0].weight.grad, norms[1].weight.grad, 1e-5)


def test_its_gradient_is_that_of_the_surrogates_integral() -> None:
    """Without spikes, the gradient is that of a smooth function, which finite differences give."""
    integrals = {
        "atan": lambda z: torch.atan(torch.pi * z) / torch.pi,
        "sigmoid": lambda z: torch.sigmoid(4 * z),
        "triangle": lambda z: z.clamp(-1, 1) - z.clamp(-1, 1).abs() * z.clamp(-1, 1) / 2,
    }
    y, _ = inputs((3, 2, 4, 6, 6), 2, False)
    g = torch.Generator().manual_seed(3)
    error, direction = torch.randn(6, 4, 3, 3, generator=g).double(), torch.randn(y.shape, generator=g).double()
    for name, integral in integrals.items():
        equation = LIFEquation(2.0, 0.1, 0.9, False, name)

        def smooth(y: Tensor, integral: Any = integral) -> Tensor:
            x = avg_pool2d(norm_of(4, True).double()(y), 2).unflatten(0, (3, 2))
            h, total = torch.zeros_like(x[0]), torch.zeros((), dtype=torch.float64)
            for step in range(3):
                h = h / 2 + 0.1 * x[step]
                total = total + (integral(h - 0.9) * error.unflatten(0, (3, 2))[step]).sum()
            return total

        ours = y.clone().requires_grad_()
        spikes, _ = norm_pool_lif(ours, norm_of(4, True), equation, 3, 2, False, None)
        spikes.backward(error.float())
        assert spikes.sum() == 0 and ours.grad is not None
        step = 1e-5 * direction
        slope = (smooth(y.double() + step) - smooth(y.double() - step)).item() / 2e-5
        assert (ours.grad.double() * direction).sum().item() == pytest.approx(slope, rel=1e-4)


def test_its_numbers_do_not_depend_on_the_threads() -> None:
    y, before = inputs((2, 9, 16, 8, 8), 2, False)
    found = []
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            norm, x = norm_of(16, True), y.clone().requires_grad_()
            spikes, after = norm_pool_lif(x, norm, LIFEquation(2.0, 1.0, 1.0, True, "atan"), 2, 2, False, before)
            spikes.backward(torch.ones_like(spikes))
            found.append([spikes, after, x.grad, *(p.grad for p in norm.parameters()), *norm.buffers()])
    finally:
        torch.set_num_threads(threads)
    for others in found[1:]:
        assert all(map(torch.equal, found[0], others))


def test_the_variance_of_a_channel_far_from_0_is_exact() -> None:
    y = 1000 + torch.randn(8, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    norm = nn.BatchNorm2d(3, momentum=1.0)
    norm_pool_lif(y, norm, LIFEquation(2.0, 1.0, 1.0, False, "atan"), 4, 1, False, None)
    torch.testing.assert_close(norm.running_var, y.double().var((0, 2, 3)).float(), rtol=1e-5, atol=0)


def test_a_single_value_of_a_channel_has_no_variance_as_in_torch() -> None:
    y, equation = torch.ones(1, 3, 1, 1), LIFEquation(2.0, 1.0, 1.0, False, "atan")
    for normalise in (norm_of(3, True), lambda y: norm_pool_lif(y, norm_of(3, True), equation, 1, 1, False, None)):
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            normalise(y)
    norm_pool_lif(y, norm_of(3, False), equation, 1, 1, False, None)


def test_a_number_that_is_not_finite_stays_visible() -> None:
    y = torch.zeros(2, 3, 4, 4)
    y[0, 1, 2, 2] = torch.nan
    spikes, after = norm_pool_lif(y, norm_of(3, True), LIFEquation(2.0, 1.0, 1.0, False, "atan"), 2, 1, False, None)
    assert bool(after[:, 1].isnan().all()) and bool(after[:, [0, 2]].isfinite().all()) and bool(spikes.isfinite().all())


def test_it_keeps_nothing_but_its_input_for_the_backward_pass() -> None:
    y, norm = torch.randn(8, 16, 10, 10).requires_grad_(), norm_of(16, True)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        norm_pool_lif(y, norm, LIFEquation(2.0, 1.0, 1.0, False, "atan"), 4, 2, False, None)
    assert sum(kept) == y.numel() + 4 * 16  # the norm's weight, bias, mean and deviation
