"""One run from its spec to its record, with all that a checkpoint of it must hold."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import torch
from torch import nn

from sadp_bench.capture.synaptic_ops import operations
from sadp_bench.core import distributed
from sadp_bench.core.clock import Clock
from sadp_bench.core.errors import BadInput
from sadp_bench.core.progress import Progress
from sadp_bench.pruners.base import Pruner
from sadp_bench.records import visit_counts
from sadp_bench.records.metrics import BUDGET_TOLERANCE, realised_ratio
from sadp_bench.records.record import Record
from sadp_bench.records.spec import Spec
from sadp_bench.runs import environment
from sadp_bench.runs.expected_cost import expected_visits, training_visits
from sadp_bench.runs.peak_memory import PeakMemory
from sadp_bench.runs.resolve import Material, enough_memory, make_loader, make_model, make_pruner, make_sparsity
from sadp_bench.sparsity.base import density
from sadp_bench.training import evaluation, loop, optimizer, rehearsal
from sadp_bench.training.checkpoint import Checkpoint
from sadp_bench.training.scoring_context import RunContext

COUNTED = 512  # held examples at most whose synaptic operations are counted: each layer runs once more for it


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Bench:
    """One spec on its material: what `run`, `speed` and the checks set up alike.

    prepared: whether pruner and sparsity are. ticket: what the search of the connections tells. environment: where the run
    took place, all its parts. replaces: when the record was finished that this run is to replace; a checkpoint that is not of
    such a run is of no use to it.
    """

    def __init__(self, spec: Spec, material: Material, progress: Progress, jobs: int = 1) -> None:
        self.spec = spec
        self.material = material
        self.progress = progress
        self.device = torch.device(spec.device)
        self.clock = Clock(self.device)
        self.data = make_loader(spec, material, material.train)
        self.held = make_loader(spec, material, material.held)
        model = self.build(spec.seed)
        self.training = loop.TrainingState(
            model, make_pruner(spec), optimizer.make_optimizer(model, spec), make_sparsity(spec)
        )
        self.context = RunContext(spec, self.data, len(material.dataset.class_names), self.build, self.clock, progress)
        self.prepared = False
        self.ticket: dict[str, Any] = {}
        self.replaces: str | None = None
        self.environment = environment.describe(self.device, spec.threads, jobs)

    @property
    def model(self) -> nn.Module:
        return self.training.model

    @property
    def pruner(self) -> Pruner:
        return self.training.pruner

    def build(self, seed: int, timesteps: int | None = None) -> nn.Module:
        return make_model(self.spec, self.material, seed, timesteps)

    def prepare(self) -> None:
        """Has pruner and sparsity prepare, charged. Raises BadInput where several processes could not share what the pruner
        sees."""
        with self.clock("prepare"):
            self.pruner.prepare(self.context)
            self.search()
        self.prepared = True
        if (
            self.spec.processes > 1
            and type(self.pruner).observe is not Pruner.observe
            and not self.pruner.per_example()
        ):
            raise BadInput(
                f"{self.spec.method} keeps nothing of each example that several processes could share: let it keep what it "
                "observes in tensors of length N named *_N, or run it on one process"
            )

    def search(self) -> None:
        """For the connections that are to exist."""
        with self.clock.uncharged():
            seconds, visit_counts = self.clock.seconds["prepare"], self.context.visits
        found = self.training.sparsity.prepare(self.context, self.model)
        with self.clock.uncharged():
            if self.training.sparsity.searches:
                found |= {
                    "seconds": self.clock.seconds["prepare"] - seconds,
                    "visits": self.context.visits - visit_counts,
                }
            self.ticket = found

    def rows(self) -> Iterator[loop.Row]:
        return loop.train(self.training, self.data, self.spec, self.clock, self.progress, self.spec.seed)

    def state_dict(self) -> dict[str, Any]:
        """All that must outlive an interruption; plain values and tensors."""
        return {
            "seconds": self.clock.seconds,
            "visits": self.context.visits,
            "scores_from": self.context.scores_from,
            "replaces": self.replaces,
            "environment": self.environment,
            "ticket": self.ticket,
            **({"training": self.training.state_dict()} if self.prepared else {"fits": self.context.state()}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.environment.update(environment.joined(state["environment"], self.environment))
        self.ticket = state["ticket"]
        if "training" in state:
            self.training.load_state_dict(state["training"])
            self.clock.seconds = dict(state["seconds"])
            self.context.visits, self.context.scores_from = state["visits"], state["scores_from"]
            self.prepared = True
        else:  # the context puts its seconds and visits back itself, as far as they belong to what it needn't do again
            self.context.fits = state["fits"]

    def visits(self) -> float:
        """Returns about how many examples the epochs that are left will show."""
        return training_visits(self.spec) - sum(row["kept"] for row in self.training.rows)

    def expected_seconds(self, seconds_per_example: float) -> float:
        """Returns charged and uncharged seconds of the whole run, from a rehearsed step's time."""
        epochs = self.spec.epochs
        before = self.pruner.scoring_epochs(epochs) + self.training.sparsity.estimated_epochs(epochs)
        return seconds_per_example * expected_visits(self.spec, len(self.held), before) / self.spec.processes


def train_one(
    bench: Bench, checkpoint: Checkpoint | None = None, starts: int = 1, before_save: Callable[[], None] = lambda: None
) -> Record:
    """Prepares, trains and evaluates one run, from its checkpoint on where there is one.

    starts: how often the run was begun, this time included. before_save: may raise to end it. Raises BadInput where the
    method misses its budget, and `engine.Diverged` where the loss is no number any more.
    """
    spec, progress, clock = bench.spec, bench.progress, bench.clock

    def save() -> None:
        if checkpoint is not None and distributed.rank() == 0 and checkpoint.due():
            before_save()
            checkpoint.write(bench.state_dict)

    with threads(spec.threads), enough_memory(spec):
        peak, memory = _peak(bench.device), PeakMemory(bench.device)
        with memory.tracked():  # which resets the peak
            rehearsal.rehearse(bench.model, bench.data, spec)
        _take_up(bench, checkpoint)
        _reset_peak(bench.device)
        bench.context.save = save
        if not bench.prepared:
            bench.prepare()
            save()
        length = math.ceil(loop.run_length(bench.pruner, spec, len(bench.data)))
        progress.start(f"{spec.method} {spec.ratio:g}", round(bench.visits()), length)
        try:
            for row in bench.rows():
                if row["epoch"] + 1 == length or (row["epoch"] + 1) % spec.evaluate_every == 0:
                    with clock("evaluate"):
                        row["test_accuracy"] = evaluation.evaluate(bench.model, bench.held, spec.precision)
                progress.epoch(row, len(bench.data))
                save()
            with clock("evaluate"):
                rates = evaluation.firing_rates(bench.model, bench.held, spec.precision)
                counted = _operations(bench)
        finally:
            progress.stop()
        measured: dict[str, Any] = {
            "peak_memory_bytes": max(_peak(bench.device), 0 if bench.device.type == "cuda" else peak)
        }
        measured |= {"train_memory_bytes": memory.extra_bytes, "firing_rate": rates, "operations": counted}
        record = _record(bench, measured, starts - 1)
    missed = realised_ratio(record) - spec.ratio
    if abs(missed) > BUDGET_TOLERANCE and not bench.pruner.exempt:
        raise BadInput(
            f"{spec.method} saved {realised_ratio(record):.4f} of the visits where {spec.ratio:g} was asked for: "
            "a method must realise its budget to within 0.5 points, or refuse in `check`"
        )
    return record


def _take_up(bench: Bench, checkpoint: Checkpoint | None) -> None:
    """Puts the run back to where its checkpoint left it, and says so."""
    with distributed.first_goes_ahead():
        state = checkpoint.read(bench.device) if checkpoint else None
    if state is None or state["replaces"] != bench.replaces:
        return
    bench.load_state_dict(state)
    name = f"{bench.spec.method} {bench.spec.ratio:g}"
    if bench.prepared:
        bench.progress.say(f"{name} goes on from its checkpoint, after epoch {len(bench.training.rows)}")
    else:
        epochs = sum(len(fit["rows"]) for fit in bench.context.fits.values())
        bench.progress.say(f"{name} goes on from its checkpoint, after {epochs} epochs of preparation")


def _operations(bench: Bench) -> dict[str, float]:
    """Of one inference."""
    index_n = torch.arange(min(COUNTED, len(bench.held)))
    batches = (bench.held.input(index_B) for index_B in index_n.split(evaluation.EVALUATION_BATCH))
    counted = operations(bench.model, batches, bench.training.sparsity.masks)
    names = ("accumulates", "multiply_accumulates", "energy_joules")
    return {name: getattr(counted, name) for name in names}


def _record(bench: Bench, measured: dict[str, Any], interruptions: int) -> Record:
    rows = bench.training.rows
    return Record(
        spec=bench.spec,
        environment=bench.environment,
        seconds=dict(bench.clock.seconds),
        num_examples=len(bench.data),
        examples_seen=sum(row["kept"] for row in rows),
        prepare_examples=bench.context.visits,
        epochs=rows,
        test_accuracy=rows[-1]["test_accuracy"],
        test_examples=len(bench.held),
        num_parameters=sum(p.numel() for p in bench.model.parameters()),
        density=density(bench.training.sparsity.masks),
        ticket=bench.ticket,
        data_sha256=bench.material.sha256,
        finished=now(),
        interruptions=interruptions,
        scores_from=bench.context.scores_from,
        visits=visit_counts.pack(bench.training.visits_N.tolist()) if len(rows) <= visit_counts.MAX_VISITS else None,
        class_visits=_class_visits(bench),
        **measured,
    )


def _class_visits(bench: Bench) -> dict[str, float]:
    """By the name of each class that has examples."""
    label_N, visits_N = bench.material.train.label_N, bench.training.visits_N.double()
    names = bench.material.dataset.class_names
    return {name: float(visits_N[label_N == c].mean()) for c, name in enumerate(names) if bool((label_N == c).any())}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def expected(specs: list[Spec], material: Material) -> list[float]:
    """Seconds that each run is expected to take, from a few rehearsed steps of one of them."""
    if not specs:
        return []
    with threads(specs[0].threads), enough_memory(specs[0]):
        benches = [Bench(spec, material, Progress()) for spec in specs]
        per_example = rehearsal.rehearse(benches[0].model, benches[0].data, specs[0])
        return [bench.expected_seconds(per_example) for bench in benches]
