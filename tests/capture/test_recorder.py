"""The recorder's signals against plain hooks; its hooks are removed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from spikingjelly.activation_based.neuron import LIFNode
from torch import Tensor, nn

from sadp_bench.capture.layers import norm_layers, weight_layers
from sadp_bench.capture.middle_step import MiddleStep
from sadp_bench.capture.recorder import RECORDED, Recorder
from sadp_bench.capture.squared_norms import error_squares, input_squares
from sadp_bench.core.losses import mean_loss
from sadp_bench.core.rng import stream
from sadp_bench.core.row_squares import attach_row_squares
from sadp_bench.training.backprop import at_precision
from sadp_bench.training.evaluation import predictions
from tests.small_runs import Chosen, hooks_of, small_bench

BOTH = frozenset({"features", "spike_counts"})


def watched_by_hand(model: nn.Module, input: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Returns the readout's input and each spiking layer's output, by hooks of the test's own."""
    features, spikes = [], []
    handles = [model.readout.register_forward_hook(lambda m, inputs, out: features.append(inputs[0].detach()))]
    for module in model.modules():
        if isinstance(module, LIFNode):
            handles.append(module.register_forward_hook(lambda m, inputs, out: spikes.append(out.detach())))
    model(input)
    for handle in handles:
        handle.remove()
    return features[0], spikes


@pytest.mark.parametrize("backbone", ["cnn", "mlp", "sew-resnet18"])
def test_features_and_spike_counts_equal_what_plain_hooks_see(backbone: str) -> None:
    bench = small_bench(backbone=backbone, timesteps=3)
    input = bench.data.input(torch.arange(7))
    features, spikes = watched_by_hand(bench.model, input)
    with Recorder(bench.model, BOTH) as recorder:
        bench.model(bench.data.input(torch.arange(20, 29)))  # the newest pass counts
        bench.model(input)
        seen = recorder.seen()
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
                assert of_layer[step, example].numel() == recorder.spikes.neurons_S[layer]
    assert seen["spike_counts"].sum() > 0


def test_the_loss_logits_are_the_readout_of_the_features() -> None:
    bench = small_bench()
    with Recorder(bench.model, {"features"}) as recorder:
        logits = bench.model(bench.data.input(torch.arange(5)))
        features = recorder.seen()["features"]
    torch.testing.assert_close(features @ bench.model.readout.weight.T + bench.model.readout.bias, logits)


def test_hooks_are_gone_after_the_context_and_after_an_error() -> None:
    model = small_bench().model
    with Recorder(model, BOTH):
        assert hooks_of(model) == 5  # the whole network's, the readout's and three layers'
    assert hooks_of(model) == 0
    with pytest.raises(KeyError), Recorder(model, BOTH):
        raise KeyError
    assert hooks_of(model) == 0


def test_a_network_that_nobody_watches_has_no_hooks() -> None:
    pruner = Chosen(torch.arange(130))
    bench = small_bench(pruner)
    counts = []
    pruner.when_seen = lambda seen: counts.append((hooks_of(bench.model), len(seen.watched)))
    list(bench.rows())
    assert counts[:2] == counts[3:5] == [(0, 0)] * 2, "an epoch's last batch alone is watched, by `FiniteWatch`"
    with Recorder(bench.model, ()) as recorder:
        bench.model(bench.data.input(torch.arange(5)))
        assert hooks_of(bench.model) == 0 and recorder.seen() == {}


def test_only_what_was_requested_for_is_watched() -> None:
    pruner = Chosen(torch.arange(130), watch=frozenset({"features"}))
    bench = small_bench(pruner)
    counts = []
    pruner.when_seen = lambda seen: counts.append((hooks_of(bench.model), *seen.watched))
    list(bench.rows())
    for others in (counts[:2], counts[3:5]):  # the last batch of an epoch has those of `FiniteWatch` too
        assert others == [(2, "features")] * 2  # the whole network's, and the readout's
    assert [watched for _, *watched in counts] == [["features"]] * 6
    assert hooks_of(bench.model) == 0


def test_a_scoring_run_that_stops_early_leaves_no_hooks() -> None:
    bench = small_bench(epochs=3)
    model = bench.context.fit(Chosen(torch.arange(130), watch=BOTH), epochs=1, seed=0)
    assert hooks_of(model) == 0


def test_everything_that_can_be_watched_has_its_shape_and_is_float32_and_leaves_no_hooks() -> None:
    bench = small_bench(timesteps=3)
    model = bench.model
    layers, norms = len(weight_layers(model)), len(norm_layers(model))
    assert (layers, norms) == (3, 3)
    for precision in ("fp32", "bf16"):
        with Recorder(model, RECORDED) as recorder:
            logits = at_precision(model, precision, bench.device)(bench.data.input(torch.arange(9)))
            mean_loss(logits, bench.data.label_N[:9]).sum().backward()
            seen = recorder.seen()
        assert seen.keys() == RECORDED
        for name, value in seen.items():
            wanted = {"bound_ratio": (2, layers), "features": (3, 9, 64), "spike_counts": (3, 3, 9)}
            assert value.shape == wanted.get(name, (norms if "norm" in name else layers, 9))
            assert value.dtype == torch.float32 and not value.requires_grad and value.isfinite().all()
    assert hooks_of(model) == 0


def test_squares_under_bfloat16_are_those_of_its_own_numbers_to_its_precision() -> None:
    bench = small_bench(timesteps=3)
    held: list[Tensor] = []
    handles = [
        m.register_forward_hook(lambda m, inputs, out: held.append(inputs[0])) for m in weight_layers(bench.model)
    ]
    with Recorder(bench.model, {"input_squares"}) as recorder:
        at_precision(bench.model, "bf16", bench.device)(bench.data.input(torch.arange(9)))
        found = recorder.seen()["input_squares"]
    for handle in handles:
        handle.remove()
    for layer, x, square_B in zip(weight_layers(bench.model), held, found, strict=True):
        assert isinstance(layer, nn.Conv2d) and isinstance(layer.padding, tuple)
        patches = nn.functional.unfold(
            x.double().flatten(0, -4), layer.kernel_size, layer.dilation, layer.padding, layer.stride
        )
        expected_B = patches.square().sum((1, 2)).reshape(-1, 9).sum(0)
        torch.testing.assert_close(square_B.double(), expected_B, rtol=2**-8, atol=0)


class TripledSquares(torch.autograd.Function):
    """The identity; its backward pass attaches three times the sums of squares, so that their readers stand out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> Tensor:
        error = error.clone()
        attach_row_squares(error, 3 * error.flatten(1).square().sum(1))
        return error


def test_sums_that_a_kernel_attaches_to_an_error_are_taken_while_they_are_the_errors() -> None:
    def folded(x: Tensor) -> Tensor:
        return TripledSquares.apply(x.flatten(0, 1))

    heads: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
        "as it is": (TripledSquares.apply, True),
        "folded": (folded, True),
        "one of two gradients": (lambda x: folded(x) + 2 * x.flatten(0, 1), False),
        "two": (lambda x: folded(x) + folded(2 * x), False),
        "transposed": (lambda x: folded(x.transpose(0, 1)), False),
        "a part": (lambda x: folded(x[:, :2]), False),
    }
    for name, (head, taken) in heads.items():
        conv = nn.Conv2d(2, 3, 3, padding=1)
        out = conv(torch.randn(12, 2, 5, 5, generator=stream(0, "attached")))
        out = out if name == "as it is" else out.unflatten(0, (3, 4))
        errors: list[tuple[Tensor, Tensor]] = []
        out.register_hook(lambda error, into=errors: into.append((error, error_squares(nn.Conv2d(2, 3, 3), error, 4))))
        head(out).square().sum().backward()
        [(error, found)] = errors
        true = error.reshape(3, 4, -1).square().sum(2)
        torch.testing.assert_close(found, 3 * true if taken else true, msg=lambda text, name=name: f"{name}: {text}")
        if taken:
            error.mul_(2)  # In place: the attached sums are void.
            torch.testing.assert_close(error_squares(conv, error, 4), 4 * true)


def test_bound_ratio_is_measured_in_the_first_batch_of_a_context_and_of_each_epoch_only() -> None:
    pruner = Chosen(torch.arange(130), watch=frozenset({"bound_ratio", "error_squares"}))
    list(small_bench(pruner).rows())
    assert ["bound_ratio" in seen.watched for seen in pruner.seen] == [True, False, False] * 2
    assert all("error_squares" in seen.watched for seen in pruner.seen)


def test_a_pass_without_gradients_shows_inputs_but_no_errors() -> None:
    bench = small_bench()
    with Recorder(bench.model, RECORDED - BOTH) as recorder:
        sizes = [len(index_B) for index_B, _, _ in predictions(bench.model, bench.data, "fp32")]
        seen = recorder.seen()
    assert sizes == [130] and seen.keys() == {"input_squares", "middle_input_squares"}


def test_only_the_newest_pass_and_its_backward_pass_are_kept() -> None:
    bench = small_bench()
    bench.model.eval()

    def step(first: int, last: int) -> None:
        logits = bench.model(bench.data.input(torch.arange(first, last)))
        mean_loss(logits, bench.data.label_N[first:last]).sum().backward()

    names = RECORDED - {"bound_ratio", "spike_counts"}
    with Recorder(bench.model, names) as recorder:
        step(0, 20)
        step(50, 57)
        found = recorder.seen()
    with Recorder(bench.model, names) as recorder:
        step(50, 57)
        expected = recorder.seen()
    assert found.keys() == names
    for name in names:
        assert torch.equal(found[name], expected[name])


def test_watching_changes_no_number_of_a_run() -> None:
    runs = [small_bench(Chosen(torch.arange(130), watch=watch)) for watch in (frozenset[str](), RECORDED)]
    for bench in runs:
        list(bench.rows())
    for one, other in zip(*(bench.model.state_dict().values() for bench in runs), strict=True):
        assert torch.equal(one, other)


def test_the_middle_step_is_read_as_from_all_steps_in_every_layout() -> None:
    """Compares `MiddleStep` with every step's squares, for inputs and errors of several types, strides and folds."""
    images = torch.randn(12, 6, 5, 5, generator=stream(0, "layouts"))
    last = images.contiguous(memory_format=torch.channels_last)
    part = torch.randn(12, 9, 5, 5, generator=stream(1, "layouts"))[:, 2:8]
    layers = (nn.Conv2d(6, 4, 3, padding=1, bias=False), nn.Conv2d(6, 4, 3, stride=2), nn.Linear(5, 4))
    found = MiddleStep()
    for layer, batch in itertools.product(layers, (2, 4, 12)):
        output = layer(images).detach()
        for x in (images, last, part, last.transpose(2, 3), images.bfloat16(), last.half(), last.double()):
            for lead in ((12,), (12 // batch, batch)):
                x, shaped = x.reshape(*lead, *x.shape[-3:]), output.view(*lead, *output.shape[1:])
                inputs, errors = input_squares(layer, x, shaped, batch), error_squares(layer, x, batch)
                tolerance = {"rtol": 2**-6 if x.dtype == torch.bfloat16 else 1e-5, "atol": 0}
                for _ in range(2):  # The second time the place of the step is known.
                    of_input, of_error = (
                        found.input_squares(layer, x, shaped, batch),
                        found.error_squares(layer, x, batch),
                    )
                    torch.testing.assert_close(of_input, inputs[len(inputs) // 2], **tolerance)
                    torch.testing.assert_close(of_error, errors[len(errors) // 2], **tolerance)
