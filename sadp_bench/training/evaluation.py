"""What a trained network gives on held-out data: predictions, accuracy, firing rates."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sadp_bench.capture.recorder import Taps, spiking_layers
from sadp_bench.core import distributed
from sadp_bench.training.backprop import at_precision
from sadp_bench.training.data import Loader

EVALUATION_BATCH = 256


def predictions(model: nn.Module, data: Loader, precision: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(index_B, logits_TBC, input) over all data: evaluation mode, no augmentation, in index order, no gradients. Of
    several processes each gets its part of the data."""
    forward = at_precision(model, precision, data.device)
    distributed.share_buffers(model)
    model.eval()
    with torch.no_grad():
        for index_B in distributed.part(torch.arange(len(data))).split(EVALUATION_BATCH):
            input = data.input(index_B)
            yield index_B, forward(input), input


def evaluate(model: nn.Module, data: Loader, precision: str) -> float:
    """The share of right answers, by the mean of the logits over time."""
    right = torch.zeros((), device=data.device)
    for index_B, logits_TBC, _ in predictions(model, data, precision):
        right += (logits_TBC.mean(0).argmax(1) == data.label_N[index_B.to(data.device)]).sum()
    return float(distributed.total(right)) / len(data)


def firing_rates(model: nn.Module, data: Loader, precision: str) -> list[float]:
    """Spikes per neuron and step of each spiking layer, over all data."""
    with Taps(model, {"spike_counts"}) as taps:
        total_S = torch.zeros(len(spiking_layers(model)), device=data.device)
        for _ in predictions(model, data, precision):
            total_S += taps.seen()["spike_counts"].mean(1).sum(1)
        totals = distributed.total(total_S).tolist()
        return [total / len(data) / neurons for total, neurons in zip(totals, taps.neurons_S, strict=True)]
