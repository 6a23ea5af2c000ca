"""What `sadp-bench run` does: a run and its reference, each under its lock, from its checkpoint on, into the store."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from sadp_bench.core import distributed
from sadp_bench.core.errors import BadInput
from sadp_bench.core.progress import Progress
from sadp_bench.core.text import duration
from sadp_bench.records.file_lock import Lock
from sadp_bench.records.metrics import Comparison, compare
from sadp_bench.records.record import Failure
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import Store, atomic, remove_parts
from sadp_bench.runs.resolve import Material, make_model
from sadp_bench.runs.trainer import Bench, expected, now, train_one
from sadp_bench.training import loop
from sadp_bench.training.checkpoint import Checkpoint
from sadp_bench.training.shared_scores import SharedScores


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
    missing = [one for one in wanted if distributed.agreed(again or store.find(one) is None)]
    if distributed.rank() == 0:
        store.check_writable(max((checkpoint_bytes(one, material) for one in missing), default=0))
    for one in wanted:
        if distributed.rank() == 0:
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
            if again or distributed.agreed(store.find(one) is None):  # else another process has just finished it
                identity = {"key": one.key, "data_sha256": material.sha256}
                checkpoint = Checkpoint(store.path(one, ".ckpt"), checkpoint_seconds, identity, progress.say)
                _train_and_keep(Bench(one, material, progress, jobs), store, checkpoint, lock, again, save_model)
    if distributed.rank() > 0:
        return None
    found, full = store.find(spec), store.find(of_full)
    assert found is not None
    return Outcome(compare(found, full), store.path(spec), store.path(of_full) if full else None)


def tidy(spec: Spec, store: Store, keep_checkpoint: bool = False) -> None:
    """Clears away what a process left behind that was killed after it had written its record.

    keep_checkpoint: it may be that of a run that is to replace the record.
    """
    checkpoints = [store.path(spec, suffix) for suffix in (".ckpt", ".ckpt.before")]
    locks = [store.path(spec, suffix) for suffix in (".lock", ".claim")]
    if not store.path(spec).exists() or not any(path.exists() for path in (*checkpoints, *locks)):
        return
    for lock in map(Lock, locks):
        if not lock.acquire():
            return  # by a living process
        if not keep_checkpoint:
            for path in checkpoints:
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
    if distributed.rank() > 0:
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
    bench.context.shared = SharedScores(store.scores_path(spec), made_in, bench.device, bench.progress, fresh=again)

    def check_lock() -> None:
        if not lock.is_mine():
            raise BadInput(
                f"another process has taken {spec.method} {spec.ratio:g} over, as this one gave no sign of life; it is left "
                "to that one"
            )

    try:
        record = train_one(bench, checkpoint, lock.starts, check_lock)
    except loop.Diverged as error:
        if distributed.rank() == 0:
            store.write_failure(
                Failure(spec, str(error), now(), error.epoch, error.learning_rate, attempts=lock.starts)
            )
        raise
    if distributed.rank() > 0:
        return
    check_lock()
    if save_model:  # before the record, which says that all is done
        with atomic(store.path(spec, ".pt")) as file:
            torch.save(bench.model.state_dict(), file)
    store.write(record)
    checkpoint.discard()
