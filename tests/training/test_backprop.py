"""The time axis: the steps that gradients flow through. Oracles: autograd on detached graphs, enumeration, SpikingJelly."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

from sadp_bench.backbones.spiking import LIF, SURROGATES, Backbone, NeuronSettings
from sadp_bench.capture.middle_step import MiddleStep
from sadp_bench.capture.recorder import Recorder
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import LOSSES, WeightedLoss, logit_errors, step_loss, step_mse_loss
from sadp_bench.core.rng import stream
from sadp_bench.runs.building import make_model
from sadp_bench.training import evaluation
from sadp_bench.training.backprop import BPTT, SLTT, SLTTK, Backprop, make_backprop
from tests.saved_bytes import Saved
from tests.small_runs import resolved, small_bench, weights_of

CPU = torch.device("cpu")
BATCH = 12


def network(
    timesteps: int, precision: str = "fp64", backbone: str = "cnn", kernel: str = "auto", **settings: Any
) -> Backbone:
    requested: dict[str, Any] = {f"backbone.{name}": value for name, value in settings.items()}
    spec, material = resolved(
        timesteps=timesteps, precision=precision, loss="step", backbone=backbone, kernel=kernel, set=requested
    )
    model = make_model(spec, material, 0)
    assert isinstance(model, Backbone)
    return model.train()


def images(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the input, labels and weights of a batch of digits' shape."""
    draws = stream(0, "images")
    input = torch.randn(BATCH, 1, 8, 8, generator=draws, dtype=dtype) * 2
    return input, torch.arange(BATCH) % 10, torch.rand(BATCH, generator=draws) + 0.5


def frames(timesteps: int) -> Tensor:
    return torch.randn(timesteps, BATCH, 1, 8, 8, generator=stream(1, "frames"), dtype=torch.float64) * 2


def gradients(backprop: Backprop, input: Tensor, loss: Any = step_loss, seed: int = 0) -> dict[str, Tensor]:
    """Returns each parameter's gradient by name, with the labels and weights of `images`."""
    _, label_B, weight_B = images()
    backprop.model.zero_grad(set_to_none=True)
    logits_TBC, loss_B = backprop(input, WeightedLoss(loss, label_B, weight_B, BATCH), stream(seed, "steps"))
    assert not logits_TBC.requires_grad and not loss_B.requires_grad
    torch.testing.assert_close(loss_B, loss(logits_TBC, label_B))
    return {name: p.grad.clone() for name, p in backprop.model.named_parameters() if p.grad is not None}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], **tolerance: float) -> None:
    assert one.keys() == other.keys() and one
    for name in one:
        torch.testing.assert_close(one[name], other[name], **(tolerance or {"rtol": 0, "atol": 0}), msg=name)


PAIRS = [  # every two of precision, backbone and loss together
    ("fp32", "cnn", "step"),
    ("fp32", "resnet18", "step-mse"),
    ("fp32", "sew-resnet18", "step"),
    ("bf16", "cnn", "step-mse"),
    ("bf16", "resnet18", "step"),
    ("bf16", "sew-resnet18", "step-mse"),
    ("fp64", "cnn", "step"),
    ("fp64", "resnet18", "step-mse"),
    ("fp64", "sew-resnet18", "step"),
]


@pytest.mark.parametrize(("precision", "backbone", "loss"), PAIRS)
def test_one_step_of_sltt_is_bptt_bit_for_bit(precision: str, backbone: str, loss: str) -> None:
    model = network(1, precision, backbone, "python")  # the C core computes the stem's norm at another place
    input = images(torch.float64 if precision == "fp64" else torch.float32)[0]
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    through_time = gradients(BPTT(model, precision, CPU), input, LOSSES[loss])
    after = {name: b.clone() for name, b in model.named_buffers()}
    model.load_state_dict(weights_of(model) | buffers)
    assert_same(through_time, gradients(SLTT(model, precision, CPU), input, LOSSES[loss]))
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, after[name]), name


class Detached(nn.Module):
    """The LIF neuron by hand, on [1, B, ...]: charged from its detached membrane, the spike's derivative by SpikingJelly."""

    def __init__(self, settings: NeuronSettings) -> None:
        super().__init__()
        self.settings, self.fire = settings, SURROGATES[settings.surrogate]()
        self.membrane: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        s, x = self.settings, x[0]
        before = torch.zeros_like(x) if self.membrane is None else self.membrane
        charged = (1 - 1 / s.tau) * before.detach() + (x / s.tau if s.decay_input else x)
        spikes = self.fire(charged - s.threshold)
        fired = spikes.detach()
        self.membrane = charged * (1 - fired) if s.reset == "hard" else charged - s.threshold * fired
        return spikes[None]


def swapped(model: nn.Module, make: Any) -> None:
    """Replaces every LIF neuron with one from `make`."""
    for name, child in model.named_children():
        if isinstance(child, LIF):
            setattr(model, name, make())
        else:
            swapped(child, make)


@pytest.mark.parametrize(
    ("events", "reset", "backbone"),
    [
        (False, "hard", "cnn"),
        (False, "soft", "resnet18"),
        (True, "hard", "resnet18"),
        (True, "soft", "cnn"),
    ],
)
def test_the_gradient_of_sltt_is_autograds_of_the_detached_graph(events: bool, reset: str, backbone: str) -> None:
    settings = NeuronSettings(reset=reset, tau=1.5)
    model = network(4, backbone=backbone, reset=reset, tau=1.5)
    twin = network(4, backbone=backbone, reset=reset, tau=1.5)
    twin.load_state_dict(model.state_dict())
    swapped(twin, lambda: Detached(settings))
    static, label_B, weight_B = images()
    input = frames(4) if events else static
    # One graph of all steps, whose stem is computed once for a static image: nothing here is the suite's loop over steps.
    currents = [twin.stem(frame) for frame in input] if events else [twin.stem(static)] * 4
    logits_TBC = torch.cat([twin.readout(twin.body(x[None]).flatten(2)) for x in currents])
    loss_TB = nn.functional.cross_entropy(logits_TBC.flatten(0, 1), label_B.repeat(4), reduction="none").view(4, BATCH)
    ((loss_TB.mean(0) * weight_B).sum() / BATCH).backward()
    expected = {name: p.grad for name, p in twin.named_parameters() if p.grad is not None}
    assert_same(gradients(SLTT(model, "fp64", CPU), input), expected, rtol=1e-9, atol=1e-12)


def test_spikingjellys_own_neuron_gives_the_same_gradient() -> None:
    model, twin = network(3, width=4), network(3, width=4)
    twin.load_state_dict(model.state_dict())

    class Single(neuron.SLTTLIFNode):
        """Takes [1, B, ...], as our layers do."""

        def forward(self, x: Tensor) -> Tensor:
            spikes: Tensor = super().forward(x[0])
            return spikes[None]

    swapped(twin, lambda: Single(tau=2.0, decay_input=False, v_reset=0.0, surrogate_function=SURROGATES["atan"]()))
    static, label_B, weight_B = images()
    for _ in range(3):  # one backward pass a step: its neuron is made for this
        loss_B = step_loss(twin.readout(twin.body(twin.stem(static)[None]).flatten(2)), label_B)
        ((loss_B * weight_B).sum() / BATCH / 3).backward()
    expected = {name: p.grad for name, p in twin.named_parameters() if p.grad is not None}
    assert_same(gradients(SLTT(model, "fp64", CPU), static), expected, rtol=1e-9, atol=1e-12)


def test_sltt_differs_from_bptt_where_there_is_more_than_a_step() -> None:
    model = network(4)
    input = images()[0]
    one, other = gradients(BPTT(model, "fp64", CPU), input), gradients(SLTT(model, "fp64", CPU), input)
    assert not torch.allclose(one["stem.0.weight"], other["stem.0.weight"], rtol=1e-3)


@pytest.mark.parametrize("events", [False, True])
def test_the_logits_of_sltt_are_those_of_all_steps_at_once(events: bool) -> None:
    """The network is in evaluation mode, where batch norm is the same for every step."""
    model = network(4).eval()
    input = frames(4) if events else images()[0]
    _, label_B, weight_B = images()
    logits_TBC, _ = SLTT(model, "fp64", CPU)(
        input, WeightedLoss(step_loss, label_B, weight_B, BATCH), stream(0, "steps")
    )
    torch.testing.assert_close(logits_TBC, model(input))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_expected_gradient_of_sltt_k_is_k_of_t_of_sltts(k: int) -> None:
    """The expectation is the mean over all subsets of k of 4 steps, which are equally likely."""
    model = network(4)
    input = images()[0]
    whole = gradients(SLTT(model, "fp64", CPU), input)
    subsets = list(itertools.combinations(range(4), k))
    sums: dict[str, Tensor] = {}
    for subset in subsets:
        chosen = Chosen(model, frozenset(subset))
        for name, gradient in gradients(chosen, input).items():
            sums[name] = sums.get(name, torch.zeros_like(gradient)) + gradient
    mean = {name: total / len(subsets) for name, total in sums.items()}
    assert_same(mean, {name: k / 4 * gradient for name, gradient in whole.items()}, rtol=1e-9, atol=1e-12)


class Chosen(SLTT):
    """SLTT through the given steps."""

    def __init__(self, model: nn.Module, live: frozenset[int]) -> None:
        super().__init__(model, "fp64", CPU)
        self.live = live

    def live_steps(self, num_steps: int, draws: torch.Generator) -> frozenset[int]:
        return self.live


def test_every_subset_of_k_steps_is_drawn_about_as_often() -> None:
    backprop, draws = SLTTK(network(4), "fp64", CPU, 2, 4), stream(0, "steps")
    counts: dict[frozenset[int], int] = {}
    for _ in range(3000):
        live = backprop.live_steps(4, draws)
        counts[live] = counts.get(live, 0) + 1
    assert len(counts) == 6 and all(len(live) == 2 for live in counts)
    # Chi-square with 5 degrees of freedom: 20.5 is passed once in a thousand.
    assert sum((count - 500) ** 2 / 500 for count in counts.values()) < 20.5


def test_sltt_k_of_all_steps_is_sltt() -> None:
    model = network(4)
    input = images()[0]
    assert_same(gradients(SLTT(model, "fp64", CPU), input), gradients(SLTTK(model, "fp64", CPU, 4, 4), input))


def test_steps_without_gradients_build_no_graph() -> None:
    model, graphs = network(4), []
    model.readout.register_forward_hook(lambda module, inputs, output: graphs.append(output.requires_grad))
    gradients(SLTTK(model, "fp64", CPU, 1, 4), images()[0])
    assert sorted(graphs) == [False, False, False, True]


def saved_bytes(name: str, timesteps: int) -> int:
    model, saved = network(timesteps, "fp32", width=8, pool_at="after-norm"), Saved()
    input, label_B, weight_B = images(torch.float32)
    backprop = make_backprop(name, 0, model, "fp32", CPU)
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda held: held.tensor):
        backprop(input, WeightedLoss(step_loss, label_B, weight_B, BATCH), stream(0, "steps"))
    return saved.most


def test_the_memory_of_sltt_is_flat_in_t_and_bptts_grows() -> None:
    sltt = {timesteps: saved_bytes("sltt", timesteps) for timesteps in (2, 4, 8, 16)}
    bptt = {timesteps: saved_bytes("bptt", timesteps) for timesteps in (2, 4, 8, 16)}
    assert max(sltt.values()) <= 1.01 * min(sltt.values())
    assert bptt[4] > 1.5 * bptt[2] and bptt[8] > 1.7 * bptt[4] and bptt[16] > 1.8 * bptt[8]
    assert sltt[16] < bptt[4]


def test_neurons_keep_nothing_after_a_batch() -> None:
    model = network(3).eval()
    before = model(images()[0])
    gradients(SLTT(model, "fp64", CPU), images()[0])
    assert torch.equal(model(images()[0]), before)
    assert all(not lif.carries and not isinstance(lif.v, Tensor) for lif in model.modules() if isinstance(lif, LIF))


def test_a_step_mse_loss_is_the_papers() -> None:
    logits_TBC = torch.randn(3, 5, 4, generator=stream(0, "logits"))
    label_B = torch.arange(5) % 4
    crosses = [nn.functional.cross_entropy(logits, label_B, reduction="none") for logits in logits_TBC]
    squares = [((logits - 1) ** 2).mean(1) for logits in logits_TBC]
    expected = sum(0.95 * cross + 0.05 * square for cross, square in zip(crosses, squares, strict=True)) / 3
    torch.testing.assert_close(step_mse_loss(logits_TBC, label_B), expected)


@pytest.fixture(params=["sltt", "sltt-k"])
def backprop(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def test_taps_see_the_errors_of_the_steps_that_gave_gradients(backprop: str) -> None:
    """E and A of a layer, summed over these steps, bound autograd's gradient of one graph of SLTT's detached steps."""
    model, (input, label_B, weight_B) = network(4, norm="none"), images()
    chosen = frozenset({1, 3}) if backprop == "sltt-k" else frozenset(range(4))
    names = {"input_squares", "error_squares", "features", "spike_counts"}
    with Recorder(model, names) as taps:
        logits_TBC, _ = Chosen(model, chosen)(
            input, WeightedLoss(step_loss, label_B, weight_B, BATCH), stream(0, "steps")
        )
        seen = taps.seen(weight_B / BATCH)
    assert seen["features"].shape[:2] == (4, BATCH) and seen["spike_counts"].shape[1:] == (4, BATCH)
    # The bound must hold for each example's own gradient of these steps, without weights.
    for place in range(3):
        model.zero_grad(set_to_none=True)
        one = slice(place, place + 1)
        Chosen(model, chosen)(input[one], WeightedLoss(step_loss, label_B[one], torch.ones(1), 1.0), stream(0, "steps"))
        layers = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
        for row, layer in enumerate(layers):
            exact = layer.weight.grad.square().sum() + layer.bias.grad.square().sum()
            bound = seen["error_squares"][row, place] * seen["input_squares"][row, place]
            assert exact <= bound * (1 + 1e-6)
            if row == 0:  # the stem's errors arrive once, as their sum over the steps
                assert seen["input_squares"].shape == (3, BATCH)
    assert logit_errors(step_loss, logits_TBC, label_B).shape == logits_TBC.shape


def test_the_middle_live_step_alone_is_read_and_shows_what_all_steps_show(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"middle_input_squares", "middle_error_squares", "bound_ratio"}
    read: list[int] = []
    for name in ("input_squares", "error_squares"):
        read_one = getattr(MiddleStep, name)
        monkeypatch.setattr(MiddleStep, name, lambda *args, read_one=read_one: (read.append(1), read_one(*args))[1])
    for events, live in itertools.product([False, True], [{0, 1, 2, 3}, {0, 3}, {2}]):
        model, (_, label_B, weight_B) = network(4), images()
        backprop, input = Chosen(model, frozenset(live)), frames(4) if events else images()[0]
        found, times = [], []
        for informed in (False, True):
            with Recorder(model, names) as taps:
                read.clear()
                told = taps if informed else None
                backprop(input, WeightedLoss(step_loss, label_B, weight_B, BATCH), stream(0, "steps"), told)
                found.append(taps.seen(weight_B / BATCH))
                times.append(len(read))
        assert found[0].keys() == found[1].keys() == names
        for name in names:
            assert torch.equal(found[0][name], found[1][name]), (events, live, name)
        assert times[1] == 6, "input and error of three layers"
        assert times[0] > 6, "without the information every step is read"


@pytest.mark.parametrize(
    "method", ["full", "random", "el2n", "forgetting", "grand", "infobatch", "sadp", "fewer-epochs"]
)
def test_every_method_trains_with_every_backprop(method: str, backprop: str) -> None:
    ratio = 0.0 if method == "full" else 0.3
    k = 1 if backprop == "sltt-k" else None
    bench = small_bench(method=method, ratio=ratio, backprop=backprop, k=k, epochs=3)
    rows = list(bench.rows())
    assert bench.spec.loss == "step" and all(row["train_loss"] > 0 for row in rows)
    assert evaluation.evaluate(bench.model, bench.held, "fp32") > 0


BAD = [
    ({"backprop": "sltt", "loss": "mean"}, "needs a loss of each step"),
    ({"backprop": "sltt-k"}, "needs --k, .*from 1 to --timesteps"),
    ({"backprop": "sltt-k", "k": 3}, "needs --k, .*from 1 to --timesteps"),
    ({"backprop": "sltt", "k": 1}, "--k is the number of steps of --backprop sltt-k"),
    ({"k": 1}, "--k is the number of steps of --backprop sltt-k"),
    ({"backprop": "slt"}, "--backprop is one of bptt, sltt, sltt-k, local"),
]


def test_bad_backprop_is_one_clear_line() -> None:
    for requested, message in BAD:
        with pytest.raises(BadInput, match=message):
            resolved(**requested)
            pytest.fail(f"{requested} is not refused")


def test_a_network_of_another_kind_is_refused() -> None:
    with pytest.raises(BadInput, match="no subclass of sadp_bench.backbones.step_by_step.StepByStep"):
        resolved(backprop="sltt", backbone=f"{__name__}:Stranger", set={})


class Stranger(nn.Module):
    def __init__(self, shape: Any, classes: int, timesteps: int, neuron: Any, *, width: int = 4) -> None:
        super().__init__()


def test_the_plain_run_is_what_all_axes_are_held_against() -> None:
    axes = {"backprop": "sltt-k", "k": 1, "sparsity": "eb", "density": 0.5, "early_time": True}
    spec, _ = resolved(method="sadp", ratio=0.3, timesteps=4, epochs=3, **axes)
    full, _ = resolved(loss="step", timesteps=4, epochs=3)
    assert spec.plain() == full and spec.reference() != full
