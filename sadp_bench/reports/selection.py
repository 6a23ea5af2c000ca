"""Which runs of a folder a report shows: filters by data set, network, method, ratio and seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sadp_bench.core import registry
from sadp_bench.core.errors import BadInput
from sadp_bench.records.record import Failure, Record
from sadp_bench.records.spec import Spec
from sadp_bench.reports.outcomes import RIVALS

FIELDS = ("dataset", "backbone", "method", "ratio", "seed")
COMPARED_WITH = ("full", *RIVALS)  # methods whose runs stay, because the others are compared with them


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The values that a report shows, by field of a spec; () for all."""

    dataset: Sequence[str] = ()
    backbone: Sequence[str] = ()
    method: Sequence[str] = ()
    ratio: Sequence[float] = ()
    seed: Sequence[int] = ()

    def given(self) -> dict[str, Sequence[Any]]:
        """Returns the fields that are limited, with their values."""
        return {name: values for name in FIELDS if (values := getattr(self, name))}

    def holds(self, spec: Spec) -> bool:
        """Returns whether a run has one of the values of each field."""
        return all(getattr(spec, name) in values for name, values in self.given().items())

    def keeps(self, spec: Spec) -> bool:
        """Returns whether a run is shown: it has the values, or runs that have them are compared with it.

        Runs of full data are shown at every ratio.
        """
        given = self.given()
        if spec.method in COMPARED_WITH:
            given.pop("method", None)
        if spec.method == "full":
            given.pop("ratio", None)
        return all(getattr(spec, name) in values for name, values in given.items())


def selected(
    records: Sequence[Record], failures: Sequence[Failure], wanted: Wanted
) -> tuple[list[Record], list[Failure]]:
    """Returns the runs that a report shows.

    Raises:
        BadInput: No run has one of the values, or none has all of them. The message names the values that exist.
    """
    specs = [*(run.spec for run in records), *(run.spec for run in failures)]
    for name, values in wanted.given().items():
        there = {_shown(getattr(spec, name)): getattr(spec, name) for spec in specs}
        for value in values if specs else ():
            if value not in there.values():
                raise BadInput(f"--{name} {_shown(value)} is in no record here{_there(_shown(value), name, there)}")
    if specs and not any(map(wanted.holds, specs)):
        raise BadInput(_none_has_all(specs, wanted))
    return [run for run in records if wanted.keeps(run.spec)], [run for run in failures if wanted.keeps(run.spec)]


def _none_has_all(specs: Sequence[Spec], wanted: Wanted) -> str:
    """Returns the message that no run has all values. It names values of one field that occur with the others."""
    given = wanted.given()
    message = f"no record here has all of {' '.join(f'--{name} {_listed(values)}' for name, values in given.items())}"
    for name in reversed(given):
        others = {other: values for other, values in given.items() if other != name}
        found = {getattr(spec, name) for spec in specs if Wanted(**others).holds(spec)}
        if found:
            return f"{message}; beside the others, --{name} may be {_listed(sorted(found))}"
    return f"{message}; leave one of them out"


def _listed(values: Sequence[Any]) -> str:
    return ",".join(map(_shown, values))


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _there(value: str, name: str, there: dict[str, Any]) -> str:
    """Returns '; did you mean ...' for a name, and all known values for a number."""
    if name in ("ratio", "seed"):
        return f"; allowed: {', '.join(sorted(there, key=lambda text: there[text]))}"
    return registry.nearest(value, there)
