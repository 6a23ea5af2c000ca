"""The commands as functions, for notebooks and scripts. Each does what its command does, and leaves the same records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

from sadp_bench.core.errors import BadInput

if TYPE_CHECKING:
    import numpy
    import pandas
    from torch import Tensor, nn

    from sadp_bench.records.metrics import Comparison
    from sadp_bench.records.record import Failure, Record
    from sadp_bench.runs.run import Outcome

Folder = str | Path


class SpecOptions(TypedDict, total=False):
    """The options of `sadp-bench run` that decide a run; absent ones take their defaults. `set` is the --set table."""

    dataset: str
    backbone: str
    budget: str
    epochs: int
    batch_size: int
    timesteps: int
    optimizer: str
    learning_rate: float
    schedule: str
    lr_clock: str
    warmup_epochs: float
    momentum: float
    nesterov: bool
    weight_decay: float
    clip_norm: float
    ema: float
    augment: str
    loss: str
    mse_weight: float
    label_smoothing: float
    precision: str
    kernel: str
    threads: int
    device: str
    train_examples: int
    backprop: str
    k: int
    sparsity: str
    density: float
    early_time: bool
    protocol: str
    evaluate_on: str
    evaluate_every: int
    set: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SweepOutcome:
    """What a sweep leaves.

    Attributes:
        comparisons: Its finished runs, each beside its reference, references first.
        failures: Its runs that failed for good.
        folder: Where the records lie.
    """

    comparisons: list[Comparison]
    failures: list[Failure]
    folder: Path

    @property
    def frame(self) -> pandas.DataFrame:
        """A row for each finished run; see `load`."""
        return _frame(self.comparisons)


@overload
def run(
    method: str,
    ratio: float = 0.0,
    *,
    seed: int = 0,
    out: Folder = "runs",
    data: Folder | None = None,
    reference: bool = True,
    again: bool = False,
    save_model: bool = False,
    jobs: int = 1,
    quiet: bool = False,
    **options: Unpack[SpecOptions],
) -> Outcome: ...


@overload
def run(
    method: str | Sequence[str],
    ratio: float | Sequence[float] = 0.0,
    *,
    seed: int | Sequence[int] = 0,
    out: Folder = "runs",
    data: Folder | None = None,
    reference: bool = True,
    again: bool = False,
    save_model: bool = False,
    jobs: int = 1,
    quiet: bool = False,
    **options: Unpack[SpecOptions],
) -> Outcome | SweepOutcome: ...


def run(
    method: str | Sequence[str],
    ratio: float | Sequence[float] = 0.0,
    *,
    seed: int | Sequence[int] = 0,
    out: Folder = "runs",
    data: Folder | None = None,
    reference: bool = True,
    again: bool = False,
    save_model: bool = False,
    jobs: int = 1,
    quiet: bool = False,
    **options: Unpack[SpecOptions],
) -> Outcome | SweepOutcome:
    """Trains a method after its paired full-data reference, each unless its record is there. Lists make a sweep.

    Args:
        method: A name (`sadp-bench list methods`), or a list of such.
        ratio: Pruning ratio in [0, 1), the share of example visits to save, or a list.
        seed: Of weights, order, augmentation and selection, or a list.
        out: Folder of the records.
        data: Folder of the data sets; None: $SADP_BENCH_DATA, or a cache.
        reference: Whether the full-data reference is trained. A sweep always trains it.
        again: Whether a run that has a record is trained anew. Not in a sweep.
        save_model: Whether the weights are kept beside the record, for `load_model`. Not in a sweep.
        jobs: Runs of a sweep that go on at a time.
        quiet: Whether no progress is shown.
        options: See `SpecOptions`. A list is swept too.

    Returns:
        The outcome, with `comparison`; of lists a `SweepOutcome`.

    Raises:
        BadInput: A value is not allowed, or the run can't be made; before anything is trained.
    """
    from sadp_bench.sweeps.sweep_file import read_sweep

    choice = {"method": method, "ratio": ratio, "seed": seed, **options}
    common = {name: _listed(value) for name, value in choice.items() if value is not None}
    tables = {"common": common, "sweep": [{}]}
    if any(isinstance(value, list) for value in [*common.values(), *_settings(options).values()]):
        if again or save_model or not reference:
            raise BadInput("again, save_model and reference=False are for one run; lists make a sweep")
        return sweep(tables, out=out, data=data, jobs=jobs, quiet=quiet)
    [request] = read_sweep(tables, allow_imports=True)
    from sadp_bench.cli import run_view
    from sadp_bench.records.store import Store
    from sadp_bench.runs import resolve, run

    spec, material = resolve.resolve(request.fields, _path(data))
    outcome = run.run(
        spec,
        material,
        Store(Path(out)),
        run_view.reporter(quiet),
        reference=reference,
        again=again,
        save_model=save_model,
    )
    assert outcome is not None  # None is for the other ranks of a process group
    return outcome


def sweep(
    source: Folder | Mapping[str, Any],
    *,
    out: Folder = "runs",
    data: Folder | None = None,
    jobs: int = 1,
    retries: int = 1,
    allow_imports: bool = False,
    quiet: bool = False,
) -> SweepOutcome:
    """Trains all runs of a sweep that have no record yet, references first, each in its own process.

    Args:
        source: A sweep file, or its tables `common`, `sweep` and `search` (docs/sweeps.md).
        out: Folder of the records.
        data: Folder of the data sets; None: $SADP_BENCH_DATA, or a cache.
        jobs: Runs that go on at a time.
        retries: Further tries of a run that crashed.
        allow_imports: Whether a file may name package.module:Class, whose code then runs. Tables may.
        quiet: Whether no progress is shown.

    Raises:
        BadInput: The sweep can't be carried out; before anything is trained.
    """
    from sadp_bench.cli.output import say
    from sadp_bench.cli.train import carried_out
    from sadp_bench.records.metrics import paired
    from sadp_bench.records.store import Store
    from sadp_bench.sweeps import planning
    from sadp_bench.sweeps.executors import Options

    store, folder = Store(Path(out)), _path(data)
    make = partial(
        planning.make_plan,
        source if isinstance(source, Mapping) else Path(source),
        store,
        jobs=jobs,
        data=folder,
        allow_imports=allow_imports or isinstance(source, Mapping),
        message=(lambda line: None) if quiet else say,
    )
    ended = carried_out(make(), make, store, Options(jobs, retries, folder), quiet)
    found = [record for spec in ended.plan.runs if (record := store.find(spec)) is not None]
    return SweepOutcome(paired(found), list(ended.failed.values()), store.folder)


def load(folder: Folder | Iterable[Folder] = "runs", *, epochs: bool = False) -> pandas.DataFrame:
    """Returns a row for each run of the records, or for each epoch of each run.

    Accuracies, ratios, efficiencies and shares lie in [0, 1]; other names end with their unit. A number that the data can't
    give is NaN: the seconds of a disturbed run, a speed-up without a reference.

    Args:
        folder: Of the records, with its subfolders; or several.
        epochs: Whether a row is an epoch.

    Raises:
        BadInput: A folder is not there.
    """
    from sadp_bench.records.store import read_all

    folders = [folder] if isinstance(folder, str | Path) else folder
    found = read_all([Path(each) for each in folders])
    records = [record for _, record in found.records]
    if epochs:
        import pandas

        return pandas.DataFrame([_named(record) | row for record in records for row in record.epochs])
    from sadp_bench.records.metrics import paired

    return _frame(paired(records))


def report(folder: Folder | Iterable[Folder] = "runs", *, format: str = "text") -> str:
    """Returns the report of the records; see `sadp-bench report`.

    Args:
        folder: Of the records, or several.
        format: text, markdown, latex, csv, json or html.

    Raises:
        BadInput: There is nothing to report.
    """
    from sadp_bench.records.store import read_all, read_notes
    from sadp_bench.records.trials import sorted_out
    from sadp_bench.reports import render

    folders = [Path(folder)] if isinstance(folder, str | Path) else [Path(each) for each in folder]
    found = read_all(folders)
    records, failures, searches = sorted_out(found.records, found.failures, folders)
    remarks = read_notes(folders)
    return render(records, found.problems, format, failures=failures, remarks=remarks, searches=searches)


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A trained network and how its input is made.

    Attributes:
        network: In evaluation mode, on the CPU. It takes [B, C, H, W], or [T, B, C, H, W] of events, and returns logits of
            each time step, [T, B, classes].
        class_names: Of the logits, in their order.
        scale: The stored value of full intensity.
        mean: Of each channel, of values divided by the scale.
        std: Of each channel, likewise.
    """

    network: nn.Module
    class_names: Sequence[str]
    scale: float
    mean: Sequence[float]
    std: Sequence[float]

    def input(self, pixels: Tensor) -> Tensor:
        """Returns the network's input for stored values, [B, C, H, W] or, of events, [B, T, C, H, W]."""
        import torch

        mean, std = (torch.as_tensor(each, dtype=torch.float32)[:, None, None] for each in (self.mean, self.std))
        normalised = (pixels / self.scale - mean) / std
        return normalised.transpose(0, 1) if pixels.dim() == 5 else normalised


def load_model(record: Outcome | Folder, *, data: Folder | None = None) -> TrainedModel:
    """Returns the network that a run trained with `save_model`, and its normalisation.

    Args:
        record: An outcome of `run`, or a record's file. The weights lie beside it.
        data: Folder of the data sets; the shape of an input and the classes come from there.

    Raises:
        BadInput: There are no weights, or they are not those of the record's network.
    """
    import dataclasses

    from sadp_bench.runs.reopening import network_of, reopened

    path = _file(record)
    # On any machine: the C core may be absent, and the GPU too.
    spec = dataclasses.replace(_record(record).spec, device="cpu", kernel="python")
    material = reopened(spec, _path(data))
    network = network_of(spec, material, path.with_suffix(".pt"))
    kind = material.dataset
    return TrainedModel(network, kind.class_names, kind.scale, kind.mean, kind.std)


def scores(record: Outcome | Folder) -> numpy.ndarray:
    """Returns the scores by which a run chose its subset before training, float64, [N].

    Args:
        record: An outcome of `run`, or a record's file. The scores lie in its folder.

    Raises:
        BadInput: The method makes no scores before training, or their file is not there.
    """
    from sadp_bench.claims.runs import Run

    path = _file(record)
    found: numpy.ndarray = Run(path, _record(record)).scores().numpy()
    return found


def visits(record: Record | Outcome | Folder) -> numpy.ndarray:
    """Returns how often training showed each example, int64, [N], in the order of the training set.

    Args:
        record: A record, an outcome of `run`, or a record's file.

    Raises:
        BadInput: The record is from a version that kept no visits.
    """
    import numpy

    from sadp_bench.records.visit_counts import unpack

    found = _record(record)
    if found.visits is None:
        raise BadInput("the record contains no visits; train the run again")
    return numpy.asarray(unpack(found.visits, found.num_examples), dtype=numpy.int64)


def _record(given: Record | Outcome | Folder) -> Record:
    from sadp_bench.records.store import read

    if isinstance(given, str | Path):
        try:
            return read(Path(given))
        except BadInput as error:
            raise BadInput(f"{given}: {error}") from None
    comparison = getattr(given, "comparison", None)
    found: Record = given if comparison is None else comparison.record  # type: ignore[assignment]
    return found


def _file(given: Outcome | Folder) -> Path:
    return Path(given) if isinstance(given, str | Path) else given.path


def _named(record: Record) -> dict[str, Any]:
    """Returns the key and all settings of a run."""
    return {"key": record.spec.key, **record.spec.flat()}


def _frame(comparisons: Iterable[Comparison]) -> pandas.DataFrame:
    import pandas

    return pandas.DataFrame([_row(each) for each in comparisons])


def _row(found: Comparison) -> dict[str, Any]:
    from sadp_bench.records.metrics import charged_cpu_seconds, charged_seconds, gradient_mass

    record = found.record
    return {
        **_named(record),
        "test_accuracy": record.test_accuracy,
        "accuracy_difference": found.accuracy_difference,
        "fitted_accuracy": record.fitted_accuracy,
        "fitted_loss": record.fitted_loss,
        "realised_ratio": found.realised_ratio,
        "speedup": found.speedup,
        "cpu_speedup": found.cpu_speedup,
        "nominal_maximum": found.nominal_maximum,
        "ceiling": found.ceiling,
        "efficiency": found.efficiency,
        "charged_seconds": None if record.disturbed else charged_seconds(record),
        "charged_cpu_seconds": charged_cpu_seconds(record),
        **{f"{phase}_seconds": None if record.disturbed else value for phase, value in record.seconds.items()},
        "gradient_mass": gradient_mass(record),
        "num_examples": record.num_examples,
        "examples_seen": record.examples_seen,
        "num_parameters": record.num_parameters,
        "density": record.density,
        "peak_memory_bytes": record.peak_memory_bytes or None,
        "train_memory_bytes": record.train_memory_bytes,
        "energy_joules": record.operations.get("energy_joules"),
        "disturbed": record.disturbed,
        "finished": record.finished,
        **{f"environment.{name}": value for name, value in record.environment.items()},
    }


def _settings(options: SpecOptions) -> dict[str, Any]:
    """Returns the values of the --set table, those of its tables too."""
    found: dict[str, Any] = {}
    for name, value in options.get("set", {}).items():
        found |= value if isinstance(value, Mapping) else {name: value}
    return found


def _path(folder: Folder | None) -> Path | None:
    return None if folder is None else Path(folder).absolute()


def _listed(value: Any) -> Any:
    """Returns a range or a tuple as the list that a sweep's table has."""
    return list(value) if isinstance(value, range | tuple) else value
