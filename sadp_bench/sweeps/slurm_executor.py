"""The runs of a sweep as jobs of a Slurm cluster, through submitit. All machines share the folder of the records.

A job starts its run's process, which holds the run's lock and writes checkpoints and record to the folder. A job that Slurm
ends early is submitted again, and the run continues from its checkpoint.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from typing import Any

from sadp_bench.core.errors import BadInput
from sadp_bench.core.strangers import described
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import Store
from sadp_bench.sweeps import processes
from sadp_bench.sweeps.executors import Ended, Executor, Options, run_words

FOLDER = "slurm"  # in the folder of the records: scripts and logs of the jobs
OURS = {"jobs": 100, "cluster": "slurm"}  # settings of this module, with their defaults
DEFAULTS = {"timeout_min": 720}  # submitit's default would end a job after 5 minutes
CLUSTERS = ("slurm", "local", "debug")
GENERIC = ("timeout_min", "mem_gb")  # names that submitit takes without a prefix


class Slurm(Executor):
    """Slurm jobs of `threads` CPUs each, with a GPU for runs on "cuda".

    Args:
        store: The sweep's records.
        options: The sweep's options.

    Raises:
        BadInput: submitit or Slurm is not installed, or sbatch has no such setting.
    """

    shares_folder = True

    def __init__(self, store: Store, options: Options) -> None:
        self._store, self._options = store, dataclasses.replace(options, jobs=1)  # a job shares its cores with no other
        self._jobs: dict[str, tuple[Spec, Any]] = {}  # by key
        self._stillborn: list[Ended] = []
        settings = _settings(options.slurm)
        self._most = settings.pop("jobs")
        self._executor = _executor(store, settings.pop("cluster"), settings)

    def capacity(self) -> int:
        """Returns the largest number of jobs in Slurm at a time, including waiting ones."""
        return int(self._most)

    def start(self, spec: Spec, earlier: int) -> None:
        """Submits a run's job."""
        words = run_words(spec, self._store.folder.absolute(), self._options)
        try:
            self._executor.update_parameters(
                name="sadp-bench", cpus_per_task=spec.threads, gpus_per_node=int(spec.device.startswith("cuda"))
            )
            self._jobs[spec.key] = spec, self._executor.submit(processes.finished, words)
        except Exception as error:  # sbatch refuses jobs for reasons of many kinds
            self._stillborn.append(Ended(spec, 1, [f"the job could not be submitted: {described(error)}"]))

    def ended(self) -> list[Ended]:
        """Returns the runs whose jobs have ended since the last call."""
        ends, self._stillborn = self._stillborn, []
        for key, (spec, job) in list(self._jobs.items()):
            if job.done():
                del self._jobs[key]
                ends.append(_end(spec, job))
        return ends

    def latest(self, spec: Spec) -> str:
        """Returns the job's number and state. A job returns its lines only at its end."""
        _, job = self._jobs[spec.key]
        return f"job {job.job_id}: {job.state.lower()}"

    def stop(self) -> None:
        """Cancels all jobs."""
        for _, job in self._jobs.values():
            job.cancel()
        self._jobs.clear()


def _end(spec: Spec, job: Any) -> Ended:
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        code, lines = job.result()
    except FailedJobError as error:  # the job itself failed, for example without Python on its machine
        return Ended(spec, 1, [processes.kept_line(line) for line in str(error).splitlines()[-processes.NUM_LINES :]])
    except UncompletedJobError:
        return Ended(spec, 1, [f"Slurm ended its job {job.job_id} ({job.state})"], lost=True)
    return Ended(spec, code, lines)


def _settings(given: Mapping[str, str]) -> dict[str, Any]:
    """Returns the settings of `--slurm`, with numbers and flags converted. Raises BadInput for a bad `jobs` or `cluster`."""
    flags = {"true": True, "false": False}
    values = {name: int(text) if text.isdecimal() else flags.get(text, text) for name, text in given.items()}
    found: dict[str, Any] = OURS | values
    if not isinstance(found["jobs"], int) or found["jobs"] < 1:
        raise BadInput(f"--slurm jobs={found['jobs']}: the most jobs at a time are a whole number of at least 1")
    if found["cluster"] not in CLUSTERS:
        raise BadInput(f"--slurm cluster={found['cluster']}: it is one of {', '.join(CLUSTERS)}")
    return found


def _executor(store: Store, cluster: str, settings: Mapping[str, Any]) -> Any:
    """Returns submitit's executor with these settings for all jobs."""
    try:
        import submitit
    except ImportError:
        raise BadInput("--executor slurm needs submitit: pip install 'sadp-bench[slurm]'") from None
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise BadInput(
            "--executor slurm finds no sbatch here: start the sweep on a machine that submits jobs, or try it on this one "
            "with --slurm cluster=local"
        )
    named = {name if name in GENERIC else f"slurm_{name}": value for name, value in settings.items()}
    try:
        executor = submitit.AutoExecutor(store.folder.absolute() / FOLDER, cluster=cluster)
        executor.update_parameters(**DEFAULTS | named)
    except (NameError, AssertionError, TypeError) as error:
        raise BadInput(f"--slurm: {' '.join(str(error).split())[:200]}") from None
    return executor
