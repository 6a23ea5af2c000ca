"""The recurrent network against a loop by hand, and through the strategies of backpropagation."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import surrogate
from torch import Tensor, nn

from sadp_bench.backbones.recurrent import Recurrent
from sadp_bench.backbones.spiking import NeuronSettings
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import LOSSES, WeightedLoss
from sadp_bench.runs.resolve import RunRequest
from sadp_bench.training.backprop import make_backprop
from tests.commands import command
from tests.small_runs import small_bench

SETTINGS = NeuronSettings(tau=1.5, threshold=0.5)
T, B, F = 5, 4, 7


def network(depth: int = 2) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Recurrent((1, 1, F), 3, T, SETTINGS, width=6, depth=depth).double()


def events() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.poisson(torch.ones(T, B, 1, 1, F, dtype=torch.float64), generator), torch.tensor([0, 1, 2, 0])


def by_hand(model: Any, x_TBF: Tensor, through_time: bool = True) -> Tensor:
    """Logits, with autograd alone: v[t] = (1 - 1/tau) v[t-1] (1 - s[t-1]) + x[t] + V s[t-1]."""
    fire = surrogate.ATan(alpha=2.0)
    keep = (lambda x: x) if through_time else (lambda x: x.detach())
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    inputs, readout = [linears[0], *linears[2:-1:2]], linears[-1]
    backs = linears[1:-1:2]
    v = [torch.zeros(B, 6, dtype=torch.float64) for _ in backs]
    s = [torch.zeros(B, 6, dtype=torch.float64) for _ in backs]
    logits = []
    for x in x_TBF:
        for layer, (into, back) in enumerate(zip(inputs, backs, strict=True)):
            current = x @ into.weight.T + into.bias + keep(s[layer]) @ back.weight.T
            v[layer] = (1 - 1 / 1.5) * keep(v[layer]) + current
            x = s[layer] = fire(v[layer] - 0.5)
            v[layer] = v[layer] * (1 - x.detach())
        logits.append(x @ readout.weight.T + readout.bias)
    return torch.stack(logits)


def gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("backprop", ["bptt", "sltt"])
def test_logits_and_gradients_are_those_by_hand(backprop: str) -> None:
    model = network()
    other = copy.deepcopy(model)
    x, label_B = events()
    step = make_backprop(backprop, 0, model, "fp64", torch.device("cpu"))
    for _ in range(2):  # no state between batches
        model.zero_grad()
        logits, _ = step(x, WeightedLoss(LOSSES["step"], label_B, torch.ones(B), float(B)), torch.Generator())
    wanted = by_hand(other, x.flatten(2), backprop == "bptt")
    torch.testing.assert_close(logits, wanted.detach(), rtol=1e-9, atol=1e-9)
    LOSSES["step"](wanted, label_B).mean().backward()
    assert len(gradients(model)) == len(gradients(other)) == 8
    for mine, by in zip(gradients(model), gradients(other), strict=True):
        torch.testing.assert_close(mine, by, rtol=1e-6, atol=1e-12)
        assert by.abs().max() > 0
    copy.deepcopy(model)


def test_it_learns_in_every_strategy_and_sadp_watches_it() -> None:
    for more in ({}, {"backprop": "sltt", "loss": "step"}, {"backprop": "local"}):
        asked = {"backbone": "recurrent", "method": "sadp", "ratio": 0.5, "epochs": 6, "optimizer": "adamw"}
        asked |= {"learning_rate": 0.01, "set": {"backbone.width": 16, "backbone.depth": 2}}
        losses = [row["train_loss"] for row in small_bench(**asked, **more).rows()]
        assert losses[-1] < losses[0] - 0.1, (more, losses)


def test_it_takes_vectors_and_studies_them(tmp_path: Path) -> None:
    words = ["--dataset", "braille", "--backbone", "recurrent", "--timesteps", 4, "--train-examples", 200]
    answer = command("study", *words, "--epochs", 1, "--examples", 32, "--threads", 1, "--out", tmp_path, "--quiet")
    assert answer.code == 0, answer.err
    assert len(list(tmp_path.glob("braille-recurrent-*.study.json"))) == 1


def test_it_has_no_native_kernel_and_says_so() -> None:
    asked = {"method": "full", "ratio": 0.0, "dataset": "braille", "backbone": "recurrent"}
    assert RunRequest.of(asked | {"precision": "fp32", "device": "cpu"}).fields["kernel"] == "python"
    with pytest.raises(
        BadInput, match="--kernel native: it has no neurons of backbone 'recurrent'; take --kernel python"
    ):
        RunRequest.of(asked | {"kernel": "native", "precision": "fp32", "device": "cpu"})
    with pytest.raises(BadInput, match="backbone.depth is at least 1 hidden layer, not 0"):
        Recurrent((1, 1, F), 3, T, SETTINGS, depth=0)
