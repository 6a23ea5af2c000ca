"""The kinds and places of the plain networks' pools, against layers put together by hand."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, batch_norm, conv2d, max_pool2d

from sadp_bench.backbones.plain import CNN, PLACES, POOLS
from sadp_bench.backbones.spike_conv2d import SpikeConv2d
from sadp_bench.backbones.spiking import LIF, NeuronSettings
from sadp_bench.capture.per_example_norms import gradient_norms
from sadp_bench.capture.synaptic_ops import operations
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import mean_loss
from sadp_bench.gate.rerun import request_of
from sadp_bench.native import spike_conv
from sadp_bench.native.library import absence
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import read
from sadp_bench.runs.resolve import RunRequest
from tests.paths import ROOT
from tests.small_runs import gradients_of_batch

TIMESTEPS, BATCH = 3, 4
BY_HAND: dict[str, Callable[[Tensor, int], Tensor]] = {"avg": avg_pool2d, "max": max_pool2d}
CASES = list(itertools.product(POOLS, PLACES))


def made(pool: str, place: str, kernel: str = "python", width: int = 3, side: int = 9) -> CNN:
    """Returns a network for two-channel images of an odd side, whose first pool leaves a row out."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        neuron = NeuronSettings(kernel=kernel, threshold=0.5)
        return CNN((2, side, side), 5, TIMESTEPS, neuron, width=width, pool=pool, pool_at=place)


def images(events: bool, dtype: torch.dtype, side: int = 9) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    time = (TIMESTEPS,) if events else ()
    return torch.randn(*time, BATCH, 2, side, side, generator=g, dtype=dtype), torch.tensor([0, 3, 1, 4])


def by_hand(model: CNN, input: Tensor, pool: str, place: str) -> Tensor:
    """Returns the network's logits of a batch in training mode, with torch's functions around the neuron."""
    lif, pooled = LIF(NeuronSettings(threshold=0.5)), BY_HAND[pool]
    convs = [m for m in model.modules() if isinstance(m, SpikeConv2d)]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    x = input if input.dim() == 5 else input.expand(TIMESTEPS, *input.shape)
    for number, (convolution, norm) in enumerate(zip(convs, norms, strict=True)):
        pools = number < 2  # the third would leave one pixel
        y = conv2d(x.flatten(0, 1), convolution.weight, padding=1)
        y = pooled(y, 2) if pools and place == "before-norm" else y
        y = batch_norm(y, None, None, norm.weight, norm.bias, training=True)
        y = pooled(y, 2) if pools and place == "after-norm" else y
        x = lif(y.unflatten(0, x.shape[:2]))
        if pools and place == "after-neuron":
            x = pooled(x.flatten(0, 1), 2).unflatten(0, x.shape[:2])
    readout: Tensor = model.readout(x.flatten(2))
    return readout


def test_each_kind_at_each_place_equals_the_layers_by_hand() -> None:
    for (pool, place), events in itertools.product(CASES, (False, True)):
        model = made(pool, place).double()
        input, label_B = images(events, torch.float64)
        logits_TBC, wanted = model(input), by_hand(model, input, pool, place)
        torch.testing.assert_close(logits_TBC, wanted, msg=f"{pool} {place}")
        found, expected = (
            torch.autograd.grad(mean_loss(logits, label_B).sum(), list(model.parameters()))
            for logits in (logits_TBC, wanted)
        )
        for (name, _), one, other in zip(model.named_parameters(), found, expected, strict=True):
            torch.testing.assert_close(one, other, msg=f"{pool} {place}: {name}")
        assert logits_TBC.std() > 0.01, (pool, place)


@pytest.mark.skipif(absence() is not None, reason=f"{absence()}")
def test_the_native_kernel_gives_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spike_conv, "LEAST", 1)  # the core takes these few channels too
    for (pool, place), (backprop, events) in itertools.product(
        CASES, (("bptt", False), ("sltt", False), ("sltt", True))
    ):
        models = [made(pool, place, kernel).to(memory_format=torch.channels_last) for kernel in ("python", "native")]
        logits = [gradients_of_batch(model, backprop, *images(events, torch.float32)) for model in models]
        torch.testing.assert_close(*logits, msg=f"{pool} {place} {backprop}")
        for (name, p), q in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
            assert p.grad is not None and q.grad is not None
            assert (p.grad - q.grad).norm() <= 1e-4 * p.grad.norm() + 1e-7, (pool, place, backprop, name)
        torch.testing.assert_close(*(dict(model.named_buffers()) for model in models))


def test_exact_norms_of_each_pool_equal_a_backward_pass_for_each_example() -> None:
    for pool, place in CASES:
        model = made(pool, place).double().eval()
        input, label_B = images(False, torch.float64)
        norm_B = gradient_norms(model, mean_loss, input, label_B)
        for i in range(BATCH):
            loss = mean_loss(model(input[i : i + 1]), label_B[i : i + 1]).sum()
            squares = [g.square().sum() for g in torch.autograd.grad(loss, list(model.parameters()))]
            torch.testing.assert_close(norm_B[i].square(), sum(squares), msg=f"{pool} {place}")


def test_a_convolution_of_pooled_spikes_accumulates_maxima_and_multiplies_means() -> None:
    input = images(False, torch.float32)[0]
    for pool in POOLS:
        _, second, third, readout = operations(made(pool, "after-neuron"), [input]).layers
        for row in (second, third):
            assert (row.accumulates > 0, row.multiply_accumulates > 0) == (pool == "max", pool == "avg"), (pool, row)
        assert readout.accumulates > 0  # of spikes: no pool stands before the readout here


def test_records_of_the_former_option_keep_their_keys_and_new_runs_of_their_settings_have_them() -> None:
    shown: dict[str, Path] = {}
    for path in sorted((ROOT / "results").glob("*/*-s0-*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        spec = data.get("spec", {})
        if spec.get("backbone") in ("cnn", "vgg11") and "pool_at" not in spec["backbone_options"]:
            shown.setdefault(data["spec"]["backbone_options"].get("pool", "none"), path)
    assert shown.keys() >= {"none", "before-norm"}
    for former, path in shown.items():
        spec = read(path).spec
        place = "after-norm" if former == "none" else former
        assert (spec.backbone_options["pool"], spec.backbone_options["pool_at"]) == ("avg", place), path
        assert spec.key in path.name and Spec.from_json(spec.to_json()).key == spec.key, path
        assert RunRequest.of(request_of(spec)).spec(spec.train_examples).key == spec.key, path


def test_each_kind_and_place_has_its_key_and_what_is_no_kind_or_place_is_refused() -> None:
    request = {"method": "full", "ratio": 0.0, "kernel": "python"}
    keys = {
        RunRequest.of(request | {"set": {"backbone.pool": pool, "backbone.pool_at": place}}).spec(100).key
        for pool, place in CASES
    }
    assert len(keys) == len(CASES) and RunRequest.of(request).spec(100).key in keys
    for place in ("before-norm", "after-norm"):
        with pytest.raises(BadInput, match=f"backbone.pool={place} was renamed: it is --set backbone.pool_at={place}"):
            RunRequest.of(request | {"set": {"backbone.pool": place}})
    with pytest.raises(BadInput, match="backbone.pool is one of avg, max, not 'mean'"):
        made("mean", "before-norm")
    with pytest.raises(BadInput, match="backbone.pool_at is one of before-norm, after-norm, after-neuron, not 'first'"):
        made("avg", "first")
