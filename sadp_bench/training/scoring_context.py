"""What a pruner may use to prepare: networks, the run's own loop, a pass over the training set."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from sadp_bench.capture.per_example_norms import gradient_norms
from sadp_bench.core import distributed
from sadp_bench.core.clock import Clock
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import LOSSES
from sadp_bench.core.progress import Progress
from sadp_bench.core.rng import stream_seed
from sadp_bench.pruners.base import KeepAll, Pruner, Survey
from sadp_bench.records.spec import Spec
from sadp_bench.sparsity.base import Sparsity
from sadp_bench.training.backprop import at_precision
from sadp_bench.training.checkpoint import State
from sadp_bench.training.data import Loader
from sadp_bench.training.evaluation import predictions
from sadp_bench.training.loop import TrainingState, train
from sadp_bench.training.optimizer import make_optimizer
from sadp_bench.training.shared_scores import SharedScores

SURVEY_BATCH = 64


class RunContext:
    """What the pruner and the search of one run may use before training. It can be saved and resumed at every epoch of its
    scoring and searching runs. See `pruners.base.ScoringContext` and `sparsity.base.SearchContext`.

    num_epochs: of the full-data run, whose schedule scoring networks follow.
    build: makes an untrained network from a seed, on the device, of so many time steps. clock: stands in "prepare" while the
    context is used. visits: example visits that scoring and searching made. fits: their runs so far by name, as a checkpoint
    holds them.
    save: called where the context could be taken up again. shared: scores that differ in the ratio alone (none: None).
    """

    def __init__(
        self,
        spec: Spec,
        data: Loader,
        num_classes: int,
        build: Callable[[int, int], nn.Module],
        clock: Clock,
        progress: Progress,
    ) -> None:
        self.spec = spec
        self.data = data
        self.num_examples = len(data)
        self.num_classes = num_classes
        self.num_epochs = spec.epochs
        self.timesteps = spec.timesteps
        self.seed = spec.seed
        self.device = data.device
        self.label_N: Tensor = data.label_N.cpu()
        self.visits = 0
        self.fits: dict[str, State] = {}
        self.save: Callable[[], None] = lambda: None
        self.shared: SharedScores | None = None
        self.scores_from: str | None = None
        self._num_fits: dict[str, int] = {}
        self._scored = False
        self._lost: BadInput | None = None
        self._build = build
        self._clock = clock
        self._progress = progress

    def fresh_model(self, seed: int) -> nn.Module:
        """Its weights are none of the run's own: scores come from other networks than the one they choose for."""
        return self._build(stream_seed(self.spec.seed, f"scoring {seed}"), self.timesteps)

    def say(self, text: str) -> None:
        self._progress.say(f"{self.spec.method} {self.spec.ratio:g}, {self.spec.sparsity}: {text}")

    def fit(self, pruner: Pruner, epochs: int, seed: int) -> nn.Module:
        """The schedule is that of the whole run, stopped after so many epochs. All connections exist."""
        model = self.fresh_model(seed)
        pruner.prepare(self)
        for _ in self._fit("scoring", TrainingState(model, pruner, make_optimizer(model, self.spec)), epochs, seed):
            pass
        return model

    def train(
        self,
        sparsity: Sparsity,
        *,
        timesteps: int,
        weights: Mapping[str, Tensor] | None = None,
        first_epoch: int = 0,
        epochs: int | None = None,
    ) -> Iterator[nn.Module]:
        model, pruner = self._build(self.spec.seed, timesteps), KeepAll()
        if weights is not None:
            model.load_state_dict(weights)
        pruner.prepare(self)
        training = TrainingState(model, pruner, make_optimizer(model, self.spec), sparsity)
        training.rows = [{"epoch": epoch, "kept": 0} for epoch in range(first_epoch)]
        for _ in self._fit("search", training, self.num_epochs if epochs is None else epochs, 0):
            yield model

    def _fit(self, kind: str, training: TrainingState, epochs: int, seed: int) -> Iterator[None]:
        """Trains to so many epochs, charged, and stops after each; of what a checkpoint holds after the last only."""
        spec = dataclasses.replace(self.spec, protocol="epochs")
        number = self._num_fits[kind] = self._num_fits.get(kind, 0) + 1
        name, of_kind = f"{kind} {number}", seed if kind == "scoring" else number
        with self._clock.uncharged():
            taken_up = self._take_up(name, training)
        left = epochs - len(training.rows)
        if left > 0:
            self._progress.start(f"{spec.method}: {kind}", left * self.num_examples, epochs)
        order = stream_seed(spec.seed, f"{kind} {of_kind}")
        try:
            if taken_up:
                yield
            for row in train(training, self.data, spec, Clock(self.device), self._progress, order, until=epochs):
                self.visits += row["kept"]
                self._progress.epoch(row, self.num_examples)
                with self._clock.uncharged():
                    self._note(name, training)
                    self.save()
                yield
        finally:
            self._progress.stop()
            with self._clock.uncharged():
                self.fits = copy.deepcopy(self.fits)  # whatever the network is used for next

    def _note(self, name: str, training: TrainingState) -> None:
        """Keeps how far such a run is. One that can't be kept is no reason to end it: `state` will tell."""
        try:
            now = {"visits": self.visits, "seconds": self._clock.seconds["prepare"]}
            self.fits[name] = training.state_dict() | now
        except BadInput as error:
            self._lost = error

    def state(self) -> dict[str, State]:
        """The runs so far, for a checkpoint. Raises BadInput where one can't be kept."""
        if self._lost is not None:
            raise self._lost
        return self.fits

    def _take_up(self, name: str, training: TrainingState) -> bool:
        """Puts a run that a checkpoint holds back to where it was, visits and seconds included."""
        if name not in self.fits:
            return False
        kept = self.fits[name]
        training.load_state_dict(kept)
        self.visits, self._clock.seconds["prepare"] = kept["visits"], kept["seconds"]
        return True

    def logits(self, model: nn.Module, num_examples: int) -> Tensor:
        """Of the same examples on every rank."""
        forward, index_n = at_precision(model, self.spec.precision, self.device), torch.arange(self.num_examples)
        distributed.share_buffers(model)
        model.eval()
        self.visits += len(index_n[:num_examples])
        with torch.no_grad():
            parts = [forward(self.data.input(index_B)) for index_B in index_n[:num_examples].split(SURVEY_BATCH)]
        return torch.cat(parts, 1).float()

    def survey(self, model: nn.Module, watch: frozenset[str] = frozenset()) -> Survey:
        self.visits += self.num_examples
        loss = LOSSES[self.spec.loss]
        logits_NC = torch.zeros(self.num_examples, self.num_classes, device=self.device)
        loss_N, norm_N = torch.zeros(2, self.num_examples, device=self.device)
        for index_B, logits_TBC, input in predictions(model, self.data, self.spec.precision):
            index_B = index_B.to(self.device)
            label_B = self.data.label_N[index_B]
            logits_NC[index_B] = logits_TBC.mean(0).float()
            loss_N[index_B] = loss(logits_TBC, label_B).float()
            if "gradient_norms" in watch:
                norm_N[index_B] = self._norms(model, input, label_B).float()
        # Of several processes each has filled its own part: zeros elsewhere leave the sums exact.
        logits_NC, loss_N, norm_N = (distributed.total(part).cpu() for part in (logits_NC, loss_N, norm_N))
        return Survey(logits_NC, self.label_N, loss_N, norm_N if "gradient_norms" in watch else None)

    def _norms(self, model: nn.Module, input: Tensor, label_B: Tensor) -> Tensor:
        """Without autocast, whatever the run's precision: a score is exact or it is another score."""
        batched = 1 if input.dim() == 5 else 0
        parts = zip(input.split(SURVEY_BATCH, batched), label_B.split(SURVEY_BATCH), strict=True)
        return torch.cat([gradient_norms(model, LOSSES[self.spec.loss], part, label) for part, label in parts])

    def scores(self, score: Callable[[], Tensor]) -> Tensor:
        if self._scored:
            raise BadInput(
                f"{self.spec.method} calls context.scores more than once; one file of scores is kept for a run"
            )
        self._scored = True
        if self.shared is None:
            return score()
        with self._clock.uncharged():
            found = self.shared.find_or_lock()
        if found is None:
            try:
                return self._shared_score(score, self.shared)
            finally:
                self.shared.unlock()
        self._clock.seconds["prepare"] += found["seconds"]
        self.visits += found["visits"]
        self.scores_from = found["by"] if found["by"] != self.spec.key else None
        score_N: Tensor = found["score_N"]
        return score_N

    def _shared_score(self, score: Callable[[], Tensor], shared: SharedScores) -> Tensor:
        with self._clock.uncharged():
            seconds, visits = self._clock.seconds["prepare"], self.visits
        score_N = score()
        with self._clock.uncharged():
            seconds, visits = self._clock.seconds["prepare"] - seconds, self.visits - visits
            shared.write({"score_N": score_N, "seconds": seconds, "visits": visits, "by": self.spec.key})
        return score_N
