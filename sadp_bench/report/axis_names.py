"""How a report names what a run is on the time and the weight axis: 'sltt-k K=2', 'imp 10 % early-time'."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from sadp_bench.records.metrics import TIME_AXIS, WEIGHT_AXIS
from sadp_bench.records.spec import Spec, shown

Settings = Mapping[str, Any]  # a spec's fields, flat: `flat`, or a row
OPTIONS = {"method": "method.", "backbone": "backbone.", "sparsity": "sparsity."}  # prefixes of the `--set` tables
AXES = frozenset((*TIME_AXIS, *WEIGHT_AXIS))


def percent(share: float) -> str:
    return f"{100 * share:g} %"


def flat(spec: Spec) -> dict[str, Any]:
    """A spec's fields; the options of backbone and sparsity by their names with a prefix, the method's left out."""
    fields = spec.to_json()
    del fields["method_options"]
    for kind in ("backbone", "sparsity"):
        options = fields.pop(f"{kind}_options")
        fields |= {f"{OPTIONS[kind]}{name}": value for name, value in options.items()}
    return fields


def spec_of(row: Settings, seed: int) -> Spec:
    """Of the runs of a row, that of a seed."""
    fields: dict[str, Any] = {field.name: row[field.name] for field in dataclasses.fields(Spec) if field.name in row}
    for kind, prefix in OPTIONS.items():
        options = {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
        fields[f"{kind}_options"] = options
    return Spec(**fields | {"seed": seed})


def is_axis(name: str) -> bool:
    """Whether a setting belongs to time or weights."""
    return name in AXES or name.startswith(OPTIONS["sparsity"])


def time_name(of: Settings) -> str:
    return f"sltt-k K={of['k']}" if of["backprop"] == "sltt-k" else str(of["backprop"])


def weights_name(of: Settings, rivals: Iterable[Settings] = ()) -> str:
    """With the share of connections that was asked for, and the options in which rivals of the same kind differ."""
    if of["sparsity"] == "dense":
        return "dense"
    alike = [rival for rival in rivals if rival["sparsity"] == of["sparsity"]]
    prefix = OPTIONS["sparsity"]
    differing = [
        f"{name.removeprefix(prefix)}={shown(value)}"
        for name, value in sorted(of.items())
        if name.startswith(prefix) and any(shown(rival.get(name)) != shown(value) for rival in alike)
    ]
    name = f"{of['sparsity']} {percent(of['density'])}{' early-time' if of['early_time'] else ''}"
    return f"{name} ({', '.join(differing)})" if differing else name
