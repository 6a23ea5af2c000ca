"""Channels that are cut out while a network trains."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sadp_bench.backbones.mlp import MLP
from sadp_bench.backbones.plain import CNN
from sadp_bench.backbones.spiking import Backbone, NeuronSettings
from sadp_bench.capture.element_counts import element_counts
from sadp_bench.capture.per_example_norms import gradient_norms
from sadp_bench.capture.recorder import SQUARES, Recorder
from sadp_bench.capture.signals import Signal
from sadp_bench.capture.synaptic_ops import operations
from sadp_bench.core.channels import keep_channels, named_groups
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import LOSSES
from sadp_bench.core.registry import load
from sadp_bench.core.rng import isolated, stream
from sadp_bench.native import library
from sadp_bench.records.axes import theoretical_speedup, weights_factor
from sadp_bench.records.record import Record
from sadp_bench.reports.naming import weights_name
from sadp_bench.sparsity.channels import Channels, channel_masks
from sadp_bench.training.optimizer import OPTIMIZERS
from tests.runs.networks import WithoutNeurons
from tests.small_runs import assert_same_weights, make_trainer, numbers, resolved, weights_of
from tests.stopping import SIZES, resumed, whole

CPU = torch.device("cpu")
KERNELS = ["python"] if library.absence() else ["python", "native"]
NETWORKS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "cnn": ("plain:CNN", 4, {}),
    "cnn, pool after the norm": ("plain:CNN", 4, {"pool_at": "after-norm"}),
    "cnn, maxima of spikes": ("plain:CNN", 4, {"pool": "max", "pool_at": "after-neuron"}),
    "vgg11": ("plain:VGG11", 2, {}),
    "resnet18": ("resnet:ResNet18", 8, {}),
    "resnet18-sltt": ("resnet:SLTTResNet18", 8, {}),
    "sew-resnet18": ("resnet:SEWResNet18", 8, {}),
    "ms-resnet18": ("resnet:MSResNet18", 8, {}),
    "resnet19": ("resnet:ResNet19", 8, {}),
}
EARLY = {
    "sparsity": "channels",
    "density": 0.5,
    "set": {"sparsity.latest": 0.3},
}  # the cut follows the first of 4 epochs


def network(name: str, kernel: str = "python") -> Any:
    """Returns a network whose weights and statistics are short binary fractions, so that no order of sums rounds."""
    where, width, more = NETWORKS[name]
    kind = load(f"sadp_bench.backbones.{where}")
    draws = stream(0, "made numbers")
    with isolated(0, "network", CPU):
        model = kind((3, 8, 8), 5, 3, NeuronSettings(threshold=0.5, kernel=kernel), width=width, **more)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
            nn.init.constant_(module.bias, 0.25)
            module.weight.data = short(torch.rand(len(module.weight), generator=draws) + 0.5)
            module.running_mean = short(torch.randn(len(module.weight), generator=draws) / 8)
        elif hasattr(module, "weight"):
            module.weight.data = short(module.weight.data)
    return model.to(memory_format=torch.channels_last).eval()


def short(x: Tensor) -> Tensor:
    return (x * 64).round() / 64


def images(number: int = 6) -> Tensor:
    return torch.randint(0, 9, (number, 3, 8, 8), generator=stream(0, "images")) / 8


def some_masks(model: Any) -> dict[str, Tensor]:
    sizes = {name: group.producer.out_channels for name, group in named_groups(model).items()}
    masks = {name: torch.rand(size, generator=stream(1, name)) < 0.5 for name, size in sizes.items()}
    return {name: mask.index_fill(0, torch.tensor([0]), True) for name, mask in masks.items()}


def sgd(model: Any) -> torch.optim.Optimizer:
    return OPTIMIZERS["sgd"](model.parameters(), lr=0.1, momentum=0.9)


def adamw(model: Any) -> torch.optim.Optimizer:
    return OPTIMIZERS["adamw"](model.parameters(), lr=0.01)


def cut(model: Any, masks: dict[str, Tensor], optimizer: torch.optim.Optimizer | None = None) -> None:
    for name, group in named_groups(model).items():
        keep_channels(group, masks[name], optimizer)


# --- The cut


def test_a_cut_network_computes_what_the_whole_one_does_whose_other_channels_are_silent() -> None:
    for name in NETWORKS:
        for kernel in KERNELS:
            model = network(name, kernel)
            masks = some_masks(model)
            smaller = copy.deepcopy(model)
            cut(smaller, masks)
            with torch.no_grad():
                before = model(images())
                for place, group in named_groups(model).items():
                    group.norm.weight[~masks[place]] = 0
                    group.norm.bias[~masks[place]] = 0
                expected, found = model(images()), smaller(images())
            assert torch.equal(found, expected), (name, kernel)
            assert not torch.equal(found, before) and len(found.flatten().unique()) > 20, (name, "too few spikes")
            assert sum(p.numel() for p in smaller.parameters()) < 0.8 * sum(p.numel() for p in model.parameters()), name


def test_cuttable_channels_are_those_that_nothing_else_reads() -> None:
    convolutions = {
        name: [of for of, module in network(name).named_modules() if isinstance(module, nn.Conv2d)] for name in NETWORKS
    }
    for name, all_of in convolutions.items():
        inner = [of for of in all_of if of.endswith("residual.0")] if "resnet" in name else all_of
        assert list(named_groups(network(name))) == inner and len(inner) in (3, 8), name


def test_a_cut_network_is_counted_and_scored_as_one_that_was_built_with_its_widths() -> None:
    def measured(model: Any) -> list[Any]:
        label_B = torch.arange(6) % 5
        norms = gradient_norms(model, LOSSES["mean"], images(), label_B)
        with Recorder(model, SQUARES | {Signal.SPIKE_COUNTS, Signal.FEATURES}) as recorder:
            LOSSES["mean"](model(images()), label_B).sum().backward()
            seen = recorder.seen()
        model.zero_grad()
        return [
            operations(model, [images()]),
            element_counts(model, images()),
            norms,
            *(seen[key] for key in sorted(seen)),
        ]

    for kernel in KERNELS:
        model = network("cnn", kernel)
        optimizer = sgd(model)
        before = measured(model)[0]  # a pass of the whole network, whose traces must not remain
        optimizer.step()
        cut(model, {name: torch.arange(len(mask)) % 2 == 1 for name, mask in some_masks(model).items()}, optimizer)
        built = CNN((3, 8, 8), 5, 3, NeuronSettings(threshold=0.5, kernel=kernel), width=2)
        built.load_state_dict(model.state_dict())
        for norm in (module for module in built.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.eps = 0.0
        found = measured(model)
        for one, other in zip(found, measured(built.eval()), strict=True):
            assert one == other if not isinstance(one, Tensor) else torch.allclose(one, other, rtol=1e-5), (kernel, one)
        assert 0 < found[0].accumulates < before.accumulates
        assert repr(model) == repr(built), "sizes by name"


@pytest.mark.parametrize("make_optimizer", [sgd, adamw])
def test_weights_and_the_optimizers_state_keep_their_rows_and_parameters_remain_the_same_objects(
    make_optimizer: Any,
) -> None:
    model = network("cnn").train()
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.eps = 1e-5
    optimizer, masks = make_optimizer(model), some_masks(model)

    def step() -> None:
        optimizer.zero_grad()
        model(images()).square().sum().backward()
        optimizer.step()

    step()
    weights, identity = weights_of(model), [id(p) for p in model.parameters()]
    state = {
        name: {key: value.clone() for key, value in optimizer.state[weight].items()}
        for name, weight in model.named_parameters()
    }
    cut(model, masks, optimizer)
    first, second, third = (np.flatnonzero(mask.numpy()) for mask in masks.values())
    columns = np.concatenate([np.arange(4 * c, 4 * c + 4) for c in third])  # 2x2 positions of each channel
    rows = {
        **{f"stem.0.{part}": first for part in ("weight", "bias")},
        **{f"stem.1.{part}": first for part in ("weight", "bias", "running_mean", "running_var")},
        **{f"body.2.{part}": second for part in ("weight", "bias", "running_mean", "running_var")},
        **{f"body.5.{part}": third for part in ("weight", "bias", "running_mean", "running_var")},
    }

    def kept(name: str, value: Tensor) -> np.ndarray[Any, Any]:
        whole = value.numpy()
        if name == "body.1.weight":
            return whole[np.ix_(second, first)]
        if name == "body.4.weight":
            return whole[np.ix_(third, second)]
        return whole[:, columns] if name == "readout.weight" else whole[rows[name]] if name in rows else whole

    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), kept(name, weights[name]), name)
    for name, weight in model.named_parameters():
        assert weight.grad is None or weight.grad.shape == weight.shape, name
        assert optimizer.state[weight].keys() == state[name].keys() != set(), name
        for key, value in optimizer.state[weight].items():
            expected = state[name][key] if value.dim() == 0 else kept(name, state[name][key])
            np.testing.assert_array_equal(value.numpy(), expected, f"{name} {key}")
            assert value.dim() == 0 or value.stride() == weight.stride(), name
        if weight.dim() == 4:
            assert weight.is_contiguous(memory_format=torch.channels_last), name
    assert identity == [id(p) for p in model.parameters()]
    step()


def test_a_mask_of_no_channel_or_of_another_size_cuts_nothing() -> None:
    group = next(iter(named_groups(network("cnn")).values()))
    for mask in (torch.zeros(4, dtype=torch.bool), torch.ones(5, dtype=torch.bool), torch.ones(4)):
        with pytest.raises(ValueError, match="a mask of 4 channels"):
            keep_channels(group, mask)


# --- Channels


def test_the_mask_is_a_plain_sort_of_the_scales_after_the_largest_of_each_layer() -> None:
    for seed, share in [(0, 0.5), (1, 0.3), (2, 0.05), (3, 0.9)]:
        scales = {
            name: torch.randn(size, generator=stream(seed, name)) for name, size in (("a", 9), ("b", 20), ("c", 5))
        }
        scales["c"] /= 100  # all of them are among the smallest
        size = np.concatenate([abs(scale.numpy()) for scale in scales.values()])
        starts = [0, 9, 29]
        safe = [start + int(np.argmax(size[start:end])) for start, end in zip(starts, [9, 29, 34], strict=True)]
        rest = [place for place in np.argsort(-size, kind="stable") if place not in safe]
        expected = sorted(safe + rest[: max(0, round(share * 34) - 3)])
        masks = channel_masks(scales, share)
        assert list(np.flatnonzero(torch.cat(list(masks.values())).numpy())) == expected, (seed, share)
    ties = channel_masks({"a": torch.ones(4), "b": -torch.ones(3)}, 0.6)
    assert [mask.tolist() for mask in ties.values()] == [[True, True, True, False], [True, False, False]]


def test_the_penalty_adds_the_scales_signs_to_their_gradients_alone() -> None:
    plain, penalised = network("resnet18"), network("resnet18")
    before = weights_of(plain)
    for model in (plain, penalised):
        optimizer = OPTIMIZERS["sgd"](model.parameters(), lr=1.0)
        for _ in range(2):  # A resumed run attaches again.
            Channels(0.5, l1=0.0).attach(model, optimizer)
            assert not optimizer._optimizer_step_pre_hooks
        if model is penalised:
            channels = Channels(0.5, l1=0.25)
            for _ in range(2):
                channels.attach(model, optimizer)
        model(images(2)).mean().backward()
        optimizer.step()
    scales = {f"{name.removesuffix('0')}1.weight" for name in named_groups(plain)}
    for (name, one), other in zip(plain.named_parameters(), penalised.parameters(), strict=True):
        expected = -0.25 * before[name].sign() if name in scales else torch.zeros_like(one)
        assert torch.allclose(other - one, expected, atol=1e-6), name


def run(**requested: Any) -> Record:
    more = requested.pop("set", {})
    settings = {"backbone.width": 8, **EARLY["set"], **more}  # type: ignore[dict-item]
    return make_trainer(*resolved(**SIZES | EARLY | requested | {"set": settings})).run()


def test_a_run_counts_the_products_of_the_network_that_each_epoch_trained() -> None:
    for kernel in KERNELS:
        record = run(kernel=kernel, set={"sparsity.latest": 0.5})
        a, b, c = record.ticket["channels"].values()
        assert a + b + c == 28 and record.ticket["cut_epoch"] == 2 and record.ticket["converged"] is False

        def products(a: int, b: int, c: int) -> int:
            # 8x8 images of 1 channel, 2 steps; two convolutions pooled in one, 4x4 of stride 2, the first computed once.
            return 16 * 1 * a * 16 + 2 * 16 * a * b * 4 + 2 * 9 * b * c * 4 + 2 * 4 * c * 10

        dense, left = products(8, 16, 32), products(a, b, c)
        assert [row["live_products"] for row in record.epochs] == [dense, dense, left, left]
        assert record.operations["dense_products"] == dense and record.ticket["products_share"] == left / dense
        assert weights_factor(record) == pytest.approx(2 * dense / (dense + left)) == theoretical_speedup(record)
        weights = 9 * (a + a * b + b * c) + 4 * c * 10
        assert record.num_parameters == weights + 2 * (a + b + c) + 10
        assert record.density == record.ticket["density"] == weights / (9 * (8 + 128 + 512) + 1280)
        # Each product of the stem is one multiply-accumulate, as its input is an image.
        assert record.operations["multiply_accumulates"] == 16 * a * 16
        assert len(record.firing_rate) == 3 and "seconds" not in record.ticket and record.prepare_examples == 0
        assert weights_name(record.spec.flat()) == "channels 50 %"


def test_it_cuts_as_soon_as_the_mask_has_settled_and_at_the_latest_after_its_share_of_the_epochs() -> None:
    for latest, distance, epoch, converged in [(0.9, 1.0, 2, True), (0.9, 1e-9, 3, False), (0.1, 1.0, 1, False)]:
        record = run(
            set={"sparsity.window": 2, "sparsity.distance": distance, "sparsity.latest": latest, "sparsity.l1": 0.3}
        )
        assert (record.ticket["cut_epoch"], record.ticket["converged"]) == (epoch, converged)


@pytest.mark.parametrize(
    "requested",
    [
        {"method": "sadp", "ratio": 0.5, "backprop": "sltt"},
        {"method": "random", "ratio": 0.5, "backprop": "sltt", "optimizer": "adamw", "kernel": "python"},
    ],
)
def test_a_run_stopped_before_or_after_its_cut_ends_in_the_same_record(requested: Any, tmp_path: Path) -> None:
    settings = {"backbone.width": 8, "sparsity.latest": 0.5, "sparsity.window": 2, "sparsity.distance": 1e-9}
    spec, material = resolved(**SIZES | EARLY | requested | {"set": settings})
    record, trained, num_batches = whole(spec, material)
    assert record.ticket["cut_epoch"] == spec.epochs // 2 and record.density < 0.6
    for stop in (num_batches // spec.epochs + 1, num_batches - 1):
        again, bench = resumed(spec, material, stop, tmp_path / str(stop))
        assert numbers(again) == numbers(record), stop
        assert_same_weights(weights_of(bench.model), trained)


def test_a_state_of_other_channels_is_refused() -> None:
    model = network("cnn")
    masks = some_masks(model)
    made = Channels(0.5)
    made.drawn, made.kept, made.cut_epoch = [], masks, 3
    assert made.state_dict()["kept"].keys() == masks.keys()
    for name, wrong in [
        ("kept", {"stem.0": masks["stem.0"]}),
        ("kept", {name: mask.float() for name, mask in masks.items()}),
        ("kept", {name: mask[1:] for name, mask in masks.items()}),
        ("kept", {name: torch.zeros_like(mask) for name, mask in masks.items()}),
        ("drawn", [{name: mask[1:] for name, mask in masks.items()}]),
    ]:
        read = Channels(0.5)
        read.load_state_dict(made.state_dict() | {name: wrong})
        with pytest.raises(ValueError, match="mask"):
            read.shape(copy.deepcopy(model))
            pytest.fail(f"{name} {wrong} is not refused")


BAD: list[tuple[dict[str, Any], str]] = [
    ({"set": {"backbone.norm": "none"}}, "backbone.norm=none has none"),
    ({"set": {"backbone.norm": "group"}}, "backbone.norm=group mixes them: take backbone.norm=batch or weighted"),
    ({"epochs": 1}, "at least 2 epochs, not 1"),
    ({"density": 1.0}, "channels needs a density below 1"),
    ({"early_time": True}, "only imp and eb search"),
    ({"set": {"sparsity.window": 1}}, "channels's window"),
    ({"set": {"sparsity.distance": 0.0}}, "channels's distance"),
    ({"set": {"sparsity.latest": 1.0}}, "latest is above 0 and below 1"),
    ({"set": {"sparsity.l1": -1.0}}, "l1 is at least 0"),
]


def test_a_run_whose_channels_cannot_be_cut_is_refused_before_training() -> None:
    for requested, message in BAD:
        with pytest.raises(BadInput, match=message):
            resolved(**EARLY | {"set": {}} | requested)
            pytest.fail(f"{requested} is not refused")
    for backbone, processes, message in [
        (WithoutNeurons, 1, "WithoutNeurons has no method channel_groups"),
        (MLP, 1, "MLP has no method channel_groups"),
        (CNN, 2, "2 processes can't share"),
    ]:
        with pytest.raises(BadInput, match=message):
            Channels(0.5).check_network(backbone, {}, processes)


def test_every_backbone_of_convolutions_names_its_channels() -> None:
    from sadp_bench.backbones import BACKBONES

    for name, where in BACKBONES.items():
        wanted = issubclass(load(where), Backbone) and name not in ("mlp", "recurrent")
        assert hasattr(load(where), "channel_groups") == wanted, name
    assert not hasattr(Backbone, "channel_groups")
