"""Scores of a network of one's own, for methods that score before they train: `score_with`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from spikingjelly.activation_based.base import MemoryModule
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from sadp_bench.capture.per_example_norms import gradient_norms
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import LOSSES, Loss

SCORES = ("el2n", "grand")
BATCH_SIZE = 64


def score_with(
    model: nn.Module,
    data: Any,
    score: str = "el2n",
    *,
    loss: str | Loss = "mean",
    forward: Callable[[Any], Tensor] | None = None,
    time_first: bool | None = None,
) -> Tensor:
    """Each example's score by a network that was trained for a while: for `PrunedSampler(..., scores=)`. Float32, [N].

    score: "el2n", the norm of softmax minus label, of the logits' mean over time; or "grand", the exact norm of the
    gradient of the example's own loss over all parameters (Paul, Ganguli & Dziugaite, NeurIPS 2021).
    data: a dataset of (image, label), as evaluation shows them, without augmentation; or a DataLoader of such that gives each
    example once, in order, or with its index (`with_index`). forward: an image batch -> logits, [B, C] or [T, B, C]; by
    default the model. loss, time_first: of "grand", see `watch`.
    The network is in evaluation mode meanwhile, and SpikingJelly's neurons are reset before each batch and after the last;
    its mode and the global random state are left as they were.
    Raises BadInput where examples come twice, not at all, or in an unknown order.
    """
    if score not in SCORES:
        raise BadInput(f"score is one of {', '.join(SCORES)}, not '{score}'")
    if isinstance(loss, str) and loss not in LOSSES:
        raise BadInput(f"loss is one of {', '.join(LOSSES)} or a function, not '{loss}'")
    loader = data if isinstance(data, DataLoader) else DataLoader(data, BATCH_SIZE)
    device = next(model.parameters()).device
    own_loss = LOSSES[loss] if isinstance(loss, str) else loss
    score_N = torch.full((len(loader.dataset),), torch.nan)  # type: ignore[arg-type]
    with _evaluating(model, device):
        shown = 0
        for image, label_B, *index in loader:
            _reset(model)
            image, label_B = image.to(device), label_B.to(device)
            index_B = index[-1] if index else _in_order(loader, shown, len(label_B))
            shown += len(label_B)
            if bool(score_N[index_B].isfinite().any()):
                raise BadInput("the loader gives an example twice; scores want each once")
            if score == "grand":
                score_B = gradient_norms(model, own_loss, image, label_B, forward, time_first)
            else:
                score_B = _error_norm((forward or model)(image), label_B)
            score_N[index_B] = score_B.float().cpu()
        _reset(model)
    if shown != len(score_N):
        raise BadInput(
            f"the loader gives {shown} of its {len(score_N)} examples; scores want each once (drop_last=False)"
        )
    return score_N


def _error_norm(logits: Tensor, label_B: Tensor) -> Tensor:
    """||softmax(logits) - one-hot label||_2. [B]."""
    logits_BC = logits.float().mean(0) if logits.dim() == 3 else logits.float()
    return (logits_BC.softmax(1) - one_hot(label_B, logits_BC.shape[1])).norm(dim=1)


def _in_order(loader: DataLoader[Any], shown: int, batch: int) -> Tensor:
    if type(loader.batch_sampler) is not BatchSampler or not isinstance(
        loader.batch_sampler.sampler, SequentialSampler
    ):
        raise BadInput(
            "a loader that shuffles or selects must say which examples it gives: wrap its dataset in with_index"
        )
    return torch.arange(shown, shown + batch)


def _reset(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, MemoryModule):
            module.reset()


@contextmanager
def _evaluating(model: nn.Module, device: torch.device) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    # A loader's iterator takes a seed for its workers from the global state.
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        model.eval()
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training
