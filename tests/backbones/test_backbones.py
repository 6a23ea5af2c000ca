"""Networks: the shapes that they take, the settings that they refuse, their sizes, and that they learn."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

from sadp_bench.backbones.spiking import LIF, NeuronSettings
from sadp_bench.capture.layers import weight_layers
from sadp_bench.capture.signals import Signal
from sadp_bench.core.errors import BadInput
from sadp_bench.runs.building import make_model
from tests.backbones.helpers import BACKBONES, MIN_WIDTHS, build, randn, settled
from tests.helpers import norm_option
from tests.small_runs import Chosen, make_trainer, resolved, small_bench

# The input's channels and sides, by data set.
IMAGES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
EVENTS = (2, 34, 34)
CONVOLUTIONAL = [name for name in BACKBONES if name not in ("mlp", "recurrent")]


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
