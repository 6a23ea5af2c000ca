"""The bias of a draw: the difference between the expected gradients of its batches and of full data's, layer by layer.

n studied examples, k drawn of them, B in a batch, R rounds, P parameters of a layer, C channels of a batch norm.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.backbones.weighted_norm import weighted_batch_norm, weighted_statistics
from sadp_bench.capture.layers import batch_norms
from sadp_bench.core.losses import WeightedLoss
from sadp_bench.core.progress import Progress
from sadp_bench.core.rng import isolated, stream
from sadp_bench.measure.bias_numbers import cosine_of_draw, square_of_bias
from sadp_bench.measure.draws import Draw, Drawn
from sadp_bench.measure.study_numbers import num_kept
from sadp_bench.records.fields import STEP_BY_STEP
from sadp_bench.records.spec import Spec
from sadp_bench.training.data import Loader
from sadp_bench.training.step import TrainingStep

ROUNDS = 8  # independent estimates; the noise of different ones is uncorrelated
COUNTED = 50  # draws of a round that determine each example's mean weight
PASSED = 2  # the first of these draws, whose batches pass through a network with batch norm
STREAM = "study bias"

Batch = tuple[Tensor, Tensor, Tensor | None]  # places, weights of the losses, weights in the statistics (None: equal)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Gradients and statistics of some batches, or the difference of two such results.

    Attributes:
        gradients: The gradient of the weighted losses' sum, divided by n. A vector for each layer with parameters, on the
            CPU.
        means: The batch means of each batch norm, averaged over the batches, [C].
        variances: The batch variances of each batch norm, averaged over the batches, [C].
    """

    gradients: list[Tensor]
    means: list[Tensor]
    variances: list[Tensor]


class Passes:
    """Passes batches through a copy of a network, in training mode and without augmentation.

    Args:
        model: The network. It is not changed.
        data: The training set.
        spec: The run, which names the loss, the backpropagation and the precision.
        index_n: The studied examples, int64.
        progress: Receives the progress after each batch.

    Attributes:
        layers: The trained parameters, by their layer's name.
        norms: The batch norms with running statistics, by name.
        normed: Whether the network has any batch norm.

    Raises:
        BadInput: The network has a batch norm that cannot be weighted.
    """

    def __init__(self, model: nn.Module, data: Loader, spec: Spec, index_n: Tensor, progress: Progress) -> None:
        self.data, self.spec, self.index_n, self.progress = data, spec, index_n, progress
        self.model = weighted_batch_norm(copy.deepcopy(model)).train()
        self.step = TrainingStep(self.model, spec, data)
        own = {name: list(module.parameters(recurse=False)) for name, module in self.model.named_modules()}
        trained = {name: [p for p in parameters if p.requires_grad] for name, parameters in own.items()}
        self.layers = {name: parameters for name, parameters in trained.items() if parameters}
        norms: Any = batch_norms(self.model)
        names = {module: name for name, module in self.model.named_modules()}
        self.norms = {names[norm]: norm for norm in norms if norm.running_mean is not None}
        self.normed = bool(norms)

    def __call__(self, batches: Sequence[Batch], divisor: float = 1.0) -> Found:
        """Returns gradients and statistics of the batches. The gradient is divided by `divisor` times n."""
        self.model.zero_grad(set_to_none=True)
        for norm in self.norms.values():
            norm.reset_running_stats()
        draws = stream(self.spec.seed, STREAM)
        with isolated(self.spec.seed, STREAM, self.data.device), torch.enable_grad():
            for number, (place_B, weight_B, share_B) in enumerate(batches, 1):
                for norm in self.norms.values():  # running statistics become the mean over the batches so far
                    norm.momentum = None if self.spec.backprop in STEP_BY_STEP else 1 / number
                index_B = self.index_n[place_B]
                label_B = self.data.label_N[index_B.to(self.data.device)]
                weight_B = weight_B.to(self.data.device, torch.float32)
                loss = WeightedLoss(self.step.loss, label_B, weight_B, divisor * len(self.index_n))
                with nullcontext() if share_B is None else weighted_statistics(self.model, share_B):
                    self.step.backprop(self.data.input(index_B), loss, draws)
                self.progress.advance(len(index_B))
        return Found(
            [torch.cat([_gradient(p) for p in parameters]) for parameters in self.layers.values()],
            [norm.running_mean.cpu().double().clone() for norm in self.norms.values()],
            [norm.running_var.cpu().double().clone() for norm in self.norms.values()],
        )


def _gradient(parameter: nn.Parameter) -> Tensor:
    found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return found.detach().flatten().cpu()


def visits(num_examples: int, keep: float, num_draws: int, normed: bool) -> int:
    """Returns the approximate number of examples that `gradient_bias` passes through the network."""
    passed = 2 * PASSED * num_kept(num_examples, keep) if normed else 0
    return ROUNDS * (num_examples + num_draws * (num_examples + passed))


def gradient_bias(passes: Passes, draws: Mapping[str, Draw], rounds: int) -> dict[str, Any]:
    """Returns the bias of each draw: the difference of its batches' expected gradient to full data's, at constant weights.

    Full data here are the n studied examples, shuffled and cut into batches of about the run's size. The examples of a draw
    are batched in the same way, and weighted by the draw. Without batch norm the full gradient is the mean of the examples'
    gradients. With batch norm an example's gradient depends on its batch, so both gradients are expectations over batches.

    The noise of finitely many draws makes any difference too long. So each of R independent rounds estimates the error,
    drawn minus full, and only products of different rounds are used:

        error of a round = G + h(all) - h(passed) - h(1)

    G is the mean gradient of the few draws that pass through the network. h(m) is the gradient of full data in the round's
    batches, with the loss of example i weighted by m_i. m_i is its mean weight in many draws ("all"), in the few
    ("passed"), or 1. h is linear, so h(all) and h(passed) cancel in expectation for any probabilities of the draw. Together
    they remove most of the noise of G. Without batch norm G equals h(passed), and no draw has to pass.

    With batch norm a draw has two rows with the same weights, one for each kind of statistics: `backbone.norm` "batch" and
    "weighted". A draw of equal weights has only the first. The statistics are the batches' means and variances, averaged
    over the batches. Their errors are differences to full data's batches too. The error of a mean is in standard
    deviations, because the norm divides by them; the error of a variance is a share. Both are root mean squares over
    channels.

    Args:
        passes: Passes batches through the network.
        draws: The draws, by name.
        rounds: R, at least 3.

    Returns:
        "rounds", "batch_size", "rows". A row has "draw", "norm" ("" without batch norm), "gradient", and with batch norm
        "mean" and "variance". Each of the last three has "whole" and "parts" (by layer or norm), with "square" and
        "square_error" (see `square_of_bias`). A gradient also has "cosine", the cosine between both expectations.
    """
    order, n = stream(passes.spec.seed, f"{STREAM} order"), len(passes.index_n)
    unequal = {name: any(len(draw(at)[1].unique()) > 1 for at in range(PASSED)) for name, draw in draws.items()}
    norms = {name: ["batch", "weighted"][: 1 + unequal[name]] if passes.normed else [""] for name in draws}
    errors: dict[tuple[str, str], list[Found]] = {(name, norm): [] for name in draws for norm in norms[name]}
    fulls = []
    for number in range(rounds):
        batches = _batches(torch.arange(n), torch.ones(n), passes.spec.batch_size, order)
        full = passes(batches)
        fulls.append(full)
        for name, draw in draws.items():
            drawn = [draw(number * COUNTED + each) for each in range(COUNTED)]
            passed = drawn[:PASSED] if passes.normed else []
            left_n = _mean_weight(drawn, n) - _mean_weight(passed, n) - 1
            left = passes([(place_B, left_n[place_B], None) for place_B, *_ in batches])
            of_passed = [batch for each in passed for batch in _batches(*each, passes.spec.batch_size, order)]
            for norm in norms[name]:
                errors[name, norm].append(_error(passes, of_passed, norm, left, full))
    rows = [_row(passes, fulls, of) | {"draw": name, "norm": norm} for (name, norm), of in errors.items()]
    return {"rounds": rounds, "batch_size": passes.spec.batch_size, "rows": rows}


def _batches(place_k: Tensor, weight_k: Tensor, size: int, generator: torch.Generator) -> list[Batch]:
    """Returns shuffled batches of about this size; [] without examples."""
    if not len(place_k):
        return []
    order_k, number = torch.randperm(len(place_k), generator=generator), max(1, round(len(place_k) / size))
    parts = zip(place_k[order_k].tensor_split(number), weight_k[order_k].tensor_split(number), strict=True)
    return [(place_B, weight_B, None) for place_B, weight_B in parts]


def _mean_weight(drawn: Sequence[Drawn], num_examples: int) -> Tensor:
    """Returns each example's mean weight over the draws, [n]. The weight is 0 in a draw without the example."""
    total_n = torch.zeros(num_examples, dtype=torch.float64)
    for place_k, weight_k in drawn:
        total_n[place_k] += weight_k / len(drawn)
    return total_n


def _error(passes: Passes, batches: Sequence[Batch], norm: str, left: Found, full: Found) -> Found:
    """Returns the error of a round: G of the passed draws' batches plus `left`, which is h(all) - h(passed) - h(1)."""
    if not passes.normed:
        return left
    shares = [(place_B, weight_B, weight_B if norm == "weighted" else None) for place_B, weight_B, _ in batches]
    drawn = passes(shares, PASSED)
    return Found(
        [a + b for a, b in zip(drawn.gradients, left.gradients, strict=True)],
        [a - b for a, b in zip(drawn.means, full.means, strict=True)],
        [a - b for a, b in zip(drawn.variances, full.variances, strict=True)],
    )


def _row(passes: Passes, fulls: Sequence[Found], errors: Sequence[Found]) -> dict[str, Any]:
    layers = [_products(fulls, errors, place) for place in range(len(passes.layers))]
    whole = [torch.stack(of_layers).sum(0) for of_layers in zip(*layers, strict=True)]
    cells: list[dict[str, float | None]] = [
        {**square_of_bias(error_RR, full_RR), "cosine": cosine_of_draw(error_RR, mixed_RR, full_RR)}
        for error_RR, mixed_RR, full_RR in (whole, *layers)
    ]
    row: dict[str, Any] = {"gradient": {"whole": cells[0], "parts": dict(zip(passes.layers, cells[1:], strict=True))}}
    if not passes.norms:
        return row
    scales = [
        torch.stack([full.variances[place] for full in fulls]).mean(0) + norm.eps
        for place, norm in enumerate(passes.norms.values())
    ]
    for name, statistics, divisors in (
        ("mean", [of.means for of in errors], [scale.sqrt() for scale in scales]),
        ("variance", [of.variances for of in errors], scales),
    ):
        errors_RC = [torch.stack(of) / by for of, by in zip(zip(*statistics, strict=True), divisors, strict=True)]
        products = [error_RC @ error_RC.T / error_RC.shape[1] for error_RC in errors_RC]
        ones = torch.ones_like(products[0])
        parts = {
            norm: square_of_bias(product_RR, ones) for norm, product_RR in zip(passes.norms, products, strict=True)
        }
        row[name] = {"whole": square_of_bias(torch.stack(products).mean(0), ones), "parts": parts}
    return row


def _products(fulls: Sequence[Found], errors: Sequence[Found], place: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns products of a layer's errors, of errors with full gradients, and of full gradients, [R, R]."""
    full_RP, error_RP = (torch.stack([of.gradients[place] for of in rounds]).double() for rounds in (fulls, errors))
    return error_RP @ error_RP.T, error_RP @ full_RP.T, full_RP @ full_RP.T
