"""One run from its spec to its record, with all that a checkpoint of it must hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sadp_bench.capture.heads import inference_parameters
from sadp_bench.core import distributed
from sadp_bench.core.clock import Clock
from sadp_bench.core.errors import BadInput
from sadp_bench.core.progress import Progress
from sadp_bench.core.time_limit import TimeLimit
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.contract import update_size
from sadp_bench.records import visit_counts
from sadp_bench.records.metrics import BUDGET_TOLERANCE, realised_ratio
from sadp_bench.records.naming import run_name
from sadp_bench.records.record import Record
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import Store
from sadp_bench.runs import environment, outcome
from sadp_bench.runs.building import enough_memory, make_pruner, make_sparsity
from sadp_bench.runs.expected_cost import expected_visits, training_visits
from sadp_bench.runs.live_products import LiveProducts
from sadp_bench.runs.material import Material
from sadp_bench.runs.peak_memory import PeakMemory, peak_bytes, reset_peak
from sadp_bench.runs.preflight import check_shareable
from sadp_bench.runs.preparation import preparations
from sadp_bench.runs.resources import Resources
from sadp_bench.training import evaluation, loop, rehearsal
from sadp_bench.training.checkpoint import Checkpoint
from sadp_bench.training.gradient_cosine import RunCosine
from sadp_bench.training.loggers.base import LoggedRun, Logger
from sadp_bench.training.optimizer import make_optimizer
from sadp_bench.training.scoring_context import RunContext
from sadp_bench.training.shared_file import SharedFile
from sadp_bench.training.state_checks import Accept, check_head, check_run, check_scores, check_search
from sadp_bench.training.weight_average import WeightAverage


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Lets torch compute on `number` threads within the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class RunTrainer:
    """Trains one run: prepares its pruner and its connections, trains, evaluates, and returns the record.

    Args:
        spec: The run.
        resources: Data, network and environment, which other runs may share.
        progress: Is informed of every batch.
        checkpoint: Where the run is saved, and resumed from; None: it is not saved.
        scores_path: Where runs share scores that differ in the ratio alone; None: they are not shared.
        search_path: Where runs share a search that differ in method and ratio alone; None: it is not shared.
        fresh: Makes scores and search anew, and replaces their files.
        starts: How often the run was started, this start included.
        replaces: When the record was finished that this run replaces. Only a checkpoint with the same value is resumed.
        before_save: Called before each save; an error that it raises ends the run.
        limit: Ends the run after the epoch in which it is over; None: no limit.
        logger: Receives the run's epochs, off the clock.

    Attributes:
        state: What training changes.
        prepared: Whether pruner and connections are prepared.
        ticket: The facts of the search for connections.
        cosine: Of SLTT's gradient.
        environment: Where the run took place, in all its parts.
    """

    def __init__(
        self,
        spec: Spec,
        resources: Resources,
        progress: Progress,
        *,
        checkpoint: Checkpoint | None = None,
        scores_path: Path | None = None,
        search_path: Path | None = None,
        fresh: bool = False,
        starts: int = 1,
        replaces: str | None = None,
        before_save: Callable[[], None] = lambda: None,
        limit: TimeLimit | None = None,
        logger: Logger | None = None,
    ) -> None:
        limit = limit or TimeLimit()
        self.spec, self.resources, self.progress = spec, resources, progress
        self.data, self.held, self.device = resources.train, resources.held, resources.device
        self.clock = Clock(self.device)
        sparsity = make_sparsity(spec)
        model = resources.model(change=lambda model: sparsity.build(model, resources.products, spec.seed))
        average = WeightAverage(spec.ema) if spec.ema else None
        optimizer = make_optimizer(model, spec)
        self.state = loop.TrainingState(model, make_pruner(spec), optimizer, sparsity, average=average)
        self.environment = dict(resources.environment)

        def shared(path: Path | None, noun: str, accept: Accept) -> SharedFile | None:
            if path is None:
                return None
            made_in = {"data_sha256": self.material.sha256, "environment": self.environment}
            return SharedFile(path, noun, made_in, self.device, progress, fresh, accept, limit)

        self.context = RunContext(
            spec,
            self.data,
            len(self.material.dataset.class_names),
            resources.model,
            self.clock,
            progress,
            shared(
                scores_path, "scores", lambda scores: check_scores(scores, len(self.data), self.pruner.score_columns)
            ),
            shared(search_path, "search", lambda search: check_search(search, model)),
            self._save,
            self.pruner.score_columns,
            self.material.sha256,
        )
        self.prepared = False
        self.ticket: dict[str, Any] = {}
        self.cosine = RunCosine(spec, self.data)
        self._checkpoint, self._before_save = checkpoint, before_save
        self._starts, self._replaces = starts, replaces
        self._limit = limit
        self._logger, self._is_logged = logger or Logger(), False
        self._peak = 0  # bytes, before the measurements that are no part of training

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.state.model

    @property
    def material(self) -> Material:
        """The data."""
        return self.resources.material

    @property
    def pruner(self) -> Pruner:
        """The pruner."""
        return self.state.pruner

    def run(self) -> Record:
        """Trains the run to its end, from its checkpoint on where there is one, and returns its record.

        Raises:
            BadInput: The method misses its budget.
            Diverged: The loss is not finite.
            TimeIsUp: The limit is over; a checkpoint contains the finished epochs.
        """
        with self._logged() as end, threads(self.spec.threads), enough_memory(self.spec):
            peak_before, memory = peak_bytes(self.device), PeakMemory(self.device)
            with memory.tracked():  # which resets the peak
                size = update_size(self.pruner, len(self.data), self.spec.batch_size)
                rehearsal.rehearse(self.model, self.data, self.spec.of_valid(batch_size=size))
            self._resume()
            self.environment = self.environment | environment.load("start")  # of shared scores it is no part
            reset_peak(self.device)
            if not self.prepared:
                self.prepare()
                self._save()
            measured = self._train()
            peak_after = max(self._peak, peak_bytes(self.device))
            measured["peak_memory_bytes"] = peak_after if self.device.type == "cuda" else max(peak_before, peak_after)
            record = self._record(measured | {"train_memory_bytes": memory.extra_bytes})
            self._check_budget(record)
            end(record)
        return record

    @contextmanager
    def _logged(self) -> Iterator[Callable[[Record], None]]:
        """Ends what the logger has started. Yields a function that receives the record of a run that ends well."""
        content: dict[str, Any] | None = None

        def end(record: Record) -> None:
            nonlocal content
            content = record.to_json()

        try:
            yield end
        finally:
            if self._is_logged:
                self._logger.end(content)

    def prepare(self) -> None:
        """Prepares pruner and connections, charged."""
        with self.clock("prepare"):
            self.pruner.prepare(self.context)
            with self.clock.uncharged():
                check_shareable(self.spec, self.pruner)
            self.ticket = self.context.search(self.state.sparsity, self.model)
        self.prepared = True

    def rows(self) -> Iterator[loop.EpochRow]:
        """Trains epoch by epoch and yields each one's row; see `training.loop.train`."""
        return loop.train(self.state, self.data, self.spec, self.clock, self.progress, self.spec.seed)

    def state_dict(self) -> dict[str, Any]:
        """Returns all that must outlive an interruption: plain values and tensors."""
        head = {"replaces": self._replaces, "environment": self.environment}
        if not self.prepared:
            return head | {"context": self.context.state_dict()}
        return head | {
            "seconds": self.clock.seconds,
            "cpu_seconds": self.clock.cpu_seconds,
            "visits": self.context.visits,
            "scores_from": self.context.scores_from,
            "ticket": self.ticket,
            "gradient_cosine": self.cosine.found,
            "training": self.state.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads the state of `state_dict`."""
        self.environment.update(environment.joined_environments(state["environment"], self.environment))
        if "context" in state:
            self.context.load_state_dict(state["context"])
            return
        self.state.load_state_dict(state["training"])
        self.clock.seconds, self.clock.cpu_seconds = dict(state["seconds"]), dict(state.get("cpu_seconds", {}))
        self.context.visits, self.context.scores_from = state["visits"], state["scores_from"]
        self.ticket, self.cosine.found = state["ticket"], state.get("gradient_cosine", {})
        self.prepared = True

    def _check_state(self, state: Mapping[str, Any]) -> None:
        """Raises BadInput, or any error of wrong types, where a checkpoint's content is not this run's."""
        check_head(state)
        if "context" in state:
            self.context.check_state(state["context"])
            return
        pruner = make_pruner(self.spec)
        pruner.load_state_dict(state["training"]["pruner"])  # A run's length may depend on the findings of `prepare`.
        length = math.ceil(loop.run_length(pruner, self.spec, len(self.data)))
        check_run(state, self.state, len(self.data), length, self.spec.evaluate_every)

    def _save(self, is_last: bool = False) -> None:
        """Writes a checkpoint if one is due. Raises TimeIsUp where the time is over, after a checkpoint."""
        is_over = not is_last and self._limit.is_over()
        if self._checkpoint is not None and distributed.rank() == 0 and (is_over or self._checkpoint.due()):
            self._before_save()
            self._checkpoint.write(self.state_dict)
        if is_over:
            raise self._limit.error(f"{run_name(self.spec)} was {self._place()}")

    def _place(self) -> str:
        """Returns how far the run is, for messages."""
        return f"after epoch {len(self.state.rows)}" if self.prepared else "in its preparation"

    def _resume(self) -> None:
        """Puts the run back to where its checkpoint left it, and reports that."""
        with distributed.first_goes_ahead():
            state = self._checkpoint.read(self.device, self._check_state) if self._checkpoint else None
        if state is None or state["replaces"] != self._replaces:
            return
        self.load_state_dict(state)
        self.progress.message(f"{run_name(self.spec)} goes on from its checkpoint, {self._place()}")

    def _train(self) -> dict[str, Any]:
        """Trains and evaluates. Returns the measurements of the trained network."""
        spec, progress = self.spec, self.progress
        length = math.ceil(loop.run_length(self.pruner, spec, len(self.data)))
        left = training_visits(spec) - sum(row["kept"] for row in self.state.rows)
        progress.start(run_name(spec), round(left), length)
        name, self._is_logged = Store(Path()).path(spec, "").name, True
        self._logger.start(LoggedRun(name, spec.key, spec.flat(), [dict(row) for row in self.state.rows]))
        live = LiveProducts(self.model, self.state.sparsity, self.held, self.resources.products)
        try:
            for row in self.rows():
                row |= live.of_epoch()
                if row["epoch"] + 1 == length or (row["epoch"] + 1) % spec.evaluate_every == 0:
                    with self.clock("evaluate"), self.state.evaluated():
                        accuracy = evaluation.evaluate(self.model, self.held, spec.precision, row["epoch"])
                        row["test_accuracy"] = accuracy
                if self.cosine.due(row["epoch"], length):
                    self._measure_cosine(row["epoch"])
                progress.epoch(row, len(self.data))
                self._logger.epoch(dict(row))
                self._save(is_last=row["epoch"] + 1 == length)
            if self.state.average is not None:  # The record, and the weights that are kept, are those of the average.
                self.state.average.load_into(self.model)
            with self.clock("evaluate"):
                measured = outcome.of_inference(self.model, self.held, self.material, spec, self.state.sparsity.masks)
                measured["operations"] |= live.of_dense()
            with self._beside_training():
                return measured | evaluation.fitted(self.model, self.data, spec)
        finally:
            progress.stop()

    @contextmanager
    def _beside_training(self) -> Iterator[None]:
        """Charges a measurement to the phase "evaluate", and leaves its memory out of the run's peak."""
        self._peak = max(self._peak, peak_bytes(self.device))
        try:
            with self.clock("evaluate"):
                yield
        finally:
            reset_peak(self.device)

    def _measure_cosine(self, epoch: int) -> None:
        """Measures SLTT's gradient, not charged. BPTT's memory may not suffice: then the record contains none."""
        try:
            with self._beside_training(), enough_memory(self.spec):
                self.cosine.measure(epoch, self.model, self.state.sparsity.masks)
        except BadInput as error:
            self.progress.message(f"no cosine with BPTT's gradient: {error}")

    def _record(self, measured: Mapping[str, Any]) -> Record:
        rows, visits_N = self.state.rows, self.state.visits_N
        return Record(
            spec=self.spec,
            environment=self.environment | environment.load("end"),
            seconds=dict(self.clock.seconds),
            cpu_seconds=dict(self.clock.cpu_seconds),
            num_examples=len(self.data),
            examples_seen=sum(row["kept"] for row in rows),
            prepare_examples=self.context.visits,
            epochs=rows,
            test_accuracy=rows[-1]["test_accuracy"],
            test_examples=len(self.held),
            num_parameters=inference_parameters(self.model),
            density=self.state.sparsity.live_share(),
            ticket=self.ticket | self.state.sparsity.facts(),
            gradient_cosine=self.cosine.found,
            data_sha256=self.material.sha256,
            finished=now(),
            interruptions=self._starts - 1,
            scores_from=self.context.scores_from,
            visits=visit_counts.pack(visits_N.tolist()) if len(rows) <= visit_counts.MAX_VISITS else None,
            class_visits=outcome.class_visits(self.material, visits_N),
            **measured,
        )

    def _check_budget(self, record: Record) -> None:
        missed = realised_ratio(record) - self.spec.ratio
        if abs(missed) > BUDGET_TOLERANCE and not self.pruner.exempt:
            raise BadInput(
                f"{self.spec.method} saved {realised_ratio(record):.4f} of the visits where {self.spec.ratio:g} was asked "
                "for: a method must realise its budget to within 0.5 points, or refuse in `check`"
            )


def expected(specs: list[Spec], resources: Resources, before: Mapping[str, float] | None = None) -> list[float]:
    """Returns the seconds, charged or not, that each run is expected to take, from a few steps of the first.

    Args:
        specs: The runs.
        resources: Of all of them.
        before: Epochs' worth of visits that each run makes itself before training, by key; None: it shares nothing.
    """
    if not specs:
        return []
    if before is None:
        before = {key: sum(parts) for key, parts in preparations(specs).items()}
    with threads(specs[0].threads), enough_memory(specs[0]):
        per_visit = rehearsal.rehearse(resources.model(), resources.train, specs[0])
    return [per_visit * expected_visits(spec, len(resources.held), before[spec.key]) for spec in specs]


def now() -> str:
    """Returns the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
