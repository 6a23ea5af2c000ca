"""Parameters, layers and their order of networks that papers use, against the sources."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, neuron
from spikingjelly.activation_based.model.ms_resnet import MSResNet
from torch import nn
from torchvision.models import vgg

from sadp_bench.backbones.parametric_lif import ParametricLIF
from sadp_bench.backbones.plain import VGG16, VGGSNN
from sadp_bench.backbones.resnet import MSResNet18, ResNet19
from sadp_bench.backbones.sew_7b import SEW7B
from sadp_bench.backbones.spiking import LIF, NeuronSettings
from sadp_bench.capture.layers import norm_layers
from sadp_bench.core.errors import BadInput

Layer = tuple[Any, ...]


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def on_meta(kind: Any, channels: int, side: int, **options: Any) -> nn.Module:
    """Returns a network of its default width on the meta device, without memory for its weights."""
    with torch.device("meta"):
        model: nn.Module = kind((channels, side, side), 10, 1, NeuronSettings(), **options)
    return model


def calls(model: nn.Module, *shape: int) -> list[Layer]:
    """Returns a network's layers in the order of a pass, such as ("conv", inputs, outputs, kernel, stride)."""
    seen: list[Layer] = []

    def see(module: Any, *_: Any) -> None:
        if isinstance(module, nn.Conv2d):
            seen.append(("conv", module.in_channels, module.out_channels, module.kernel_size[0], module.stride[0]))
        elif isinstance(module, nn.Linear):
            seen.append(("linear", module.in_features, module.out_features))
        else:
            seen.append(("neuron",) if isinstance(module, neuron.BaseNode) else ("pool", type(module).__name__))

    kinds = (nn.Conv2d, nn.Linear, neuron.BaseNode, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
    for module in model.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(see)
    with torch.no_grad():
        model.eval()(torch.zeros(1, *shape))
    return seen


def test_resnet19_has_the_parameters_and_layers_that_tet_reports() -> None:
    """Deng et al. 2022, and the tables that compare with it, report 12.63 million parameters."""
    norm = lambda channels: 2 * channels  # noqa: E731
    block = lambda inputs, c: 9 * inputs * c + 9 * c * c + 2 * norm(c)  # noqa: E731
    first = lambda inputs, c: block(inputs, c) + inputs * c + norm(c)  # noqa: E731
    by_hand = 9 * 3 * 64 + norm(64)
    by_hand += first(64, 128) + 2 * block(128, 128)
    by_hand += first(128, 256) + 2 * block(256, 256)
    by_hand += first(256, 512) + block(512, 512)
    by_hand += 512 * 256 + 256 + 256 * 10 + 10
    for stride in (1, 2):
        assert parameters(on_meta(ResNet19, 3, 32, first_stride=stride)) == by_hand and round(by_hand / 1e6, 2) == 12.63
        model = ResNet19((3, 32, 32), 10, 1, NeuronSettings(), width=8, first_stride=stride)
        wanted: list[Layer] = [("conv", 3, 8, 3, 1), ("neuron",)]
        inputs = 8
        for outputs, number, step in ((16, 3, stride), (32, 3, 2), (64, 2, 2)):
            for place in range(number):
                of_block = [
                    ("conv", inputs, outputs, 3, 1 if place else step),
                    ("neuron",),
                    ("conv", outputs, outputs, 3, 1),
                ]
                wanted += [*of_block, *([] if place else [("conv", inputs, outputs, 1, step)]), ("neuron",)]
                inputs = outputs
        wanted += [("pool", "AdaptiveAvgPool2d"), ("linear", 64, 32), ("neuron",), ("linear", 32, 10)]
        assert calls(model, 3, 32, 32) == wanted
    weighted = [layer for layer in wanted if layer[0] == "linear" or (layer[0] == "conv" and layer[3] == 3)]
    assert len(weighted) == 19


def test_vgg16_has_torchvisions_layers() -> None:
    with torch.device("meta"):
        theirs = vgg.make_layers(vgg.cfgs["D"], batch_norm=True)
    biases = sum(layer.bias.numel() for layer in theirs if isinstance(layer, nn.Conv2d))  # norms replace ours
    # The fifth pool would leave one pixel of a 32x32 image, so the readout has 2x2 pixels.
    assert parameters(on_meta(VGG16, 3, 32)) == parameters(theirs) - biases + 4 * 512 * 10 + 10
    wanted: list[Layer] = []
    for layer in theirs:
        if isinstance(layer, nn.Conv2d):
            inputs = layer.in_channels // 16 or 3
            wanted += [("conv", inputs, layer.out_channels // 16, 3, 1), ("neuron",)]
        elif isinstance(layer, nn.MaxPool2d):
            wanted.append(("pool", "MaxPool2d"))
    assert wanted.count(("neuron",)) == 13 and wanted[-1] == ("pool", "MaxPool2d")
    model = VGG16((3, 32, 32), 10, 1, NeuronSettings(), width=4)
    assert calls(model, 3, 32, 32) == [*wanted[:-1], ("linear", 4 * 32, 10)]
    of_64 = VGG16((3, 64, 64), 10, 1, NeuronSettings(), width=4)
    assert sum(layer[0] == "pool" for layer in calls(of_64, 3, 64, 64)) == 5


def test_vggsnn_has_the_layers_of_tets_code() -> None:
    """The input has 48x48 pixels, as the source's event frames."""
    model = VGGSNN((2, 48, 48), 10, 1, NeuronSettings(), width=4)
    wanted: list[Layer] = []
    channels, pooled = [2, 64, 128, 256, 256, 512, 512, 512, 512], (2, 4, 6, 8)
    by_hand = 0
    for place in range(1, 9):
        inputs, outputs = channels[place - 1 : place + 1]
        wanted += [("conv", inputs // 16 or 2, outputs // 16, 3, 1), ("neuron",)]
        wanted += [("pool", "AvgPool2d")] if place in pooled else []
        by_hand += 9 * inputs * outputs + 2 * outputs  # no bias: the norm has its own
    wanted.append(("linear", 32 * 3 * 3, 10))
    assert calls(model, 2, 48, 48) == wanted
    assert parameters(on_meta(VGGSNN, 2, 48)) == by_hand + 512 * 3 * 3 * 10 + 10


def test_sew_7b_has_the_layers_of_the_authors_code() -> None:
    """The input has 128x128 pixels, as the source's event frames; seven blocks and seven pools leave one pixel."""
    model = SEW7B((2, 128, 128), 10, 1, NeuronSettings(), width=4)
    wanted: list[Layer] = [("conv", 2, 4, 1, 1), ("neuron",)]
    for block in range(7):
        width = 4 if block < 4 else 8
        wanted += [("conv", 4, 8, 1, 1), ("neuron",)] if block == 4 else []
        wanted += [("conv", width, width, 3, 1), ("neuron",)] * 2
        wanted.append(("pool", "MaxPool2d"))
    assert calls(model, 2, 128, 128) == [*wanted, ("linear", 8, 10)]
    assert len([module for module in model.modules() if isinstance(module, ParametricLIF)]) == 16
    convs = 2 * 64 + 8 * 9 * 64 * 64 + 64 * 128 + 6 * 9 * 128 * 128
    norms = 2 * (64 * 9 + 128 * 7)
    assert parameters(on_meta(SEW7B, 2, 128)) == convs + norms + 16 + 128 * 10 + 10


def test_ms_resnet18_is_spikingjellys_network_to_rounding() -> None:
    """Compares logits and gradients at the same weights, with norms that change their input."""
    settings = NeuronSettings(tau=4 / 3, threshold=0.5)
    options = {"tau": 4 / 3, "v_threshold": 0.5, "decay_input": False, "detach_reset": True}
    ours = MSResNet18((3, 32, 32), 5, 3, settings, width=8, first_stride=2).double()
    theirs = MSResNet(
        3, 3, 5, base_channels=8, stem_kernel_size=3, stem_stride=1, spiking_neuron=neuron.LIFNode, **options
    )
    theirs.double()
    for module in theirs.modules():
        if isinstance(module, neuron.BaseNode):
            module.surrogate_function = LIF(settings).surrogate_function
    for norm in norm_layers(theirs):
        nn.init.uniform_(norm.weight, 1.0, 2.0)
        nn.init.uniform_(norm.bias, 0.0, 0.5)
    for mine, other in zip(_in_order(ours), _in_order(theirs), strict=True):
        mine.load_state_dict(other.state_dict())
    assert parameters(ours) == parameters(theirs)
    image = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits, wanted = ours(image).mean(0), theirs(image)
    torch.testing.assert_close(logits, wanted, rtol=1e-9, atol=1e-9)
    for each in (logits, wanted):
        each.square().sum().backward()
    functional.reset_net(theirs)
    gradients = [[p.grad for part in _in_order(m) for p in part.parameters()] for m in (ours, theirs)]
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-9)
    assert all(g.abs().max() > 0 for g in gradients[0])


def _in_order(model: nn.Module) -> list[Any]:
    """Returns the layers that have weights. In both networks the shortcut of a block stands behind its other layers."""
    return [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.BatchNorm2d)]


def test_the_first_stride_is_one_or_two() -> None:
    for kind in (MSResNet18, ResNet19):
        with pytest.raises(BadInput, match="backbone.first_stride is 1 or 2, not 3"):
            kind((3, 8, 8), 10, 1, NeuronSettings(), first_stride=3)
