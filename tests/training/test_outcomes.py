"""What a record has of the trained network: accuracies, rates and fit, each against a plain pass."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from spikingjelly.activation_based.neuron import LIFNode
from torch import Tensor
from torch.nn.functional import cross_entropy

from sadp_bench.runs.trainer import RunTrainer
from sadp_bench.training import evaluation
from tests.small_runs import assert_same_weights, small_bench, weights_of
from tests.training.digits import MEAN, SCALE, STD


def trained(**requested: Any) -> RunTrainer:
    """Enough steps for batch norm's running statistics to settle."""
    bench = small_bench(**{"train_examples": 300, "batch_size": 16, "epochs": 4, "precision": "fp64", **requested})
    list(bench.rows())
    return bench


def test_accuracy_and_firing_rates_equal_a_plain_pass_with_plain_hooks() -> None:
    bench = trained()
    accuracy = evaluation.evaluate(bench.model, bench.held, "fp64")
    rates = evaluation.firing_rates(bench.model, bench.held, "fp64")
    spikes: dict[torch.nn.Module, list[Tensor]] = {}
    layers = [module for module in bench.model.modules() if isinstance(module, LIFNode)]
    for module in layers:
        module.register_forward_hook(lambda m, inputs, out: spikes.setdefault(m, []).append(out))
    bench.model.eval()
    held, right = bench.material.held, 0
    with torch.no_grad():
        for start in range(0, len(held), 100):  # 360: the last batch is short, and no batch is the package's
            input = (held.input_N[start : start + 100].double() / SCALE - MEAN) / STD
            guess = bench.model(input).sum(0).argmax(1)
            right += sum(int(g == y) for g, y in zip(guess, held.label_N[start : start + 100], strict=True))
    assert accuracy == right / 360 > 0.5
    assert rates == pytest.approx([float(torch.cat(spikes[m], 1).mean()) for m in layers])
    assert all(0 < rate < 1 for rate in rates) and len(rates) == 3


def test_the_accuracy_by_steps_is_that_of_networks_of_fewer_steps() -> None:
    for more in ({}, {"kernel": "native", "precision": "fp32"}):
        bench = trained(timesteps=3, epochs=2, **more)
        by_step = evaluation.StepAccuracy(4, bench.device)
        evaluation.firing_rates(bench.model, bench.held, bench.spec.precision, (by_step,))
        expected = []
        for steps in (1, 2, 3):
            bench.model.timesteps = steps
            expected.append(evaluation.evaluate(bench.model, bench.held, bench.spec.precision))
        assert len(set(expected)) > 1
        # A network that makes fewer steps than T keeps its last accuracy.
        assert by_step.shares(len(bench.held)) == [*expected, expected[-1]]
    assert evaluation.StepAccuracy(evaluation.MAX_STEPS + 1, bench.device).shares(360) == []


def test_a_record_has_the_accuracy_on_each_class_of_the_trained_network() -> None:
    bench = small_bench(epochs=6)
    record = bench.run()
    held, model, right_C, shown_C = bench.held, bench.model.eval(), [0] * 10, [0] * 10
    with torch.no_grad():
        for index in range(len(held)):
            label = int(held.label_N[index])
            shown_C[label] += 1
            right_C[label] += int(model(held.input(torch.tensor([index]))).sum(0).argmax(1)) == label
    expected = {str(c): right / shown for c, (right, shown) in enumerate(zip(right_C, shown_C, strict=True))}
    assert record.class_accuracy == expected and len(set(expected.values())) > 2
    assert record.test_accuracy == sum(right_C) / len(held)
    assert type(record).from_json(record.to_json()) == record


def test_the_fit_of_a_record_is_that_of_a_plain_pass_over_the_training_images() -> None:
    """Without augmentation and in evaluation mode; of more images than the limit it is that of a fixed part."""
    bench = small_bench(epochs=3, augment="crop-flip", loss="step", precision="fp64")
    record, data, model = bench.run(), bench.data, bench.model.eval()
    with torch.no_grad():
        logits_TBC, label_B = model(data.input(torch.arange(130))), data.label_N
    loss_B = torch.stack([cross_entropy(logits_BC, label_B, reduction="none") for logits_BC in logits_TBC]).mean(0)
    right_B = logits_TBC.sum(0).argmax(1) == label_B
    assert record.fitted_loss == pytest.approx(loss_B.mean().item()) and record.fitted_examples == 130
    assert record.fitted_accuracy == right_B.double().mean().item() < 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "MAX_FITTED", 30)
        part = evaluation.fitted_index(label_B)
        assert label_B[part].bincount().tolist() == [3] * 10 and torch.equal(part, evaluation.fitted_index(label_B))
        found = evaluation.fitted(model, data, bench.spec)
    assert found["fitted_loss"] == pytest.approx(loss_B[part].mean().item()) and found["fitted_examples"] == 30


def test_a_fit_that_is_not_finite_is_no_part_of_a_record() -> None:
    bench = small_bench()
    with torch.no_grad():
        bench.model.readout.bias.fill_(math.nan)
    assert evaluation.fitted(bench.model, bench.data, bench.spec) == {}


def test_a_class_without_evaluated_examples_has_no_accuracy() -> None:
    by_class = evaluation.ClassAccuracy(3, torch.device("cpu"))
    for label_B in (torch.tensor([0, 0]), torch.tensor([0, 2])):
        by_class.add(torch.tensor([[[9.0, 0, 0], [0, 9, 0]], [[0, 1, 2], [0, 0, 2]]]), label_B)  # says 0, 1
    assert by_class.shares(["a", "b", "c"]) == {"a": 2 / 3, "c": 0.0}


def test_evaluation_leaves_no_trace_in_the_network() -> None:
    bench = small_bench()
    before = weights_of(bench.model)
    evaluation.evaluate(bench.model, bench.held, "fp32")
    evaluation.firing_rates(bench.model, bench.held, "fp32")
    evaluation.fitted(bench.model, bench.data, bench.spec)
    assert_same_weights(before, weights_of(bench.model))
    without = small_bench()
    assert [row["train_loss"] for row in bench.rows()] == [row["train_loss"] for row in without.rows()]
