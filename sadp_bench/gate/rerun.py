"""The reference's runs, made anew: each exactly as its record's spec says, one after the other in this process."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sadp_bench.core.errors import BadInput
from sadp_bench.core.progress import Progress
from sadp_bench.core.registry import GROUPS
from sadp_bench.core.text import duration
from sadp_bench.records.record import Record
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import Store
from sadp_bench.runs import resolve, run
from sadp_bench.runs.resolve import Material


def rerun(
    reference: Sequence[Record],
    store: Store,
    data: Path | None,
    progress: Progress,
    *,
    allow_imports: bool = False,
    checkpoint_seconds: float = 60.0,
) -> dict[str, str]:
    """Makes the runs that the store lacks; by key, why those failed that now do. The others are made all the same.

    Raises BadInput, before anything is trained, where a run can't be made here: its data are not there, say.
    """
    check_trusted(reference, allow_imports)
    store.check_writable()
    opened: dict[Any, Any] = {}
    ready = [(record.spec, _material(record.spec, data, opened)) for record in _full_first(reference)]
    seconds = duration(sum(sum(record.seconds.values()) for record in reference))
    there = sum(store.find(spec) is not None for spec, _ in ready)
    taken = f"; {there} are in {store.folder} already and taken as they are" if there else ""
    progress.say(f"{len(ready)} runs of the reference, which took {seconds}{taken}")
    failed = {}
    for spec, material in ready:
        try:
            run.run(spec, material, store, progress, reference=False, checkpoint_seconds=checkpoint_seconds)
        except BadInput as error:
            failed[spec.key] = str(error)
        except Exception as error:  # a defect in one method's code must not hide what became of the others
            traceback.print_exc()
            failed[spec.key] = f"{type(error).__name__}: {error}"
        if spec.key in failed:
            progress.say(f"{spec.method} {spec.ratio:g}, seed {spec.seed}: {failed[spec.key]}")
    return failed


def check_trusted(reference: Sequence[Record], allow_imports: bool) -> None:
    """Raises BadInput where a record would have code imported and the caller did not allow it."""
    for record in reference:
        for kind in GROUPS:
            name = getattr(record.spec, kind)
            if ":" in name and not allow_imports:
                raise BadInput(
                    f"the reference's {kind} '{name}' would import that module and so run its code; --allow-imports lets "
                    "it, if you trust the records"
                )


def asked(spec: Spec) -> dict[str, Any]:
    """What `parts.resolve` takes for such a run."""
    fields = spec.to_json()
    settings = fields.pop("method_options")
    for owner in ("backbone", "sparsity"):
        settings |= {f"{owner}.{name}": value for name, value in fields.pop(f"{owner}_options").items()}
    del fields["processes"]
    return fields | {"set": settings}


def _material(spec: Spec, data: Path | None, opened: dict[Any, Any]) -> Material:
    """Its data. That the spec resolves also says that the run can be made; it is made with the record's own spec, so that a
    setting which came later takes its default and the key stays."""
    what = f"{spec.method} {spec.ratio:g}, seed {spec.seed}"
    if spec.processes > 1:
        raise BadInput(
            f"{what} shared its batches among {spec.processes} processes: make it with torchrun, and use --against"
        )
    try:
        return resolve.resolve(asked(spec), data, opened)[1]
    except BadInput as error:
        raise BadInput(f"the reference's {what} can't be made here: {error}") from None


def _full_first(reference: Sequence[Record]) -> list[Record]:
    return sorted(reference, key=lambda record: record.spec.method != "full")
