"""The spiking perceptron against a computation by hand, and in every way of training and measuring."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from sadp_bench.backbones.mlp import MLP
from sadp_bench.backbones.spiking import NeuronSettings
from sadp_bench.core.losses import LOSSES, WeightedLoss
from sadp_bench.core.progress import Progress
from sadp_bench.measure.study import Study
from sadp_bench.records.record import Record
from sadp_bench.runs.building import make_model
from sadp_bench.training.local import Local
from tests.small_runs import SMALL, make_trainer, resolved, small_bench

WIDE = {"backbone.width": 24}
LABELS = torch.arange(6) % 5


def network(depth: int = 2, timesteps: int = 3) -> MLP:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MLP((2, 6, 6), 5, timesteps, NeuronSettings(), width=24, depth=depth).double()


def spikes_by_hand(current: Tensor) -> Tensor:
    membrane, spikes = torch.zeros_like(current[0]), []
    for x in current:
        membrane = membrane / 2 + x
        spikes.append((membrane >= 1).to(x.dtype))
        membrane = torch.where(membrane >= 1, torch.zeros_like(membrane), membrane)
    return torch.stack(spikes)


def test_the_logits_are_those_of_matrix_products_by_hand() -> None:
    for depth, events in itertools.product((1, 2, 3), (False, True)):
        model = network(depth)
        image = 2 * torch.randn(3, 4, 2, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        x = image if events else image[:1].expand(3, -1, -1, -1, -1)
        h = x.reshape(3, 4, 72)
        hidden = [m for m in model.modules() if isinstance(m, nn.Linear)][:-1]
        assert len(hidden) == depth
        for linear in hidden:
            h = spikes_by_hand(h @ linear.weight.T + linear.bias)
        found = model(image if events else image[0])
        torch.testing.assert_close(found, h @ model.readout.weight.T + model.readout.bias)
        assert 0.01 < h.mean() < 0.98, "the last layer spikes"


def test_weights_begin_at_the_stated_size_and_biases_at_0() -> None:
    model = MLP((1, 28, 28), 10, 4, NeuronSettings(), width=100)
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert [tuple(m.weight.shape) for m in layers] == [(100, 784), (100, 100), (10, 100)]
    for linear, gain in zip(layers, (2, 2, 1), strict=True):
        assert float(linear.weight.detach().std()) == pytest.approx(math.sqrt(gain / linear.in_features), rel=0.1)
        assert not linear.bias.any()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        built, other = (MLP((1, 4, 4), 3, 2, NeuronSettings(), width=5) for _ in range(2))
        torch.manual_seed(3)
        other.initialise()
    assert all(torch.equal(p, q) for p, q in zip(built.parameters(), other.parameters(), strict=True))


def test_a_block_learns_locally_from_a_linear_head() -> None:
    """Autograd's gradients of a graph that is detached between the blocks, by the layers' own calls."""
    for kernel, events in itertools.product(("python", "native"), (False, True)):
        requested = {"backbone": "mlp", "backprop": "local", "timesteps": 3, "kernel": kernel}
        spec, material = resolved(**requested, set=WIDE | {"backbone.depth": 3})
        model = make_model(spec, material, 0).train()
        assert isinstance(model, MLP)
        image = 2 * torch.randn(*([3] if events else []), 6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        loss = WeightedLoss(LOSSES["mean"], LABELS, torch.ones(6), 6.0)
        Local(model, "fp32", torch.device("cpu"))(image, loss, torch.Generator())
        found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        x, logits = model.stem(image.flatten(0, -4)).unflatten(0, image.shape[:-3]), []
        x = x if events else x.expand(3, -1, -1)
        for block, head in zip(model.blocks(), [*model.local_heads, model.readout], strict=True):
            for module in block:
                x = module(x)
            logits.append(head(x))
            x = x.detach()
        sum((loss.total(loss.of_examples(each)) for each in logits), torch.zeros(())).backward()
        assert found.keys() == dict(model.named_parameters()).keys() and len(found) == 2 * 6
        for name, p in model.named_parameters():
            torch.testing.assert_close(found[name], p.grad, rtol=1e-4, atol=1e-7, msg=f"{kernel} {events} {name}")
            assert name.startswith("local_heads") or bool(p.grad.any()), name


def test_a_survey_gives_features_spikes_and_exact_norms() -> None:
    bench = small_bench(backbone="mlp", set=WIDE)
    survey = bench.context.survey(bench.model, frozenset({"features", "spikes", "gradient_norms", "errors"}))
    features, spikes, norms = survey.feature_ND, survey.spikes_ND, survey.gradient_norm_N
    assert features is not None and spikes is not None and norms is not None
    assert features.shape == spikes.shape == (130, 24)
    torch.testing.assert_close(spikes, 2 * features)  # sums over T = 2, where the features are means
    assert bool((norms > 0).all())


@pytest.fixture(scope="module")
def records() -> dict[str, Record]:
    """Returns records by name: ways of training in time, SADP's scores, and masked weights."""
    sizes = {"backbone": "mlp", "set": WIDE, "train_examples": 600}
    kinds = {
        "full": {},
        "sadp": {"method": "sadp", "ratio": 0.5},
        "spikes": {"method": "sadp", "ratio": 0.5, "set": WIDE | {"score": "spikes"}},
        "bf16": {"method": "sadp", "ratio": 0.5, "precision": "bf16"},
        "sltt-k": {"method": "sadp", "ratio": 0.5, "backprop": "sltt-k", "k": 1},
        "local": {"method": "sadp", "ratio": 0.5, "backprop": "local"},
        "imp": {"sparsity": "imp", "density": 0.4},
    }
    return {name: make_trainer(*resolved(**sizes | kind)).run() for name, kind in kinds.items()}


def test_every_way_of_training_keeps_its_budget_and_learns(records: dict[str, Record]) -> None:
    for name, record in records.items():
        assert record.examples_seen == round(2 * 600 * (1 - record.spec.ratio)), name
        assert len(record.firing_rate) == 2 and all(rate > 0 for rate in record.firing_rate), name
        losses = [row["train_loss"] for row in record.epochs]
        assert losses[1] < losses[0], (name, losses)


def test_operations_are_those_of_linear_layers_on_spikes(records: dict[str, Record]) -> None:
    record = records["full"]
    first, second = (rate * 2 for rate in record.firing_rate)  # spikes of a neuron in T = 2 steps
    operations = record.operations
    assert operations["multiply_accumulates"] == 64 * 24  # the stem, once
    assert operations["accumulates"] == pytest.approx(24 * 24 * first + 24 * 10 * second, rel=0.02)
    assert (operations["neuron_updates"], operations["normalised"]) == (2 * 2 * 24, 0)
    assert record.num_parameters == 65 * 24 + 25 * 24 + 25 * 10


def test_a_study_measures_its_scores() -> None:
    asked = SMALL | {"backbone": "mlp", "epochs": 1, "set": WIDE}
    layers = Study(asked, "1", 60, None, Progress()).measure()["stops"][-1]["scores"]["layers"]
    assert layers["frozen"]["spearman"] > 0.8, layers
    assert layers["training"] == layers["frozen"], "without norm and dropout both modes give the same numbers"
