"""A LIF neuron that learns its time constant: SpikingJelly's, and a part of a network that trains, stops and goes on."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from spikingjelly.activation_based import functional, neuron
from spikingjelly.activation_based.surrogate import ATan

from sadp_bench.backbones.parametric_lif import ParametricLIF
from sadp_bench.backbones.sew_7b import SEW7B
from sadp_bench.backbones.spiking import LIF, NeuronSettings
from sadp_bench.backbones.step_by_step import carrying
from tests.commands import command
from tests.small_runs import small_bench


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("decay_input", [True, False])
def test_spikes_and_gradients_are_spikingjellys(dtype: torch.dtype, reset: str, decay_input: bool) -> None:
    settings = NeuronSettings(tau=1.7, decay_input=decay_input, reset=reset)
    ours = ParametricLIF(settings).to(dtype)
    theirs = neuron.ParametricLIFNode(
        1.7, decay_input, 1.0, 0.0 if reset == "hard" else None, ATan(alpha=2.0), detach_reset=True, step_mode="m"
    ).to(dtype)
    draw = torch.Generator().manual_seed(0)
    x = 1.5 * torch.randn(5, 3, 4, 6, 6, generator=draw, dtype=dtype)
    weight = torch.randn(x.shape, generator=draw, dtype=dtype)
    found = []
    for layer in (ours, theirs):
        functional.reset_net(layer)
        leaf = x.clone().requires_grad_()
        spikes = layer(leaf)
        (spikes * weight).sum().backward()
        found.append((spikes.detach(), leaf.grad, layer.w.grad))
    assert 0.1 < found[0][0].mean() < 0.9 and found[0][2].abs() > 0.01
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other)


def test_it_begins_as_the_neuron_whose_tau_it_learns() -> None:
    settings = NeuronSettings(tau=3.0, decay_input=True)
    learned, fixed = ParametricLIF(settings), LIF(settings)
    assert learned.equation.tau == pytest.approx(3) and learned.equation.gain == pytest.approx(1 / 3)
    assert dataclasses.replace(learned.equation, tau=3.0, gain=1 / 3) == fixed.equation
    x = torch.randn(4, 2, 3, 5, 5, generator=torch.Generator().manual_seed(1)) * 2
    assert torch.equal(learned(x), fixed(x))
    learned.w.data.fill_(0.0)
    assert learned.equation.tau == pytest.approx(2.0)
    learned.reset_parameters()
    assert learned.equation.tau == pytest.approx(3.0)


def test_steps_taken_one_by_one_are_those_of_a_whole_pass() -> None:
    torch.manual_seed(0)
    network = SEW7B((2, 8, 8), 3, 4, NeuronSettings(decay_input=True), width=4).eval()
    frames = 3 * torch.rand(4, 2, 2, 8, 8)
    with torch.no_grad():
        whole = network(frames)
        with carrying(network):
            steps = torch.cat([network(frames[step : step + 1]) for step in range(4)])
    torch.testing.assert_close(whole, steps)


def test_a_run_learns_the_time_constants_and_a_score_of_all_parameters_refuses_them() -> None:
    run = small_bench(method="sadp", ratio=0.5, backbone="sew-7b", learning_rate=0.05)
    before = {name: value.detach().clone() for name, value in run.state.model.named_parameters() if name.endswith(".w")}
    assert len(before) == 16
    list(run.rows())
    after = dict(run.state.model.named_parameters())
    moved = [float((after[name].detach() - value).abs()) for name, value in before.items()]
    assert sum(step > 1e-5 for step in moved) >= 12 and max(moved) < 1
    words = ["--ratio", 0.5, "--epochs", 1, "--train-examples", 130, "--backbone", "sew-7b", "--threads", 1, "--quiet"]
    answer = command("run", "--method", "grand", *words, "--no-reference", "--set", "backbone.width=4")
    assert answer.code == 2 and "is a ParametricLIF: freeze its parameters, or take another score" in answer.err
