"""Batch norm with the loss's weights against torch's, hand computations and finite differences; and group norm."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import layer
from torch import Tensor, nn
from torch.nn.functional import conv2d

from sadp_bench import weighted_batch_norm, weighted_statistics
from sadp_bench.backbones.spiking import num_groups
from sadp_bench.backbones.weighted_norm import KINDS, WeightedNorm
from sadp_bench.capture.element_counts import element_counts
from sadp_bench.capture.layers import batch_norms
from sadp_bench.capture.per_example_norms import gradient_norms
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import LOSSES
from sadp_bench.core.rng import stream
from sadp_bench.native import library
from sadp_bench.pruners.sampling import inclusion_probability, smooth, systematic_sample, weights
from sadp_bench.training.step import TrainingStep
from tests.commands import command, refused
from tests.helpers import in_standard_errors, network
from tests.small_runs import assert_same_weights, make_trainer, numbers, resolved, small_bench, weights_of
from tests.stopping import resumed, whole

# The shape of one step's input by kind of norm, as a function of the batch size.
SHAPES: dict[type[nn.Module], tuple[int, ...]] = {
    nn.BatchNorm1d: (5, 7),
    nn.BatchNorm2d: (5, 3, 4),
    nn.BatchNorm3d: (5, 3, 2, 2),
    layer.BatchNorm1d: (5,),
    layer.BatchNorm2d: (5, 3, 4),
    layer.BatchNorm3d: (5, 3, 2, 2),
}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(kind: type[nn.Module], **options: Any) -> tuple[Any, Any]:
    """Returns a batch norm with made weights, and its weighted copy. SpikingJelly's takes all time steps at once."""
    norm: Any = kind(5, **options).double()
    if hasattr(norm, "step_mode"):
        norm.step_mode = "m"
    with torch.no_grad():
        for value, made in ((norm.weight, torch.linspace(0.5, 1.5, 5)), (norm.bias, torch.linspace(-1, 1, 5))):
            if value is not None:
                value.copy_(made)
    return norm, weighted_batch_norm(copy.deepcopy(norm))


def input_of(kind: type[nn.Module], batch: int, steps: int = 2) -> Tensor:
    """Returns a random input, [T * B, ...] for torch's norms and [T, B, ...] for SpikingJelly's."""
    x = drawn(steps, batch, *SHAPES[kind]) + torch.arange(batch).view(-1, *[1] * len(SHAPES[kind]))
    return x if kind.__module__.startswith("spikingjelly") else x.flatten(0, 1)


def outcome(norm: Any, x: Tensor, error: Tensor, weight_B: Tensor | None = None) -> dict[str, Tensor]:
    x = x.detach().clone().requires_grad_()
    if weight_B is None:
        y = norm(x)
    else:
        with weighted_statistics(norm, weight_B):
            y = norm(x)
    y.backward(error)  # after the context
    found = {"output": y.detach(), "gradient": x.grad} | {f"{n}'s gradient": p.grad for n, p in norm.named_parameters()}
    return found | {name: value.clone() for name, value in norm.named_buffers()}


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor], of: str, **tolerance: float) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, **tolerance, msg=lambda m, n=name: f"{of}, {n}: {m}")


def test_equal_weights_are_batch_norm() -> None:
    options: list[dict[str, Any]] = [{"momentum": None}, {"affine": False}, {"track_running_stats": False}]
    for number, kind in enumerate(KINDS):
        made, x = options[number % 3], input_of(kind, 4)
        error = drawn(*x.shape, seed=1)
        norm, weighted = pair(kind, **made)
        wanted, again = outcome(norm, x, error), outcome(copy.deepcopy(weighted), x, error)
        assert all(torch.equal(again[name], value) for name, value in wanted.items()), kind  # without weights
        for weight_B in (torch.full((4,), 0.3), torch.zeros(4)):
            found = outcome(copy.deepcopy(weighted), x, error, weight_B)
            assert_close(found, wanted, f"{kind} {made}", rtol=1e-9, atol=1e-12)
        weighted.load_state_dict(norm.state_dict())
        norm.eval(), weighted.eval()
        with weighted_statistics(weighted, torch.arange(1.0, 5)):
            assert torch.equal(weighted(x), norm(x)), "evaluation takes running statistics"


def test_a_weight_of_two_is_the_example_twice() -> None:
    for kind in KINDS:
        weight_B, twice = torch.tensor([2.0, 1.0, 1.0]) * 0.7, torch.tensor([0, 0, 1, 2])
        steps = 2
        x, error = input_of(kind, 3, steps), drawn(*input_of(kind, 3, steps).shape, seed=1)
        by_step = [
            each if each.dim() > 1 + len(SHAPES[kind]) else each.unflatten(0, (steps, -1)) for each in (x, error)
        ]
        doubled = [
            each[:, twice].reshape(-1, *each.shape[2:]) if x.dim() < each.dim() else each[:, twice] for each in by_step
        ]
        counted = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64).view(1, -1, *[1] * len(SHAPES[kind]))
        norm, weighted = (each for each in pair(kind, momentum=1.0))
        wanted = outcome(norm, *doubled)
        found = outcome(weighted, x, (by_step[1] * counted).view_as(x), weight_B)
        n_found, n_wanted = x.numel() // 5, doubled[0].numel() // 5
        for result, number in ((found, n_found), (wanted, n_wanted)):
            result["running_var"] *= (number - 1) / number  # the correction is by the number of values
        first = torch.tensor([0, 2, 3])
        for name in ("output", "gradient"):
            value = (
                wanted[name] if wanted[name].dim() > 1 + len(SHAPES[kind]) else wanted[name].unflatten(0, (steps, -1))
            )
            if name == "gradient":
                value = value.clone()
                value[:, 0] += value[:, 1]
            wanted[name] = value[:, first].reshape(x.shape)
        assert_close(found, wanted, f"{kind}", rtol=1e-9, atol=1e-12)


def test_its_gradients_are_those_of_finite_differences() -> None:
    weight_B = torch.tensor([0.3, 2.0, 0.0])
    for kind in (nn.BatchNorm1d, layer.BatchNorm2d):
        _, weighted = pair(kind)
        x = input_of(kind, 3).requires_grad_()

        def normalised(x: Tensor, weight: Tensor, bias: Tensor, norm: Any = weighted) -> Tensor:
            with weighted_statistics(norm, weight_B):
                return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x,))

        assert torch.autograd.gradcheck(normalised, (x, weighted.weight, weighted.bias), fast_mode=True), kind


def test_mean_variance_and_running_statistics_are_the_weighted_ones() -> None:
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        norm = weighted_batch_norm(nn.BatchNorm2d(5, momentum=0.3)).to(
            torch.float64 if dtype == torch.float64 else None
        )
        x, weight_B = (100 + drawn(4, 5, 6, 3)).to(dtype), torch.tensor([0.5, 3.0, 0.1, 1.0])
        share = (weight_B.double() / weight_B.double().sum()).view(-1, 1, 1, 1) / 18
        mean = (share * x.double()).sum((0, 2, 3))
        variance = (share * (x.double() - mean.view(-1, 1, 1)).square()).sum((0, 2, 3))
        with weighted_statistics(norm, weight_B):
            y = norm(x)
        wanted = (x.double() - mean.view(-1, 1, 1)) / (variance.view(-1, 1, 1) + 1e-5).sqrt()
        assert y.dtype == dtype
        torch.testing.assert_close(y.double(), wanted, rtol=tolerance, atol=tolerance)
        found = norm.running_mean.double(), norm.running_var.double()
        torch.testing.assert_close(found[0], 0.3 * mean, rtol=1e-5, atol=0)
        torch.testing.assert_close(found[1], 0.7 + 0.3 * variance * 72 / 71, rtol=1e-4, atol=0)


def test_a_converted_network_keeps_its_parameters_statistics_and_hooks() -> None:
    shared = nn.BatchNorm1d(6)
    model = nn.Sequential(
        nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.LazyLinear(6), shared, nn.ReLU(), shared
    )
    x = torch.randn(4, 1, 5, 5)
    model(x)
    calls: list[int] = []
    model[1].register_forward_hook(lambda *_: calls.append(1))
    before, parameters = weights_of(model), list(model.parameters())
    wanted = copy.deepcopy(model)
    made = weighted_batch_norm(weighted_batch_norm(model))
    assert (
        made is model
        and model[4] is model[6]
        and [type(n) for n in batch_norms(model)] == [KINDS[nn.BatchNorm2d], KINDS[nn.BatchNorm1d]]
    )
    assert all(p is q for p, q in zip(model.parameters(), parameters, strict=True))
    assert_same_weights(weights_of(model), before)
    wanted.load_state_dict(model.state_dict())
    assert torch.equal(model(x), wanted(x)) and calls
    with pytest.raises(RuntimeError), weighted_statistics(model, torch.arange(1.0, 5)):
        assert not torch.allclose(model(x), wanted(x))
        raise RuntimeError
    assert torch.equal(model(x), copy.deepcopy(model)(x)) and all(n.share_B is None for n in batch_norms(model))


def test_what_can_not_be_weighted_is_refused() -> None:
    with pytest.raises(BadInput, match="'1' is a SyncBatchNorm, and weighted statistics exist for torch's"):
        weighted_batch_norm(nn.Sequential(nn.Identity(), nn.SyncBatchNorm(3)))
    norm = weighted_batch_norm(nn.BatchNorm1d(3))
    for weight_B, message in (
        (torch.ones(2, 2), r"a vector \[B\], not \[2, 2\]"), (torch.tensor([1.0, -1.0]), "finite numbers of at least 0"),
        (torch.tensor([1.0, torch.nan]), "finite numbers"), (torch.ones(3), "3 weights for a batch norm's input of 4 rows"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=message), weighted_statistics(norm, weight_B):
            norm(torch.randn(4, 3))
    with pytest.raises(ValueError, match="more than 1 value per channel"), weighted_statistics(norm, torch.ones(1)):
        norm(torch.randn(1, 3))


@pytest.mark.parametrize("backprop", ["bptt", "sltt", "local"])
def test_a_training_step_hands_the_losses_weights_to_the_norms(backprop: str) -> None:
    for kernel in ("python", *([] if library.absence() else ["native"])):
        loss = {"loss": "step"} if backprop == "sltt" else {}
        options = {"backbone.norm": "weighted", "backbone.pool_at": "after-norm"}
        bench = small_bench(kernel=kernel, backprop=backprop, set=options, **loss)
        batch_B, weight_B = torch.arange(6), torch.tensor([0.2, 3.0, 1.0, 1.0, 0.5, 4.0])
        model: Any = bench.model.train()
        x = conv2d(bench.data.input(batch_B), model.stem[0].weight.detach(), padding=1).double()
        step = TrainingStep(model, bench.spec, bench.data)
        step(batch_B, weight_B, stream(0, "test"))
        mean = (weight_B.double() / weight_B.sum()) @ x.mean((2, 3))
        torch.testing.assert_close(model.stem[1].running_mean.double(), 0.1 * mean, rtol=1e-4, atol=1e-6)
        assert all(norm.share_B is None for norm in batch_norms(model))


def test_a_run_with_weighted_norm_trains_evaluates_and_resumes_exactly(tmp_path: Path) -> None:
    options = {"backbone.norm": "weighted", "backbone.width": 2}
    asked: dict[str, Any] = {"method": "sadp", "ratio": 0.4, "batch_size": 20, "train_examples": 60, "set": options}
    record, wanted, batches = whole(*resolved(**asked))
    again, trainer = resumed(*resolved(**asked), batches - 1, tmp_path)
    assert numbers(again) == numbers(record)
    assert_same_weights(weights_of(trainer.model), wanted)
    assert all(isinstance(norm, WeightedNorm) for norm in batch_norms(trainer.model))


def test_the_command_takes_every_norm(tmp_path: Path) -> None:
    words = ["--ratio", 0.4, "--epochs", 1, "--train-examples", 130, "--threads", 1, "--quiet", "--no-reference"]
    words += ["--set", "backbone.width=2", "--out", tmp_path, "--set"]
    for norm in ("weighted", "group"):
        answer = command("run", "--method", "sadp", *words, f"backbone.norm={norm}")
        assert answer.code == 0, answer.err
    specs = [json.loads(path.read_text())["spec"] for path in tmp_path.glob("*-sadp-*.json")]
    assert {spec["backbone_options"]["norm"] for spec in specs} == {"weighted", "group"}
    refused(
        command("run", "--method", "sadp", *words, "backbone.norm=heavy"), "weighted, group, sync, none, not 'heavy'"
    )


def test_weights_of_one_give_the_run_of_batch_norm_to_rounding() -> None:
    rows = {}
    for norm in ("batch", "weighted"):
        bench = make_trainer(*resolved(precision="fp64", train_examples=60, set={"backbone.norm": norm}))
        rows[norm] = bench.run().epochs
    for one, other in zip(*rows.values(), strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-9)


def test_statistics_of_a_selection_are_those_of_all_data_by_weight_and_are_not_without() -> None:
    """A convolution's outputs on digits at fixed weights. Made scores draw the brightest images most."""
    bench = small_bench(train_examples=300)
    image_N = bench.data.input(torch.arange(300))
    x = conv2d(image_N, drawn(4, 1, 3, 3).float(), padding=1)
    num_kept, draws, generator = 150, 60, stream(0, "draws")
    p_N = inclusion_probability(smooth(image_N.square().sum((1, 2, 3)).double() ** 2, 0.2), num_kept)
    found: dict[str, list[Tensor]] = {"weighted": [], "batch": []}
    for _ in range(draws):
        index_K = systematic_sample(p_N, generator)
        for name, moments in found.items():
            norm: Any = weighted_batch_norm(nn.BatchNorm2d(4, momentum=1.0))
            weight_K = weights(p_N, num_kept)[index_K]
            with weighted_statistics(norm, weight_K if name == "weighted" else torch.ones(num_kept)):
                norm(x[index_K])
            moments.append(torch.cat([norm.running_mean, norm.running_var]).double())
    whole = torch.cat([x.mean((0, 2, 3)), x.var((0, 2, 3))]).double()
    off = {name: in_standard_errors(torch.stack(moments), whole).max() for name, moments in found.items()}
    bias = {name: ((torch.stack(m).mean(0) - whole) / whole).abs().max() for name, m in found.items()}
    # What is left is of second order: the mean weight of a selection is not 1 in every draw.
    assert (
        bias["batch"] > 0.05 and bias["weighted"] < 0.05 * bias["batch"] and off["weighted"] < 4 < 20 < off["batch"]
    ), (bias, off)


def test_group_norm_is_exact_for_each_example_and_is_counted() -> None:
    assert [num_groups(channels) for channels in (1, 7, 8, 16, 24, 26, 64, 512)] == [1, 1, 1, 2, 3, 2, 8, 32]
    for name, events in (("cnn", False), ("resnet18", True)):
        model, input = network(name, "group", events)
        label_B, trained = torch.tensor([0, 1, 2]), list(model.parameters())
        gradients = [torch.autograd.grad(loss_of_one(model, input, label_B, i, events), trained) for i in range(3)]
        wanted = torch.stack([sum(g.square().sum() for g in of_one) for of_one in gradients]).sqrt()
        torch.testing.assert_close(gradient_norms(model, LOSSES["mean"], input, label_B), wanted, rtol=1e-6, atol=0)
        torch.testing.assert_close(copy.deepcopy(model).train()(input), model(input))
        assert element_counts(model, input)[1] > 0


def loss_of_one(model: nn.Module, input: Tensor, label_B: Tensor, i: int, events: bool) -> Tensor:
    logits = model(input[:, i : i + 1] if events else input[i : i + 1])
    return LOSSES["mean"](logits, label_B[i : i + 1]).sum()
