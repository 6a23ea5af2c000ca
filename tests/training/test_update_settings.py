"""Warm-up, momentum, clipping, label smoothing and the average of weights, each against torch's own or a loop."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sadp_bench.capture.signals import Signal
from sadp_bench.core.rng import stream
from sadp_bench.pruners.sadp import readout_gradient_norm
from sadp_bench.training.evaluation import evaluate
from sadp_bench.training.optimizer import learning_rate, make_optimizer
from sadp_bench.training.step import TrainingStep
from tests.example_records import make_spec
from tests.small_runs import Chosen, make_trainer, resolved, small_bench, weights_of


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_rate_is_that_of_torchs_linear_warm_up_and_cosine(schedule: str) -> None:
    spec, updates = make_spec(epochs=10, learning_rate=0.3, schedule=schedule, warmup_epochs=2.5), 40
    warmup = 10
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    rising = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=warmup)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates - warmup)
    steady = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    after = falling if schedule == "cosine" else steady
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [rising, after], milestones=[warmup])
    for update in range(updates):
        assert learning_rate(spec, update / updates) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        scheduler.step()


def test_a_run_warms_up_over_its_share_of_the_updates_at_any_ratio() -> None:
    for method, ratio in (("full", 0.0), ("random", 0.5)):
        bench = small_bench(method=method, ratio=ratio, epochs=4, warmup_epochs=1, learning_rate=0.2)
        rows = list(bench.rows())
        assert rows[0]["mean_learning_rate"] < 0.15 < 0.19 < rows[1]["mean_learning_rate"] < 0.2
        assert rows[3]["learning_rate"] < 0.05


def test_momentum_and_nesterov_are_torchs() -> None:
    for momentum, nesterov in ((0.0, False), (0.5, False), (0.9, True)):
        spec = make_spec(learning_rate=0.1, weight_decay=0.01, momentum=momentum, nesterov=nesterov)
        model = nn.Linear(3, 2)
        other = copy.deepcopy(model)
        ours = make_optimizer(model, spec)
        torchs = torch.optim.SGD(other.parameters(), 0.1, momentum, weight_decay=0.01, nesterov=nesterov)
        for network, optimizer in ((model, ours), (other, torchs)):
            for step in range(3):
                optimizer.zero_grad()
                network(torch.full((2, 3), 1.0 + step)).square().sum().backward()
                optimizer.step()
        assert torch.equal(model.weight, other.weight)


def test_an_update_has_the_gradient_scaled_to_the_greatest_norm_and_scores_see_it_whole() -> None:
    bench, gradients, seen = small_bench(batch_size=20), {}, {}
    for limit in (0.0, 1e6, 0.01):
        model = copy.deepcopy(bench.model).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        step = TrainingStep(model, dataclasses.replace(bench.spec, clip_norm=limit), bench.data, optimizer)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        with step.recording(frozenset({Signal.ERROR_SQUARES})):
            seen[limit] = step(torch.arange(20), torch.ones(20), stream(0, "steps")).watched[Signal.ERROR_SQUARES]
        updates = [(old - new.detach()).flatten() for old, new in zip(before, model.parameters(), strict=True)]
        gradients[limit] = torch.cat(updates)
    norm = gradients[0.0].norm()
    assert norm > 0.02
    torch.testing.assert_close(gradients[1e6], gradients[0.0])
    torch.testing.assert_close(gradients[0.01], gradients[0.0] * (0.01 / norm), rtol=1e-3, atol=1e-6)
    assert torch.equal(seen[0.01], seen[0.0])


def test_the_average_is_that_of_a_loop_and_is_what_a_run_evaluates() -> None:
    bench, states = small_bench(epochs=3, ema=0.5), list[dict[str, Tensor]]()
    bench.state.optimizer.register_step_post_hook(lambda *_: states.append(weights_of(bench.model)))
    rows = list(bench.rows())
    average = {name: value.double() for name, value in states[0].items()}
    for number, state in enumerate(states[1:], 1):
        decay = min(0.5, (1 + number) / (10 + number))
        for name, value in state.items():
            average[name] = decay * average[name] + (1 - decay) * value.double()
    own = weights_of(bench.model)
    with bench.state.evaluated():
        for name, value in weights_of(bench.model).items():
            if value.is_floating_point():
                torch.testing.assert_close(value.double(), average[name], rtol=1e-5, atol=1e-6)
        of_average = evaluate(bench.model, bench.held, "fp32", 0)
    assert all(torch.equal(value, own[name]) for name, value in weights_of(bench.model).items())

    trainer = make_trainer(*resolved(epochs=3, ema=0.5, evaluate_every=1))
    record = trainer.run()
    assert record.test_accuracy == of_average
    for name, value in weights_of(trainer.model).items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), average[name], rtol=1e-5, atol=1e-6)
    # The average changes nothing of the training.
    plain = list(small_bench(epochs=3).rows())
    assert [row["train_loss"] for row in record.epochs] == [row["train_loss"] for row in plain]
    assert [row["train_loss"] for row in rows] == [row["train_loss"] for row in plain]


@pytest.mark.parametrize("changed", [{}, {"loss": "step", "backprop": "sltt"}, {"loss": "step-mse"}])
def test_the_readouts_score_with_smoothed_labels_is_its_gradient_by_autograd(changed: dict[str, Any]) -> None:
    index_K = torch.arange(60)
    pruner = Chosen(index_K, watch=frozenset({Signal.FEATURES, Signal.LOGIT_ERRORS}))
    scores_N, exact_N = torch.zeros(60), torch.zeros(60)
    bench = small_bench(pruner, epochs=1, label_smoothing=0.2, **changed)

    def observe(seen: Any) -> None:  # before the update, so that the readout has the step's weights
        features, errors = (seen.watched[name] for name in (Signal.FEATURES, Signal.LOGIT_ERRORS))
        scores_N[seen.index_B] = readout_gradient_norm(features, errors)
        for place, i in enumerate(seen.index_B.tolist()):
            readout = copy.deepcopy(bench.model.readout).requires_grad_()
            readout.zero_grad()
            logits_TC = nn.functional.linear(features[:, place], readout.weight, readout.bias)
            log_p = (logits_TC.mean(0, keepdim=True) if bench.spec.loss == "mean" else logits_TC).log_softmax(1)
            loss = (-0.8 * log_p[:, bench.data.label_N[i]] - 0.2 * log_p.mean(1)).mean()
            if bench.spec.loss == "step-mse":
                loss = 0.95 * loss + 0.05 * (logits_TC - 1).square().mean()
            loss.backward()
            exact_N[i] = (readout.weight.grad.square().sum() + readout.bias.grad.square().sum()).sqrt()
            assert seen.loss_B[place].item() == pytest.approx(loss.item(), rel=1e-4)

    pruner.when_seen = observe
    list(bench.rows())
    assert float(exact_N.min()) > 0
    torch.testing.assert_close(scores_N, exact_N, rtol=1e-3, atol=1e-5)


def test_tet_is_the_papers_name_of_step_mse() -> None:
    assert resolved(loss="tet", mse_weight=0.001)[0] == resolved(loss="step-mse", mse_weight=0.001)[0]
