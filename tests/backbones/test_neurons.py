"""The neuron on a CPU against SpikingJelly, in spikes and gradients."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor

from sadp_bench.backbones.cpu_lif import CPULif
from sadp_bench.backbones.spiking import LIF, NeuronSettings
from tests.backbones.helpers import randn

# SpikingJelly's names; ours must be equal.
SURROGATES = {
    "atan": surrogate.ATan(alpha=2.0),
    "sigmoid": surrogate.Sigmoid(alpha=4.0),
    "triangle": surrogate.PiecewiseQuadratic(alpha=1.0),
}
SETTINGS = list(itertools.product(("hard", "soft"), (True, False), SURROGATES))  # reset, decay, surrogate


def at_rest(current: Tensor, *settings: Any) -> Tensor:
    """Returns the CPU neuron's spikes from rest."""
    rest = torch.zeros(current.shape[1:], dtype=torch.promote_types(current.dtype, torch.float32))
    spikes: Tensor = CPULif.apply(current, rest, *settings)[0]
    return spikes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_cpu_neuron_equals_spikingjelly_in_spikes_and_gradients(dtype: torch.dtype) -> None:
    for reset, decay, name in SETTINGS:
        check_against_spikingjelly(reset, decay, name, dtype)


def check_against_spikingjelly(reset: str, decay: bool, name: str, dtype: torch.dtype) -> None:
    tau, threshold = 2.3, 0.8
    current = 2 * randn(6, 11, 5, 7, dtype=dtype)
    error = randn(6, 11, 5, 7, dtype=dtype, seed=1)
    ours, theirs = current.clone().requires_grad_(), current.clone().requires_grad_()
    spikes = at_rest(ours, tau, 1 / tau if decay else 1.0, threshold, reset == "soft", name)
    wanted, _, _ = functional.lif_multi_step(
        theirs,
        torch.zeros(11, 5, 7, dtype=dtype),
        tau,
        decay,
        threshold,
        None if reset == "soft" else 0.0,
        SURROGATES[name],
        True,
    )
    spikes.backward(error)
    wanted.backward(error)
    assert torch.equal(spikes, wanted) and 0.1 < spikes.mean() < 0.9
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert ours.grad is not None and ours.grad.dtype == dtype
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [(4, 3, 6, 5, 5), (4, 3, 17)])
def test_the_layer_equals_spikingjellys_lif_node(shape: tuple[int, ...]) -> None:
    for (reset, decay, name), detach_reset in itertools.product(SETTINGS, (True, False)):
        check_layer(reset, decay, name, shape, detach_reset)


def check_layer(reset: str, decay: bool, name: str, shape: tuple[int, ...], detach_reset: bool) -> None:
    ours = LIF(NeuronSettings(1.7, 0.9, decay, reset, detach_reset, name))
    theirs = neuron.LIFNode(
        1.7, decay, 0.9, None if reset == "soft" else 0.0, SURROGATES[name], detach_reset, step_mode="m"
    )
    current = 2 * randn(*shape, dtype=torch.float64)
    a, b = current.clone().requires_grad_(), current.clone().requires_grad_()
    spikes, wanted = ours(a), theirs(b)
    error = randn(*shape, dtype=torch.float64, seed=1)
    spikes.backward(error)
    wanted.backward(error)
    assert torch.equal(spikes, wanted) and spikes.shape == shape
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-7)
    assert torch.equal(ours(current), spikes)  # no state between batches; theirs needs reset_net


def test_the_surrogates_are_the_functions_that_the_papers_give() -> None:
    for name in SURROGATES:
        x = torch.linspace(-2, 4, 41, dtype=torch.float64).requires_grad_()
        at_rest(x[None], 2.0, 1.0, 1.0, False, name).sum().backward()
        for at, slope in zip(x.tolist(), x.grad.tolist(), strict=True):
            u = at - 1.0
            wanted = {
                "atan": 1 / (1 + (math.pi * u) ** 2),
                "sigmoid": 4 * (s := 1 / (1 + math.exp(-4 * u))) * (1 - s),
                "triangle": max(0.0, 1 - abs(u)),
            }[name]
            assert slope == pytest.approx(wanted, abs=1e-12)


def test_a_bfloat16_current_keeps_a_float32_membrane() -> None:
    current = (2 * randn(8, 500)).bfloat16()
    spikes = at_rest(current, 2.0, 0.5, 1.0, False, "atan")
    assert spikes.dtype == torch.bfloat16
    assert torch.equal(spikes.float(), at_rest(current.float(), 2.0, 0.5, 1.0, False, "atan"))
