"""What taps see against plain hooks, and that they go."""

from __future__ import annotations

import pytest
import torch
from small import Chosen, hooks_of, small_bench
from spikingjelly.activation_based.neuron import LIFNode
from torch import Tensor, nn

from sadp_bench.taps import Taps

BOTH = frozenset({"features", "spike_counts"})


def watched_by_hand(model: nn.Module, input: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The readout's input and each spiking layer's output, by hooks of the test's own."""
    features, spikes = [], []
    handles = [model.readout.register_forward_hook(lambda m, inputs, out: features.append(inputs[0].detach()))]
    for module in model.modules():
        if isinstance(module, LIFNode):
            handles.append(module.register_forward_hook(lambda m, inputs, out: spikes.append(out.detach())))
    model(input)
    for handle in handles:
        handle.remove()
    return features[0], spikes


@pytest.mark.parametrize("backbone", ["cnn", "sew-resnet18"])
def test_features_and_spike_counts_equal_what_plain_hooks_see(backbone: str) -> None:
    bench = small_bench(backbone=backbone, timesteps=3)
    input = bench.data.input(torch.arange(7))
    features, spikes = watched_by_hand(bench.model, input)
    with Taps(bench.model, BOTH) as taps:
        bench.model(bench.data.input(torch.arange(20, 29)))  # the newest pass counts
        bench.model(input)
        seen = taps.seen()
    assert seen.keys() == BOTH and all(value.dtype == torch.float32 for value in seen.values())
    assert not seen["features"].requires_grad and not seen["spike_counts"].requires_grad
    assert torch.equal(seen["features"], features)
    assert seen["features"].shape == (3, 7, bench.model.readout.in_features)
    assert seen["spike_counts"].shape == (len(spikes), 3, 7)
    for layer, of_layer in enumerate(spikes):
        for step in range(3):
            for example in range(7):
                fired = int((of_layer[step, example] == 1).sum())
                assert seen["spike_counts"][layer, step, example] == fired
                assert of_layer[step, example].numel() == taps.neurons_S[layer]
    assert seen["spike_counts"].sum() > 0


def test_the_loss_logits_are_the_readout_of_the_features() -> None:
    bench = small_bench()
    with Taps(bench.model, {"features"}) as taps:
        logits = bench.model(bench.data.input(torch.arange(5)))
        features = taps.seen()["features"]
    torch.testing.assert_close(features @ bench.model.readout.weight.T + bench.model.readout.bias, logits)


def test_hooks_are_gone_after_the_context_and_after_an_error() -> None:
    model = small_bench().model
    with Taps(model, BOTH):
        assert hooks_of(model) == 4  # the readout's and three layers'
    assert hooks_of(model) == 0
    with pytest.raises(KeyError), Taps(model, BOTH):
        raise KeyError
    assert hooks_of(model) == 0


def test_a_network_that_nobody_watches_has_no_hooks() -> None:
    pruner = Chosen(torch.arange(130))
    bench = small_bench(pruner)
    counts = []
    pruner.when_seen = lambda seen: counts.append((hooks_of(bench.model), len(seen.watched)))
    list(bench.rows())
    assert counts == [(0, 0)] * 6
    with Taps(bench.model, ()) as taps:
        bench.model(bench.data.input(torch.arange(5)))
        assert hooks_of(bench.model) == 0 and taps.seen() == {}


def test_only_what_was_asked_for_is_watched() -> None:
    pruner = Chosen(torch.arange(130), watch=frozenset({"features"}))
    bench = small_bench(pruner)
    counts = []
    pruner.when_seen = lambda seen: counts.append((hooks_of(bench.model), *seen.watched))
    list(bench.rows())
    assert counts == [(1, "features")] * 6
    assert hooks_of(bench.model) == 0


def test_a_scoring_run_that_stops_early_leaves_no_hooks() -> None:
    bench = small_bench(epochs=3)
    model = bench.lab.fit(Chosen(torch.arange(130), watch=BOTH), epochs=1, seed=0)
    assert hooks_of(model) == 0
