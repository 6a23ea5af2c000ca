"""The neuron against SpikingJelly's, the networks against hand computations, and that they learn."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, batch_norm, conv2d

from sadp_bench.backbones.cpu_lif import CPULif
from sadp_bench.backbones.plain import CNN
from sadp_bench.backbones.residual_blocks import FiringBlock, MembraneBlock, PreActivationBlock, SEWBlock
from sadp_bench.backbones.resnet import LEAST_WIDTH
from sadp_bench.backbones.spiking import LIF, NeuronSettings
from sadp_bench.capture.layers import weight_layers
from sadp_bench.capture.signals import Signal
from sadp_bench.core import registry
from sadp_bench.core.errors import BadInput
from sadp_bench.runs.building import make_model
from tests.helpers import norm_option, ours
from tests.small_runs import Chosen, make_trainer, resolved, small_bench

# As SpikingJelly names them; ours must be these.
SURROGATES = {
    "atan": surrogate.ATan(alpha=2.0),
    "sigmoid": surrogate.Sigmoid(alpha=4.0),
    "triangle": surrogate.PiecewiseQuadratic(alpha=1.0),
}
SETTINGS = list(itertools.product(("hard", "soft"), (True, False), SURROGATES))  # reset, decay, surrogate
# Of each data set: the input's channels and sides.
IMAGES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
EVENTS = (2, 34, 34)
BACKBONES = ours()
CONVOLUTIONAL = [name for name in BACKBONES if name not in ("mlp", "recurrent")]
MIN_WIDTHS = {name: LEAST_WIDTH for name in BACKBONES if "resnet" in name}


def randn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def at_rest(current: Tensor, *settings: Any) -> Tensor:
    """The CPU neuron's spikes from rest."""
    rest = torch.zeros(current.shape[1:], dtype=torch.promote_types(current.dtype, torch.float32))
    spikes: Tensor = CPULif.apply(current, rest, *settings)[0]
    return spikes


def build(name: str, shape: tuple[int, int, int], timesteps: int = 2, classes: int = 10, **options: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = registry.resolve("backbone", name)(
            shape, classes, timesteps, NeuronSettings(), **{"width": MIN_WIDTHS.get(name, 4), **options}
        )
    return model


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


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_takes_every_data_sets_shape(name: str) -> None:
    for shape, norm in (*((shape, "batch") for shape in IMAGES.values()), (IMAGES["digits"], "none")):
        model = build(name, shape, timesteps=3, classes=7, **norm_option(name, norm))
        logits = model(randn(2, *shape))
        assert logits.shape == (3, 2, 7) and bool(torch.isfinite(logits).all())
        logits.sum().backward()
        assert all(p.grad is not None for p in model.parameters())
        normed = norm == "batch" and name in CONVOLUTIONAL
        assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == normed
    model = build(name, EVENTS, timesteps=3)
    for frames, steps in ((2, 2), (3, 3), (5, 3)):  # the first T of them
        assert model(randn(frames, 2, *EVENTS).abs()).shape == (steps, 2, 10)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_static_image_equals_the_same_image_at_every_step_as_events(name: str) -> None:
    width = {} if name in CONVOLUTIONAL else {"width": 32}
    model = settled(build(name, (3, 16, 16), timesteps=3, **width))
    image = 2 * randn(4, 3, 16, 16, dtype=torch.float64, seed=5)
    with torch.no_grad():
        static, events = model(image), model(image.expand(3, *image.shape))
    torch.testing.assert_close(static, events, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(static[0], static[1])  # the neurons do integrate over time


def test_the_stem_runs_once_for_a_static_batch() -> None:
    for name in (name for name in BACKBONES if name != "recurrent"):  # which takes its steps one by one
        model, seen = build(name, (3, 16, 16), timesteps=4), []
        layers = weight_layers(model)
        for place in (0, 1):
            layers[place].register_forward_hook(lambda m, inputs, out, seen=seen: seen.append(tuple(inputs[0].shape)))
        model(randn(5, 3, 16, 16))
        assert seen[0] == ((5, 3, 16, 16) if name in CONVOLUTIONAL else (5, 3 * 16 * 16))  # not 4 x 5 images
        assert seen[1][:2] == (4, 5) and len(seen) == 2


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_images_stay_channels_last_through_the_network(name: str) -> None:
    model = build(name, (3, 32, 32), width=8).to(memory_format=torch.channels_last)
    kinds: dict[str, bool] = {}

    def check(label: str, tensor: Tensor) -> None:
        if tensor.dim() >= 4 and tensor.shape[-1] > 1:
            images = tensor if tensor.dim() == 4 else tensor.flatten(0, 1)
            kinds[label] = images.is_contiguous(memory_format=torch.channels_last)

    for label, module in model.named_modules():
        if isinstance(module, LIF | nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(lambda m, inputs, out, label=label: check(f"{label}", out))
    model(randn(4, 3, 32, 32).contiguous(memory_format=torch.channels_last))
    assert len(kinds) > 8 and [label for label, last in kinds.items() if not last] == []


WRONG_NEURONS = {
    "tau": {1.0: "backbone.tau is above 1, not 1", math.inf: "'tau' is a number, not 'inf'", math.nan: "not 'nan'"},
    "threshold": {0.0: "backbone.threshold is above 0, not 0"},
    "surrogate": {"arctan": "backbone.surrogate is one of atan, sigmoid, triangle, not 'arctan'"},
    "reset": {"zero": "backbone.reset is one of hard, soft, not 'zero'"},
}
WRONG_LAYERS = {
    "norm": {"bacth": "backbone.norm is one of batch, weighted, group, sync, none, not 'bacth'"},
}
WRONG_PERCEPTRONS = {
    "depth": {0: "backbone.depth is at least 1 hidden layer, not 0"},
    "dropout": {1.0: "backbone.dropout is at least 0 and below 1"},
    "norm": {"batch": "backbone (mlp|recurrent) has no setting 'norm'"},
}


@pytest.mark.parametrize("name", BACKBONES)
def test_wrong_settings_are_refused(name: str) -> None:
    of_network = WRONG_LAYERS if name in CONVOLUTIONAL else WRONG_PERCEPTRONS
    for setting, wrong in (WRONG_NEURONS | of_network if name == "cnn" else of_network).items():
        for value, message in wrong.items():
            with pytest.raises(BadInput, match=message):
                make_trainer(*resolved(backbone=name, set={f"backbone.{setting}": value}))
    least = MIN_WIDTHS.get(name, 1)
    with pytest.raises(BadInput, match=f"backbone.width is at least {least} (channel|neuron)s?, not {least - 1}"):
        make_trainer(*resolved(backbone=name, set={"backbone.width": least - 1}))


BY_HAND = NeuronSettings(tau=2.0, threshold=1.0, decay_input=True, reset="hard")


def lif_by_hand(current: Tensor) -> Tensor:
    """The neuron of BY_HAND; [T, ...]."""
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


def settled(module: nn.Module, seed: int = 0) -> nn.Module:
    """In evaluation mode, with norms that do something, and strong enough for spikes."""
    module.double().eval()
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.copy_(0.1 * torch.randn(part.num_features, generator=generator))
            part.running_var.copy_(0.1 + torch.rand(part.num_features, generator=generator) / 5)
            part.weight.data.copy_(2 + torch.rand(part.num_features, generator=generator))
            part.bias.data.copy_(torch.rand(part.num_features, generator=generator))
    return module


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
    """A pre-activation network, block by block; SLTT's code overwrites x by its spikes before the identity takes it."""
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


def test_networks_have_the_published_size() -> None:
    for name, spiking, convolutions, parameters in [
        # Published counts of the CIFAR variants; what ours adds or leaves out is named.
        ("vgg11", 8, 8, 9_231_114 - 2_752 + 3 * 512 * 10),  # no biases before norms; a readout of 2x2 pixels
        ("resnet18", 17, 20, 11_171_146 + 1_024),  # with the final norm
        ("resnet18-sltt", 17, 20, 11_171_146 + 1_024),
        ("sew-resnet18", 20, 20, 11_173_962),
    ]:
        model = build(name, (3, 32, 32), width=64)
        assert sum(isinstance(m, neuron.BaseNode) for m in model.modules()) == spiking
        assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == convolutions
        assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "sew-resnet18"])
def test_deep_networks_learn_real_images_in_32_steps_and_no_layer_is_dead(name: str, real_data: Path) -> None:
    """256 images of CIFAR-10 for 4 epochs of 8 updates, 8 channels wide, T = 2, AdamW.

    `tests/benchmarks/networks.py` prints the same of every network.
    Spike rates are those of training's batches: norms' running statistics need more steps than this to settle.
    """
    pruner = Chosen(torch.arange(256), watch=frozenset({Signal.SPIKE_COUNTS}))
    requested = {"dataset": "cifar10", "train_examples": 256, "batch_size": 32, "epochs": 4}
    requested |= {"optimizer": "adamw", "learning_rate": 0.003, "schedule": "constant"}
    bench = small_bench(pruner, backbone=name, set={"backbone.width": 8}, augment="none", **requested)
    losses = [row["train_loss"] for row in bench.rows()]
    assert len(pruner.seen) == 32
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] - 0.1, losses
    neurons: list[int] = []
    for layer in bench.model.modules():
        if isinstance(layer, neuron.BaseNode):
            layer.register_forward_hook(lambda layer, inputs, spikes: neurons.append(spikes[0, 0].numel()))
    bench.model(bench.data.input(torch.arange(2)))
    neurons_S = torch.tensor(neurons)
    for seen in (pruner.seen[0], pruner.seen[-1]):
        rate_S = seen.watched[Signal.SPIKE_COUNTS].mean((1, 2)) / neurons_S
        assert bool(((rate_S > 0.002) & (rate_S < 0.5)).all()), rate_S


def test_wrong_neurons_are_refused_without_a_run_too() -> None:
    for wrong in [{"tau": 1.0}, {"tau": math.nan}, {"threshold": math.inf}, {"reset": ""}]:
        with pytest.raises(BadInput, match=f"backbone.{next(iter(wrong))}"):
            NeuronSettings(**wrong)


def test_the_same_seed_builds_the_same_network_and_another_one_another() -> None:
    spec, material = resolved()
    one, same, other = (make_model(spec, material, seed) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.readout.weight, other.readout.weight)
