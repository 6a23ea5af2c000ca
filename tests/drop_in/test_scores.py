"""`score_with` gives the scores of the suite's EL2N and GraNd for the same network, and leaves everything as it was."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from baselines.el2n import EL2N
from sadp_bench.core.rng import stream
from sadp_bench.drop_in.indexed import with_index
from sadp_bench.drop_in.sampler import PrunedSampler
from sadp_bench.drop_in.scores import score_with
from sadp_bench.pruners.base import KeepAll
from tests.drop_in.helpers import assert_refused
from tests.helpers import bench

N = 101


def suites_own(method: str) -> tuple[nn.Module, TensorDataset, Tensor]:
    """Returns the network that the suite scored with, its data, and its scores."""
    run = bench(method, 0.5, epochs=2, timesteps=4, set={"backbone.threshold": 0.3})
    run.pruner.prepare(run.context)
    model = run.context.fit(KeepAll(), 1, 0)
    score_N: Any = run.pruner.score_N  # type: ignore[attr-defined]
    return model, TensorDataset(run.data.input(torch.arange(N)), run.data.label_N), score_N


@pytest.mark.parametrize("method", ["el2n", "grand"])
def test_scores_are_those_of_the_suite_for_the_same_network(method: str) -> None:
    model, data, expected_N = suites_own(method)
    score_N = score_with(model, data, method)
    torch.testing.assert_close(score_N, expected_N, rtol=1e-4, atol=1e-6)
    assert score_N.shape == (N,) and score_N.dtype == torch.float32 and float(score_N.std()) > 0.01
    sampler = PrunedSampler(EL2N(0.5), num_examples=N, epochs=2, batch_size=20, scores=score_N)
    sampler.set_epoch(0)
    kept_K = score_N[torch.cat(sampler.batches)]
    assert kept_K.sort().values.tolist() == score_N.topk(51, sorted=True).values.flip(0).tolist()


def plain() -> tuple[nn.Module, TensorDataset]:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3)).double()
    inputs = torch.randn(N, 4, generator=stream(0, "scores"), dtype=torch.float64)
    model(inputs)  # running statistics that are not the first
    return model, TensorDataset(inputs, torch.arange(N) % 3)


def test_grand_of_an_ordinary_network_is_one_backward_pass_an_example() -> None:
    model, data = plain()
    score_N = score_with(model, data, "grand")
    model.eval()
    for i in (0, 50, 100):
        input, label = data[i]
        loss = nn.functional.cross_entropy(model(input[None]), label[None])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        expected = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
        assert score_N[i].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("score", ["el2n", "grand"])
def test_any_loader_gives_the_same_scores(score: str) -> None:
    model, data = plain()
    expected_N = score_with(model, data, score)
    for loader in (
        DataLoader(data, 7),
        DataLoader(with_index(data), 30, shuffle=True, generator=stream(0, "loader")),
        DataLoader(with_index(data), 30, num_workers=1),
    ):
        torch.testing.assert_close(score_with(model, loader, score), expected_N, rtol=1e-6, atol=0)


def test_an_index_is_the_last_of_what_a_dataset_gives() -> None:
    model, data = plain()
    more = TensorDataset(*data.tensors, torch.arange(N).flip(0))
    loader: Any = DataLoader(with_index(more), 30)
    assert torch.equal(score_with(model, loader), score_with(model, DataLoader(with_index(data), 30)))


def test_only_data_of_with_index_have_an_index_and_other_items_may_contain_more() -> None:
    model, data = plain()
    expected_N = score_with(model, data)
    metadata = TensorDataset(*data.tensors, torch.arange(N).flip(0), torch.zeros(N, 3))
    for loader in (metadata, DataLoader(metadata, 30), DataLoader(with_index(metadata), 30, shuffle=True)):
        torch.testing.assert_close(score_with(model, loader), expected_N, rtol=1e-6, atol=0)
    shuffled: Any = DataLoader(metadata, 30, shuffle=True)
    assert_refused([(lambda: score_with(model, shuffled), "gives no indices: wrap its dataset in with_index")])


def test_forward_may_be_given() -> None:
    model, data = plain()
    steps = score_with(model, data, forward=lambda x: torch.stack([model(x), 3 * model(x)]))
    once = score_with(model, data, forward=lambda x: 2 * model(x))
    torch.testing.assert_close(steps, once, rtol=1e-6, atol=0)
    assert not torch.equal(once, score_with(model, data))
    grand = score_with(model, data, "grand", forward=lambda x: 2 * model(x))
    assert float(grand.min()) > 0 and not torch.equal(grand, score_with(model, data, "grand"))


@pytest.mark.parametrize("score", ["el2n", "grand"])
def test_mode_statistics_gradients_and_random_state_are_left_as_they_were(score: str) -> None:
    model, data = plain()
    model.train()
    model[1].eval()  # type: ignore[operator, index]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    drawn = torch.get_rng_state(), random.getstate()
    score_with(model, DataLoader(with_index(data), 30), score)
    assert torch.equal(torch.get_rng_state(), drawn[0]) and random.getstate() == drawn[1]
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(ZeroDivisionError):
        score_with(model, data, score, forward=lambda x: 1 / 0)  # type: ignore[arg-type, return-value]
    assert [module.training for module in model.modules()] == modes


def test_neurons_are_reset_between_batches() -> None:
    import snntorch
    from spikingjelly.activation_based import neuron

    for fire in (neuron.LIFNode, lambda: snntorch.Leaky(beta=0.9, init_hidden=True)):
        with torch.random.fork_rng([]):
            torch.manual_seed(1)
            model = nn.Sequential(nn.Linear(4, 30), fire(), nn.Linear(30, 3))
        data = TensorDataset(2 * torch.randn(N, 4, generator=stream(0, "reset")), torch.arange(N) % 3)
        forward = lambda x, model=model: torch.stack([model(x) for _ in range(3)])  # noqa: E731
        batched = score_with(model, DataLoader(data, 10), forward=forward)
        model(data[:10][0])  # The state that is left belongs to no batch of another size.
        assert torch.equal(batched[:10], score_with(model, TensorDataset(*data[:10]), forward=forward)), fire


def selecting(data: TensorDataset) -> DataLoader[Any]:
    sampler = PrunedSampler(KeepAll(), num_examples=N, epochs=2, batch_size=20)
    return DataLoader(data, batch_sampler=sampler)


MISTAKES: list[tuple[Any, str]] = [
    (lambda model, data: score_with(model, data, "loss"), "score is one of el2n, grand, not 'loss'"),
    (lambda model, data: score_with(model, data, "grand", loss="mse"), "loss is one of .* or a function, not 'mse'"),
    (lambda model, data: score_with(model, DataLoader(data, 10, shuffle=True)), "wrap its dataset in with_index"),
    (lambda model, data: score_with(model, selecting(data)), "wrap its dataset in with_index"),
    (
        lambda model, data: score_with(model, DataLoader(with_index(data), 10, shuffle=True, drop_last=True)),
        "gives 100 of its 101 examples",
    ),
    (
        lambda model, data: score_with(model, DataLoader(with_index(data), 10, sampler=[*range(N), 3])),
        "gives an example twice",
    ),
    (
        lambda model, data: score_with(nn.Sequential(model, nn.LayerNorm(3).double()), data, "grand"),
        "'1' is a LayerNorm",
    ),
]


def test_mistakes_are_refused() -> None:
    assert_refused(MISTAKES, plain)
