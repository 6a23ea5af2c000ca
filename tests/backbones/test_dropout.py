"""Dropout: one mask for all steps of a batch in every way of training, and the numbers of a run with it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from sadp_bench.backbones.dropout import Dropout
from sadp_bench.backbones.spiking import Backbone, NeuronSettings
from sadp_bench.capture.recorder import Recorder
from sadp_bench.capture.signals import Signal
from sadp_bench.core import registry
from sadp_bench.core.channels import keep_channels
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import logit_errors, step_loss
from sadp_bench.native.library import absence
from sadp_bench.pruners.sadp import readout_gradient_norm
from sadp_bench.runs.resolve import RunRequest
from tests.small_runs import assert_same_weights, gradients_of_batch, numbers, weights_of
from tests.stopping import Stopped, StopsAt, requested, saved, whole

STEPS, BATCH, P = 3, 4, 0.4
KERNELS = ("python", "native") if absence() is None else ("python",)
LABELS = torch.tensor([0, 3, 1, 4])


def network(backbone: str, kernel: str = "python", **options: Any) -> Backbone:
    """Returns a network without norm, so that its steps give the same numbers one by one and together."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = {"width": 8, "norm": "none", "dropout": P} | options
        neuron = NeuronSettings(kernel=kernel, threshold=0.5)
        made: Backbone = registry.resolve("backbone", backbone)((2, 8, 8), 5, STEPS, neuron, **settings)
    return made.to(memory_format=torch.channels_last)


def images() -> Tensor:
    return torch.randn(BATCH, 2, 8, 8, generator=torch.Generator().manual_seed(1))


@contextmanager
def masks_of(model: nn.Module) -> Iterator[dict[nn.Module, list[Tensor]]]:
    """Yields the masks of all calls, by layer."""
    found: dict[nn.Module, list[Tensor]] = {m: [] for m in model.modules() if isinstance(m, Dropout)}
    handles = [m.register_forward_hook(lambda m, _, __: found[m].append(m.mask.clone())) for m in found]
    yield found
    for handle in handles:
        handle.remove()


def test_a_batch_has_one_mask_for_all_steps_in_every_way_of_training() -> None:
    for backbone, kernel in [*itertools.product(("cnn",), KERNELS), ("resnet18-sltt", KERNELS[-1])]:
        logits = {}
        for backprop, calls in (("bptt", 1), ("sltt", STEPS)):
            model, case = network(backbone, kernel), (backbone, kernel, backprop)
            with masks_of(model) as masks, torch.random.fork_rng():
                torch.manual_seed(3)
                logits[backprop] = gradients_of_batch(model, backprop, images(), LABELS)
                gradients_of_batch(model, backprop, images(), LABELS)
            assert len(masks) == (9 if backbone == "resnet18-sltt" else 1), case
            for first, *others in masks.values():
                assert len(others) == 2 * calls - 1, case
                assert all(torch.equal(first, other) for other in others[: calls - 1]), case
                assert not torch.equal(first, others[calls - 1]), f"{case}: the next batch has the same mask"
                assert set(first.unique().tolist()) == {0.0, torch.tensor(1 / (1 - P)).item()}, case
        # Without norm the steps' logits are those of the whole pass with the same masks.
        torch.testing.assert_close(logits["sltt"], logits["bptt"], msg=f"{backbone} {kernel}")


def test_the_readout_gets_what_the_mask_leaves_and_evaluation_has_no_mask() -> None:
    for backbone, kernel in itertools.product(("cnn", "vgg11"), KERNELS):
        model, plain = network(backbone, kernel), network(backbone, kernel, dropout=0.0)
        assert weights_of(model).keys() == weights_of(plain).keys() and not any(
            isinstance(m, Dropout) for m in plain.modules()
        )
        inputs: list[Tensor] = []
        plain.readout.register_forward_pre_hook(lambda _, given, inputs=inputs: inputs.append(given[0]))
        with masks_of(model) as masks:
            found, _ = model(images()), plain(images())
        [[mask]] = masks.values()
        kept = inputs[0] * (mask.flatten(1) != 0) / (1 - P)
        torch.testing.assert_close(found, linear(kept, model.readout.weight, model.readout.bias))
        assert 0.2 < (mask == 0).float().mean() < 0.6
        model.eval()
        plain.eval()
        state = torch.get_rng_state()
        assert torch.equal(model(images()), plain(images())) and torch.equal(torch.get_rng_state(), state)


def test_bounds_and_the_readouts_score_are_those_of_the_masked_network() -> None:
    """Scores against each example's gradient in the same pass: equal at the readout, a bound at every other layer."""
    watch = frozenset({Signal.FEATURES, Signal.INPUT_SQUARES, Signal.ERROR_SQUARES})
    model = network("resnet18-sltt").double().train()
    with Recorder(model, watch) as recorder, torch.random.fork_rng():
        torch.manual_seed(5)
        logits_TBC = model(images().double())
        step_loss(logits_TBC, LABELS).sum().backward()
        seen, errors = recorder.seen(torch.ones(BATCH)), logit_errors(step_loss, logits_TBC, LABELS)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        exact_LB = squares_of_examples(model, images().double())
    score_B = readout_gradient_norm(seen[Signal.FEATURES], errors)
    torch.testing.assert_close(score_B.square(), exact_LB[-1])
    bound_LB = seen[Signal.INPUT_SQUARES] * seen[Signal.ERROR_SQUARES]
    assert (exact_LB[:-1] <= bound_LB * (1 + 1e-9)).all() and (bound_LB > 0).any(1).all()


def squares_of_examples(model: Backbone, input: Tensor) -> Tensor:
    """Returns each layer's squared gradient norm, [L, B], from one pass in training mode; the readout comes last."""
    layers = [*(m for m in model.modules() if isinstance(m, nn.Conv2d)), model.readout]
    columns = []
    loss_B = step_loss(model(input), LABELS)
    for loss in loss_B:
        of_layer = [torch.autograd.grad(loss, list(layer.parameters()), retain_graph=True) for layer in layers]
        columns.append(torch.stack([torch.stack([g.square().sum() for g in grads]).sum() for grads in of_layer]))
    return torch.stack(columns, 1)


@pytest.mark.parametrize("backprop", ["sltt-k", "local"])
def test_a_stopped_run_goes_on_with_the_same_masks(backprop: str, tmp_path: Path) -> None:
    options = {"backbone.dropout": P, "backbone.pool": "max", "backbone.pool_at": "after-neuron"}
    axis: dict[str, Any] = {
        "backprop": backprop,
        "loss": "step",
        "train_examples": 60,
        **({"k": 1} if backprop == "sltt-k" else {}),
    }
    spec, material = requested("sadp", set=options, epochs=2, **axis)
    record, weights, num_batches = whole(spec, material)
    with pytest.raises(Stopped):
        saved(spec, material, tmp_path, StopsAt(num_batches - 1)).run()
    bench = saved(spec, material, tmp_path)
    assert numbers(bench.run()) == numbers(record)
    assert_same_weights(weights_of(bench.model), weights)


def test_channels_are_cut_from_the_same_layers_with_dropout_as_without() -> None:
    for backbone in ("cnn", "resnet18-sltt"):
        cut = []
        for p in (0.0, P):
            model = network(backbone, dropout=p, norm="batch")
            groups = model.channel_groups()  # type: ignore[operator]
            for group in groups:
                keep_channels(group, torch.arange(group.producer.out_channels) < 3)
            layers = [[g.producer, *g.consumers] for g in groups]
            cut.append([[(type(m), tuple(m.weight.shape)) for m in group] for group in layers])
            assert model(images()).shape == (STEPS, BATCH, 5)
        assert cut[0] == cut[1], backbone


def test_no_dropout_is_the_former_run_and_what_is_no_share_is_refused() -> None:
    for backbone in ("cnn", "vgg11", "resnet18-sltt"):
        request = {"method": "full", "ratio": 0.0, "backbone": backbone, "kernel": "python"}
        specs = [RunRequest.of(request | {"set": {"backbone.dropout": p}}).spec(100) for p in ("0", "0.0", "0.5")]
        assert specs[0].key == specs[1].key == RunRequest.of(request).spec(100).key != specs[2].key, backbone
    for p in (-0.1, 1.0, float("nan")):
        with pytest.raises(BadInput, match="^backbone.dropout is at least 0 and below 1"):
            network("cnn", dropout=p)
    with pytest.raises(BadInput, match="has no setting 'dropout'"):
        RunRequest.of(request | {"backbone": "sew-resnet18", "set": {"backbone.dropout": 0.5}})
