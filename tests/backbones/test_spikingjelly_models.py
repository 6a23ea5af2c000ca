"""SpikingJelly's networks in the suite against the library's own: parameters, logits, gradients, and steps one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.model import (
    QKFormer,
    SpikeDrivenTransformer,
    Spikformer,
    qkformer_10_384,
    spikformer_cifar10,
)
from torch import Tensor, nn

from sadp_bench.backbones.spiking import LIF, NeuronSettings
from sadp_bench.backbones.spikingjelly_models import Adapted, builders
from sadp_bench.capture.layers import norm_layers, spiking_layers
from sadp_bench.core import registry
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import LOSSES, WeightedLoss
from sadp_bench.runs.resolve import RunRequest
from sadp_bench.training.backprop import make_backprop

SETTINGS = NeuronSettings(tau=2.0, decay_input=True, surrogate="sigmoid", threshold=0.3)
WIDTHS = {"spikformer": 16, "sdt": 16, "qkformer": 64}
SHAPE, CLASSES, T = (3, 16, 16), 5, 3


def lif(**_: Any) -> neuron.LIFNode:
    """Returns SpikingJelly's neuron of the same settings."""
    return neuron.LIFNode(2.0, True, 0.3, 0.0, LIF(SETTINGS).surrogate_function, detach_reset=True, step_mode="m")


def pair(name: str) -> tuple[Any, Any]:
    """Returns our network and the library's: small, float64, with equal weights and norms that change their input."""
    depth = {"spikformer": 1, "sdt": 1, "qkformer": 3}[name]
    ours = registry.resolve("backbone", name)(
        SHAPE, CLASSES, T, SETTINGS, width=WIDTHS[name], depth=depth, heads=2
    ).double()
    theirs = {
        "spikformer": lambda: Spikformer(T, 3, 16, 16, 4, CLASSES, 16, 2, depths=1, spiking_neuron=lif),
        "sdt": lambda: SpikeDrivenTransformer(T, 3, CLASSES, 16, 2, 1, pooling_stat="0011", spiking_neuron=lif),
        "qkformer": lambda: QKFormer(T, 3, CLASSES, 64, (2, 2, 2), (1, 1, 1), spiking_neuron=lif),
    }[name]().double()
    for module in theirs.modules():
        if hasattr(module, "attn_lif"):
            module.attn_lif.v_threshold = 0.15
    generator = torch.Generator().manual_seed(0)
    for weight in theirs.parameters():
        if weight.dim() > 1:
            weight.data.mul_(3)
    for norm in norm_layers(theirs):
        norm.weight.data.copy_(0.5 + torch.rand(norm.weight.shape, generator=generator))
        norm.bias.data.copy_(torch.rand(norm.bias.shape, generator=generator) / 2)
    ours.network.load_state_dict(theirs.state_dict())
    return ours, theirs


def images(batch: int = 4) -> Tensor:
    return torch.randn(batch, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def gradients(model: nn.Module) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]


@pytest.mark.parametrize("name", ["spikformer", "sdt", "qkformer"])
def test_logits_and_gradients_are_the_librarys(name: str) -> None:
    ours, theirs = pair(name)
    x, mask = images(), torch.randn(4, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    logits, wanted = ours(x), theirs(x)
    wanted = wanted.mean(0) if wanted.dim() == 3 else wanted
    assert logits.shape == (T, 4, CLASSES)
    torch.testing.assert_close(logits.mean(0), wanted, rtol=1e-9, atol=1e-9)
    (logits.mean(0) * mask).sum().backward()
    (wanted * mask).sum().backward()
    for mine, other in zip(gradients(ours), gradients(theirs), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-9)
    assert ours.readout.weight.grad.abs().max() > 0 and all(isinstance(m, LIF) for m in spiking_layers(ours))
    ours.eval()
    assert torch.equal(ours(x), ours(x)), "no state between batches"
    torch.testing.assert_close(ours(x.expand(5, *x.shape)), ours(x), rtol=1e-9, atol=1e-9)  # events: the first T


@pytest.mark.parametrize("name", ["spikformer", "sdt", "qkformer"])
def test_sltt_takes_the_steps_one_by_one(name: str) -> None:
    """Compares with the library's network, step by step, its membranes detached between the steps."""
    ours, theirs = pair(name)
    x, label_B = images(), torch.tensor([0, 1, 2, 3])
    step = make_backprop("sltt", 0, ours, "fp64", torch.device("cpu"))
    logits, _ = step(x, WeightedLoss(LOSSES["step"], label_B, torch.ones(4), 4.0), torch.Generator())
    for t in range(T):
        of_step = theirs(x[None])
        of_step = of_step[0] if of_step.dim() == 3 else of_step
        torch.testing.assert_close(logits[t], of_step.detach(), rtol=1e-9, atol=1e-9)
        (nn.functional.cross_entropy(of_step, label_B) / T).backward()
        functional.detach_net(theirs)
    for mine, other in zip(gradients(ours), gradients(theirs), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-9)


def test_networks_have_the_published_size() -> None:
    """Millions of parameters in the papers: 9.32 (CIFAR-10), 10.28 (CIFAR-100), 16.47 (ImageNet).

    The library's Spikformer has no biases before norms, where the authors' code has some.
    """
    norm, attention = lambda c: 2 * c, lambda c: 3 * c * c + 2 * 3 * c + c * c + 2 * c  # noqa: E731
    perceptron = lambda c: 2 * 4 * c * c + norm(4 * c) + norm(c)  # noqa: E731
    stem = sum(9 * a * b + norm(b) for a, b in ((3, 48), (48, 96), (96, 192), (192, 384), (384, 384)))
    spikformer = stem + 4 * (attention(384) + perceptron(384)) + 384 * 10 + 10
    biased = lambda a, b, k=9: k * a * b + b + norm(b)  # noqa: E731
    stem = sum(biased(a, b) for a, b in ((3, 64), (64, 128), (128, 256), (256, 512))) + 9 * 512 * 512 + norm(512)
    block = 3 * (512 * 512 + norm(512)) + biased(512, 512, 1) + biased(512, 2048, 1) + biased(2048, 512, 1)
    sdt = stem + 2 * block + 512 * 100 + 100
    with torch.device("meta"):
        found = {
            name: registry.resolve("backbone", name)((3, 32, 32), classes, 4, NeuronSettings())
            for name, classes in (("spikformer", 10), ("sdt", 100))
        }
        ten = registry.resolve("backbone", "qkformer")((3, 224, 224), 1000, 4, NeuronSettings(), depth=10)
        shapes = [
            [(name, tuple(value.shape)) for name, value in model.state_dict().items()]
            for model in (found["spikformer"].network, spikformer_cifar10(), ten.network, qkformer_10_384())
        ]
    count = {name: sum(p.numel() for p in model.parameters()) for name, model in (found | {"qkformer": ten}).items()}
    assert count["spikformer"] == spikformer and 9.30e6 < spikformer < 9.32e6
    assert count["sdt"] == sdt and round(sdt / 1e6, 2) == 10.28
    assert round(count["qkformer"] / 1e6, 2) == 16.47
    assert shapes[0] == shapes[1] and shapes[2] == shapes[3], "the layers, in the library's order"


def test_other_networks_are_found_by_their_name() -> None:
    assert {"maxformer_cifar", "sew_resnet18", "spiking_vgg11_bn", "ms_resnet18", "spikformer_ti"} <= builders().keys()
    for name in ("sew_resnet18", "ms_resnet18"):
        kind = registry.resolve("backbone", f"spikingjelly:{name}")
        assert kind is registry.resolve("backbone", f"spikingjelly:{name}") and issubclass(kind, Adapted)
        model = kind((3, 32, 32), 7, 2, NeuronSettings())
        steps = 1 if kind.mean_over_time else 2
        assert model(torch.randn(2, 3, 32, 32)).shape == (steps, 2, 7) and kind.mean_over_time == (
            name == "ms_resnet18"
        )
        assert model.readout.out_features == 7 and model.training


def test_what_does_not_fit_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    convolution = lambda **_: nn.Sequential(layer.Conv2d(3, 4, 9), layer.Flatten(), nn.Linear(4, 10))  # noqa: E731
    monkeypatch.setitem(builders(), "tiny", convolution)

    def build(name: str, shape: tuple[int, int, int] = SHAPE, **options: Any) -> None:
        registry.resolve("backbone", name)(shape, 10, 2, NeuronSettings(), **options)

    for message, name, options in (
        ("backbone.width is a multiple of 12 with backbone.heads=12, not 40", "spikformer", {"width": 40}),
        ("backbone.width is a multiple of 8 with backbone.heads=3, not 36", "sdt", {"width": 36, "heads": 3}),
        ("backbone.width is a multiple of 8 with backbone.heads=6, not 60", "qkformer", {"width": 60}),
        ("backbone.width is at least 64 channels, not 48", "qkformer", {"width": 48}),
        ("backbone.heads is at least 1, not 0", "sdt", {"heads": 0}),
        ("backbone.depth of qkformer is one of 3, 4, 10, not 5", "qkformer", {"depth": 5}),
        ("backbone spikingjelly needs the name of a network, spikingjelly:NAME; allowed: max", "spikingjelly", {}),
        ("has no network 'sew_resnet19'; did you mean 'sew_resnet1", "spikingjelly:sew_resnet19", {}),
        ("takes images of 3 channels, not 1", "spikingjelly:sew_resnet18", {"shape": (1, 8, 8)}),
        ("spikingjelly:tiny can't take inputs of 3x8x8", "spikingjelly:tiny", {"shape": (3, 8, 8)}),
    ):
        with pytest.raises(BadInput, match=message.replace(".", r"\.")) as refusal:
            build(name, **options)
        assert "\n" not in str(refusal.value)
    asked = {"method": "full", "ratio": 0.0, "dataset": "cifar10"}
    for message, more in (
        ("blocks can be taken one by one: 'spikformer'", {"backbone": "spikformer", "backprop": "local"}),
        ("--loss step needs logits of each step", {"backbone": "spikingjelly:maxformer_cifar", "loss": "step"}),
        ("--kernel native: backbone 'sdt'", {"backbone": "sdt", "kernel": "native"}),
    ):
        with pytest.raises(BadInput, match=message):
            RunRequest.of(asked | more)
    stepwise = {"backbone": "spikingjelly:maxformer_cifar", "backprop": "sltt"}
    assert RunRequest.of(asked | stepwise).fields["loss"] == "step"
