"""The study's truth: recalibrated statistics, exact norms, and that observations leave no trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sadp_bench.capture.layers import norm_layers
from sadp_bench.core.progress import Progress
from sadp_bench.measure import score_cost
from sadp_bench.measure.score_collectors import COLLECTED_SCORES, Collector, exact_norms, observations, recalibrated
from tests.small_runs import hooks_of, small_bench


def statistics_by_hand(model: nn.Module, inputs: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Returns each norm's mean and unbiased variance by channel, averaged over batches, by hooks of the test's own."""
    seen: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {norm: [] for norm in norm_layers(model)}

    def note(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        x = given[0].movedim(-3, 0).flatten(1)
        seen[norm].append((x.mean(1), x.var(1)))

    handles = [norm.register_forward_pre_hook(note) for norm in seen]
    model.train()
    for input in inputs:
        model(input)
    for handle in handles:
        handle.remove()
    return [(torch.stack([m for m, _ in of]).mean(0), torch.stack([v for _, v in of]).mean(0)) for of in seen.values()]


def everything(model: nn.Module) -> dict[str, Any]:
    return {
        "state": {name: value.tolist() for name, value in model.state_dict().items()},
        "grads": [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "momentum": [norm.momentum for norm in norm_layers(model)],
        "hooks": hooks_of(model),
        "random": torch.get_rng_state().tolist(),
    }


@pytest.mark.parametrize("backbone", ["cnn", "sew-resnet18"])
def test_recalibrated_statistics_are_the_batches_own_and_leave_no_trace(backbone: str) -> None:
    bench = small_bench(backbone=backbone, epochs=1)
    list(bench.rows())
    bench.model.train()
    before, batches = everything(bench.model), torch.arange(120).split(40)
    with recalibrated(bench.model, bench.data, batches):
        now = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norm_layers(bench.model)]
        assert not any(module.training for module in bench.model.modules())
        exact_norms(bench.model, bench.data, bench.spec, torch.arange(30), Progress())
    assert everything(bench.model) == before
    expected = statistics_by_hand(bench.model, [bench.data.input(index_B) for index_B in batches])
    for got, wanted in zip(now, expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_recalibration_is_undone_by_an_error_too() -> None:
    bench = small_bench()
    before = everything(bench.model)
    with pytest.raises(KeyboardInterrupt), recalibrated(bench.model, bench.data, [torch.arange(20)]):
        raise KeyboardInterrupt
    assert everything(bench.model) == before


def test_observations_leave_no_trace() -> None:
    bench = small_bench(epochs=1)
    list(bench.rows())
    before, collector = everything(bench.model), Collector(torch.arange(60))
    collector.prepare(bench.context)
    batches = torch.arange(60).split(30)
    for training in (False, True):
        for seen in observations(
            bench.model, bench.data, bench.spec, batches, collector.watch(0), training, Progress()
        ):
            collector.observe(seen)
        assert everything(bench.model) == before


def test_exact_norms_are_one_backward_pass_per_example() -> None:
    bench = small_bench()
    norm_n = exact_norms(bench.model, bench.data, bench.spec, index_n := torch.tensor([3, 70, 5]), Progress())
    bench.model.eval()
    for norm, index in zip(norm_n, index_n, strict=True):
        bench.model.zero_grad()
        logits = bench.model(bench.data.input(index[None])).mean(0)
        nn.functional.cross_entropy(logits, bench.data.label_N[index][None]).backward()
        assert float(norm) == pytest.approx(sum(float(p.grad.square().sum()) for p in bench.model.parameters()) ** 0.5)


def test_the_cost_leaves_the_run_as_it_is_and_names_every_score() -> None:
    bench = small_bench(epochs=1)
    list(bench.rows())
    before = everything(bench.model)
    cost: Any = score_cost.measure_cost(bench, Progress(), rounds=2)
    assert everything(bench.model) == before
    assert list(cost["scores"]) == [*COLLECTED_SCORES, "exact"] and set(cost["calibration"]) == {
        "first_batch",
        "share_of_epoch",
    }
    assert cost["rounds"] == 2 and cost["step_seconds"] > 0
