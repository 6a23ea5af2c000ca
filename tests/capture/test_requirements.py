"""The parts that a pruner needs in a network, and parameters whose exact norms are right or refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sadp_bench.capture.layers import weight_layers
from sadp_bench.capture.per_example_norms import gradient_norms
from sadp_bench.capture.requirements import missing_parts
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import mean_loss
from sadp_bench.pruners.sadp import SADP


class Network(nn.Module):
    """A convolution (or another layer) before a readout."""

    def __init__(self, stem: nn.Module, readout: nn.Module | None) -> None:
        super().__init__()
        self.stem = stem
        if readout is not None:
            self.readout = readout


LINEAR = nn.Linear(4, 3)
NETWORKS: dict[str, tuple[nn.Module, nn.Module | None, list[str]]] = {
    "complete": (nn.Conv1d(1, 2, 3), LINEAR, []),
    "no readout": (nn.Conv2d(1, 2, 3), None, ["a last layer named `readout`"]),
    "no bias": (nn.Conv2d(1, 2, 3), nn.Linear(4, 3, bias=False), ["a `readout` that is a linear layer with a bias"]),
    "not linear": (nn.Conv2d(1, 2, 3), nn.Flatten(), ["a `readout` that is a linear layer with a bias"]),
    "no layers": (nn.Flatten(), LINEAR, ["a convolution or linear layer before its readout"]),
    "not bounded": (
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv3d(1, 2, 3)),
        LINEAR,
        ["a bound of its layer 'stem.1', a Conv3d"],
    ),
}


def test_parts_that_sadp_lacks_are_named() -> None:
    for name, (stem, readout, missing) in NETWORKS.items():
        network = Network(stem, readout)
        assert missing_parts(network, SADP(0.3).watch(0)) == missing, name
        assert missing_parts(network, frozenset()) == [], name
        if readout is LINEAR:  # one-dimensional convolutions count, as they do for `watch`
            assert weight_layers(network) == [m for m in stem.modules() if isinstance(m, nn.Conv1d | nn.Conv2d)], name


class Tied(nn.Module):
    """Two linear layers whose weights may be one, and whose first weight may be used a second time."""

    def __init__(self, tied: bool, again: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
        self.again = again
        if tied:
            self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(torch.tanh(self.first(x)))
        return x @ self.first.weight if self.again else x


def autograd_norms(model: nn.Module, x: Tensor, label_B: Tensor) -> Tensor:
    """Returns the exact norms by one backward pass an example."""
    trained = [p for p in model.parameters() if p.requires_grad]
    norms = []
    for i in range(len(x)):
        own = torch.autograd.grad(mean_loss(model(x[i : i + 1])[None], label_B[i : i + 1]).sum(), trained)
        norms.append(sum(float(g.square().sum()) for g in own) ** 0.5)
    return torch.tensor(norms, dtype=torch.float64)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 5, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 2, 3])


def test_exact_norms_of_parameters_with_two_uses_are_refused_by_name() -> None:
    for network in (Tied(tied=True, again=False), Tied(tied=False, again=True)):
        with pytest.raises(BadInput, match="those of 'first' are used elsewhere too"):
            gradient_norms(network.double().eval(), mean_loss, *batch())


def test_exact_norms_count_only_parameters_that_train() -> None:
    x, label_B = batch()
    for frozen in ([], ["0.weight"], ["0.bias"], ["1.weight"], ["1.bias", "2.weight"], ["0.weight", "0.bias"]):
        model = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Linear(5, 5)).double().eval()
        for name in frozen:
            model.get_parameter(name).requires_grad_(False)
        found = gradient_norms(model, mean_loss, x, label_B)
        torch.testing.assert_close(found, autograd_norms(model, x, label_B), msg=lambda m, f=frozen: f"{f}: {m}")
