"""Counts of an inference's work outside of synapses: updates of neurons, and normalised numbers."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.capture.layers import norm_layers, spiking_layers
from sadp_bench.core.evaluation_mode import evaluation_mode


def element_counts(model: nn.Module, input: Tensor) -> tuple[float, float]:
    """Returns the updates of membranes and the numbers that batch norms normalise, per example, over all time steps.

    A norm that is computed once for a static image counts once. An update or a normalised number takes about one
    multiply-accumulate. A norm after a convolution can be folded into the weights before an inference.

    Args:
        model: The network; returns logits, [T, B, C]. Its mode is restored afterwards.
        input: The input of one batch.
    """
    total: dict[str, int] = {"neurons": 0, "norms": 0}

    def counter(kind: str) -> Any:
        def count(_: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
            total[kind] += (output[0] if isinstance(output, tuple) else output).numel()

        return count

    with evaluation_mode(model), torch.no_grad(), ExitStack() as hooks:
        for kind, layers in (("neurons", spiking_layers(model)), ("norms", norm_layers(model))):
            for layer in layers:
                hooks.callback(layer.register_forward_hook(counter(kind)).remove)
        examples = model(input).shape[1]
    return total["neurons"] / examples, total["norms"] / examples
