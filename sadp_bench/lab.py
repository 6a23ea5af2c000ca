"""What a pruner may use to prepare: networks, the run's own loop, a pass over the training set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sadp_bench.clock import Clock
from sadp_bench.engine import predictions, train
from sadp_bench.examples import Loader
from sadp_bench.gradient_norms import gradient_norms
from sadp_bench.losses import LOSSES
from sadp_bench.progress import Progress
from sadp_bench.pruner import Pruner, Survey
from sadp_bench.spec import Spec
from sadp_bench.streams import stream_seed

SURVEY_BATCH = 64


class RunLab:
    """The lab of one run (see `pruner.Lab`). Counts the example visits that scoring makes.

    num_epochs: of the full-data run, whose schedule scoring networks follow.
    build: makes an untrained network from a seed, on the device.
    """

    def __init__(
        self, spec: Spec, data: Loader, num_classes: int, build: Callable[[int], nn.Module], progress: Progress
    ) -> None:
        self.spec = spec
        self.data = data
        self.num_examples = len(data)
        self.num_classes = num_classes
        self.num_epochs = spec.epochs
        self.seed = spec.seed
        self.device = data.device
        self.label_N: Tensor = data.label_N.cpu()
        self.visits = 0
        self._build = build
        self._progress = progress

    def fresh_model(self, seed: int) -> nn.Module:
        """Its weights are none of the run's own: scores come from other networks than the one they choose for."""
        return self._build(stream_seed(self.spec.seed, f"scoring {seed}"))

    def fit(self, pruner: Pruner, epochs: int, seed: int) -> nn.Module:
        """The schedule is that of the whole run, stopped after so many epochs."""
        model = self.fresh_model(seed)
        spec = dataclasses.replace(self.spec, protocol="epochs")
        stream_of_run = stream_seed(self.spec.seed, f"scoring {seed}")
        pruner.prepare(self)
        self._progress.start(f"{self.spec.method}: scoring", epochs * self.num_examples, epochs)
        try:
            for row in train(model, pruner, self.data, spec, Clock(self.device), self._progress, stream_of_run):
                self.visits += row["kept"]
                self._progress.epoch(row, self.num_examples)
                if row["epoch"] + 1 == epochs:
                    break
        finally:
            self._progress.stop()
        return model

    def survey(self, model: nn.Module, watch: frozenset[str] = frozenset()) -> Survey:
        self.visits += self.num_examples
        loss = LOSSES[self.spec.loss]
        logits, losses, norms = [], [], []
        for index_B, logits_TBC, input in predictions(model, self.data, self.spec.precision):
            label_B = self.data.label_N[index_B.to(self.device)]
            logits.append(logits_TBC.mean(0))
            losses.append(loss(logits_TBC, label_B))
            if "gradient_norms" in watch:
                norms += self._norms(model, input, label_B)
        return Survey(
            logits_NC=torch.cat(logits).float().cpu(),
            label_N=self.label_N,
            loss_N=torch.cat(losses).float().cpu(),
            gradient_norm_N=torch.cat(norms).float().cpu() if norms else None,
        )

    def _norms(self, model: nn.Module, input: Tensor, label_B: Tensor) -> list[Tensor]:
        """Without autocast, whatever the run's precision: a score is exact or it is another score."""
        batched = 1 if input.dim() == 5 else 0
        parts = zip(input.split(SURVEY_BATCH, batched), label_B.split(SURVEY_BATCH), strict=True)
        return [gradient_norms(model, LOSSES[self.spec.loss], part, label) for part, label in parts]
