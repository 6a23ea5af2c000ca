"""From names to a record: resolves a spec, loads its data, trains the reference and the run. The joiner of all parts."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sadp_bench import engine, environment, ranks, registry
from sadp_bench.backbones.spiking import NeuronSettings
from sadp_bench.checkpoint import Checkpoint
from sadp_bench.clock import Clock
from sadp_bench.datasets.base import Dataset, data_root
from sadp_bench.errors import BadInput
from sadp_bench.examples import Examples, Loader, stratified_order
from sadp_bench.lab import RunLab, SharedScores
from sadp_bench.lock import Lock
from sadp_bench.metrics import Comparison, compare, realised_ratio
from sadp_bench.progress import Progress
from sadp_bench.pruner import Pruner
from sadp_bench.record import Failure, Record
from sadp_bench.spec import Spec
from sadp_bench.store import Store, atomic, remove_parts
from sadp_bench.streams import isolated, stream

VALIDATION_SHARE = 0.1
BUDGET_TOLERANCE = 0.005  # of all example visits
KINDS: dict[str, type] = {"method": Pruner, "backbone": nn.Module, "dataset": Dataset}
EVALUATION_COST = 0.35  # of a training step's time, an example: a guess for the estimate only


@dataclass(frozen=True, eq=False)
class Material:
    """The data of a run: what is trained on and what is evaluated on."""

    dataset: Dataset
    train: Examples
    held: Examples

    @cached_property
    def sha256(self) -> str:
        """Of all inputs and labels."""
        return hashlib.sha256(self.train.digest().digest() + self.held.digest().digest()).hexdigest()


def resolve(
    asked: Mapping[str, Any], data: Path | None = None, opened: dict[Any, Dataset] | None = None
) -> tuple[Spec, Material]:
    """The full spec of what was asked for, and its data; what is absent or None takes its default.

    asked: fields of `Spec`, and "set": the `--set` table, text or values. Defaults of epochs, batch size, time steps,
    learning rate and augmentation are the data set's. opened: keeps the data sets for further calls.
    Raises BadInput before anything is trained.
    """
    given = {name: value for name, value in asked.items() if value is not None and name != "set"}
    kind: type[Dataset] = _class("dataset", given.setdefault("dataset", "digits"))
    method: type[Pruner] = _class("method", given["method"])
    backbone = _class("backbone", given.setdefault("backbone", "cnn"))
    method_options, backbone_options = _options(given["method"], method, given["backbone"], backbone, asked.get("set"))
    device = environment.choose_device(given.get("device", "auto"))
    given["device"] = str(device)
    if given.get("precision", "auto") == "auto":
        given["precision"] = "bf16" if environment.bf16_is_fast(device) else "fp32"
    given["processes"] = ranks.size()
    wanted = given.pop("train_examples", None)
    given = _defaults(kind) | given | {"method_options": method_options, "backbone_options": backbone_options}
    given.setdefault("evaluate_every", max(1, -(-given["epochs"] // 10)))
    spec = Spec(**given)  # checks every field before the data is read
    if wanted is not None and wanted < 1:
        raise BadInput(f"--train-examples is at least 1, not {wanted}")
    make_pruner(spec).check(spec.epochs)
    material = load(_opened(kind, spec, data, {} if opened is None else opened), spec, wanted)
    spec = dataclasses.replace(spec, train_examples=len(material.train))
    _check_fits(spec, method)
    return spec, material


def _class(kind: str, name: str) -> Any:
    """The class of that name, which is one of its kind and can be built."""
    found, wanted = registry.resolve(kind, name), KINDS[kind]
    if not issubclass(found, wanted):
        raise BadInput(f"{kind} '{name}' is no subclass of {wanted.__module__}.{wanted.__qualname__}")
    if inspect.isabstract(found):
        raise BadInput(f"{kind} '{name}' is abstract: it lacks {', '.join(sorted(found.__abstractmethods__))}")
    return found


def _defaults(kind: type[Dataset]) -> dict[str, Any]:
    of_dataset = ("epochs", "batch_size", "timesteps", "learning_rate", "augment")
    return {name: getattr(kind, name) for name in of_dataset} | {
        "optimizer": "sgd",
        "schedule": "cosine",
        "weight_decay": 5e-4,
        "loss": "mean",
        "threads": environment.available_threads(),
        "seed": 0,
        "protocol": "epochs",
        "evaluate_on": "test",
        "train_examples": 1,  # until the data is read
    }


def _options(
    method_name: str, method: type, backbone_name: str, backbone: type, settings: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two `--set` tables, checked and with their defaults filled in."""
    of_backbone = {k.removeprefix("backbone."): v for k, v in (settings or {}).items() if k.startswith("backbone.")}
    of_method = {k: v for k, v in (settings or {}).items() if not k.startswith("backbone.")}
    neuron: dict[str, tuple[type, Any]] = {
        f.name: (type(f.default), f.default) for f in dataclasses.fields(NeuronSettings)
    }
    return (
        registry.settle(f"method {method_name}", registry.options(method), of_method),
        registry.settle(f"backbone {backbone_name}", registry.options(backbone) | neuron, of_backbone),
    )


def _opened(kind: type[Dataset], spec: Spec, data: Path | None, opened: dict[Any, Dataset]) -> Dataset:
    name = (kind, data_root(data), spec.timesteps)
    if name not in opened:
        opened[name] = kind(*name[1:])
    return opened[name]


def load(dataset: Dataset, spec: Spec, wanted: int | None) -> Material:
    """The first `wanted` training examples of a fixed, class-balanced order that no seed changes, and the test set;
    or, evaluated on "validation", a fixed tenth of the training set in place of the test set."""
    train, held = dataset.train, dataset.test
    order = stratified_order(train.label_N, stream(0, "subset"))
    if spec.evaluate_on == "validation":
        num_held = max(1, round(VALIDATION_SHARE * len(train)))
        held, order = train.take(order[:num_held].sort().values), order[num_held:]
    if wanted is not None and wanted > len(order):
        raise BadInput(f"--train-examples {wanted}: {spec.dataset} has {len(order)} to train on here")
    return Material(dataset, train.take(order[:wanted].sort().values), held)


def _check_fits(spec: Spec, method: type[Pruner]) -> None:
    kept = (1 - spec.ratio) * spec.train_examples
    if kept < spec.batch_size:
        raise BadInput(
            f"ratio {spec.ratio:g} of {spec.train_examples} examples keeps {kept:.0f}, less than one batch of "
            f"{spec.batch_size}; lower --ratio or --batch-size"
        )
    if spec.batch_size < 2 * spec.processes:
        raise BadInput(
            f"--batch-size {spec.batch_size} is less than two examples for each of {spec.processes} processes; raise it, or "
            "take fewer processes"
        )
    if spec.processes > 1 and spec.device not in ("cpu", "cuda"):
        raise BadInput(f"--device {spec.device} with {spec.processes} processes: take cuda, each has a GPU of its own")
    if spec.backbone_options.get("norm") == "sync" and spec.device == "cpu":
        raise BadInput("backbone.norm=sync needs GPUs; take backbone.norm=batch, or none")
    if spec.protocol == "updates" and not method.fixed_size:
        raise BadInput(
            f"--protocol updates needs a method that keeps as many examples in every epoch, and {spec.method} does not; "
            "use --protocol epochs"
        )


def make_pruner(spec: Spec) -> Pruner:
    pruner: Pruner = registry.resolve("method", spec.method)(prune_ratio=spec.ratio, **spec.method_options)
    return pruner


def make_model(spec: Spec, material: Material, seed: int) -> nn.Module:
    """An untrained network, the same for the same seed, on the spec's device. Raises BadInput where the class is none."""
    backbone = registry.resolve("backbone", spec.backbone)
    names = {f.name for f in dataclasses.fields(NeuronSettings)}
    neuron = NeuronSettings(**{k: v for k, v in spec.backbone_options.items() if k in names})
    own = {k: v for k, v in spec.backbone_options.items() if k not in names}
    device = torch.device(spec.device)
    inputs = (material.train.input_shape, len(material.dataset.class_names), spec.timesteps, neuron)
    try:
        inspect.signature(backbone).bind(*inputs, **own)
    except TypeError as error:
        raise BadInput(
            f"backbone '{spec.backbone}' is not built from (input_shape, num_classes, timesteps, neuron): {error}"
        ) from None
    with isolated(seed, "weights", device), enough_memory(spec):
        model: nn.Module = backbone(*inputs, **own)
        model = model.to(device).to(memory_format=torch.channels_last)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise BadInput(f"backbone '{spec.backbone}' has no parameters to train")
    return model.double() if spec.precision == "fp64" else model


@contextmanager
def enough_memory(spec: Spec) -> Iterator[None]:
    """Turns the ways in which torch runs out of memory into one line."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not re.search("out of memory|can't allocate memory", str(error)):
            raise
        raise BadInput(
            f"out of memory on {spec.device}: batch size {spec.batch_size}, {spec.timesteps} time steps and backbone options "
            f"{spec.backbone_options} need more than there is; lower one of them"
        ) from None


def make_loader(spec: Spec, material: Material, examples: Examples) -> Loader:
    dtype = torch.float64 if spec.precision == "fp64" else torch.float32
    kind = material.dataset
    return Loader(examples, kind.scale, kind.mean, kind.std, torch.device(spec.device), dtype)


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

    prepared: whether the pruner is. environment: where the run took place, all its parts. replaces: when the record was
    finished that this run is to replace; a checkpoint that is not of such a run is of no use to it.
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
        self.training = engine.Training(model, make_pruner(spec), engine.make_optimizer(model, spec))
        self.lab = RunLab(spec, self.data, len(material.dataset.class_names), self.build, self.clock, progress)
        self.prepared = False
        self.replaces: str | None = None
        self.environment = environment.describe(self.device, spec.threads, jobs)

    @property
    def model(self) -> nn.Module:
        return self.training.model

    @property
    def pruner(self) -> Pruner:
        return self.training.pruner

    def build(self, seed: int) -> nn.Module:
        return make_model(self.spec, self.material, seed)

    def prepare(self) -> None:
        """Has the pruner prepare, charged. Raises BadInput where several processes could not share what it sees."""
        with self.clock("prepare"):
            self.pruner.prepare(self.lab)
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

    def rows(self) -> Iterator[engine.Row]:
        return engine.train(self.training, self.data, self.spec, self.clock, self.progress, self.spec.seed)

    def state_dict(self) -> dict[str, Any]:
        """All that must outlive an interruption; plain values and tensors."""
        return {
            "seconds": self.clock.seconds,
            "visits": self.lab.visits,
            "scores_from": self.lab.scores_from,
            "replaces": self.replaces,
            "environment": self.environment,
            **({"training": self.training.state_dict()} if self.prepared else {"fits": self.lab.state_list()}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.environment.update(environment.joined(state["environment"], self.environment))
        if "training" in state:
            self.training.load_state_dict(state["training"])
            self.clock.seconds = dict(state["seconds"])
            self.lab.visits, self.lab.scores_from = state["visits"], state["scores_from"]
            self.prepared = True
        else:  # the lab puts its seconds and visits back itself, as far as they belong to what it needn't do again
            self.lab.fits = state["fits"]

    def visits(self) -> float:
        """About how many examples the epochs that are left will show."""
        spec = self.spec
        share = 1.0 if spec.protocol == "updates" else 1 - spec.ratio
        return len(self.data) * spec.epochs * share - sum(row["kept"] for row in self.training.rows)

    def expected_seconds(self, seconds_per_example: float) -> float:
        """Charged and uncharged, from a rehearsed step's time."""
        spec, num_examples = self.spec, len(self.data)
        visits = self.visits() + num_examples * self.pruner.scoring_epochs(spec.epochs)
        evaluated = len(self.held) * (math.ceil(spec.epochs / spec.evaluate_every) + 1)
        return seconds_per_example * (visits + EVALUATION_COST * evaluated) / spec.processes


def train_one(
    bench: Bench, checkpoint: Checkpoint | None = None, starts: int = 1, before_save: Callable[[], None] = lambda: None
) -> Record:
    """Prepares, trains and evaluates one run, from its checkpoint on where there is one.

    starts: how often the run was begun, this time included. before_save: may raise to end it. Raises BadInput where the
    method misses its budget, and `engine.Diverged` where the loss is no number any more.
    """
    spec, progress, clock = bench.spec, bench.progress, bench.clock

    def save() -> None:
        if checkpoint is not None and ranks.rank() == 0 and checkpoint.due():
            before_save()
            checkpoint.write(bench.state_dict)

    with threads(spec.threads), enough_memory(spec):
        engine.rehearse(bench.model, bench.data, spec)
        _take_up(bench, checkpoint)
        _reset_peak(bench.device)
        bench.lab.save = save
        if not bench.prepared:
            bench.prepare()
            save()
        length = math.ceil(engine.run_length(bench.pruner, spec, len(bench.data)))
        progress.start(f"{spec.method} {spec.ratio:g}", round(bench.visits()), length)
        try:
            for row in bench.rows():
                if row["epoch"] + 1 == length or (row["epoch"] + 1) % spec.evaluate_every == 0:
                    with clock("evaluate"):
                        row["test_accuracy"] = engine.evaluate(bench.model, bench.held, spec.precision)
                progress.epoch(row, len(bench.data))
                save()
            with clock("evaluate"):
                rates = engine.firing_rates(bench.model, bench.held, spec.precision)
        finally:
            progress.stop()
        record = _record(bench, rates, starts - 1)
    missed = realised_ratio(record) - spec.ratio
    if abs(missed) > BUDGET_TOLERANCE and not bench.pruner.exempt:
        raise BadInput(
            f"{spec.method} saved {realised_ratio(record):.4f} of the visits where {spec.ratio:g} was asked for: "
            "a method must realise its budget to within 0.5 points, or refuse in `check`"
        )
    return record


def _take_up(bench: Bench, checkpoint: Checkpoint | None) -> None:
    """Puts the run back to where its checkpoint left it, and says so."""
    with ranks.first_goes_ahead():
        state = checkpoint.read(bench.device) if checkpoint else None
    if state is None or state["replaces"] != bench.replaces:
        return
    bench.load_state_dict(state)
    name = f"{bench.spec.method} {bench.spec.ratio:g}"
    if bench.prepared:
        bench.progress.say(f"{name} goes on from its checkpoint, after epoch {len(bench.training.rows)}")
    else:
        epochs = sum(len(fit["rows"]) for fit in bench.lab.fits)
        bench.progress.say(f"{name} goes on from its checkpoint, after {epochs} epochs of scoring")


def _record(bench: Bench, rates: list[float], interruptions: int) -> Record:
    rows = bench.training.rows
    return Record(
        spec=bench.spec,
        environment=bench.environment,
        seconds=dict(bench.clock.seconds),
        num_examples=len(bench.data),
        examples_seen=sum(row["kept"] for row in rows),
        prepare_examples=bench.lab.visits,
        epochs=rows,
        test_accuracy=rows[-1]["test_accuracy"],
        test_examples=len(bench.held),
        firing_rate=rates,
        num_parameters=sum(p.numel() for p in bench.model.parameters()),
        peak_memory_bytes=_peak(bench.device),
        data_sha256=bench.material.sha256,
        finished=now(),
        interruptions=interruptions,
        scores_from=bench.lab.scores_from,
    )


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
        per_example = engine.rehearse(benches[0].model, benches[0].data, specs[0])
        return [bench.expected_seconds(per_example) for bench in benches]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `sadp-bench run` has to tell."""

    comparison: Comparison
    path: Path
    reference_path: Path | None


def run(
    spec: Spec,
    material: Material,
    store: Store,
    progress: Progress,
    *,
    reference: bool = True,
    again: bool = False,
    save_model: bool = False,
    checkpoint_seconds: float = 60.0,
    jobs: int = 1,
) -> Outcome | None:
    """The run, and before it the paired full-data reference, each unless its record is there (`again`: trained anew).

    reference=False trains no reference, and uses the one that is there. A run that was interrupted goes on from its
    checkpoint, written at the first epoch end after `checkpoint_seconds`. jobs: runs that share this machine now.
    Of several processes only the first writes and has an outcome.
    """
    if not (math.isfinite(checkpoint_seconds) and checkpoint_seconds >= 0):
        raise BadInput(f"--checkpoint-seconds is at least 0 (every epoch), not {checkpoint_seconds}")
    if jobs < 1:
        raise BadInput(f"--concurrent-jobs is at least 1, not {jobs}")
    of_full = spec.reference()
    wanted = [of_full, spec] if reference and of_full.key != spec.key else [spec]
    if not reference:
        store.find(of_full)  # raises now, not after the training, where it is broken
    missing = [one for one in wanted if ranks.agreed(again or store.find(one) is None)]
    if ranks.rank() == 0:
        store.check_writable(max((checkpoint_bytes(one, material) for one in missing), default=0))
    for one in wanted:
        if ranks.rank() == 0:
            tidy(one, store, keep_checkpoint=again)
        if one not in missing:
            progress.say(f"{one.method} {one.ratio:g} is done already: {store.path(one)} (--again trains it anew)")
    if save_model and spec not in missing and not store.path(spec, ".pt").exists():
        progress.say("its weights were not kept; --again --save-model trains it anew and keeps them")
    estimates = expected(missing, material)
    if missing:
        parts = ", ".join(f"{one.method} {duration(seconds)}" for one, seconds in zip(missing, estimates, strict=True))
        progress.say(f"expected to take about {duration(sum(estimates))} ({parts})")
    for one in missing:
        with _alone(one, store, progress) as lock:
            if again or ranks.agreed(store.find(one) is None):  # else another process has just finished it
                identity = {"key": one.key, "data_sha256": material.sha256}
                checkpoint = Checkpoint(store.path(one, ".ckpt"), checkpoint_seconds, identity, progress.say)
                _train_and_keep(Bench(one, material, progress, jobs), store, checkpoint, lock, again, save_model)
    if ranks.rank() > 0:
        return None
    found, full = store.find(spec), store.find(of_full)
    assert found is not None
    return Outcome(compare(found, full), store.path(spec), store.path(of_full) if full else None)


def tidy(spec: Spec, store: Store, keep_checkpoint: bool = False) -> None:
    """Clears away what a process left behind that was killed after it had written its record.

    keep_checkpoint: it may be that of a run that is to replace the record.
    """
    left = [store.path(spec, suffix) for suffix in (".ckpt", ".ckpt.before", ".lock")]
    if not store.path(spec).exists() or not any(path.exists() for path in left):
        return
    lock = Lock(left[-1])
    if lock.acquire():
        if not keep_checkpoint:
            for path in left[:-1]:
                path.unlink(missing_ok=True)
        remove_parts(store.path(spec, ""))
        lock.release(finished=True)


def checkpoint_bytes(spec: Spec, material: Material) -> int:
    """About what a run needs on disk while it trains: two checkpoints and a third being written; weights and what the
    optimizer keeps of each."""
    copies = {"sgd": 2, "adamw": 3}[spec.optimizer]
    return 3 * copies * sum(p.numel() * p.element_size() for p in make_model(spec, material, 0).parameters())


@contextmanager
def _alone(spec: Spec, store: Store, progress: Progress) -> Iterator[Lock]:
    """Within, no other process trains this run. Of several ranks the first holds the lock."""
    lock = Lock(store.path(spec, ".lock"))
    if ranks.rank() > 0:
        yield lock
        return
    if not lock.acquire():
        progress.say(f"another process trains {spec.method} {spec.ratio:g}: waiting for it ({lock.path})")
        while not lock.acquire():
            time.sleep(1)
    finished = False
    try:
        remove_parts(store.path(spec, ""))
        yield lock
        finished = True
    finally:
        lock.release(finished=finished)


def _train_and_keep(
    bench: Bench, store: Store, checkpoint: Checkpoint, lock: Lock, again: bool, save_model: bool
) -> None:
    """Trains one run and writes its record, or its failure. The first of several ranks writes alone."""
    spec = bench.spec
    with suppress(BadInput):  # a broken one, which this run is to replace
        before = store.find(spec)
        bench.replaces = before.finished if before else None
    made_in = {"data_sha256": bench.material.sha256, "environment": bench.environment}
    bench.lab.shared = SharedScores(store.scores_path(spec), made_in, bench.device, bench.progress, fresh=again)

    def check_lock() -> None:
        if not lock.is_mine():
            raise BadInput(
                f"another process has taken {spec.method} {spec.ratio:g} over, as this one gave no sign of life; it is left "
                "to that one"
            )

    try:
        record = train_one(bench, checkpoint, lock.starts, check_lock)
    except engine.Diverged as error:
        if ranks.rank() == 0:
            store.write_failure(
                Failure(spec, str(error), now(), error.epoch, error.learning_rate, attempts=lock.starts)
            )
        raise
    if ranks.rank() > 0:
        return
    check_lock()
    if save_model:  # before the record, which says that all is done
        with atomic(store.path(spec, ".pt")) as file:
            torch.save(bench.model.state_dict(), file)
    store.write(record)
    checkpoint.discard()


def duration(seconds: float) -> str:
    """'45 s', '3 min 20 s', '2 h 05 min'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
