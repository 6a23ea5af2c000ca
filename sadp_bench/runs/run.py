"""Trains a run and its reference for `sadp-bench run`: each under its lock, from its checkpoint on, into the store."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from sadp_bench.capture.heads import inference_state
from sadp_bench.core import distributed
from sadp_bench.core.errors import BadInput, Diverged
from sadp_bench.core.files import remove
from sadp_bench.core.progress import Progress
from sadp_bench.core.text import duration
from sadp_bench.core.time_limit import TimeLimit
from sadp_bench.pruners.base import Pruner
from sadp_bench.records.comparison import Comparison, compare
from sadp_bench.records.fields import check_count
from sadp_bench.records.file_lock import Lock
from sadp_bench.records.naming import run_name
from sadp_bench.records.record import Failure
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import Store, atomic, remove_parts
from sadp_bench.runs import exporting
from sadp_bench.runs.building import make_pruner, make_sparsity, weight_bytes
from sadp_bench.runs.material import Material
from sadp_bench.runs.out_folder import OutFolder
from sadp_bench.runs.preflight import check_runs
from sadp_bench.runs.preparation import epochs_to_make, preparations
from sadp_bench.runs.resources import Resources
from sadp_bench.runs.trainer import RunTrainer, expected, now
from sadp_bench.sparsity.base import MASK_COPIES
from sadp_bench.training.checkpoint import Checkpoint
from sadp_bench.training.loggers.base import Logger, Loggers

OPTIMIZER_COPIES = {"sgd": 1, "adamw": 2}  # copies of the weights that the optimizer keeps
CHECKPOINTS = 3  # files at a time: two, and a third that is being written


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a run.

    Args:
        comparison: The run against its reference, as far as there is one.
        path: The run's record.
        reference_path: The reference's record; None where there is none.
    """

    comparison: Comparison
    path: Path
    reference_path: Path | None


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How runs are carried out.

    Args:
        again: Whether to train runs that have a record too.
        save_model: Whether to keep the weights and the masks of connections beside the record.
        save_scores: Whether to keep the method's scores beside the record.
        checkpoint_seconds: Seconds after which the next end of an epoch writes a checkpoint.
        limit: The time limit; the runs end after the epoch in which it is over.
        logger: Receives the runs' epochs; its calls are not charged.
    """

    again: bool = False
    save_model: bool = False
    save_scores: bool = False
    checkpoint_seconds: float = 60.0
    limit: TimeLimit = field(default_factory=TimeLimit)
    logger: Logger = field(default_factory=Logger)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.checkpoint_seconds) and self.checkpoint_seconds >= 0):
            raise BadInput(f"--checkpoint-seconds is at least 0 (every epoch), not {self.checkpoint_seconds}")


def run(
    spec: Spec,
    material: Material,
    store: Store,
    progress: Progress,
    *,
    reference: bool = True,
    again: bool = False,
    save_model: bool = False,
    save_scores: bool = False,
    checkpoint_seconds: float = 60.0,
    jobs: int = 1,
    limit: TimeLimit | None = None,
    loggers: Iterable[Logger] = (),
) -> Outcome | None:
    """Trains the paired full-data reference and then the run, each unless its record exists.

    A run that was interrupted continues after its checkpoint.

    Args:
        spec: The run.
        material: Its data.
        store: The store of the records.
        progress: Receives an event for every batch.
        reference: Whether to train a reference without a record; False: only an existing record is used.
        again: See `RunOptions`.
        save_model: See `RunOptions`.
        save_scores: See `RunOptions`.
        checkpoint_seconds: See `RunOptions`.
        jobs: Runs that share this machine at the same time.
        limit: See `RunOptions`; None: no limit.
        loggers: Receive the runs' epochs; a logger that raises an error is dropped.

    Returns:
        The outcome; None on every rank except the first, which alone writes.
    """
    logger = Loggers(loggers if distributed.rank() == 0 else (), progress.message)
    settings = RunOptions(again, save_model, save_scores, checkpoint_seconds, limit or TimeLimit(), logger)
    if save_scores:
        exporting.check_scores_kept(spec, make_pruner(spec))
    check_count("concurrent_jobs", jobs, 1)
    full = spec.reference()
    wanted = [full, spec] if reference and full.key != spec.key else [spec]
    if not reference:
        store.find(full)  # a broken record raises now, not after the training
    missing = [run for run in wanted if distributed.agreed(again or store.find(run) is None)]
    _tidy_and_report(wanted, missing, store, progress, settings)
    if missing:
        resources = Resources(missing[0], material, jobs)
        check_runs(missing, resources)
        if distributed.rank() == 0:
            weights = weight_bytes(resources.untrained)
            store.check_writable(max(checkpoint_bytes(run, weights) + search_bytes(run, weights) for run in missing))
        estimates = expected(
            missing, resources, None if again else epochs_to_make(missing, preparations(missing), store)
        )
        parts = ", ".join(f"{run.method} {duration(s)}" for run, s in zip(missing, estimates, strict=True))
        progress.message(f"expected to take about {duration(sum(estimates))} ({parts})")
        for run in missing:
            if run is not missing[0] and settings.limit.is_over():
                raise settings.limit.error(f"{run_name(run)} was still to do")
            with _locked(run, store, progress, settings.limit) as (lock, check_lock):
                if again or distributed.agreed(store.find(run) is None):  # else another process has just finished it
                    _train_and_store(run, resources, store, progress, lock, check_lock, settings)
    if distributed.rank() > 0:
        return None
    found, of_full = store.find(spec), store.find(full)
    assert found is not None
    return Outcome(compare(found, of_full), store.path(spec), store.path(full) if of_full else None)


def _tidy_and_report(
    wanted: list[Spec], missing: list[Spec], store: Store, progress: Progress, settings: RunOptions
) -> None:
    """Removes files of killed processes, and reports the runs that are done already."""
    if distributed.rank() == 0:
        store.check_writable()
    for run in wanted:
        if distributed.rank() == 0:
            tidy(run, store, keep_checkpoint=settings.again)
        if run not in missing:
            progress.message(f"{run_name(run)} is done already: {store.path(run)} (--again trains it anew)")
    if settings.save_model and wanted[-1] not in missing and not store.path(wanted[-1], ".pt").exists():
        progress.message("its weights were not kept; --again --save-model trains it anew and keeps them")
    if settings.save_scores and wanted[-1] not in missing and not exporting.has_scores(wanted[-1], store):
        progress.message("its scores were not kept; --again --save-scores trains it anew and keeps them")


def tidy(spec: Spec, store: Store, keep_checkpoint: bool = False) -> None:
    """Removes the files of a process that was killed after it had written its record.

    Args:
        spec: The run.
        store: The store of its files.
        keep_checkpoint: Whether to leave checkpoints, which may belong to a run that replaces the record.
    """
    checkpoints = [store.path(spec, suffix) for suffix in (".ckpt", ".ckpt.before")]
    locks = [store.path(spec, suffix) for suffix in (".lock", ".claim")]
    if not store.path(spec).exists() or not any(path.exists() for path in (*checkpoints, *locks)):
        return
    for lock in map(Lock, locks):
        if not lock.acquire():
            return  # a living process holds it
        if not keep_checkpoint:
            for path in checkpoints:
                remove(path)
        remove_parts(store.path(spec, ""))
        lock.release(finished=True)


def checkpoint_bytes(spec: Spec, weight_bytes: int) -> int:
    """Returns about how many bytes a run's checkpoints take on disk while it trains.

    Args:
        spec: The run.
        weight_bytes: Bytes of the network's parameters.
    """
    copies = 1 + OPTIMIZER_COPIES[spec.optimizer] + make_sparsity(spec).checkpoint_copies() + bool(spec.ema)
    return round(CHECKPOINTS * copies * weight_bytes)


def search_bytes(spec: Spec, weight_bytes: int) -> int:
    """Returns about how many bytes the shared file of a run's search takes: weights and masks; 0 without a search.

    Args:
        spec: The run.
        weight_bytes: Bytes of the network's parameters.
    """
    return round((1 + MASK_COPIES) * weight_bytes) if make_sparsity(spec).searches else 0


@contextmanager
def _locked(
    spec: Spec, store: Store, progress: Progress, limit: TimeLimit
) -> Iterator[tuple[Lock, Callable[[], None]]]:
    """Keeps every other process from this run within the context. The first of several ranks holds the lock.

    Yields:
        The lock, and a function that raises BadInput where the run has lost it.
    """
    lock = Lock(store.path(spec, ".lock"))
    if distributed.rank() > 0:
        yield lock, lambda: None
        return
    if not lock.acquire():
        progress.message(f"another process trains {run_name(spec)}: waiting for it ({lock.path})")
        while not lock.acquire():
            limit.check_alone(f"{run_name(spec)} waited for another process")
            time.sleep(1)
    finished = False
    try:
        remove_parts(store.path(spec, ""))
        with closing(OutFolder(store.folder)) as folder:
            yield lock, partial(check_place, spec, lock, folder)
        finished = True
    finally:
        lock.release(finished=finished)


def check_place(spec: Spec, lock: Lock, folder: OutFolder) -> None:
    """Raises BadInput where a run has lost its folder or its lock, and so must not write."""
    if lock.is_mine():
        return
    if fault := folder.fault():
        raise BadInput(f"{run_name(spec)} has no place for its record any more: {fault}")
    if lock.is_gone():
        raise BadInput(
            f"somebody removed the lock of {run_name(spec)}, {lock.path}, while it trained; the same command goes on from "
            "its last checkpoint"
        )
    raise BadInput(
        f"another process has taken {run_name(spec)} over, as this one gave no sign of life; it is left to that one"
    )


def _train_and_store(
    spec: Spec,
    resources: Resources,
    store: Store,
    progress: Progress,
    lock: Lock,
    check_lock: Callable[[], None],
    settings: RunOptions,
) -> None:
    """Trains one run and writes its record, or its failure. The first of several ranks writes alone."""
    replaced = None
    with suppress(BadInput):  # a broken record, which this run replaces
        replaced = store.find(spec)
    identity = {"key": spec.key, "data_sha256": resources.material.sha256}
    checkpoint = Checkpoint(store.path(spec, ".ckpt"), settings.checkpoint_seconds, identity, progress.message)
    trainer = RunTrainer(
        spec,
        resources,
        progress,
        checkpoint=checkpoint,
        scores_path=store.scores_path(spec),
        search_path=store.search_path(spec),
        fresh=settings.again,
        starts=lock.starts,
        replaces=replaced.finished if replaced else None,
        before_save=check_lock,
        limit=settings.limit,
        logger=settings.logger,
    )
    try:
        record = trainer.run()
    except Diverged as error:
        if distributed.rank() == 0:
            failure = Failure(spec, str(error), now(), error.epoch, error.learning_rate, attempts=lock.starts)
            store.write_failure(failure)
        raise
    if distributed.rank() > 0:
        return
    check_lock()
    if settings.save_model:  # before the record, which exists only when all is done
        with atomic(store.path(spec, ".pt")) as file:
            torch.save(inference_state(trainer.model), file)
    _keep_more(spec, trainer, store, settings, progress)
    store.write(record)
    checkpoint.discard()


def _keep_more(spec: Spec, trainer: RunTrainer, store: Store, settings: RunOptions, progress: Progress) -> None:
    """Writes requested scores and masks of connections beside the record; removes those of a former run first."""
    scores, masks = store.path(spec, exporting.SCORES), store.path(spec, exporting.MASKS)
    for path in (scores, masks):
        remove(path)
    if settings.save_model and trainer.state.sparsity.masks:
        exporting.write_masks(masks, trainer.state.sparsity.masks)
    if settings.save_scores and type(trainer.pruner).final_scores is not Pruner.final_scores:
        try:
            exporting.write_scores(scores, exporting.final_scores(spec, trainer.pruner), trainer.material.sha256)
        except BadInput as error:  # The run itself is valid.
            progress.message(f"its scores are not kept: {error}")
