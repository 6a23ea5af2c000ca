"""Local learning. Oracles: one graph with detached blocks written by hand, a backward pass for each example, bptt."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from sadp_bench.backbones.spiking import LIF, Backbone
from sadp_bench.capture.heads import heads_of, inference_state, linear_of_layer
from sadp_bench.capture.recorder import Recorder
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import LOSSES, WeightedLoss
from sadp_bench.core.rng import stream
from sadp_bench.pruners.exchange import Observation
from sadp_bench.pruners.sadp import SADP, limited_error_squares
from sadp_bench.records.record import Record
from sadp_bench.runs.building import build_model, make_model, weight_bytes
from sadp_bench.runs.resources import Resources
from sadp_bench.runs.step_memory import kept_bytes
from sadp_bench.sparsity.base import prunable
from sadp_bench.training import evaluation
from sadp_bench.training.local import Local
from tests.saved_bytes import Saved
from tests.small_runs import assert_same_weights, make_trainer, resolved, small_bench, weights_of

CPU = torch.device("cpu")
BATCH, T = 9, 3


def network(backbone: str = "cnn", precision: str = "fp64", kernel: str = "python", **settings: Any) -> Backbone:
    requested = {f"backbone.{name}": value for name, value in settings.items()}
    spec, material = resolved(
        backprop="local", backbone=backbone, timesteps=T, precision=precision, kernel=kernel, set=requested
    )
    model = make_model(spec, material, 0)
    assert isinstance(model, Backbone)
    return model.train()


def batch(events: bool, dtype: torch.dtype = torch.float64) -> Tensor:
    shape = (*([T] if events else []), BATCH, 1, 8, 8)
    return torch.randn(shape, generator=stream(0, "images"), dtype=torch.float64).to(dtype) * 2


LABELS = torch.arange(BATCH) % 10
WEIGHTS = torch.rand(BATCH, generator=stream(0, "weights"), dtype=torch.float64) + 0.5
AFTER_NORM = [1, 5, 8]  # of "cnn" with pools after the norms
AFTER_NEURON = [1, 5, 9]  # a pool after the neuron is a part of the next block
ENDS = {"cnn": [1, 4, 7], "resnet18": [1, 2, 3, 4, 5, 6, 7, 11], "sew-resnet18": [2, 3, 4, 5, 6, 7, 8, 10]}


def stemmed(model: Backbone, input: Tensor) -> Tensor:
    if input.dim() == 5:
        return model.stem(input.flatten(0, 1)).unflatten(0, input.shape[:2])
    return model.stem(input).expand(T, *[-1] * 4)


def by_hand(model: Backbone, ends: list[int], input: Tensor, detached: bool = True) -> list[Tensor]:
    """Returns the logits of every head and of the readout, by the layers' own calls.

    `detached`: whether each block's input is detached.
    """
    logits, start, x = [], 0, stemmed(model, input)
    for number, end in enumerate(ends):
        for module in model.body[start:end]:
            x = module(x)
        if end < len(model.body):
            side = min(2, x.shape[-1])
            pooled = nn.functional.adaptive_avg_pool2d(x.flatten(0, 1), side).flatten(1).unflatten(0, (len(x), -1))
            logits.append(model.get_submodule(f"local_heads.{number}.2")(pooled))
            x = x.detach() if detached else x
        start = end
    return [*logits, model.readout(x.flatten(2))]


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def local_gradients(model: Backbone, input: Tensor, loss: str, precision: str = "fp64") -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    weighted = WeightedLoss(LOSSES[loss], LABELS, WEIGHTS, BATCH)
    logits_TBC, loss_B = Local(model, precision, CPU)(input, weighted, stream(0, "steps"))
    assert not logits_TBC.requires_grad and torch.equal(loss_B, LOSSES[loss](logits_TBC, LABELS))
    return gradients_of(model)


def test_the_gradient_of_every_block_is_autograds_of_a_graph_that_is_detached_between_blocks() -> None:
    networks = [(backbone, ends, {}) for backbone, ends in ENDS.items()]
    networks.append(("cnn", AFTER_NEURON, {"pool_at": "after-neuron", "pool": "max", "norm": "none"}))
    kernels = [("python", "fp64"), ("native", "fp32")]
    cases = itertools.product(networks, kernels)
    for number, ((backbone, ends, settings), (kernel, precision)) in enumerate(cases):
        events, loss = bool(number % 4 in (1, 2)), ("mean", "step", "step-mse")[number % 3]
        input = batch(events, torch.float64 if precision == "fp64" else torch.float32)
        model, twin = (network(backbone, precision, name, **settings) for name in (kernel, "python"))
        twin.load_state_dict(model.state_dict())
        found = local_gradients(model, input, loss, precision)
        losses = [(LOSSES[loss](logits, LABELS) * WEIGHTS).sum() / BATCH for logits in by_hand(twin, ends, input)]
        sum(losses, torch.zeros(())).backward()
        expected = gradients_of(twin)
        assert len(losses) == len(ends)
        assert found.keys() == expected.keys() == dict(twin.named_parameters()).keys()
        for name, gradient in expected.items():
            error = (found[name] - gradient).norm() / gradient.norm().clamp_min(1e-12)
            assert error < (1e-9 if precision == "fp64" else 1e-4), (backbone, kernel, name, float(error))
        for name, buffer in model.named_buffers():
            torch.testing.assert_close(buffer, twin.get_buffer(name))


def test_a_heads_loss_reaches_its_block_alone() -> None:
    model = network()
    before = local_gradients(model, batch(False), "mean")
    with torch.no_grad():
        model.get_parameter("local_heads.1.2.weight").mul_(3)
    after = local_gradients(model, batch(False), "mean")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    block = {f"body.{place}" for place in (1, 2)} | {"local_heads.1.2"}
    assert changed == {name for name in before if name.rpartition(".")[0] in block}, changed


def most_saved(work: Callable[[], object]) -> int:
    """Returns the most bytes that graphs hold at once, with the graph of what `work` returns."""
    with torch.autograd.graph.saved_tensors_hooks((saved := Saved()).pack, lambda held: held.tensor):
        kept = work()
    del kept
    return saved.most


def passed(layers: list[Any], x: Tensor) -> Tensor:
    return reduce(lambda x, layer: layer(x), layers, x)


def test_a_block_is_freed_before_the_next_one_runs() -> None:
    """The most bytes that are saved at once are those of one block with its head."""
    loss, input = WeightedLoss(LOSSES["mean"], LABELS, WEIGHTS, BATCH), batch(True, torch.float32)
    small, deep = network(precision="fp32", pool_at="after-norm"), network("resnet18", "fp32")
    for model, ends in ((small, AFTER_NORM), (deep, ENDS["resnet18"])):
        local = most_saved(partial(Local(model, "fp32", CPU), input, loss, stream(0, "steps")))
        whole = most_saved(partial(by_hand, model, ends, input, detached=False))
        alone, x = [], input
        tails = [*heads_of(model), nn.Sequential(nn.Flatten(2), model.readout)]
        for block, tail in zip(model.blocks(), tails, strict=True):
            layers = block if alone else [partial(stemmed, model), *block]
            alone.append(most_saved(partial(passed, [*layers, tail], x)))
            x = passed(layers, x).detach()
        assert max(alone) <= local <= 1.02 * max(alone), (local, alone)
        assert local < 0.7 * whole, (local, whole)


@dataclass
class Numbers:
    """E and A, [L, B, T], and the exact squared norm of the gradient, of each layer before the readout and of each head."""

    error_LBT: Tensor
    input_LBT: Tensor
    exact_LB: Tensor
    readout_B: Tensor


def example_numbers(model: Backbone, input: Tensor) -> Numbers:
    """Returns the numbers of a backward pass for each example, through the graph by hand.

    Layers are in the order of the network's modules.
    """
    layers: list[Any] = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear) and m is not model.readout]
    error_LBT, input_LBT = torch.zeros(2, len(layers), BATCH, T, dtype=torch.float64)
    exact_LB, readout_B = torch.zeros(len(layers), BATCH, dtype=torch.float64), torch.zeros(BATCH, dtype=torch.float64)
    held: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def keep(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        output.retain_grad()
        held[layer] = inputs[0].detach(), output

    for layer in layers:
        layer.register_forward_hook(keep)
    for i in range(BATCH):
        model.zero_grad(set_to_none=True)
        logits = by_hand(model, AFTER_NORM, input[:, i : i + 1])
        sum((LOSSES["step"](of_head, LABELS[i : i + 1]).sum() for of_head in logits), torch.zeros(())).backward()
        for row, layer in enumerate(layers):
            x, output = held[layer]
            patches = x
            if isinstance(layer, nn.Conv2d):
                patches = unfold(x.flatten(0, -4), layer.kernel_size, padding=layer.padding).transpose(1, 2)
            ones = patches.numel() // T // patches.shape[-1]  # output positions, each with the bias
            input_LBT[row, i] = patches.reshape(T, -1).square().sum(1) + ones
            error_LBT[row, i] = output.grad.reshape(T, -1).square().sum(1)
            exact_LB[row, i] = sum(p.grad.square().sum() for p in layer.parameters())
        readout_B[i] = sum(p.grad.square().sum() for p in model.readout.parameters())
    for layer in layers:
        layer._forward_hooks.clear()
    return Numbers(error_LBT, input_LBT, exact_LB, readout_B)


def observed(model: Backbone, input: Tensor, pruner: SADP) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the squared scores of a batch that trains locally, and the signals."""
    with Recorder(model, pruner.watch(0)) as recorder:
        loss = WeightedLoss(LOSSES["step"], LABELS, WEIGHTS, BATCH)
        logits_TBC, loss_B = Local(model, "fp64", CPU)(input, loss, stream(0, "steps"), recorder)
        watched = recorder.seen(WEIGHTS / BATCH)
    pruner.score_sq_N = torch.full((BATCH,), torch.nan, dtype=torch.float64)
    pruner.observe(Observation(0, torch.arange(BATCH), LABELS, logits_TBC, loss_B, watched))
    return pruner.score_sq_N, watched


def test_sadps_score_is_a_sum_over_layers_and_heads_and_the_readout() -> None:
    model, input = network(norm="none", pool_at="after-norm"), batch(True)
    by_example, middle = example_numbers(model, input), T // 2
    assert len(by_example.exact_LB) == 3 + 2 and bool((by_example.exact_LB > 0).any(1).all())
    error_LB, input_LB = by_example.error_LBT.sum(2), by_example.input_LBT.sum(2)
    plain, _ = observed(model, input, SADP(0.5, calibrate=False, gain_limit=0))
    torch.testing.assert_close(plain, (error_LB * input_LB).sum(0) + by_example.readout_B, rtol=1e-9, atol=0)
    assert bool((by_example.exact_LB <= error_LB * input_LB * (1 + 1e-9)).all()), "a bound of each layer and head"
    found, watched = observed(model, input, SADP(0.5))
    error_LB, input_LB = by_example.error_LBT[:, :, middle], by_example.input_LBT[:, :, middle]
    # The convolutions of the first two blocks train by the heads, the third by the readout, and each head by itself.
    logits = by_hand(model, AFTER_NORM, input)[-1].detach().requires_grad_()
    LOSSES["step"](logits, LABELS).sum().backward()
    assert logits.grad is not None
    at_logits_LB = torch.stack([error_LB[3], error_LB[4], logits.grad.square().sum((0, 2)), error_LB[3], error_LB[4]])
    torch.testing.assert_close(watched["head_errors"], at_logits_LB, rtol=1e-9, atol=0)
    gain_L1 = error_LB.sum(1, keepdim=True) / at_logits_LB.sum(1, keepdim=True)
    limited_LB = torch.minimum(error_LB, 4 * gain_L1 * at_logits_LB)
    first = slice(BATCH // 4)
    ratio_L = by_example.exact_LB[:, first].sum(1) / (error_LB * input_LB)[:, first].sum(1)
    expected = ratio_L @ (limited_LB * input_LB) + by_example.readout_B
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)  # the bound ratio is float32


def test_the_memory_that_a_run_is_refused_for_is_no_more_than_a_block_takes() -> None:
    needed = {}
    for backprop in ("local", "bptt"):
        spec, material = resolved(backprop=backprop, timesteps=T, batch_size=BATCH, kernel="python")
        model = make_model(spec, material, 0).train()
        needed[backprop] = kept_bytes(spec, material, model) - 2 * weight_bytes(model)
    model, input = network(precision="fp32"), batch(False, torch.float32)
    loss = WeightedLoss(LOSSES["mean"], LABELS, WEIGHTS, BATCH)
    assert 0 < needed["local"] <= most_saved(partial(Local(model, "fp32", CPU), input, loss, stream(0, "steps")))
    assert needed["bptt"] > 2 * needed["local"]


def test_a_layers_error_is_limited_by_the_head_that_trains_it() -> None:
    error_LB, heads_LB = torch.tensor([[9.0, 1.0], [9.0, 1.0]]), torch.tensor([[1.0, 9.0], [9.0, 1.0]])
    at_readout = torch.ones(1, 2, 1)
    assert limited_error_squares(error_LB, at_readout, 1, heads_LB).tolist() == [[1, 1], [9, 1]]
    assert limited_error_squares(error_LB, at_readout, 1).tolist() == [[5, 1], [5, 1]]


@pytest.fixture(scope="module")
def records() -> dict[str, Record]:
    data = {"full": 0.0, "random": 0.5, "sadp": 0.5}
    sizes = {"train_examples": 1400, "timesteps": 2, "set": {"backbone.width": 8}}
    trained = {
        method: make_trainer(*resolved(method=method, ratio=ratio, backprop="local", **sizes)).run()
        for method, ratio in data.items()
    }
    return trained | {"bptt": make_trainer(*resolved(**sizes)).run()}


def test_runs_keep_their_budget_and_learn(records: dict[str, Record]) -> None:
    for method, ratio in (("full", 0), ("random", 0.5), ("sadp", 0.5)):
        record = records[method]
        assert record.spec.backprop == "local" and record.examples_seen == round(1400 * 2 * (1 - ratio))
        assert record.test_accuracy > 0.3, (method, record.test_accuracy)
        losses = [row["train_loss"] for row in record.epochs]
        assert losses[1] < losses[0], (method, losses)


def test_heads_are_no_part_of_inference(records: dict[str, Record]) -> None:
    local, plain = records["full"], records["bptt"]
    assert local.num_parameters == plain.num_parameters
    for name in ("neuron_updates", "normalised"):
        assert local.operations[name] == plain.operations[name]
    specs = [resolved(backprop=backprop) for backprop in ("local", "bptt")]
    with_heads, without = (build_model(*spec, 3) for spec in specs)
    assert_same_weights(inference_state(with_heads), weights_of(without))
    assert prunable(with_heads).keys() == prunable(without).keys()
    bench = small_bench(backprop="local")
    called: list[nn.Module] = []
    for head in heads_of(bench.model):
        head.register_forward_hook(lambda head, inputs, output: called.append(head))
    assert evaluation.evaluate(bench.model, bench.held, "fp32") >= 0 and not called
    list(bench.rows())
    assert called, "training calls them"
    assert not any(torch.equal(p, q) for p, q in zip(_heads(bench.model), _heads(with_heads), strict=True))


def _heads(model: nn.Module) -> list[Tensor]:
    return [p for head in heads_of(model) for p in head.parameters()]


def test_heads_have_a_stream_of_the_runs_seed() -> None:
    spec, material = resolved(backprop="local")
    one, again, other = (_heads(build_model(spec, material, seed)) for seed in (1, 1, 2))
    assert len(one) == 4 and all(map(torch.equal, one, again)) and not any(map(torch.equal, one, other))
    for number, (backbone, ends) in enumerate(ENDS.items()):
        model = network(backbone)
        layers = linear_of_layer(model)
        linear: Any = [layers[model.get_submodule(f"local_heads.{place}.2")] for place in range(len(ends) - 1)]
        assert len({*linear}) == len(ends) - 1, number
        assert layers[model.stem[0]] is linear[0] and model.readout not in layers and model.body[-1] not in layers
        assert {part.out_features for part in linear} == {10}


def test_every_method_trains_locally() -> None:
    for method in ("el2n", "forgetting", "grand", "infobatch", "fewer-epochs"):
        bench = small_bench(method=method, ratio=0.3, backprop="local", epochs=3)
        assert all(row["train_loss"] > 0 for row in bench.rows()), method
        assert bench.spec.loss == "mean"


class Stranger(nn.Module):
    def __init__(self, shape: Any, classes: int, timesteps: int, neuron: Any, *, width: int = 4) -> None:
        super().__init__()


class OneBlock(Backbone):
    def __init__(self, shape: Any, classes: int, timesteps: int, neuron: Any, *, width: int = 4) -> None:
        stem = nn.Sequential(nn.Conv2d(1, width, 3))
        super().__init__(timesteps, stem, nn.Sequential(LIF(neuron)), width * 36, classes)


def test_a_network_without_blocks_is_refused_before_it_trains() -> None:
    with pytest.raises(BadInput, match="--backprop local needs a backbone whose blocks can be taken one by one"):
        resolved(backprop="local", backbone=f"{__name__}:Stranger")
    with pytest.raises(BadInput, match="needs a backbone of two blocks or more, and the body of OneBlock has one"):
        Resources(*resolved(backprop="local", backbone=f"{__name__}:OneBlock"))
    with pytest.raises(BadInput, match="--k is the number of steps of --backprop sltt-k; local has none"):
        resolved(backprop="local", k=1)
