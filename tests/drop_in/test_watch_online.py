"""The online loop of docs/own-loop.md, a backward pass for each time step, against the suite's own SLTT."""

from __future__ import annotations

import re
from typing import Any

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from sadp_bench import SADP, PrunedSampler, watch, with_index
from sadp_bench.backbones.plain import CNN
from sadp_bench.backbones.spiking import NeuronSettings
from sadp_bench.capture.recorder import Recorder
from sadp_bench.core.losses import WeightedLoss, step_loss
from sadp_bench.core.rng import isolated, stream
from sadp_bench.training.backprop import SLTT
from sadp_bench.training.optimizer import OPTIMIZERS
from tests.drop_in.helpers import ALL, assert_close, no_warning, sampler_for, uneven
from tests.paths import ROOT
from tests.small_runs import Chosen

T, N, EPOCHS = 4, 48, 3
CPU = torch.device("cpu")
FRAMES = 2 * torch.randn(N, T, 1, 8, 8, generator=stream(0, "online"), dtype=torch.float64)
LABELS = torch.arange(N) % 10


def suite_network() -> CNN:
    with isolated(0, "online", CPU):
        return CNN((1, 8, 8), 10, T, NeuronSettings(), width=4, pool_at="after-norm").double()


def users_network() -> nn.Sequential:
    """The same network as a user writes it, of one time step; the membranes wait in the neurons."""

    def fire() -> nn.Module:
        return neuron.LIFNode(
            tau=2.0, decay_input=False, v_reset=0.0, detach_reset=True, surrogate_function=surrogate.ATan()
        )

    def block(inputs: int, outputs: int, pools: bool) -> list[nn.Module]:
        pool = [layer.AvgPool2d(2)] if pools else []
        return [layer.Conv2d(inputs, outputs, 3, padding=1, bias=False), layer.BatchNorm2d(outputs), *pool, fire()]

    readout = [layer.Flatten(), layer.Linear(64, 10)]
    network = nn.Sequential(*block(1, 4, True), *block(4, 8, True), *block(8, 16, False), *readout).double()
    network.load_state_dict(dict(zip(network.state_dict(), suite_network().state_dict().values(), strict=True)))
    return network


def sampler_of() -> PrunedSampler:
    return PrunedSampler(SADP(0.5), labels=LABELS, epochs=EPOCHS, batch_size=12)


def trained_by_the_page(network: nn.Module, sampler: PrunedSampler) -> None:
    """Runs the page's code on these parts."""
    page = (ROOT / "docs" / "own-loop.md").read_text()
    [code] = re.findall(r"```python\n(?=with watch\(network)(.*?)```", page, re.DOTALL)
    loader: Any = DataLoader(with_index(TensorDataset(FRAMES, LABELS)), batch_sampler=sampler)
    optimizer = OPTIMIZERS["sgd"](network.parameters(), lr=0.05)
    names = {"torch": torch, "cross_entropy": cross_entropy, "functional": functional, "watch": watch}
    exec(code, names | {"network": network, "sampler": sampler, "loader": loader, "optimizer": optimizer})


def trained_by_the_suite(network: CNN, sampler: PrunedSampler) -> None:
    optimizer = OPTIMIZERS["sgd"](network.parameters(), lr=0.05)
    for epoch in range(sampler.epochs):
        sampler.set_epoch(epoch)
        for number, index in enumerate(sampler):
            index_B = torch.tensor(index)
            signals = sampler.signals if number == 0 else sampler.signals - {"bound_ratio"}
            with Recorder(network, signals) as recorder:
                optimizer.zero_grad()
                weight_B, label_B = sampler.weight(index_B), LABELS[index_B]
                loss = WeightedLoss(step_loss, label_B, weight_B, len(index))
                frames_TB = FRAMES[index_B].transpose(0, 1)
                logits_TBC, loss_B = SLTT(network, "fp64", CPU)(frames_TB, loss, stream(0, "steps"), recorder)
                watched = recorder.seen(weight_B / len(index))
            sampler.observe(index_B, logits_TBC, label_B, loss_B, watched)
            optimizer.step()


def test_the_pages_online_loop_gives_the_scores_of_the_suites_sltt() -> None:
    network, twin, samplers = users_network().train(), suite_network().train(), [sampler_of(), sampler_of()]
    with no_warning():
        trained_by_the_page(network, samplers[0])
    trained_by_the_suite(twin, samplers[1])
    pruners: list[Any] = [sampler.pruner for sampler in samplers]
    seen: list[Tensor] = [pruner.score_sq_N.isfinite() for pruner in pruners]
    assert torch.equal(*seen) and N // 2 <= int(seen[0].sum()) and pruners[0].score_sq_N[seen[0]].std() > 0
    torch.testing.assert_close(*(pruner.score_sq_N[seen[0]] for pruner in pruners), rtol=1e-5, atol=0)
    torch.testing.assert_close(*(pruner.bound_ratio_2L for pruner in pruners))
    for ours, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


class OfSomeSteps(SLTT):
    """SLTT through the first and the last step, as a draw of SLTT-K."""

    def live_steps(self, num_steps: int, draws: torch.Generator) -> frozenset[int]:
        return frozenset({0, num_steps - 1})


def test_steps_without_a_gradient_are_left_out() -> None:
    network, twin, weight_N = users_network().train(), suite_network().train(), uneven(N)
    with Recorder(twin, ALL) as recorder:
        loss = WeightedLoss(step_loss, LABELS, weight_N, N)
        OfSomeSteps(twin, "fp64", CPU)(FRAMES.transpose(0, 1), loss, stream(0, "steps"), recorder)
        expected = recorder.seen(weight_N.double() / N * 2 / T)
    sampler, index = sampler_for(ALL, weight_N), torch.arange(N)
    with watch(network, sampler, loss="step"), no_warning():
        weight_B, logits = sampler.weight(index), []
        for step, frame in enumerate(FRAMES.unbind(1)):
            with torch.set_grad_enabled(step in (0, T - 1)):
                step_logits = network(frame)
            if step in (0, T - 1):
                (weight_B * cross_entropy(step_logits, LABELS, reduction="none") / 2).mean().backward()
                logits.append(step_logits.detach())
            functional.detach_net(network)
        sampler.observe(index, torch.stack(logits), LABELS)
    assert isinstance(sampler.pruner, Chosen)
    found = dict(sampler.pruner.seen[0].watched)
    for name in ("features", "logit_errors"):  # the suite's are of all steps, and its loss is the mean over all
        expected[name] = expected[name][[0, T - 1]] * (T / 2 if name == "logit_errors" else 1)
    assert_close(found, expected)
