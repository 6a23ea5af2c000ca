"""Trains the reference's runs anew, each with its record's spec, one after the other in this process."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sadp_bench.core.errors import BadInput
from sadp_bench.core.progress import Progress
from sadp_bench.core.registry import GROUPS
from sadp_bench.core.text import duration
from sadp_bench.records.fields import PREFIXES
from sadp_bench.records.naming import run_name
from sadp_bench.records.record import Record
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import Store
from sadp_bench.runs import resolve, run
from sadp_bench.runs.material import Material


def rerun(
    reference: Sequence[Record],
    store: Store,
    data: Path | None,
    progress: Progress,
    *,
    allow_imports: bool = False,
    checkpoint_seconds: float = 60.0,
) -> dict[str, str]:
    """Trains the runs that the store lacks. Returns the reasons of failures by key. A failure does not stop other runs.

    Args:
        reference: The reference's records.
        store: The store of the new records.
        data: The folder of the data sets.
        progress: Receives the progress.
        allow_imports: Whether records may name package.module:Class. Its code then runs.
        checkpoint_seconds: Seconds between checkpoints.

    Raises:
        BadInput: A run cannot be trained here, for example without its data. It is raised before any training.
    """
    check_trusted(reference, allow_imports)
    store.check_writable()
    opened: dict[Any, Any] = {}
    ready = [(record.spec, _material(record.spec, data, opened)) for record in _full_first(reference)]
    seconds = duration(sum(sum(record.seconds.values()) for record in reference))
    existing = sum(store.find(spec) is not None for spec, _ in ready)
    taken = f"; {existing} are in {store.folder} already and are not repeated" if existing else ""
    progress.message(f"{len(ready)} runs of the reference, which took {seconds}{taken}")
    failed = {}
    for spec, material in ready:
        try:
            run.run(spec, material, store, progress, reference=False, checkpoint_seconds=checkpoint_seconds)
        except BadInput as error:
            failed[spec.key] = str(error)
        except Exception as error:  # a defect in one method must not hide the results of others
            traceback.print_exc()
            failed[spec.key] = f"{type(error).__name__}: {error}"
        if spec.key in failed:
            progress.message(f"{_title(spec)}: {failed[spec.key]}")
    return failed


def check_trusted(reference: Sequence[Record], allow_imports: bool) -> None:
    """Raises BadInput where a record would import code that the caller did not allow."""
    for record in reference:
        for kind in GROUPS:
            name = getattr(record.spec, kind)
            if ":" in name and not allow_imports:
                raise BadInput(
                    f"the reference's {kind} '{name}' would import that module and so run its code; if you trust the "
                    "records, allow it with --allow-imports"
                )


def request_of(spec: Spec) -> dict[str, Any]:
    """Returns the request that `resolve.resolve` resolves to this spec."""
    flat = spec.flat()
    settings = {name.removeprefix(PREFIXES["method_options"]): flat.pop(name) for name in list(flat) if "." in name}
    del flat["processes"]
    return flat | {"set": settings}


def _material(spec: Spec, data: Path | None, opened: dict[Any, Any]) -> Material:
    """Returns the run's data. This also checks that the spec resolves.

    The run itself uses the record's spec. A setting that was added later has its default there, so the key is unchanged.
    """
    if spec.processes > 1:
        raise BadInput(f"{_title(spec)} ran on {spec.processes} processes: train it with torchrun, and use --against")
    try:
        return resolve.resolve(request_of(spec), data, opened)[1]
    except BadInput as error:
        raise BadInput(f"the reference's {_title(spec)} cannot be trained here: {error}") from None


def _title(spec: Spec) -> str:
    return f"{run_name(spec)}, seed {spec.seed}"


def _full_first(reference: Sequence[Record]) -> list[Record]:
    return sorted(reference, key=lambda record: record.spec.method != "full")
