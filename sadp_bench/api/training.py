"""Trains from Python: `run` and `sweep`, like the commands of these names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

from sadp_bench.api.reading import Folder, frame, whole_path
from sadp_bench.core.errors import BadInput

if TYPE_CHECKING:
    import pandas

    from sadp_bench.records.comparison import Comparison
    from sadp_bench.records.record import Failure
    from sadp_bench.runs.run import Outcome
    from sadp_bench.training.loggers.base import Logger

    Log = str | Logger | Iterable[str | Logger] | None


class SpecOptions(TypedDict, total=False):
    """The options of `sadp-bench run` that enter a spec; absent ones take their defaults. `set` is the --set table."""

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
    """The outcome of a sweep.

    Attributes:
        comparisons: The finished runs, each compared with its reference; references come first.
        failures: The runs that failed in all tries.
        folder: Folder of the records.
    """

    comparisons: list[Comparison]
    failures: list[Failure]
    folder: Path

    @property
    def frame(self) -> pandas.DataFrame:
        """A row for each finished run; see `load`."""
        return frame(self.comparisons)


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
    save_scores: bool = False,
    log: Log = None,
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
    save_scores: bool = False,
    log: Log = None,
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
    save_scores: bool = False,
    log: Log = None,
    jobs: int = 1,
    quiet: bool = False,
    **options: Unpack[SpecOptions],
) -> Outcome | SweepOutcome:
    """Trains a method after its paired full-data reference, each unless its record exists. Lists make a sweep.

    Args:
        method: A name (`sadp-bench list methods`), or a list of names.
        ratio: Pruning ratio in [0, 1), the share of example visits to save, or a list.
        seed: Seed of weights, order, augmentation and selection, or a list.
        out: Folder of the records.
        data: Folder of the data sets; None: $SADP_BENCH_DATA, or a cache.
        reference: Whether the full-data reference is trained. A sweep always trains it.
        again: Whether a run that has a record is trained anew. Not in a sweep.
        save_model: Whether the weights are kept beside the record, for `load_model`. Not in a sweep.
        save_scores: Whether the method's scores are kept beside the record, for `scores` and `export`. Not in a sweep.
        log: One or several loggers: names ("csv", "tensorboard", "wandb") or `Logger` objects. A sweep takes only names.
        jobs: Runs of a sweep that train at the same time.
        quiet: Whether to hide the progress.
        options: See `SpecOptions`. A list makes a sweep too.

    Returns:
        The outcome, with `comparison`; for lists a `SweepOutcome`.

    Raises:
        BadInput: A value is not allowed, or the run can't be made. It is raised before anything is trained.
    """
    from sadp_bench.sweeps.sweep_file import read_sweep

    choice = {"method": method, "ratio": ratio, "seed": seed, **options}
    common = {name: _listed(value) for name, value in choice.items() if value is not None}
    tables = {"common": common, "sweep": [{}]}
    if any(isinstance(value, list) for value in [*common.values(), *_settings(options).values()]):
        if again or save_model or save_scores or not reference:
            raise BadInput("again, save_model, save_scores and reference=False are for one run; lists make a sweep")
        return sweep(tables, out=out, data=data, jobs=jobs, log=log, quiet=quiet)
    [request] = read_sweep(tables, allow_imports=True)
    from sadp_bench.cli import run_view
    from sadp_bench.records.store import Store
    from sadp_bench.runs import resolve, run
    from sadp_bench.training.loggers.base import make_loggers

    loggers = make_loggers(log, Path(out))
    spec, material = resolve.resolve(request.fields, whole_path(data))
    outcome = run.run(
        spec,
        material,
        Store(Path(out)),
        run_view.reporter(quiet),
        reference=reference,
        again=again,
        save_model=save_model,
        save_scores=save_scores,
        loggers=loggers,
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
    log: Log = None,
    allow_imports: bool = False,
    quiet: bool = False,
) -> SweepOutcome:
    """Trains all runs of a sweep that have no record yet, references first, each in its own process.

    Args:
        source: A sweep file, or its tables `common`, `sweep` and `search` (docs/sweeps.md).
        out: Folder of the records.
        data: Folder of the data sets; None: $SADP_BENCH_DATA, or a cache.
        jobs: Runs that train at the same time.
        retries: Further tries of a run that crashed.
        log: Names of loggers, "csv", "tensorboard" or "wandb". A logger object can't be passed to the runs' processes.
        allow_imports: Whether a file may name package.module:Class, whose code then runs. Tables always may.
        quiet: Whether to hide the progress.

    Raises:
        BadInput: The sweep can't be carried out. It is raised before anything is trained.
    """
    from sadp_bench.cli.output import say
    from sadp_bench.cli.train import carried_out
    from sadp_bench.records.comparison import paired
    from sadp_bench.records.store import Store
    from sadp_bench.sweeps import planning
    from sadp_bench.sweeps.executors import Options

    store, folder = Store(Path(out)), whole_path(data)
    make = partial(
        planning.make_plan,
        source if isinstance(source, Mapping) else Path(source),
        store,
        jobs=jobs,
        data=folder,
        allow_imports=allow_imports or isinstance(source, Mapping),
        message=(lambda line: None) if quiet else say,
    )
    ended = carried_out(make(), make, store, Options(jobs, retries, folder, log=_names(log)), quiet)
    found = [record for spec in ended.plan.runs if (record := store.find(spec)) is not None]
    return SweepOutcome(paired(found), list(ended.failed.values()), store.folder)


def _settings(options: SpecOptions) -> dict[str, Any]:
    """Returns the values of the --set table, with those of the tables in it."""
    found: dict[str, Any] = {}
    for name, value in options.get("set", {}).items():
        found |= value if isinstance(value, Mapping) else {name: value}
    return found


def _names(log: Log) -> str | None:
    """Returns the names of loggers as one text with commas. Raises BadInput for a logger object."""
    given = [] if log is None else [log] if not isinstance(log, Iterable) or isinstance(log, str) else list(log)
    names = [each for each in given if isinstance(each, str)]
    if len(names) < len(given):
        raise BadInput("a sweep's runs are processes of their own, which take loggers by name: csv, tensorboard, wandb")
    return ",".join(names) or None


def _listed(value: Any) -> Any:
    """Returns a range or a tuple as the list that a sweep's table has."""
    return list(value) if isinstance(value, range | tuple) else value
