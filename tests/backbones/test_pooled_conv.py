"""A merged convolution and pool against the convolution and the pool themselves."""

from __future__ import annotations

import torch
from spikingjelly.activation_based import layer
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d

from sadp_bench.backbones.plain import CNN
from sadp_bench.backbones.pooled_conv import PooledConv2d
from sadp_bench.backbones.spiking import NeuronSettings
from sadp_bench.capture.per_example_norms import gradient_norms, square_norms
from sadp_bench.capture.squared_norms import input_squares, squares
from sadp_bench.capture.synaptic_ops import operations
from sadp_bench.core.losses import LOSSES
from sadp_bench.records.spec import Spec
from sadp_bench.runs.resolve import RunRequest


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(bias: bool = True) -> PooledConv2d:
    conv = PooledConv2d(3, 5, bias=bias, step_mode="m", kernel="python").double()
    with torch.no_grad():
        conv.weight.copy_(randn(5, 3, 3, 3, seed=1))
    return conv


def test_it_equals_a_convolution_and_a_pool_on_even_and_odd_sides() -> None:
    conv = made()
    for sides in ((8, 8), (7, 9), (2, 3)):
        x = randn(2, 4, 3, *sides)
        wanted = avg_pool2d(conv2d(x.flatten(0, 1), conv.weight, conv.bias, padding=1), 2)
        torch.testing.assert_close(conv(x).flatten(0, 1), wanted)
        plain, means = conv.unmerged(x)
        torch.testing.assert_close(plain(means.flatten(0, 1)), wanted)


def test_its_exact_norms_are_those_of_autograd_and_its_bound_is_a_bound() -> None:
    conv, x = made(), randn(2, 4, 3, 7, 8)
    output = conv(x)
    error = randn(*output.shape, seed=2)
    for cheapest in (False, True):
        found = square_norms(conv, [(x, error)], 4, cheapest=cheapest)
        for example in range(4):
            of_one = torch.autograd.grad((conv(x)[:, example] * error[:, example]).sum(), list(conv.parameters()))
            wanted = sum(gradient.square().sum() for gradient in of_one)
            torch.testing.assert_close(found[example], wanted)
    bound = input_squares(conv, x, output, 4).sum(0) * squares(error).sum(0)
    assert bool((found <= bound).all())


def test_its_operations_are_those_of_the_kernel_that_is_computed() -> None:
    spikes = torch.zeros(1, 1, 3, 8, 8, dtype=torch.float64)
    spikes[0, 0, 1, 4, 4] = 1

    class Net(nn.Module):
        """The first layer reads data; the other gets its output, spikes."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.pooled = layer.Conv2d(3, 3, 1, bias=False, step_mode="m"), made()
            with torch.no_grad():
                self.first.weight.copy_(torch.eye(3)[..., None, None])

        def forward(self, x: Tensor) -> Tensor:
            return self.pooled(self.first(x)).flatten(2)

    counted = operations(Net().double(), [spikes])
    assert counted.accumulates == 4 * 5  # a pixel inside lies in 4 windows of 4x4 at stride 2, with 5 outputs


def test_a_network_with_the_pool_before_the_norm() -> None:
    model = CNN((3, 16, 16), 10, 2, NeuronSettings(), width=4).double()
    pooled = [module for module in model.modules() if isinstance(module, PooledConv2d)]
    assert len(pooled) == 3 and not any(isinstance(module, layer.AvgPool2d) for module in model.modules())
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items() if "weight" in name}
    assert shapes["stem.0.weight"] == (4, 3, 3, 3) and model(randn(2, 3, 16, 16)).shape == (2, 2, 10)
    norms = gradient_norms(model.eval(), LOSSES["mean"], randn(2, 3, 16, 16), torch.tensor([1, 2]))
    model.zero_grad()
    LOSSES["mean"](model(randn(2, 3, 16, 16)[1:]), torch.tensor([2])).sum().backward()
    wanted = sum(p.grad.square().sum() for p in model.parameters() if p.grad is not None)
    torch.testing.assert_close(norms[1].square(), wanted)


def test_the_order_is_an_option_and_records_without_it_mean_the_former_order() -> None:
    run = {"method": "full", "ratio": 0.0, "kernel": "python"}
    spec, former = (
        RunRequest.of(run | {"set": settings}).spec(100) for settings in ({}, {"backbone.pool_at": "after-norm"})
    )
    assert spec.backbone_options["pool_at"] == "before-norm"
    table = former.to_json()
    del table["backbone_options"]["pool_at"], table["backbone_options"]["pool"]
    older = Spec.from_json(table)
    assert older == former and older.key == former.key != spec.key
    assert "backbone.pool_at=after-norm" in older.words()
