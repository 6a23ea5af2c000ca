"""Scores of a user's network, for methods that score before they train: `score_with`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from sadp_bench.capture.layers import reset_state
from sadp_bench.capture.per_example_norms import gradient_norms
from sadp_bench.core.errors import BadInput
from sadp_bench.core.evaluation_mode import evaluation_mode
from sadp_bench.core.losses import LOSSES, Loss
from sadp_bench.core.rng import kept_state
from sadp_bench.drop_in.batch_logits import LogitOrder, wrong_shape
from sadp_bench.drop_in.indexed import WithIndex

ONE_PASS_SCORES = ("el2n", "grand")
BATCH_SIZE = 64  # Examples, where the data are a dataset instead of a loader.


def score_with(
    model: nn.Module,
    data: Any,
    score: str = "el2n",
    *,
    loss: str | Loss = "mean",
    forward: Callable[[Any], Tensor] | None = None,
    time_first: bool | None = None,
) -> Tensor:
    """Returns each example's score by a partly trained network, float32, [N], for `PrunedSampler(..., scores=)`.

    The network is in evaluation mode during the call. The neurons of SpikingJelly and snnTorch are reset before each batch
    and after the last. The network's mode and the global random state are restored.

    Args:
        model: The network.
        data: A dataset of (image, label) without augmentation. A DataLoader of such a dataset works too if it gives each
            example once, in order or with its index (`with_index`).
        score: "el2n", the norm of softmax minus label for the logits' mean over time; or "grand", the exact norm of the
            gradient of the example's loss over all parameters. Source: Paul, Ganguli & Dziugaite, NeurIPS 2021.
        loss: The loss of "grand", see `watch`.
        forward: Maps an image batch to logits, [B, C] or [T, B, C]; by default the network.
        time_first: See `watch`. With False, logits may be [B, T, C].

    Raises:
        BadInput: Examples come twice, not at all, or in an unknown order.
    """
    if score not in ONE_PASS_SCORES:
        raise BadInput(f"score is one of {', '.join(ONE_PASS_SCORES)}, not '{score}'")
    if isinstance(loss, str) and loss not in LOSSES:
        raise BadInput(f"loss is one of {', '.join(LOSSES)} or a function, not '{loss}'")
    loader = data if isinstance(data, DataLoader) else DataLoader(data, BATCH_SIZE)
    indexed = isinstance(loader.dataset, WithIndex)  # Other items may contain more too, such as metadata.
    device = next(model.parameters()).device
    example_loss = LOSSES[loss] if isinstance(loss, str) else loss
    order = LogitOrder(time_first)
    score_N = torch.full((len(loader.dataset),), torch.nan)  # type: ignore[arg-type]
    num_scored = 0
    # A loader's iterator draws the seed of its workers from the global random state.
    with kept_state(device), torch.no_grad(), evaluation_mode(model):
        for image, label_B, *index in loader:
            reset_state(model)
            image, label_B = image.to(device), label_B.to(device)
            index_B = index[-1] if indexed else _next_indices(loader, num_scored, len(label_B))
            num_scored += len(label_B)
            if bool(score_N[index_B].isfinite().any()):
                raise BadInput("the loader gives an example twice, and scores need each once: mend its sampler")
            logits_of = partial(_logits, forward or model, order, len(label_B))
            if score == "grand":
                score_B = gradient_norms(model, example_loss, image, label_B, logits_of, time_first)
            else:
                score_B = _error_norm(logits_of(image), label_B)
            score_N[index_B] = score_B.float().cpu()
        reset_state(model)
    if num_scored != len(score_N):
        raise BadInput(
            f"the loader gives {num_scored} of its {len(score_N)} examples, and scores need each once: set drop_last=False"
        )
    return score_N


def _logits(forward: Callable[[Any], Tensor], order: LogitOrder, batch: int, image: Any) -> Tensor:
    """Returns the logits of an image batch, [B, C] or [T, B, C]. Raises BadInput for any other shape."""
    logits = order.in_time(forward(image), batch)
    if logits.dim() not in (2, 3) or logits.shape[-2] != batch:
        raise BadInput(wrong_shape(logits, batch, "score_with"))
    return logits


def _error_norm(logits: Tensor, label_B: Tensor) -> Tensor:
    """Returns ||softmax(logits) - one-hot label||_2. [B]."""
    logits_BC = logits.float().mean(0) if logits.dim() == 3 else logits.float()
    return (logits_BC.softmax(1) - one_hot(label_B, logits_BC.shape[1])).norm(dim=1)


def _next_indices(loader: DataLoader[Any], start: int, batch: int) -> Tensor:
    """Returns the indices of the next batch of a loader that gives the examples in order. Raises BadInput for others."""
    if type(loader.batch_sampler) is not BatchSampler or not isinstance(
        loader.batch_sampler.sampler, SequentialSampler
    ):
        raise BadInput("the loader shuffles or selects, and gives no indices: wrap its dataset in with_index")
    return torch.arange(start, start + batch)
