"""The runs of a sweep as tasks of a Ray cluster. The driver receives their files, checks them and keeps them.

A worker needs this package and the data, but not the sweep's folder. A run's process writes to a temporary folder, so a run
whose worker is lost begins anew.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sadp_bench.core.errors import BadInput
from sadp_bench.core.files import STATE_BYTES, read_bytes
from sadp_bench.records.record import Failure, Record
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import FAILED, Store, atomic
from sadp_bench.sweeps.executors import Ended, Executor, Options, run_words
from sadp_bench.sweeps.processes import NUM_LINES, finished, kept_line

OBJECT_STORE_BYTES = (
    200 << 20
)  # bytes for a local Ray: records, scores and searches are small, and Ray's default is a third of the memory
KNOCK_SECONDS = 10.0  # seconds for the cluster's port to answer
Answer = tuple[int, list[str], dict[str, bytes]]


def work(fields: dict[str, Any], options: Options, shared: dict[str, bytes]) -> Answer:
    """Trains a run on a worker. Returns the exit code, the last lines, and the files by their relative names.

    Args:
        fields: The fields of the spec.
        options: The sweep's options.
        shared: The existing files of scores and search, by their relative names.
    """
    spec = Spec.from_json(fields)
    with TemporaryDirectory(prefix="sadp-bench-") as folder:
        store = Store(Path(folder))
        keep_shared(store, spec, shared)
        code, lines = finished(run_words(spec, store.folder, options))
        left = [path for path in files(store, spec) if path.is_file()]
        return code, lines, {str(path.relative_to(folder)): read_bytes(path, STATE_BYTES) for path in left}


def files(store: Store, spec: Spec) -> tuple[Path, ...]:
    """Returns the paths of all files that a run may write for the sweep: record, failure, shared scores and search."""
    return store.path(spec), store.path(spec, FAILED), *store.shared_paths(spec)


def keep_shared(store: Store, spec: Spec, left: dict[str, bytes]) -> None:
    """Writes the files of scores and search that do not exist yet."""
    for path in store.shared_paths(spec):
        content = left.get(str(path.relative_to(store.folder)))
        if content is not None and not path.exists():
            with atomic(path) as file:
                file.write(content)


def keep(store: Store, spec: Spec, left: dict[str, bytes], interruptions: int = 0) -> None:
    """Writes the files of a run that a worker returned. Their names are only compared, never used as paths.

    Args:
        store: The sweep's records.
        spec: The run. A record must be of this run.
        left: The files, by their relative names.
        interruptions: The number of earlier tries, which the worker's record does not contain.

    Raises:
        BadInput: A file is not a record or failure of the run.
    """
    keep_shared(store, spec, left)
    record, failure = (left.get(store.path(spec, suffix).name) for suffix in (".json", FAILED))
    if record is not None:
        found = _checked(Record, record, spec)
        store.write(dataclasses.replace(found, interruptions=found.interruptions + interruptions))
    elif failure is not None:
        store.write_failure(_checked(Failure, failure, spec))


def _checked(kind: Any, content: bytes, spec: Spec) -> Any:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        raise BadInput("the worker's file is not JSON: cut short or damaged") from None
    found = kind.from_json(data)
    if found.spec.key != spec.key:
        raise BadInput(f"the worker's file is of run {found.spec.key}, not of {spec.key}")
    return found


class RayCluster(Executor):
    """Ray tasks of `threads` CPUs each, and of `gpus_per_run` GPUs for runs on "cuda".

    Args:
        store: The sweep's records.
        options: The sweep's options.
        specs: All runs to train.

    Raises:
        BadInput: Ray is not installed or cannot be reached, or no machine of the cluster has room for one of the runs.
    """

    shares_folder = False

    def __init__(self, store: Store, options: Options, specs: list[Spec]) -> None:
        self._store, self._options = store, options
        self._pending: dict[Any, tuple[Spec, int]] = {}
        self._ray = _connected(options.address)
        self._least = {
            "CPU": min((spec.threads for spec in specs), default=1),
            "GPU": min((self._gpus(spec) for spec in specs), default=0.0),
        }
        try:
            self._check_room(specs)
        except BadInput:
            self._ray.shutdown()
            raise

    def _gpus(self, spec: Spec) -> float:
        return (self._options.gpus_per_run or 1.0) if spec.device == "cuda" else 0.0

    def _fitting(self, spec: Spec) -> int:
        """Returns how many such runs fit on the largest machine at a time."""
        needed = {"CPU": spec.threads, "GPU": self._gpus(spec)}
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return max(
            (min(int(has.get(n, 0) / need) for n, need in needed.items() if need) for has in machines), default=0
        )

    def _check_room(self, specs: list[Spec]) -> None:
        for spec in specs:
            if self._fitting(spec) == 0:
                raise BadInput(
                    f"no machine of the Ray cluster has {spec.threads} CPUs and {self._gpus(spec):g} GPUs, which a run "
                    "needs; lower threads in the file or --gpus-per-run, or start a larger worker first"
                )

    def capacity(self) -> int:
        """Returns how many runs would fit if all were as small as the smallest. Larger ones wait within Ray."""
        there = self._ray.cluster_resources()
        return min(int(there.get(name, 0) / least) for name, least in self._least.items() if least)

    def start(self, spec: Spec, earlier: int) -> None:
        """Submits a run to Ray, with the scores and the search that it shares where they exist."""
        shared: dict[str, bytes] = {}
        for path in self._store.shared_paths(spec):
            with suppress(BadInput):  # a file that cannot be read is made by the run
                shared[str(path.relative_to(self._store.folder))] = read_bytes(path, STATE_BYTES)
        # Ray must not repeat a task by itself, because the sweep counts the tries.
        task = self._ray.remote(work).options(num_cpus=spec.threads, num_gpus=self._gpus(spec), max_retries=0)
        options = dataclasses.replace(self._options, jobs=self._fitting(spec))
        self._pending[task.remote(spec.to_json(), options, shared)] = spec, earlier

    def ended(self) -> list[Ended]:
        """Returns the runs that have ended since the last call. Their files are kept before."""
        if not self._pending:
            return []
        ready, _ = self._ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
        return [self._end(reference, *self._pending.pop(reference)) for reference in ready]

    def _end(self, reference: Any, spec: Spec, earlier: int) -> Ended:
        errors = self._ray.exceptions
        try:
            code, lines, left = self._ray.get(reference)
            keep(self._store, spec, left, earlier)
        except BadInput as error:
            return Ended(spec, 1, [str(error)])
        except errors.RayTaskError as error:  # `work` itself failed, for example on a full disk of the worker
            return Ended(spec, 1, _lines(error))
        except errors.OutOfMemoryError as error:  # Ray killed the task because memory was low
            return Ended(spec, -signal.SIGKILL, _lines(error))
        except errors.RayError as error:
            return Ended(spec, 1, [f"its worker was lost: {type(error).__name__}", *_lines(error)], lost=True)
        return Ended(spec, code, [kept_line(line) for line in lines])

    def latest(self, spec: Spec) -> str:
        """Returns a constant, because a task returns its lines only at its end."""
        return "on the cluster"

    def stop(self) -> None:
        """Cancels all tasks and disconnects."""
        for reference in self._pending:
            self._ray.cancel(reference, force=True)
        self._pending.clear()
        self._ray.shutdown()


def _lines(error: Exception) -> list[str]:
    return [kept_line(line) for line in str(error).splitlines()[-NUM_LINES:]]


def _connected(address: str | None) -> Any:
    """Returns the module `ray` after it is connected."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # by default a local Ray sends usage statistics
    os.environ.setdefault("RAY_worker_niceness", "0")  # by default workers have low priority, but runs are timed
    try:
        import ray
    except ImportError:
        raise BadInput("--executor ray needs Ray: pip install 'sadp-bench[ray]'") from None
    local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    how = local if address is None else {}
    try:
        _knock(address)
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **how)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"no Ray cluster at {address or 'this machine'}: {reason}; see --address") from None
    return ray


def _knock(address: str | None) -> None:
    """Raises OSError where no process listens at the address. Ray itself would try for many minutes."""
    host, colon, port = (address or "").rpartition(":")
    if colon and port.isdecimal() and "//" not in host:
        with socket.create_connection((host, int(port)), KNOCK_SECONDS):
            pass
