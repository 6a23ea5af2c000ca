"""Losses against loops over steps, examples and classes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from sadp_bench.core.losses import LOSSES, MSE_WEIGHT, logit_errors, loss_of, step_mse_loss
from sadp_bench.core.progress import Progress
from sadp_bench.measure.score_collectors import exact_norms
from sadp_bench.records.fields import CHOICES
from sadp_bench.records.former import LATER
from tests.small_runs import resolved, small_bench

STEPS, CLASSES, LABELS = 3, 4, [2, 0, 3, 2, 1]
SHARES = [[0.7, 0.3, 0, 0], [0, 0, 1, 0], [0.25, 0, 0, 0.75], [0, 0.5, 0.5, 0], [0, 0, 0, 1]]
TARGETS = [torch.tensor(LABELS), torch.tensor(SHARES, dtype=torch.float64)]


def cross_entropy(logits: list[float], label: int) -> float:
    return math.log(sum(math.exp(z) for z in logits)) - logits[label]


def by_hand(
    name: str, logits_TC: list[list[float]], label_C: list[float], weight: float, smoothing: float = 0.0
) -> float:
    """Returns the loss of one example, in plain Python. label_C: the classes' shares of its label."""

    def smoothed(logits: list[float]) -> float:
        shares = [(1 - smoothing) * share + smoothing / CLASSES for share in label_C]
        return sum(share * cross_entropy(logits, label) for label, share in enumerate(shares))

    mean_C = [sum(column) / STEPS for column in zip(*logits_TC, strict=True)]
    if name == "mean":
        return smoothed(mean_C)
    by_step = sum(smoothed(logits) for logits in logits_TC) / STEPS
    target_C = label_C if name == "step-mse-onehot" else [1.0] * CLASSES
    squares = sum((z - y) ** 2 for logits in logits_TC for z, y in zip(logits, target_C, strict=True)) / (
        STEPS * CLASSES
    )
    return by_step if name == "step" else (1 - weight) * by_step + weight * squares


def test_each_loss_and_its_errors_at_the_logits_equal_a_loop() -> None:
    assert set(LOSSES) == set(CHOICES["loss"]) and LATER["mse_weight"] == MSE_WEIGHT
    logits_TBC = torch.randn(STEPS, 5, CLASSES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for name in LOSSES:
        for weight, smoothing, target in itertools.product((MSE_WEIGHT, 0.3, 1.0), (0.0, 0.1), TARGETS):
            loss, shares = loss_of(name, weight, smoothing), target
            if target.dim() == 1:
                shares = torch.eye(CLASSES, dtype=torch.float64)[target]
            for i in range(5):
                wanted = by_hand(name, logits_TBC[:, i].tolist(), shares[i].tolist(), weight, smoothing)
                assert loss(logits_TBC, target)[i].item() == pytest.approx(wanted, rel=1e-12), name
            error_TBC, step = logit_errors(loss, logits_TBC, target), 1e-6
            for t, i, c in ((0, 0, 2), (1, 3, 0), (2, 4, 3)):
                sides = []
                for sign in (1, -1):
                    moved = logits_TBC[:, i].clone()
                    moved[t, c] += sign * step
                    sides.append(by_hand(name, moved.tolist(), shares[i].tolist(), weight, smoothing))
                assert error_TBC[t, i, c].item() == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-8), name


def test_the_default_weight_gives_the_former_numbers_bit_for_bit() -> None:
    logits_TBC, label_B = torch.randn(STEPS, 5, CLASSES), torch.tensor(LABELS)
    former = 0.95 * LOSSES["step"](logits_TBC, label_B) + 0.05 * (logits_TBC - 1).square().mean((0, 2))
    assert torch.equal(step_mse_loss(logits_TBC, label_B), former)


def test_a_run_trains_and_scores_by_its_loss_and_its_weight() -> None:
    rows = {}
    for name, weight in (("step-mse-onehot", MSE_WEIGHT), ("step-mse", MSE_WEIGHT), ("step-mse", 0.5)):
        bench = small_bench(loss=name, mse_weight=weight, epochs=1)
        rows[name, weight] = next(iter(bench.rows()))["train_loss"]
        survey = bench.context.survey(bench.model, frozenset({"gradient_norms"}))
        model, input, label_B = bench.model.eval(), bench.data.input(torch.arange(2)), bench.data.label_N[:2]
        loss, parameters = loss_of(name, weight), list(bench.model.parameters())
        norms = exact_norms(model, bench.data, bench.spec, torch.arange(2), Progress())
        for i in range(2):
            loss_B = loss(model(input[i : i + 1]), label_B[i : i + 1])
            squares = [g.square().sum() for g in torch.autograd.grad(loss_B.sum(), parameters)]
            assert survey.gradient_norm_N is not None
            torch.testing.assert_close(survey.loss_N[i], loss_B[0].detach(), rtol=1e-4, atol=1e-6)
            for found in (survey.gradient_norm_N[i], norms[i].float()):
                torch.testing.assert_close(found, sum(squares).sqrt(), rtol=1e-3, atol=1e-6)
    assert len(set(rows.values())) == 3


def test_the_weight_is_no_axis_and_stands_in_the_command() -> None:
    spec = resolved(loss="step-mse", mse_weight=0.5)[0]
    words = spec.words()
    assert words[words.index("--mse-weight") + 1] == "0.5"
    assert spec.plain().mse_weight == spec.reference().mse_weight == 0.5
