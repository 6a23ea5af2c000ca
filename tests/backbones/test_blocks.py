"""Residual blocks and the cnn against computations by hand, layer by layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, batch_norm, conv2d

from sadp_bench.backbones.plain import CNN
from sadp_bench.backbones.residual_blocks import FiringBlock, MembraneBlock, PreActivationBlock, SEWBlock
from sadp_bench.backbones.spiking import NeuronSettings
from sadp_bench.core import registry
from tests.backbones.helpers import randn, settled

BY_HAND = NeuronSettings(tau=2.0, threshold=1.0, decay_input=True, reset="hard")


def lif_by_hand(current: Tensor) -> Tensor:
    """Returns the spikes of the neuron of BY_HAND, [T, ...]."""
    v, spikes = torch.zeros_like(current[0]), []
    for x in current:
        v = v + (x - v) / 2
        spikes.append((v >= 1).to(x.dtype))
        v = torch.where(v >= 1, torch.zeros_like(v), v)
    return torch.stack(spikes)


def stepwise(x: Tensor, function: Any) -> Tensor:
    return torch.stack([function(step) for step in x])


def conv_by_hand(x: Tensor, module: nn.Conv2d, stride: int, padding: int) -> Tensor:
    return stepwise(x, lambda step: conv2d(step, module.weight, None, stride, padding))


def norm_by_hand(x: Tensor, module: nn.BatchNorm2d) -> Tensor:
    kept = module.running_mean, module.running_var, module.weight, module.bias
    return stepwise(x, lambda step: batch_norm(step, *kept))


def parts(module: nn.Module) -> tuple[list[Any], list[Any]]:
    every = list(module.modules())
    return [m for m in every if isinstance(m, nn.Conv2d)], [m for m in every if isinstance(m, nn.BatchNorm2d)]


def test_a_sew_block_adds_spikes_to_spikes() -> None:
    for inputs, outputs, stride in [(4, 4, 1), (4, 8, 2), (4, 8, 1)]:
        block = settled(SEWBlock(inputs, outputs, stride, BY_HAND, "batch", False))
        x = (randn(3, 2, inputs, 8, 8, dtype=torch.float64) > 0).double()
        convs, norms = parts(block)
        h = lif_by_hand(norm_by_hand(conv_by_hand(x, convs[0], stride, 1), norms[0]))
        h = lif_by_hand(norm_by_hand(conv_by_hand(h, convs[1], 1, 1), norms[1]))
        across = x
        if len(convs) == 3:
            across = lif_by_hand(norm_by_hand(conv_by_hand(x, convs[2], stride, 0), norms[2]))
        out = block(x)
        torch.testing.assert_close(out, h + across)
        assert set(out.unique().tolist()) == {0.0, 1.0, 2.0}
        assert (len(convs) == 3) == ((inputs, stride) != (outputs, 1))


def test_a_preactivation_block_adds_currents_to_the_identity() -> None:
    for inputs, outputs, stride, first in [(4, 4, 1, True), (4, 4, 1, False), (4, 8, 2, False)]:
        block = settled(PreActivationBlock(inputs, outputs, stride, BY_HAND, "batch", first))
        x = 2 * randn(3, 2, inputs, 8, 8, dtype=torch.float64)
        convs, norms = parts(block)
        spikes = lif_by_hand(x if first else norm_by_hand(x, norms.pop(0)))
        h = lif_by_hand(norm_by_hand(conv_by_hand(spikes, convs[0], stride, 1), norms[0]))
        h = conv_by_hand(h, convs[1], 1, 1)
        across = conv_by_hand(spikes, convs[2], stride, 0) if len(convs) == 3 else x
        torch.testing.assert_close(block(x), h + across)
        assert h.abs().max() > 0 and len(norms) == 1


def test_a_membrane_block_adds_normalised_currents() -> None:
    for inputs, outputs, stride in [(4, 4, 1), (4, 8, 2), (4, 8, 1)]:
        block = settled(MembraneBlock(inputs, outputs, stride, BY_HAND, "batch", False))
        x = 2 * randn(3, 2, inputs, 8, 8, dtype=torch.float64)
        convs, norms = parts(block)
        h = lif_by_hand(norm_by_hand(conv_by_hand(lif_by_hand(x), convs[0], stride, 1), norms[0]))
        h = norm_by_hand(conv_by_hand(h, convs[1], 1, 1), norms[1])
        across = norm_by_hand(conv_by_hand(x, convs[2], stride, 0), norms[2]) if len(convs) == 3 else x
        torch.testing.assert_close(block(x), h + across)
        assert (len(convs) == 3) == ((inputs, stride) != (outputs, 1))


def test_a_firing_block_fires_after_the_addition() -> None:
    for inputs, outputs, stride in [(4, 4, 1), (4, 8, 2), (4, 8, 1)]:
        block = settled(FiringBlock(inputs, outputs, stride, BY_HAND, "batch", False))
        x = (randn(3, 2, inputs, 8, 8, dtype=torch.float64) > 0).double()
        convs, norms = parts(block)
        h = lif_by_hand(norm_by_hand(conv_by_hand(x, convs[0], stride, 1), norms[0]))
        h = norm_by_hand(conv_by_hand(h, convs[1], 1, 1), norms[1])
        across = norm_by_hand(conv_by_hand(x, convs[2], stride, 0), norms[2]) if len(convs) == 3 else x
        out = block(x)
        torch.testing.assert_close(out, lif_by_hand(h + across))
        assert 0.05 < out.mean() < 0.95
        assert (len(convs) == 3) == ((inputs, stride) != (outputs, 1))


def logits_by_hand(model: Any, image: Tensor, identity_takes_spikes: bool) -> Tensor:
    """Returns a pre-activation network's logits, block by block. SLTT's identity takes the spikes in place of x."""
    x = norm_by_hand(conv_by_hand(image.expand(3, *image.shape), model.stem[0], 1, 1), model.stem[1])
    *blocks, norm, _, _ = model.body
    for number, block in enumerate(blocks):
        spikes = lif_by_hand(x if number == 0 else norm_by_hand(x, block.activate[0]))
        stride = block.residual[0].stride[0]
        h = lif_by_hand(norm_by_hand(conv_by_hand(spikes, block.residual[0], stride, 1), block.residual[1]))
        h = conv_by_hand(h, block.residual[3], 1, 1)
        x = spikes if identity_takes_spikes else x
        x = h + (x if block.shortcut is None else conv_by_hand(spikes, block.shortcut, stride, 0))
    h = lif_by_hand(norm_by_hand(x, norm)).mean((3, 4))
    return h @ model.readout.weight.T + model.readout.bias


def test_the_two_identity_shortcuts_on_the_same_weights() -> None:
    """`resnet18` adds the current to the block's output, and `resnet18-sltt`, as SLTT's network, the spikes."""
    found = {}
    for name in ("resnet18", "resnet18-sltt"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = settled(registry.resolve("backbone", name)((2, 8, 8), 5, 3, BY_HAND, width=8))
        image = 3 * randn(4, 2, 8, 8, dtype=torch.float64)
        found[name] = model(image), dict(model.state_dict())
        for takes_spikes in (False, True):
            by_hand = logits_by_hand(model, image, takes_spikes)
            assert torch.allclose(found[name][0], by_hand) == (takes_spikes == (name == "resnet18-sltt")), name
    ours, sltts = found.values()
    assert all(torch.equal(ours[1][key], sltts[1][key]) for key in ours[1] | sltts[1]), "the weights are the same"
    assert not torch.allclose(ours[0], sltts[0])


def test_the_cnn_is_three_pooled_convolutions_and_a_readout() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = settled(CNN((2, 8, 8), 5, 3, BY_HAND, width=4))
    x = 3 * randn(6, 2, 8, 8, dtype=torch.float64).abs()
    convs, norms = parts(model)
    h = x.expand(3, *x.shape)
    for place in range(3):
        h = norm_by_hand(conv_by_hand(h, convs[place], 1, 1), norms[place])
        if place < 2:  # 8 -> 4 -> 2 pixels; not to 1
            h = stepwise(h, lambda step: avg_pool2d(step, 2))
        h = lif_by_hand(h)
    logits = h.flatten(2) @ model.readout.weight.T + model.readout.bias
    torch.testing.assert_close(model(x), logits)
    assert 0.02 < h.mean() < 0.98
