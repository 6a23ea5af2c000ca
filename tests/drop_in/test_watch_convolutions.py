"""The bound and the exact norm of every kind of convolution, and of an ordinary network: one backward pass an example."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d, pad

from sadp_bench.capture.per_example_norms import gradient_norms, square_norms
from sadp_bench.core.losses import mean_loss
from sadp_bench.pruners.sadp import LayersScore
from tests.drop_in.helpers import assert_bounded, assert_close, drawn, layer_squares, watched

LABELS = torch.tensor([0, 2, 1, 2, 0])
B = len(LABELS)


CONVOLUTIONS: list[tuple[int, dict[str, Any]]] = [
    (2, {"kernel_size": (4, 3), "padding": "same", "dilation": (1, 2)}),
    (2, {"kernel_size": 3, "padding": "valid", "stride": 2}),
    (2, {"kernel_size": 3, "padding": 2, "padding_mode": "reflect"}),
    (2, {"kernel_size": (3, 2), "padding": (2, 1), "padding_mode": "replicate", "stride": (2, 1)}),
    (2, {"kernel_size": 3, "padding": (1, 2), "padding_mode": "circular"}),
    (2, {"kernel_size": 2, "padding": "same", "padding_mode": "circular"}),
    (2, {"kernel_size": 3, "padding": 1, "groups": 2}),
    (2, {"kernel_size": 3, "padding": 1, "groups": 4, "bias": False}),
    (2, {"kernel_size": 1, "groups": 2}),
    (1, {"kernel_size": 3, "padding": 1, "stride": 2}),
    (1, {"kernel_size": 4, "padding": "same"}),
    (1, {"kernel_size": 3, "groups": 4, "padding": 2, "padding_mode": "reflect"}),
    (1, {"kernel_size": 1}),
]


class Convolution(nn.Module):
    """One convolution of 4 channels, and a readout."""

    def __init__(self, dimensions: int, **kind: Any) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv = (nn.Conv1d if dimensions == 1 else nn.Conv2d)(4, 8, **kind).double()
        self.input = drawn(B, 4, *((7,) if dimensions == 1 else (7, 6)))
        self.readout = nn.Linear(self.conv(self.input).flatten(1).shape[1], 3).double()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.readout(self.conv(x).sigmoid().flatten(1))
        return logits


def patch_squares(conv: Any, input: Tensor) -> Tensor:
    """Returns each example's sum of its patches' squares, with a one for each output position, by a convolution. [B]."""
    mode = {} if conv.padding_mode == "zeros" else {"mode": conv.padding_mode}
    spread = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    if isinstance(conv.padding, str):
        sides = [(s // 2, s - s // 2) if conv.padding == "same" else (0, 0) for s in spread]
    else:
        sides = [(p, p) for p in conv.padding]
    padded = pad(input.square(), [p for side in reversed(sides) for p in side], **mode)
    ones = torch.ones(1, input.shape[1], *conv.kernel_size, dtype=input.dtype)
    apply: Any = conv1d if input.dim() == 3 else conv2d
    taken = apply(padded, ones, stride=conv.stride, dilation=conv.dilation)
    return (taken + (conv.bias is not None)).flatten(1).sum(1)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_squares_bound_and_exact_norm_hold_for_a_convolution(dimensions: int) -> None:
    for kind in (kind for number, kind in CONVOLUTIONS if number == dimensions):
        model = Convolution(dimensions, **kind)

        def logits_of(i: int, model: Convolution = model) -> Tensor:
            return model(model.input[i : i + 1])  # type: ignore[no-any-return]

        found = watched(model, lambda m=model: m(m.input), LABELS)
        assert_close({"input": found["input_squares"][0]}, {"input": patch_squares(model.conv, model.input)}, 1e-10)
        [exact_B] = assert_bounded(model, [model.conv], logits_of, LABELS, found)
        assert (exact_B > 1e-3 * found["input_squares"][0] * found["error_squares"][0]).all() and (exact_B > 0).all(), (
            kind
        )
        readout_B = layer_squares(model, model.readout, logits_of, LABELS)
        norm_B = gradient_norms(model.eval(), mean_loss, model.input, LABELS)
        torch.testing.assert_close(norm_B.square(), exact_B + readout_B, rtol=1e-9, atol=0)


def test_a_convolution_over_time_is_the_sum_of_its_steps_when_exact() -> None:
    model = Convolution(2, kernel_size=3, padding="same", groups=2)
    a, d = drawn(3, B, 4, 7, 6), drawn(3, B, 8, 7, 6)
    gradients = [
        torch.autograd.grad((model.conv(a[:, i]) * d[:, i]).sum(), list(model.conv.parameters())) for i in range(B)
    ]
    expected_B = torch.stack([sum((g.square().sum() for g in own), torch.zeros(())) for own in gradients])
    torch.testing.assert_close(square_norms(model.conv, [(a, d)], B), expected_B, rtol=1e-9, atol=0)


class Analogue(nn.Module):
    """A network of ReLUs; its norm layer has statistics that are constants."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        norm = nn.BatchNorm2d(4).eval()
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            norm,
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(24, 7),
            nn.ReLU(),
        )
        self.head = nn.Linear(7, 3)
        self.double()

    def train(self, mode: bool = True) -> Analogue:
        super().train(mode)
        self.body[1].eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


def test_an_ordinary_network_has_the_same_bound_by_analogue_activations() -> None:
    model, input = Analogue(), drawn(B, 1, 6, 4)
    found = watched(model, lambda: model(input), LABELS)
    layers = [model.body[0], model.body[5]]
    exact_LB = assert_bounded(model, layers, lambda i: model(input[i : i + 1]), LABELS, found)
    head_B = layer_squares(model, model.head, lambda i: model(input[i : i + 1]), LABELS)
    bound_LB = found["input_squares"] * found["error_squares"]
    # For a single step and position the bound is the norm itself.
    torch.testing.assert_close(bound_LB[1], exact_LB[1], rtol=1e-9, atol=0)
    score_B = LayersScore(calibrate=False, gain_limit=0).squared(found, torch.ones(1).double())
    torch.testing.assert_close(score_B, bound_LB.sum(0) + head_B, rtol=1e-9, atol=0)
