"""Passes over the training set in evaluation mode, for scores: before a run, and before a selection of an epoch."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from sadp_bench.capture.channel_spikes import ChannelSpikes
from sadp_bench.capture.per_example_norms import gradient_norms
from sadp_bench.capture.recorder import Recorder
from sadp_bench.capture.signals import Signal
from sadp_bench.core import distributed
from sadp_bench.core.clock import now
from sadp_bench.core.errors import BadInput
from sadp_bench.core.evaluation_mode import evaluation_mode
from sadp_bench.core.losses import logit_errors
from sadp_bench.pruners.exchange import Survey
from sadp_bench.records.spec import Spec
from sadp_bench.training.data import Loader
from sadp_bench.training.evaluation import predictions
from sadp_bench.training.objective import run_loss

SURVEY_BATCH = 64  # examples
SURVEYED = frozenset({"gradient_norms", "errors", "features", "spikes"})  # the optional fields of a survey


def survey(model: nn.Module, data: Loader, spec: Spec, watch: frozenset[str] = frozenset()) -> Survey:
    """Returns logits, losses and the watched fields of a pass over the data; see `ScoringContext.survey`."""
    if unknown := watch - SURVEYED:
        raise BadInput(f"a survey watches {', '.join(sorted(SURVEYED))}, not {', '.join(sorted(unknown))}")
    loss = run_loss(spec)
    rows: dict[str, Tensor] = {}

    def put(name: str, index_B: Tensor, value: Tensor) -> None:
        if name not in rows:
            rows[name] = torch.zeros(len(data), *value.shape[1:], device=data.device)
        rows[name][index_B] = value.float()

    features = Recorder(model, {Signal.FEATURES} if "features" in watch else set())
    spikes = ChannelSpikes(model) if "spikes" in watch else None
    with features, spikes or nullcontext():
        for index_B, logits_TBC, input in predictions(model, data, spec.precision):
            index_B = index_B.to(data.device)
            label_B = data.label_N[index_B]
            put("logits_NC", index_B, logits_TBC.mean(0))
            put("loss_N", index_B, loss(logits_TBC, label_B))
            if "errors" in watch:
                put("error_NC", index_B, logit_errors(loss, logits_TBC, label_B).sum(0))
            if "features" in watch:
                put("feature_ND", index_B, features.seen()[Signal.FEATURES].mean(0))
            if spikes is not None:
                put("spikes_ND", index_B, spikes.counts())
            if "gradient_norms" in watch:
                put("gradient_norm_N", index_B, _norms(model, spec, input, label_B))
    # Each of several processes has filled its own part. The zeros elsewhere leave the sums exact.
    rows = {name: distributed.total(row).cpu() for name, row in rows.items()}
    return Survey(label_N=data.label_N.cpu(), **rows)


def _norms(model: nn.Module, spec: Spec, input: Tensor, label_B: Tensor) -> Tensor:
    """Returns exact gradient norms, [B]. Autocast is off, whatever the run's precision."""
    batched = 1 if input.dim() == 5 else 0
    parts = zip(input.split(SURVEY_BATCH, batched), label_B.split(SURVEY_BATCH), strict=True)
    with evaluation_mode(model):
        loss = run_loss(spec)
        return torch.cat([gradient_norms(model, loss, part, label) for part, label in parts])


class Surveys:
    """Makes the surveys that a pruner requests before it selects an epoch's examples; counts and times them.

    Args:
        model: The network as it is trained so far.
        data: The training set.
        spec: The run.

    Attributes:
        visits: Examples passed in all surveys.
        seconds: Seconds of all surveys.
    """

    def __init__(self, model: nn.Module, data: Loader, spec: Spec) -> None:
        self.model, self.data, self.spec = model, data, spec
        self.visits, self.seconds = 0, 0.0

    def __call__(self, watch: frozenset[str] = frozenset()) -> Survey:
        """Returns the survey of the training set; see `survey`."""
        start = now(self.data.device)[0]
        found = survey(self.model, self.data, self.spec, watch)
        self.visits += len(self.data)
        self.seconds += now(self.data.device)[0] - start
        return found

    def row(self) -> dict[str, float]:
        """Returns the fields to add to the epoch's row; none without a survey."""
        return {"score_visits": self.visits, "score_seconds": self.seconds} if self.visits else {}
