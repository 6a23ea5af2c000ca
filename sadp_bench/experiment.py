"""From names to a record: resolves a spec, loads its data, trains the reference and the run. The joiner of all parts."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sadp_bench import engine, environment, registry
from sadp_bench.backbones.spiking import NeuronSettings
from sadp_bench.clock import Clock
from sadp_bench.datasets.base import Dataset, data_root
from sadp_bench.errors import BadInput
from sadp_bench.examples import Examples, Loader, stratified_order
from sadp_bench.lab import RunLab
from sadp_bench.metrics import Comparison, compare, realised_ratio
from sadp_bench.progress import Progress
from sadp_bench.pruner import Pruner
from sadp_bench.record import Record
from sadp_bench.spec import Spec
from sadp_bench.store import Store, atomic
from sadp_bench.streams import isolated, stream

VALIDATION_SHARE = 0.1
BUDGET_TOLERANCE = 0.005  # of all example visits
KINDS: dict[str, type] = {"method": Pruner, "backbone": nn.Module, "dataset": Dataset}
EVALUATION_COST = 0.35  # of a training step's time, an example: a guess for the estimate only


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """The data of a run: what is trained on and what is evaluated on."""

    dataset: Dataset
    train: Examples
    held: Examples

    def digest(self) -> str:
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
    wanted = given.pop("train_examples", None)
    given = _defaults(kind) | given | {"method_options": method_options, "backbone_options": backbone_options}
    given.setdefault("evaluate_every", max(1, math.ceil(given["epochs"] / 10)))
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
    if spec.protocol == "updates" and not method.fixed_size:
        raise BadInput(
            f"--protocol updates needs a method that keeps as many examples in every epoch, and {spec.method} does not; "
            "use --protocol epochs"
        )


def make_pruner(spec: Spec) -> Pruner:
    pruner: Pruner = registry.resolve("method", spec.method)(prune_ratio=spec.ratio, **spec.method_options)
    return pruner


def make_model(spec: Spec, material: Material, seed: int) -> nn.Module:
    """An untrained network, the same for the same seed, on the spec's device."""
    backbone = registry.resolve("backbone", spec.backbone)
    names = {f.name for f in dataclasses.fields(NeuronSettings)}
    neuron = NeuronSettings(**{k: v for k, v in spec.backbone_options.items() if k in names})
    own = {k: v for k, v in spec.backbone_options.items() if k not in names}
    device = torch.device(spec.device)
    shape, classes = material.train.input_shape, len(material.dataset.class_names)
    with isolated(seed, "weights", device):
        model: nn.Module = backbone(shape, classes, spec.timesteps, neuron, **own)
    model = model.to(device).to(memory_format=torch.channels_last)
    return model.double() if spec.precision == "fp64" else model


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
    """One spec on its material: what `run`, `speed` and the checks set up alike."""

    def __init__(self, spec: Spec, material: Material, progress: Progress) -> None:
        self.spec = spec
        self.material = material
        self.progress = progress
        self.device = torch.device(spec.device)
        self.clock = Clock(self.device)
        self.data = make_loader(spec, material, material.train)
        self.held = make_loader(spec, material, material.held)
        self.model = self.build(spec.seed)
        self.pruner = make_pruner(spec)
        self.lab = RunLab(spec, self.data, len(material.dataset.class_names), self.build, progress)

    def build(self, seed: int) -> nn.Module:
        return make_model(self.spec, self.material, seed)

    def rows(self) -> Iterator[engine.Row]:
        return engine.train(self.model, self.pruner, self.data, self.spec, self.clock, self.progress, self.spec.seed)

    def expected_seconds(self, seconds_per_example: float) -> float:
        """Charged and uncharged, from a rehearsed step's time."""
        spec, num_examples = self.spec, len(self.data)
        share = 1.0 if spec.protocol == "updates" else 1 - spec.ratio
        visits = num_examples * (spec.epochs * share + self.pruner.scoring_epochs(spec.epochs))
        evaluated = len(self.held) * (math.ceil(spec.epochs / spec.evaluate_every) + 1)
        return seconds_per_example * (visits + EVALUATION_COST * evaluated)


def train_one(spec: Spec, material: Material, progress: Progress) -> tuple[Record, nn.Module]:
    """Prepares, trains and evaluates one run. Raises BadInput where the method misses its budget."""
    with threads(spec.threads):
        bench = Bench(spec, material, progress)
        engine.rehearse(bench.model, bench.data, spec)
        _reset_peak(bench.device)
        with bench.clock("prepare"):
            bench.pruner.prepare(bench.lab)
        length = engine.run_length(bench.pruner, spec, len(bench.data))
        share = 1.0 if spec.protocol == "updates" else 1 - spec.ratio
        progress.start(f"{spec.method} {spec.ratio:g}", round(len(bench.data) * spec.epochs * share), math.ceil(length))
        rows = []
        try:
            for row in bench.rows():
                last = row["epoch"] + 1 == math.ceil(length)
                if last or (row["epoch"] + 1) % spec.evaluate_every == 0:
                    with bench.clock("evaluate"):
                        row["test_accuracy"] = engine.evaluate(bench.model, bench.held, spec.precision)
                rows.append(row)
                progress.epoch(row, len(bench.data))
            with bench.clock("evaluate"):
                rates = engine.firing_rates(bench.model, bench.held, spec.precision)
        finally:
            progress.stop()
        record = _record(bench, rows, rates)
    missed = realised_ratio(record) - spec.ratio
    if abs(missed) > BUDGET_TOLERANCE and not bench.pruner.exempt:
        raise BadInput(
            f"{spec.method} saved {realised_ratio(record):.4f} of the visits where {spec.ratio:g} was asked for: "
            "a method must realise its budget to within 0.5 points, or refuse in `check`"
        )
    return record, bench.model


def _record(bench: Bench, rows: list[engine.Row], rates: list[float]) -> Record:
    return Record(
        spec=bench.spec,
        environment=environment.describe(bench.device, bench.spec.threads),
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
        data_sha256=bench.material.digest(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


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
    with threads(specs[0].threads):
        benches = [Bench(spec, material, Progress()) for spec in specs]
        per_example = engine.rehearse(benches[0].model, benches[0].data, specs[0])
        return [bench.expected_seconds(per_example) for bench in benches]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `sadp-bench run` has to tell. trained: whether the run itself was trained now."""

    comparison: Comparison
    path: Path
    reference_path: Path | None
    trained: bool


def run(
    spec: Spec,
    material: Material,
    store: Store,
    progress: Progress,
    *,
    reference: bool = True,
    again: bool = False,
    save_model: bool = False,
) -> Outcome:
    """The run, and before it the paired full-data reference, each unless its record is there (`again`: trained anew).

    reference=False trains no reference, and uses the one that is there.
    """
    store.check_writable()
    of_full = spec.reference()
    wanted = [of_full, spec] if reference and of_full.key != spec.key else [spec]
    if not reference:
        store.find(of_full)  # raises now, not after the training, where it is broken
    missing = [one for one in wanted if again or store.find(one) is None]
    for one in wanted:
        if one not in missing:
            progress.say(f"{one.method} {one.ratio:g} is done already: {store.path(one)} (--again trains it anew)")
    estimates = expected(missing, material)
    if missing:
        parts = ", ".join(f"{one.method} {duration(seconds)}" for one, seconds in zip(missing, estimates, strict=True))
        progress.say(f"expected to take about {duration(sum(estimates))} ({parts})")
    for one in missing:
        record, model = train_one(one, material, progress)
        path = store.write(record)
        if save_model:
            with atomic(path.with_suffix(".pt")) as file:
                torch.save(model.state_dict(), file)
    found, full = store.find(spec), store.find(of_full)
    assert found is not None
    return Outcome(compare(found, full), store.path(spec), store.path(of_full) if full else None, spec in missing)


def duration(seconds: float) -> str:
    """'45 s', '3 min 20 s', '2 h 05 min'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
