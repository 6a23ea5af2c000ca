"""`watch` on networks as SpikingJelly's and snnTorch's users write them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from sadp_bench.core.losses import step_loss
from sadp_bench.core.rng import stream
from sadp_bench.drop_in.watch import watch
from tests.drop_in.helpers import (
    ALL,
    assert_bounded,
    assert_close,
    example_loss,
    no_warning,
    sampler_for,
    uneven,
    watched,
)
from tests.small_runs import Chosen, hooks_of

T, B = 4, 5
LABELS = torch.arange(B) % 3
INPUT = torch.randn(B, 1, 6, 6, generator=stream(0, "spiking"), dtype=torch.float64)


def spikingjelly(mode: str, spiking_readout: bool = False) -> nn.Sequential:
    torch.manual_seed(1)
    last = [neuron.LIFNode(v_threshold=0.2, surrogate_function=surrogate.ATan())] if spiking_readout else []
    net = nn.Sequential(
        layer.Conv2d(1, 4, 3, padding=1),
        neuron.LIFNode(v_threshold=0.3, surrogate_function=surrogate.ATan()),
        layer.Conv2d(4, 4, 3, bias=False),
        neuron.IFNode(v_threshold=0.3, surrogate_function=surrogate.ATan()),
        layer.AvgPool2d(2),
        layer.Flatten(),
        layer.Linear(16, 3),
        *last,
    ).double()
    functional.set_step_mode(net, mode)
    return net


def logits_of(net: nn.Module, mode: str, input: Tensor) -> Tensor:
    """Returns the mean over time, as in the tutorials: the image at every step, all steps at once or one call a step."""
    functional.reset_net(net)
    if mode == "m":
        steps = net(input.unsqueeze(0).repeat(T, 1, 1, 1, 1))
    else:
        steps = torch.stack([net(input) for _ in range(T)])
    mean: Tensor = steps.mean(0)
    return mean


@pytest.mark.parametrize("spiking_readout", [False, True])
def test_spikingjelly_shows_the_same_all_at_once_and_step_by_step_and_it_is_right(spiking_readout: bool) -> None:
    names = ALL | {"spike_counts"}
    nets = {mode: spikingjelly(mode, spiking_readout) for mode in "ms"}
    found = {
        mode: watched(net, lambda n=net, m=mode: logits_of(n, m, INPUT), LABELS, names) for mode, net in nets.items()
    }
    assert_close(found["s"], found["m"], rtol=1e-8)
    net, seen = nets["m"], found["m"]
    parts: list[nn.Module] = [net[at] for at in ([0, 2, 6] if spiking_readout else [0, 2])]
    assert ("features" in seen) is not spiking_readout and len(seen["error_squares"]) == len(parts)
    assert_bounded(net, parts, lambda i: logits_of(net, "m", INPUT[i : i + 1]), LABELS, seen, ratio_rtol=1e-8)
    # Spikes' squares are their number: what fires in the first layer enters the second, in up to nine patches each.
    fired_B = seen["spike_counts"][0].sum(0).double()
    assert ((fired_B <= seen["input_squares"][1]) & (seen["input_squares"][1] <= 9 * fired_B)).all() and (
        fired_B > 0
    ).all()


def test_spikes_that_are_changed_in_place_are_not_taken_for_ones() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.fire, self.second = layer.Conv2d(1, 2, 3), neuron.IFNode(), layer.Conv2d(2, 2, 3)
            self.head = layer.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fire(3 * self.first(x))
            x += 2.5
            logits: Tensor = self.head(self.second(x).flatten(2))
            return logits

    net = Residual()
    functional.set_step_mode(net, "m")
    held: list[Tensor] = []
    net.second.register_forward_hook(lambda m, x, y: held.append(x[0]))
    input = INPUT.float().unsqueeze(0).repeat(T, 1, 1, 1, 1)
    found = watched(net, lambda: net(input), LABELS, frozenset({"input_squares"}))
    patches = nn.functional.unfold(held[0].flatten(0, 1), 3)
    expected_B = (patches.square().sum((1, 2)) + 4).view(T, B).sum(0)
    torch.testing.assert_close(found["input_squares"][1], expected_B)
    assert held[0].max() == 3.5


class SNNTorch(nn.Module):
    """Loops over time in `forward` and records the last layer's spikes and membranes, as in snnTorch's tutorials."""

    def __init__(self) -> None:
        super().__init__()
        import snntorch as snn

        torch.manual_seed(2)
        self.fc1, self.fc2 = nn.Linear(36, 8), nn.Linear(8, 3)
        self.lif1 = snn.Leaky(beta=0.9, threshold=0.5)
        self.lif2 = snn.Leaky(beta=0.8, threshold=0.5)  # its spikes are float32, whatever the network is

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes, membranes = [], []
        for _ in range(T):
            spk1, mem1 = self.lif1(self.fc1(x.flatten(1)), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
            membranes.append(mem2)
        return torch.stack(spikes), torch.stack(membranes)


@pytest.mark.parametrize("what", ["membranes", "spikes", "number of spikes"])
def test_snntorch_shows_every_layers_squares_and_its_spikes(what: str) -> None:
    net, input = SNNTorch(), INPUT.float()

    def logits(x: Tensor) -> Tensor:
        spikes, membranes = net(x)
        return membranes if what == "membranes" else spikes if what == "spikes" else spikes.sum(0)

    found = watched(net, lambda: logits(input), LABELS, ALL | {"spike_counts"})
    assert_bounded(net, [net.fc1, net.fc2], lambda i: logits(input[i : i + 1]), LABELS, found, 1e-5, 1e-4)
    assert "features" not in found  # The membrane is no linear layer's output.
    torch.testing.assert_close(found["input_squares"][1], found["spike_counts"][0].sum(0) + T, rtol=1e-6, atol=0)
    torch.testing.assert_close(found["spike_counts"][1].sum(0), net(input)[0].sum((0, 2)))


def test_steps_called_from_outside_accumulate_until_they_are_observed_and_no_evaluation_gets_in() -> None:
    net = spikingjelly("s").train()
    sampler = sampler_for(ALL | {"spike_counts"}, uneven(B))
    index_B = torch.arange(B)
    with watch(net, sampler):
        for _ in range(2):
            logits = logits_of(net, "s", INPUT)
            (sampler.weight(index_B) * example_loss(logits, LABELS)).mean().backward()
            sampler.observe(index_B, logits, LABELS)
            net.eval()
            logits_of(net, "s", INPUT[:2])
            with torch.inference_mode():
                logits_of(net, "s", INPUT[:4])
            with torch.no_grad():
                logits_of(net.train(), "s", INPUT[:3])
    assert hooks_of(net) == 0 and isinstance(sampler.pruner, Chosen)
    first, second = (dict(seen.watched) for seen in sampler.pruner.seen)
    del first["bound_ratio"]  # of an epoch's first batch
    assert_close(second, first)


def test_online_training_a_backward_pass_a_step_shows_the_steps_of_the_whole_batch() -> None:
    """Gradients do not flow through time: every step has its own backward pass."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    sampler, index_B = sampler_for(ALL, uneven(B)), torch.arange(B)
    steps = [(k + 1) * INPUT for k in range(T)]
    with watch(net, sampler, loss="step", time_first=False):
        made = []
        for x in steps:
            logits = net(x)
            (sampler.weight(index_B) * example_loss(logits, LABELS)).mean().div(T).backward()
            made.append(logits.detach())
        sampler.observe(index_B, torch.stack(made), LABELS)
    assert isinstance(sampler.pruner, Chosen)
    whole = {"loss": "step", "time_first": False}
    expected = watched(net, lambda: torch.stack([net(x) for x in steps]), LABELS, ALL, step_loss, **whole)
    assert_close(dict(sampler.pruner.seen[0].watched), expected)


class StepOfSNNTorch(nn.Module):
    """[B, 1, 6, 6] -> spikes and membranes of a step, as snnTorch's usual loop calls a network. Neurons may keep state."""

    def __init__(self, hidden: bool) -> None:
        super().__init__()
        import snntorch as snn

        torch.manual_seed(2)
        how: Any = {"beta": 0.9, "threshold": 0.5, "init_hidden": hidden}
        self.fc1, self.fc2 = nn.Linear(36, 8), nn.Linear(8, 3)
        self.lif1, self.lif2 = snn.Leaky(**how), snn.Leaky(**how, output=True)
        self.hidden = hidden

    def forward(self, x: Tensor, state: Any = None) -> Any:
        if self.hidden:
            return self.lif2(self.fc2(self.lif1(self.fc1(x.flatten(1)))))
        spk1, mem1 = self.lif1(self.fc1(x.flatten(1)), state[0])
        spk2, mem2 = self.lif2(self.fc2(spk1), state[1])
        return spk2, mem2, mem1

    def membranes(self, x: Tensor) -> Tensor:
        """Returns the readout's membranes at every step, [T, B, 3]."""
        mem1, mem2, membranes = self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for _ in range(T):
            _, mem2, *rest = self(x) if self.hidden else self(x, (mem1, mem2))
            mem1 = rest[0] if rest else mem1
            membranes.append(mem2)
        return torch.stack(membranes)


@pytest.mark.parametrize("hidden", [False, True])
def test_membranes_that_each_step_reads_show_exact_scales_and_no_warning(hidden: bool) -> None:
    net, input = StepOfSNNTorch(hidden), INPUT.float()
    given: list[tuple[str, Callable[[Tensor], Tensor]]] = [
        ("mean", lambda membranes: membranes),
        ("mean", lambda membranes: membranes[-1]),
        ("mean", lambda membranes: membranes.sum(0)),
        ("step", lambda membranes: membranes),
    ]
    for loss, give in given:
        by, of_stack = step_loss if loss == "step" else example_loss, Stacked(net)
        with no_warning():
            found = watched(net, partial(given_by, net.membranes, give, input), LABELS, ALL, by, loss=loss)
        expected = watched(of_stack, partial(given_by, of_stack, give, input), LABELS, ALL, by, loss=loss)
        assert_close(found, expected, rtol=1e-4)
        if loss == "mean":
            logits_of = partial(given_by, net.membranes, give, input)
            assert_bounded(net, [net.fc1, net.fc2], logits_of, LABELS, found, 1e-5, 1e-4)


def given_by(
    net: Callable[[Tensor], Tensor], give: Callable[[Tensor], Tensor], input: Tensor, example: int | None = None
) -> Tensor:
    return give(net(input if example is None else input[example : example + 1]))


class Stacked(nn.Module):
    """The same network, which returns its membranes: their gradient comes from the loss alone."""

    def __init__(self, net: StepOfSNNTorch) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.membranes(x)
