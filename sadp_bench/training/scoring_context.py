"""Networks, trainings by the run's own loop, and surveys of the training set, which a run may use before training."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.core import distributed
from sadp_bench.core.clock import Clock
from sadp_bench.core.errors import BadInput
from sadp_bench.core.evaluation_mode import evaluation_mode
from sadp_bench.core.progress import Progress
from sadp_bench.core.rng import stream_seed
from sadp_bench.pruners.base import FreshSubset, KeepAll, Pruner
from sadp_bench.pruners.exchange import Survey
from sadp_bench.records.naming import run_name
from sadp_bench.records.spec import Spec
from sadp_bench.sparsity.base import Sparsity
from sadp_bench.training.backprop import at_precision
from sadp_bench.training.checkpoint import State
from sadp_bench.training.data import Loader
from sadp_bench.training.loop import TrainingState, train
from sadp_bench.training.optimizer import make_optimizer
from sadp_bench.training.shared_file import SharedFile
from sadp_bench.training.state_checks import (
    SCORE_RULE,
    check_rows,
    check_scores,
    check_spent,
    check_training,
    contents,
    is_count,
    require,
    score_fault,
)
from sadp_bench.training.survey import SURVEY_BATCH, survey

# Fields of a survey that are equal for all examples where the network is silent, and their names in messages.
OUTPUTS = {"logits_NC": "the logits", "feature_ND": "the features", "spikes_ND": "the spikes"}
SAME = 1e-6  # share of the largest value; a larger difference is no rounding error of float32
NOTHING_SPENT: dict[str, Any] = {"seconds": 0.0, "cpu_seconds": 0.0, "visits": 0}


class RunContext:
    """The scoring and search context of one run, which can be saved and resumed after every epoch trained in it.

    It implements `pruners.base.ScoringContext` and `sparsity.base.SearchContext`. Costs are always added, never set. So
    seconds and visits only grow, also in a resumed run.

    Args:
        spec: The run. Scoring networks follow the schedule of its full-data run.
        data: The training set.
        num_classes: Classes of the data.
        build: Makes an untrained network on the device from a seed and a number of time steps.
        clock: The run's clock, in the phase "prepare" while the context is used.
        progress: Receives an event for every batch.
        scores_file: Scores of the runs that differ in the ratio alone; None: the run makes its scores itself.
        search_file: The search of the runs that differ in method and ratio alone; None: the run makes its search itself.
        save: Called after every epoch, at which the context can be resumed.
        score_columns: The method's `Pruner.score_columns`.
        data_sha256: SHA-256 of the run's data; "": not known.

    Attributes:
        visits: Example visits that scoring and search made.
        scores_from: Key of the run whose scores this run uses; None where it made them itself.
        kept: State that the search has kept for a resume.
    """

    def __init__(
        self,
        spec: Spec,
        data: Loader,
        num_classes: int,
        build: Callable[[int, int], nn.Module],
        clock: Clock,
        progress: Progress,
        scores_file: SharedFile | None = None,
        search_file: SharedFile | None = None,
        save: Callable[[], None] = lambda: None,
        score_columns: int = 0,
        data_sha256: str = "",
    ) -> None:
        self.spec, self.data, self.num_classes = spec, data, num_classes
        self.num_examples, self.num_epochs = len(data), spec.epochs
        self.timesteps, self.seed, self.device = spec.timesteps, spec.seed, data.device
        self.label_N: Tensor = data.label_N.cpu()
        self.data_sha256 = data_sha256
        self.visits = 0
        self.scores_from: str | None = None
        self.kept: State = {}
        self._score_columns = score_columns
        self._build, self._clock, self._progress = build, clock, progress
        self._scores_file, self._search_file, self._save = scores_file, search_file, save
        self._fits: dict[str, State] = {}  # scoring and search trainings so far, by name
        self._num_fits = {"scoring": 0, "search": 0}
        self._scores: State | None = None
        self._has_scored = False
        self._search_start = NOTHING_SPENT
        self._search_kept = {"fits": 0, **NOTHING_SPENT}  # trainings, seconds and visits that made `kept`
        self._unsaved: BadInput | None = None

    def fresh_model(self, seed: int) -> nn.Module:
        """Returns an untrained network with other weights than the run's, so that scores do not depend on the run's."""
        return self._build(stream_seed(self.spec.seed, f"scoring {seed}"), self.timesteps)

    def message(self, text: str) -> None:
        """Reports a line that begins with the run's name."""
        self._progress.message(f"{run_name(self.spec)}, {self.spec.sparsity}: {text}")

    @property
    def updates_per_epoch(self) -> int:
        """Number of updates of an epoch on all data."""
        return self.spec.updates_per_epoch

    def fit(self, pruner: Pruner, epochs: float, seed: int) -> nn.Module:
        """Returns a network trained for `epochs` epochs of the full-data run's schedule, with all connections.

        The last epoch may be partial.
        """
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
        ratio: float = 0.0,
    ) -> Iterator[nn.Module]:
        """Trains a network for the search and yields it after each epoch; see `SearchContext.train`."""
        model = self._build(self.spec.seed, timesteps)
        pruner = FreshSubset(ratio) if ratio else KeepAll()
        if weights is not None:
            model.load_state_dict(weights)
        pruner.prepare(self)
        state = TrainingState(model, pruner, make_optimizer(model, self.spec), sparsity)
        state.rows = [{"epoch": epoch, "kept": 0} for epoch in range(first_epoch)]
        for _ in self._fit("search", state, self.num_epochs if epochs is None else epochs, 0):
            yield model

    def _fit(self, kind: str, state: TrainingState, epochs: float, seed: int) -> Iterator[None]:
        """Trains until `epochs` epochs are done, charges them, and yields after each.

        A resumed training continues after its last saved epoch, and yields for that epoch first.
        """
        # These trainings keep the same share in every epoch, so both clocks of the learning rate agree. The clock of
        # epochs also fits a training that begins late, after epochs without visits.
        spec = dataclasses.replace(self.spec, protocol="epochs", lr_clock="epochs")
        number = self._num_fits[kind] = self._num_fits[kind] + 1
        name = f"{kind} {number}"
        with self._clock.uncharged():
            start = self._spent()
            resumed = self._resume_fit(name, state)
        left = epochs - len(state.rows)
        if left > 0:
            self._progress.start(f"{spec.method}: {kind}", round(left * self.num_examples), math.ceil(epochs))
        order_seed = stream_seed(spec.seed, f"{kind} {seed if kind == 'scoring' else number}")
        try:
            if resumed:
                yield
            for row in train(state, self.data, spec, Clock(self.device), self._progress, order_seed, until=epochs):
                self.visits += row["kept"]
                self._progress.epoch(row, self.num_examples)
                with self._clock.uncharged():
                    self._note_fit(name, state, start)
                    self._save()
                yield
        finally:
            self._progress.stop()
            with self._clock.uncharged():
                self._finish_fit(name)

    def _note_fit(self, name: str, state: TrainingState, start: State) -> None:
        """Stores the state of a training. A training that can't be saved goes on; `state_dict` raises its error."""
        try:
            self._fits[name] = {"training": state.state_dict(), "spent": self._spent_since(start)}
        except BadInput as error:
            self._unsaved = error

    def _finish_fit(self, name: str) -> None:
        """Keeps the parts of a finished training that a resume needs: copies, without the optimizer."""
        if name in self._fits:
            training = {part: value for part, value in self._fits[name]["training"].items() if part != "optimizer"}
            self._fits[name] = copy.deepcopy(self._fits[name] | {"training": training})

    def _resume_fit(self, name: str, state: TrainingState) -> bool:
        """Restores a saved training and charges its cost. Returns whether there was one."""
        if name not in self._fits:
            return False
        saved = self._fits[name]["training"]
        try:
            with contents():
                check_training(saved, state, self.num_examples)
        except BadInput as error:
            self._progress.message(f"the checkpoint's training {name} is {error}: it begins anew")
            del self._fits[name]
            return False
        state.load_state_dict(saved)
        self._charge(self._fits[name]["spent"])
        return True

    def _spent(self) -> State:
        """Returns seconds and visits so far, and CPU seconds where they are known. The clock must be stopped."""
        seconds, cpu_seconds = self._clock.seconds["prepare"], self._clock.cpu_seconds.get("prepare")
        spent: State = {"seconds": seconds, "visits": self.visits}
        return spent if cpu_seconds is None else spent | {"cpu_seconds": cpu_seconds}

    def _spent_since(self, start: State) -> State:
        return {name: value - start[name] for name, value in self._spent().items() if name in start}

    def _charge(self, spent: State) -> None:
        self._clock.charge("prepare", spent["seconds"], spent.get("cpu_seconds"))
        self.visits += spent["visits"]

    def _forget_fits(self, kind: str) -> None:
        self._fits = {name: fit for name, fit in self._fits.items() if not name.startswith(kind)}

    def state_dict(self) -> State:
        """Returns the state for a resume, tensors and plain values. Raises BadInput where a training can't be saved."""
        if self._unsaved is not None:
            raise self._unsaved
        return {"fits": self._fits, "scores": self._scores, "kept": self.kept, "search_kept": self._search_kept}

    def load_state_dict(self, state: State) -> None:
        """Loads the state of `state_dict`. A cost is charged when the run comes to the saved work."""
        self._fits, self._scores = dict(state["fits"]), state["scores"]
        self.kept, self._search_kept = dict(state["kept"]), state["search_kept"]

    def check_state(self, state: State) -> None:
        """Raises BadInput for a state that `state_dict` does not make. The trainings' networks are checked when loaded."""
        for fit in state["fits"].values():
            check_spent(fit["spent"])
            check_rows(fit["training"]["rows"], fit["training"]["visits_N"], self.num_examples)
        if state["scores"] is not None:
            check_scores(state["scores"], self.num_examples, self._score_columns)
        check_spent(state["search_kept"])
        require(is_count(state["search_kept"]["fits"]), "trainings", state["search_kept"]["fits"], "a count")
        require(isinstance(state["kept"], dict), "search", state["kept"], "a table")

    def logits(self, model: nn.Module, num_examples: int) -> Tensor:
        """Returns the logits of the first n training examples, the same on every rank. [T, n, C]."""
        forward, index_n = at_precision(model, self.spec.precision, self.device), torch.arange(self.num_examples)
        distributed.share_buffers(model)
        index_n = index_n[:num_examples]
        self.visits += len(index_n)
        with evaluation_mode(model), torch.no_grad():
            parts = [forward(self.data.input(index_B)) for index_B in index_n.split(SURVEY_BATCH)]
        return torch.cat(parts, 1).float()

    def survey(self, model: nn.Module, watch: frozenset[str] = frozenset()) -> Survey:
        """Returns logits, losses and the watched fields of a pass over the training set; see `ScoringContext.survey`."""
        found = survey(model, self.data, self.spec, watch)
        self.visits += self.num_examples
        rows = {name: row for name in OUTPUTS if (row := getattr(found, name)) is not None}
        if same := [what for name, what in OUTPUTS.items() if name in rows and all_equal(rows[name])]:
            self.message(
                f"the scoring network is silent: {' and '.join(same)} are the same for all examples, so labels "
                "and seed alone decide; train it longer (--set score_epochs=n)"
            )
        return found

    def scores(self, score: Callable[[], Tensor]) -> Tensor:
        """Returns the scores, [N]: the run's own, or those of a run that differs in the ratio alone."""
        if self._has_scored:
            raise BadInput(
                f"{self.spec.method} calls context.scores more than once; one file of scores is kept for a run"
            )
        self._has_scored = True
        if self._scores is not None:
            self._charge(self._scores)
        else:
            self._scores = self._shared(lambda: self._score(score), self._scores_file)
            self._forget_fits("scoring")
        self.scores_from = self._scores["by"] if self._scores["by"] != self.spec.key else None
        score_N: Tensor = self._scores["score_N"]
        if all_equal(score_N):
            self.message("all scores are equal, so the seed alone decides among the examples")
        return score_N

    def _shared(self, make: Callable[[], State], file: SharedFile | None) -> State:
        """Returns the result in the file, and charges it. Without one it makes a result, which it writes to the file."""
        if file is None:
            return make()
        with self._clock.uncharged():
            found = file.find_or_lock()
        if found is not None:
            self._charge(found)
            return found
        try:
            made = make()
            with self._clock.uncharged():
                file.write(made)
            return made
        finally:
            file.unlock()

    def _score(self, score: Callable[[], Tensor]) -> State:
        with self._clock.uncharged():
            start = self._spent()
        score_N = score()
        with self._clock.uncharged():
            fault = score_fault(score_N, self.num_examples, self._score_columns)
        if fault:
            raise BadInput(
                f"{self.spec.method} makes scores that are {fault}: they are {self.num_examples} {SCORE_RULE}"
            )
        with self._clock.uncharged():
            return {"score_N": score_N, **self._spent_since(start), "by": self.spec.key}

    def search(self, sparsity: Sparsity, model: nn.Module) -> dict[str, Any]:
        """Prepares the connections and charges it. Returns the facts for the record, with the search's cost.

        A search has the network's seed, the full data and random streams of its own. So it does not depend on the method.
        """
        if not sparsity.searches:
            return self._prepared(sparsity, model)
        found = self._shared(lambda: self._searched(sparsity, model), self._search_file)
        with self._clock.uncharged():
            model.load_state_dict(found["model"])
            sparsity.load_state_dict(found["sparsity"])
            cost = {name: found[name] for name in ("seconds", "visits")}
            return found["ticket"] | cost | ({"from": found["by"]} if found["by"] != self.spec.key else {})

    def _searched(self, sparsity: Sparsity, model: nn.Module) -> State:
        ticket = self._prepared(sparsity, model)
        with self._clock.uncharged():
            state = {"ticket": ticket, "model": model.state_dict(), "sparsity": sparsity.state_dict()}
            return state | self._spent_since(self._search_start) | {"by": self.spec.key}

    def _prepared(self, sparsity: Sparsity, model: nn.Module) -> dict[str, Any]:
        with self._clock.uncharged():
            self._search_start = self._spent()
            self._charge(self._search_kept)
            self._num_fits["search"] = self._search_kept["fits"]
        return sparsity.prepare(self, model)

    def keep(self, **state: Any) -> None:
        """Adds to the state that a resumed search finds in `kept`. Drops the states of the trainings so far."""
        with self._clock.uncharged():
            self.kept |= state
            self._search_kept = {"fits": self._num_fits["search"], **self._spent_since(self._search_start)}
            self._forget_fits("search")


def all_equal(value_N: Tensor) -> bool:
    """Returns whether the rows of two or more examples are all equal, except for rounding in float32."""
    low, high = (bound.double() for bound in value_N.aminmax(dim=0))
    same = (high == low) | (high - low < SAME * torch.maximum(high.abs(), low.abs()))  # false with one infinite bound
    return len(value_N) > 1 and bool(same.all())
