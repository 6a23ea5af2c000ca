"""Operations counted by hand, connection by connection, and by SpikingJelly's counters."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import layer, op_counter
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sadp_bench.backbones.pooled_conv import PooledConv2d, merged
from sadp_bench.capture.element_counts import element_counts
from sadp_bench.capture.synaptic_ops import Operations, Products, operations
from sadp_bench.runs.building import make_model
from sadp_bench.sparsity.base import prunable
from tests.small_runs import hooks_of, resolved, small_bench


class Given(nn.Module):
    """A stem on data, spikes that are given whatever its output, and a layer that they enter."""

    def __init__(self, spikes: Tensor, second: nn.Module, *, loops: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 1, 3, padding=1)
        self.second = second
        self.spikes, self.loops = spikes, loops

    def forward(self, input: Tensor) -> Tensor:
        self.first(input if input.dim() == 4 else input.flatten(0, 1))
        steps = [self.second(spikes) for spikes in self.spikes] if self.loops else self.second(self.spikes)
        return (torch.stack(steps) if self.loops else steps).flatten(2)


def counts(found: Operations, name: str = "second") -> tuple[float, float]:
    row = next(row for row in found.layers if row.name == name)
    return row.accumulates, row.multiply_accumulates


def by_hand() -> tuple[Given, Tensor]:
    """Returns a network and a 3x3 image. Spikes: one in the centre; then one in a corner, a 2 in the opposite."""
    spikes = torch.zeros(2, 1, 1, 3, 3)
    spikes[0, 0, 0, 1, 1] = spikes[1, 0, 0, 0, 0] = 1
    spikes[1, 0, 0, 2, 2] = 2
    second = layer.Conv2d(1, 2, 3, stride=2, padding=1, step_mode="m")  # 2x2 positions, centred on the corners
    return Given(spikes, second), torch.full((1, 1, 3, 3), 0.5)


def test_two_layers_worked_by_hand() -> None:
    model, image = by_hand()
    found = operations(model, [image])
    # Each of 9 positions has 9 connections. The centre is in all 4 windows, a corner in 1: (4 + 1 + 2) for 2 channels.
    assert [(row.name, row.accumulates, row.multiply_accumulates) for row in found.layers] == [
        ("first", 0, 81),
        ("second", 14, 0),
    ]
    assert (found.accumulates, found.multiply_accumulates) == (14, 81)
    # A sum of 2 is no spike: a multiply-accumulate for each of the 2 channels at 4 positions with 9 connections each in
    # both steps; or for each of the 4 + 1 + 1 windows that an active input enters. All 9 positions of the image are
    # active, and 49 of their 81 connections lie inside it.
    assert (found.by_rate.accumulates, found.by_rate.multiply_accumulates) == (0, 81 + 2 * 2 * 4 * 9)
    assert (found.effective.accumulates, found.effective.multiply_accumulates) == (0, 49 + 2 * (4 + 1 + 1))
    model.spikes = model.spikes.clamp(max=1)
    spikes = operations(model, [image]).layers[1]
    assert spikes.by_rate.accumulates == pytest.approx(3 / 18 * 2 * 2 * 4 * 9) and spikes.effective.accumulates == 12
    assert found.energy_joules == pytest.approx(81 * 4.6e-12 + 14 * 0.9e-12, rel=1e-12)


def test_two_masked_layers_worked_by_hand() -> None:
    model, image = by_hand()
    first, second = torch.zeros(1, 1, 3, 3), torch.ones(2, 1, 3, 3, dtype=torch.bool)
    first[0, 0, 0] = 1  # the upper row's 3
    second[0, 0, 1, 1] = False  # by which channel 0 takes the corners
    second[1, 0, 0, 0] = second[1, 0, 2, 2] = False  # by which 2 of channel 1's windows take the centre
    found = operations(model, [image], {"first.weight": first, "second.weight": second})
    assert counts(found, "first") == (0, 3 * 9)
    assert counts(found) == (4 + (2 + 1 + 2), 0)
    assert counts(operations(model, [image], {"second.weight": torch.zeros(2, 1, 3, 3)})) == (0, 0)


def connections_taken(conv: nn.Conv2d, spikes: Tensor, mask: Tensor) -> int:
    """Counts connection by connection; the spikes are whole numbers, [rows, C, H, W]."""
    outputs, inputs, *size = conv.weight.shape
    height, width = spikes.shape[-2:]
    taken = 0
    shape = conv(spikes).shape
    for row, o, y, x, c, dy, dx in product(range(len(spikes)), *map(range, (*shape[1:], inputs, *size))):
        assert isinstance(conv.padding, tuple)
        i = y * conv.stride[0] + dy * conv.dilation[0] - conv.padding[0]
        j = x * conv.stride[1] + dx * conv.dilation[1] - conv.padding[1]
        group = o * conv.groups // outputs
        if 0 <= i < height and 0 <= j < width and mask[o, c, dy, dx]:
            taken += int(spikes[row, group * inputs + c, i, j])
    return taken


GEOMETRIES: dict[str, dict[str, Any]] = {
    "plain": {"kernel_size": 3},
    "padded": {"kernel_size": 3, "padding": 1},
    "strided": {"kernel_size": 3, "padding": 1, "stride": 2},
    "1x1": {"kernel_size": 1},
    "1x1 strided": {"kernel_size": 1, "stride": 2},
    "uneven": {"kernel_size": (3, 2), "padding": (2, 0), "stride": (1, 3), "dilation": (2, 1)},
    "grouped": {"kernel_size": 3, "padding": 1, "groups": 2},
}


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_accumulates_equal_a_loop_over_connections(geometry: dict[str, Any]) -> None:
    for masked in (False, True):
        torch.manual_seed(1)
        spikes = torch.randint(0, 3, (2, 3, 4, 5, 6)).float()  # T, B, C, H, W
        conv = layer.Conv2d(4, 6, **geometry, step_mode="m")
        mask = torch.rand_like(conv.weight) < 0.6 if masked else torch.ones_like(conv.weight)
        found = operations(Given(spikes, conv), [torch.rand(3, 1, 3, 3)], {"second.weight": mask} if masked else {})
        conv.step_mode = "s"
        assert counts(found) == (pytest.approx(connections_taken(conv, spikes.flatten(0, 1), mask) / 3, rel=1e-12), 0)


def test_a_dense_linear_layer_accumulates_each_unit_once_for_each_output() -> None:
    spikes = torch.tensor([[[1.0, 0, 3], [0, 0, 1]], [[1, 1, 1], [0, 0, 0]]])  # T, B, D
    image = torch.rand(2, 1, 3, 3)
    linear = nn.Linear(3, 7)
    assert counts(operations(Given(spikes, linear), [image])) == (7 * 8 / 2, 0)
    assert counts(operations(Given(spikes / 2, linear), [image])) == (0, 2 * 21)
    mask = torch.zeros(7, 3)
    mask[:4, 2] = 1
    assert counts(operations(Given(spikes, linear), [image], {"second.weight": mask})) == (4 * 5 / 2, 0)
    assert counts(operations(Given(-spikes, linear), [image], {"second.weight": mask})) == (0, 2 * 4)


def test_a_network_that_takes_its_steps_one_by_one_counts_alike() -> None:
    spikes, image = (torch.rand(3, 2, 4, 5, 5) < 0.3).float(), torch.rand(2, 1, 3, 3)
    conv = layer.Conv2d(4, 2, 3, step_mode="m")
    expected = operations(Given(spikes, conv), [image])
    conv.step_mode = "s"
    assert operations(Given(spikes, conv, loops=True), [image]) == expected and expected.accumulates > 0


def test_a_layer_is_of_one_kind_though_a_batch_of_its_inputs_is_silent() -> None:
    model, image = Given(torch.zeros(2, 1, 3), nn.Linear(3, 5)), torch.rand(1, 1, 3, 3)

    def shown() -> Any:
        for spikes in (torch.zeros(2, 1, 3), torch.full((2, 1, 3), 0.25), torch.ones(2, 1, 3)):
            model.spikes = spikes
            yield image

    assert counts(operations(model, shown())) == (0, 2 * 15)


def test_data_is_multiplied_once_as_an_image_and_every_step_as_events() -> None:
    model, _ = by_hand()
    for images in (torch.ones(2, 1, 1, 3, 3), torch.randint(0, 9, (2, 1, 1, 3, 3)).float(), torch.randn(2, 1, 1, 3, 3)):
        assert counts(operations(model, [images[0]]), "first") == (0, 81)
        assert counts(operations(model, [images]), "first") == (0, 2 * 81)


def let_spikes_through(model: nn.Module, image: Tensor) -> None:
    """Sets the norms' statistics as after training; else an untrained network's later layers are silent."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()
    with torch.no_grad():
        model(image)


def test_spikingjellys_counters_agree_on_a_dense_network() -> None:
    bench = small_bench(timesteps=3, set={"backbone.pool_at": "after-norm"})
    batches = [bench.data.input(torch.arange(30)), bench.data.input(torch.arange(30, 50))]
    let_spikes_through(bench.model, batches[0])
    found = operations(bench.model, batches)
    accumulates = op_counter.SynOpCounter()
    multiplies = op_counter.MACCounter(extra_ignore_modules=[nn.BatchNorm2d])
    bench.model.eval()
    with torch.no_grad(), op_counter.DispatchCounterMode([accumulates, multiplies]):
        for input in batches:
            bench.model(input)
    assert found.accumulates == pytest.approx(accumulates.get_total() / 50, rel=1e-12)
    assert found.multiply_accumulates == multiplies.get_total() / 50 == 8 * 8 * 9 * 4
    assert [row.multiply_accumulates > 0 for row in found.layers] == [True, False, False, False]
    assert all(row.accumulates > 0 for row in found.layers[1:])


def test_a_sew_networks_sums_of_spikes_are_accumulated_and_its_pooled_features_multiplied() -> None:
    bench = small_bench(backbone="sew-resnet18", timesteps=2)
    image = bench.data.input(torch.arange(12))
    inputs: dict[str, Tensor] = {}
    let_spikes_through(bench.model, image)
    layers: dict[str, Any] = {n: m for n, m in bench.model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    handles = [
        module.register_forward_hook(lambda m, args, out, name=name: inputs.update({name: args[0].detach()}))
        for name, module in layers.items()
    ]
    bench.model.eval()
    bench.model(image)
    for handle in handles:
        handle.remove()
    found = operations(bench.model, [image[:5], image[5:]])
    assert [row.name for row in found.layers] == list(layers)
    for name, conv in layers.items():
        if name.startswith("body"):
            x = inputs[name].flatten(0, 1).double()
            patches = nn.functional.unfold(x, conv.kernel_size, padding=conv.padding, stride=conv.stride)
            expected = (float(patches.sum()) * conv.out_channels / 12, 0)
        else:
            positions = 8 * 8 if name.startswith("stem") else 2
            expected = (0, positions * conv.weight.numel())
        assert counts(found, name) == pytest.approx(expected, rel=1e-12), name
        # The formulas of syops-counter and of NeuroBench, whose code gives these numbers for this network.
        row, x = next(row for row in found.layers if row.name == name), inputs[name]
        x = x.flatten(0, 1).double() if x.dim() in (3, 5) else x.double()
        kinds = set(x.unique().tolist())
        if isinstance(conv, nn.Conv2d):
            size = {"kernel_size": conv.kernel_size, "padding": conv.padding, "stride": conv.stride}
            dense = nn.functional.unfold(x, **size).numel() * conv.out_channels / 12
            active = float((nn.functional.unfold(x, **size) != 0).sum()) * conv.out_channels / 12
        else:
            dense, active = x.numel() * conv.out_features / 12, float((x != 0).sum()) * conv.out_features / 12
        of_spikes = kinds <= {0.0, 1.0} and name.startswith("body")
        by_rate = (float(x.mean()) * dense, 0) if of_spikes else (0, dense)
        effective = (active, 0) if kinds <= {-1.0, 0.0, 1.0} else (0, active)
        for rule, wanted in ((row.by_rate, by_rate), (row.effective, effective)):
            assert (rule.accumulates, rule.multiply_accumulates) == pytest.approx(wanted, rel=1e-9), name
    assert max(float(x.max()) for name, x in inputs.items() if name.startswith("body")) >= 2
    for rule in ("by_rate", "effective"):
        total, parts = getattr(found, rule), [getattr(row, rule) for row in found.layers]
        assert total.energy_joules == pytest.approx(sum(part.energy_joules for part in parts), rel=1e-9)
    assert found.energy_joules < found.effective.energy_joules / 2 < found.by_rate.energy_joules / 4


@pytest.mark.parametrize("backbone", ["cnn", "sew-resnet18"])
def test_the_operations_of_masks_and_of_what_they_lack_sum_to_the_dense_networks(backbone: str) -> None:
    # A connection of a merged kernel may belong to both masks.
    bench = small_bench(backbone=backbone, set={"backbone.pool_at": "after-norm"} if backbone == "cnn" else {})
    model, image = bench.model, bench.data.input(torch.arange(10))
    let_spikes_through(model, image)
    weights = {name: weight for name, weight in model.named_parameters() if weight.dim() > 1}
    dense = operations(model, [image])
    assert operations(model, [image], {name: torch.ones_like(weight) for name, weight in weights.items()}) == dense
    torch.manual_seed(2)
    masks = {name: torch.rand(weight.shape) < 0.3 for name, weight in weights.items()}
    some = operations(model, [image], masks)
    rest = operations(model, [image], {name: ~mask for name, mask in masks.items()})
    for a, b, both in zip(some.layers, rest.layers, dense.layers, strict=True):
        assert a.accumulates + b.accumulates == pytest.approx(both.accumulates, rel=1e-12)
        assert a.multiply_accumulates + b.multiply_accumulates == pytest.approx(both.multiply_accumulates, rel=1e-12)
    assert 0 < some.energy_joules < rest.energy_joules < dense.energy_joules


def test_layers_that_share_a_weight_share_its_mask() -> None:
    model, image = by_hand()
    twice = nn.Sequential(nn.Linear(3, 3), nn.Threshold(-1e9, 0), nn.Linear(3, 3))
    tied: Any = twice
    tied[2].weight = tied[0].weight
    spiking = Given(torch.ones(1, 1, 3), twice)
    found = operations(spiking, [image], {"second.0.weight": torch.eye(3)})
    assert (counts(found, "second.0"), counts(found, "second.2")) == ((3, 0), (0, 3))


@pytest.mark.parametrize("backbone", ["cnn", "sew-resnet18"])
def test_a_saturated_networks_operations_grow_with_its_steps(backbone: str) -> None:
    bench = small_bench(backbone=backbone)
    image, model = bench.data.input(torch.arange(4)), bench.model
    for module in model.modules():  # at threshold 0 or below, every neuron fires at every step
        if hasattr(module, "v_threshold"):
            module.v_threshold = -100.0
    found = {}
    for model.timesteps in (1, 2, 6):
        found[model.timesteps] = operations(model, [image])
    (_, *one), (_, *two), (_, *six) = (found[steps].layers for steps in (1, 2, 6))
    assert found[1].accumulates > 0 and found[1].layers[0] == found[6].layers[0]  # the stem is computed once
    for a, b, c in zip(one, two, six, strict=True):
        assert (b.accumulates, b.multiply_accumulates) == (2 * a.accumulates, 2 * a.multiply_accumulates)
        assert (c.accumulates, c.multiply_accumulates) == (6 * a.accumulates, 6 * a.multiply_accumulates)


def test_the_network_is_left_as_it_was_also_after_an_error() -> None:
    bench = small_bench()
    model, image = bench.model, bench.data.input(torch.arange(9))
    model.train()
    model.stem.eval()
    flags = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    operations(model, [image])
    with pytest.raises(RuntimeError):
        operations(model, [image, image[:, :0]])
    assert [module.training for module in model.modules()] == flags and hooks_of(model) == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters()) and torch.is_grad_enabled()


def test_what_has_no_mean_and_masks_that_fit_nothing_are_refused() -> None:
    model, image = by_hand()
    with pytest.raises(ValueError, match="the batches hold no examples"):
        operations(model, [])
    with pytest.raises(ValueError, match="second, which is no convolution's or linear layer's weight"):
        operations(model, [image], {"second": torch.ones(2, 1, 3, 3)})
    with pytest.raises(ValueError, match=r"second.weight is \[2, 1, 3, 3\], and its mask \[2, 1, 3\]"):
        operations(model, [image], {"second.weight": torch.ones(2, 1, 3)})


def test_neurons_and_norms_are_counted_apart() -> None:
    """8x8 images in 3 steps: the stem's norm runs once for 4 channels; 8 (at 4x4) and 16 (at 2x2) channels follow."""
    for kernel in ("python", "native"):
        spec, material = resolved(timesteps=3, kernel=kernel, set={"backbone.pool_at": "after-norm"})
        model = make_model(spec, material, 0)
        for of_batch in (1, 2):
            neurons, normalised = element_counts(model, torch.rand(of_batch, 1, 8, 8))
            assert normalised == 64 * 4 + 3 * (16 * 8 + 4 * 16), kernel
            assert neurons == 3 * (16 * 4 + 4 * 8 + 4 * 16) and hooks_of(model) == 0, kernel


def test_products_equal_torchs_count_of_floating_point_operations() -> None:
    """Torch counts two operations a product, layer by layer; masks leave the live share of the products."""
    for backbone, options in (("cnn", {}), ("cnn", {"backbone.pool_at": "before-norm"}), ("resnet18", {}), ("mlp", {})):
        spec, material = resolved(backbone=backbone, timesteps=3, set=options, kernel="python")
        model, image = make_model(spec, material, 0), torch.rand(2, 1, 8, 8)
        with FlopCounterMode(display=False) as counted, torch.no_grad():
            model.eval()(image)
        of_layer = {name.partition(".")[2]: sum(found.values()) / 4 for name, found in counted.flop_counts.items()}
        products, draws = Products(model, image), torch.Generator().manual_seed(0)
        assert products.count() == counted.get_total_flops() / 4
        expected, masks = 0.0, {}
        for number, (name, weight) in enumerate(prunable(model).items()):
            masks[name] = torch.rand(weight.shape, generator=draws) < (
                0.9 if number < 2 else 0.1
            )  # early layers are spared
            layer = model.get_submodule(name.removesuffix(".weight"))
            live = merged(masks[name].float()) > 0 if isinstance(layer, PooledConv2d) else masks[name]
            expected += of_layer[name.removesuffix(".weight")] * float(live.float().mean())
        assert products.count(masks) == pytest.approx(expected, rel=1e-6)
        assert hooks_of(model) == 0
