"""Squared norms and their bound, SADP's scores, against loops and one backward pass an example."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn
from torch.nn.functional import pad

from sadp_bench.capture import bound_ratio, per_example_norms
from sadp_bench.capture.layers import weight_layers
from sadp_bench.capture.recorder import Recorder
from sadp_bench.capture.squared_norms import input_squares
from sadp_bench.core.losses import LOSSES, logit_errors, mean_loss
from sadp_bench.core.rng import stream
from sadp_bench.pruners.sadp import LayersScore
from tests.helpers import network, norm_option

OF_LAYERS = {"features", "input_squares", "error_squares"}
OF_MIDDLE = {"middle_input_squares", "middle_error_squares"}


class Net(nn.Module):
    """[B, C, H, W] or [T, B, C, H, W] -> logits_TBC: a convolution, a leaky state, a linear layer, each time step by itself
    or all at once."""

    def __init__(self, side, steps=3, stepwise=False, channels=2, hidden_bias=True, **kind):
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(1)
            self.conv = nn.Conv2d(channels, 4, **kind).double()
            features = self.conv(torch.zeros(1, channels, *side).double()).numel()
            self.hidden = nn.Linear(features, 5, bias=hidden_bias).double()
            self.readout = nn.Linear(5, 3).double()
        self.steps, self.stepwise = steps, stepwise

    def forward(self, input):
        x = input if input.dim() == 5 else input.expand(self.steps, *input.shape)
        apply = by_step if self.stepwise else flattened
        x = leaky(apply(self.conv, x)).sigmoid().flatten(2)
        if self.stepwise:
            return by_step(self.readout, leaky(by_step(self.hidden, x)).sigmoid())
        return self.readout(leaky(self.hidden(x)).sigmoid())


def by_step(layer, x_T):
    return torch.stack([layer(x) for x in x_T])


def flattened(layer, x):
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def leaky(x_T):
    state_T = [x_T[0]]
    for x in x_T[1:]:
        state_T.append(0.7 * state_T[-1] + x)
    return torch.stack(state_T)


def shown(model, loss, input, label_B, names, weight_B=None):
    """Returns the recorder's signals of the pass of a weighted batch."""
    weight_B = torch.ones(len(label_B)).double() if weight_B is None else weight_B
    with Recorder(model, names) as seen:
        logits_TBC = model(input)
        (loss(logits_TBC, label_B) * weight_B).sum().backward()
        return seen.seen(weight_B) | {"logit_errors": logit_errors(loss, logits_TBC, label_B)}


def example(input, i):
    return input[:, i : i + 1] if input.dim() == 5 else input[i : i + 1]


def exact_squares(model, loss, input, label_B, layers):
    """Returns each layer's squared gradient norm by one backward pass an example, [layers, B]."""
    columns = []
    for i in range(len(label_B)):
        model.zero_grad()
        loss(model(example(input, i)), label_B[i : i + 1]).sum().backward()
        columns.append(torch.stack([sum(p.grad.square().sum() for p in layer.parameters()) for layer in layers]))
    return torch.stack(columns, 1)


def watched_by_hand(model, loss, input, label_B):
    """Returns each example's inputs and output errors at every layer but the readout, by one pass an example."""
    found = []
    for i in range(len(label_B)):
        calls = {layer: [] for layer in weight_layers(model)}
        handles = [
            layer.register_forward_hook(lambda layer, inputs, out, calls=calls: calls[layer].append((inputs[0], out)))
            for layer in calls
        ]
        total = loss(model(example(input, i)), label_B[i : i + 1]).sum()
        for handle in handles:
            handle.remove()
        errors = iter(torch.autograd.grad(total, [out for pairs in calls.values() for _, out in pairs]))
        found.append([[(a.detach(), next(errors)) for a, _ in pairs] for pairs in calls.values()])
    return found


def patch_squares(layer, a):
    """Returns the summed squares of a layer's input patches, with a one for the bias of each, patch by patch."""
    if isinstance(layer, nn.Linear):
        return float(a.square().sum() + (a[..., 0].numel() if layer.bias is not None else 0))
    if isinstance(layer, nn.Conv1d):  # of one position
        return float(a.square().sum() + (a[..., 0, :].numel() if layer.bias is not None else 0))
    (down, right), (down_by, right_by) = layer.padding, layer.stride
    a = pad(a.reshape(-1, *a.shape[-3:]), (right, right, down, down))
    height, width = (d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
    total = 0.0
    for row in range(0, a.shape[2] - height + 1, down_by):
        for column in range(0, a.shape[3] - width + 1, right_by):
            patch = a[:, :, row : row + height : layer.dilation[0], column : column + width : layer.dilation[1]]
            assert patch.shape[2:] == layer.kernel_size
            total += float(patch.square().sum()) + (len(a) if layer.bias is not None else 0)
    return total


def check_squares(model, loss, input, label_B):
    """Compares the recorder with hooks by hand, on a batch whose losses are weighted."""
    weight_B = torch.tensor([0.5, 2.0, 0.1]).double() / 3
    seen = shown(model, loss, input, label_B, OF_LAYERS, weight_B)
    found = watched_by_hand(model, loss, input, label_B)
    layers = weight_layers(model)
    assert seen["input_squares"].shape == seen["error_squares"].shape == (len(layers), 3)
    for i, of_example in enumerate(found):
        for place, (layer, calls) in enumerate(zip(layers, of_example, strict=True)):
            expected = sum(patch_squares(layer, a) for a, _ in calls)
            assert seen["input_squares"][place, i].item() == pytest.approx(expected, rel=1e-10)
            error = sum(float(e.square().sum()) for _, e in calls)
            assert seen["error_squares"][place, i].item() == pytest.approx(error, rel=1e-8, abs=1e-30)
    return seen


BACKBONES = pytest.mark.parametrize(
    "backbone",
    "cnn mlp recurrent vgg11 vggsnn resnet18 sew-resnet18 sew-7b ms-resnet18 resnet19 spikformer sdt qkformer".split(),
)
LABELS = torch.tensor([0, 3, 4])


@BACKBONES
def test_bound_holds_for_every_layer_and_example_and_for_their_sum(backbone):
    weight_B = torch.tensor([0.5, 2.0, 0.1]).double() / 3
    norms = ["batch", "none"] if norm_option(backbone, "none") else ["batch"]
    losses = list(LOSSES.values())[
        : None if backbone in ("cnn", "mlp", "recurrent") else 1
    ]  # deep ones take their time
    for norm, events, loss in product(norms, [False, True], losses):
        model, input = network(backbone, norm, events)
        layers = weight_layers(model)
        seen = shown(model, loss, input, LABELS, OF_LAYERS, weight_B)
        exact_LB = exact_squares(model, loss, input, LABELS, layers)
        assert exact_LB.max() > 1e-6 and len(layers) >= (2 if backbone in ("mlp", "recurrent") else 3)
        bound_LB = seen["input_squares"] * seen["error_squares"]
        assert (exact_LB <= bound_LB * (1 + 1e-9)).all()
        readout_B = exact_squares(model, loss, input, LABELS, [model.readout])[0]
        score_B = LayersScore(calibrate=False, gain_limit=0).squared(seen, torch.ones(1).double())
        torch.testing.assert_close(score_B, bound_LB.sum(0) + readout_B, rtol=1e-9, atol=0)
        exact_B = exact_LB.sum(0) + readout_B  # of all convolution and linear layers
        assert (exact_B <= score_B * (1 + 1e-9)).all()
        assert (exact_B > 1e-3 * score_B).all(), "a bound far off would hold as well"


@BACKBONES
def test_squares_of_backbones_equal_patches_and_errors_by_hand(backbone):
    for events in (False, True):
        model, input = network(backbone, "none", events, side=5)
        check_squares(model, mean_loss, input, LABELS)


def test_squares_of_pooled_spikes_equal_patches_and_errors_by_hand():
    for pool in ("avg", "max"):
        model, input = network("cnn", "none", False, pool=pool, pool_at="after-neuron")
        seen = check_squares(model, mean_loss, input, LABELS)
        assert (seen["input_squares"][1:].frac() != 0).any() == (pool == "avg")


KINDS = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "dilated": {"kernel_size": 3, "dilation": 2, "padding": 1},
    "unpadded": {"kernel_size": 3},
    "strided": {"kernel_size": 3, "stride": 2, "padding": 1},
    "1x1": {"kernel_size": 1},
    "1x1 strided": {"kernel_size": 1, "stride": 2},
    "1x1 padded": {"kernel_size": 1, "padding": 1},
    "oblong": {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0), "dilation": (1, 2)},
    "gaps": {"kernel_size": 2, "stride": 3},
}


@pytest.mark.parametrize("kind", KINDS)
def test_bound_and_squares_hold_for_every_kind_of_convolution(kind):
    input = torch.randn(3, 3, 2, 7, 9, generator=stream(0, "bounds"), dtype=torch.float64)
    for bias, stepwise, loss in product([False, True], [False, True], LOSSES.values()):
        model = Net((7, 9), stepwise=stepwise, hidden_bias=bias, bias=bias, **KINDS[kind])
        seen = check_squares(model, loss, input, LABELS % 3)
        exact_LB = exact_squares(model, loss, input, LABELS % 3, weight_layers(model))
        assert (0 < exact_LB).all() and (exact_LB <= seen["input_squares"] * seen["error_squares"]).all()


def test_what_is_seen_is_the_same_called_once_or_once_a_step():
    input = torch.randn(3, 12, 2, 5, 4, generator=stream(1, "bounds"), dtype=torch.float64)
    names, label_B = OF_LAYERS | OF_MIDDLE | {"bound_ratio"}, torch.arange(12) % 3
    found = [
        shown(Net((5, 4), stepwise=stepwise, kernel_size=3, padding=1), mean_loss, input, label_B, names)
        for stepwise in (False, True)
    ]
    for name in names:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-10, atol=1e-18)


@pytest.mark.parametrize(("steps", "of"), [(1, 0), (2, 1), (3, 1), (4, 2)])
def test_the_middle_step_is_the_one_that_a_hook_sees_there(steps, of):
    input = torch.randn(steps, 3, 2, 5, 4, generator=stream(5, "bounds"), dtype=torch.float64)
    for model in (Net((5, 4), stepwise=stepwise, kernel_size=3, padding=1) for stepwise in (False, True)):
        seen = shown(model, mean_loss, input, LABELS % 3, OF_MIDDLE)
        for i, layers in enumerate(watched_by_hand(model, mean_loss, input, LABELS % 3)):
            for place, (layer, calls) in enumerate(zip(weight_layers(model), layers, strict=True)):
                features = 1 if isinstance(layer, nn.Linear) else 3
                a, error = (torch.cat(x).reshape(steps, *x[0].shape[-features:])[of] for x in zip(*calls, strict=True))
                found = [seen[f"middle_{side}_squares"][place, i].item() for side in ("input", "error")]
                assert found == pytest.approx([patch_squares(layer, a), float(error.square().sum())], rel=1e-9)


def test_bound_is_the_exact_norm_for_one_step_and_one_position():
    input = torch.randn(1, 3, 2, 1, 1, generator=stream(2, "bounds"), dtype=torch.float64)
    for size, bias in product([1, 3], [False, True]):
        model = Net((1, 1), hidden_bias=bias, bias=bias, kernel_size=size, padding=size // 2)
        seen = shown(model, mean_loss, input, LABELS % 3, OF_LAYERS | {"bound_ratio"})
        exact_LB = exact_squares(model, mean_loss, input, LABELS % 3, weight_layers(model))
        torch.testing.assert_close(seen["input_squares"] * seen["error_squares"], exact_LB, rtol=1e-10, atol=0)
        torch.testing.assert_close(seen["bound_ratio"][0], seen["bound_ratio"][1], rtol=1e-10, atol=0)


def test_binary_inputs_are_counted_and_others_squared():
    conv = nn.Conv2d(3, 2, 3, padding=1, bias=False)
    spikes = torch.randint(0, 2, (2, 4, 3, 6, 5), generator=stream(3, "bounds")).float()
    for x in (spikes, 2.5 * spikes, spikes - 0.5):
        out = torch.zeros(2, 4, 2, 6, 5)
        expected = [patch_squares(conv, x[:, i].double()) for i in range(4)]
        assert input_squares(conv, x, out, 4).sum(0).tolist() == pytest.approx(expected, rel=1e-5)


def test_bound_ratio_sums_the_exact_and_the_bounding_squares_of_the_first_examples(monkeypatch):
    monkeypatch.setattr(bound_ratio, "MAX_EXACT", 8)
    for batch, number in ((3, 1), (4, 1), (13, 3), (28, 7), (41, 8)):
        model = Net((4, 3), kernel_size=3, padding=1)
        generator = stream(4, "bounds")
        input = torch.randn(3, batch, 2, 4, 3, generator=generator, dtype=torch.float64)
        label_B = torch.randint(0, 3, (batch,), generator=generator)
        weight_B = torch.rand(batch, generator=generator, dtype=torch.float64) + 0.1
        seen = shown(model, mean_loss, input, label_B, OF_MIDDLE | {"bound_ratio"}, weight_B)
        first = input[:, :number], label_B[:number]
        exact_L = exact_squares(model, mean_loss, *first, weight_layers(model)).sum(1)
        bound_L = (seen["middle_input_squares"] * seen["middle_error_squares"])[:, :number].sum(1)
        torch.testing.assert_close(seen["bound_ratio"], torch.stack([exact_L, bound_L]), rtol=1e-9, atol=0)


def test_the_cheapest_product_gives_the_norms_that_patches_give(monkeypatch):
    layers = [nn.Conv2d(2, 4, bias=bias, **kind) for bias in (False, True) for kind in KINDS.values()]
    layers += [nn.Conv2d(2, 4, 4, padding="same"), nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular")]
    layers += [nn.Conv2d(2, 4, 3, groups=2), nn.Conv2d(2, 300, 5), nn.Conv1d(2, 4, 3), nn.Conv1d(2, 300, 9)]
    layers += [nn.Linear(9, 200), nn.Linear(9, 4, bias=False), nn.Conv2d(2, 4, 3).requires_grad_(False)]
    layers[-1].bias.requires_grad_()
    taken = []
    for name in ("_conv_square", "_weight_square", "_patches"):
        true = getattr(per_example_norms, name)
        monkeypatch.setattr(per_example_norms, name, lambda *args, n=name, true=true: (taken.append(n), true(*args))[1])
    products = set()
    for layer, (dtype, rtol) in product(
        layers, {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.05}.items()
    ):
        features = {nn.Conv1d: (2, 9), nn.Conv2d: (2, 7, 9), nn.Linear: (3, 9)}[type(layer)]
        a = torch.randn(2, 3, *features, generator=stream(6, "bounds"), dtype=torch.float64).to(dtype)
        layer = layer.to(dtype)
        d = torch.randn_like(layer(a.flatten(0, 1))).unflatten(0, (2, 3)).detach()
        expected = per_example_norms.square_norms(layer, [(a.double(), d.double())], 3)
        taken.clear()
        found = per_example_norms.square_norms(layer, [(a, d)], 3, cheapest=True)
        products.add(taken[0])
        torch.testing.assert_close(
            found.double(), expected, rtol=rtol, atol=0, msg=lambda text, at=layer: f"{at}: {text}"
        )
    assert products == {"_conv_square", "_weight_square", "_patches"}, "each of the three products is taken"


@BACKBONES
def test_bound_ratio_of_backbones_is_that_of_one_backward_pass_an_example(backbone):
    model, input = network(backbone, "batch", False)
    seen = shown(model, mean_loss, input, LABELS, OF_LAYERS | {"bound_ratio"})
    exact_L = exact_squares(model, mean_loss, input[:1], LABELS[:1], weight_layers(model))[:, 0]
    torch.testing.assert_close(seen["bound_ratio"][0], exact_L, rtol=1e-9, atol=1e-30)
