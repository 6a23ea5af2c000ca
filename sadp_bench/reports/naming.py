"""Names in reports: titles of groups, a run's place on the time and the weight axis, the command that makes a run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence

from sadp_bench.core import registry
from sadp_bench.core.text import count, percent
from sadp_bench.records.axes import TIME_AXIS, WEIGHT_AXIS
from sadp_bench.records.fields import PREFIXES, shown
from sadp_bench.records.naming import Settings, differing, distinguishing, settings_text
from sadp_bench.records.spec import Spec

IN_EVERY_TITLE = "dataset backbone train_examples epochs timesteps precision protocol evaluate_on".split()
FIRST_METHODS = ("full", "ceiling", "fewer-epochs", "random")
AXES = frozenset((*TIME_AXIS, *WEIGHT_AXIS))


def command(spec: Spec) -> str:
    """Returns the shell command that makes exactly this run."""
    if spec.processes == 1:
        return shlex.join(["sadp-bench", "run", *spec.words()])
    return shlex.join(["torchrun", "--nproc-per-node", str(spec.processes), "-m", "sadp_bench", "run", *spec.words()])


def display_label(label: str, method: str) -> str:
    """Returns a method's label as people write it: 'SADP (smoothing=0.1)' for 'sadp (smoothing=0.1)' of the method sadp."""
    return registry.display_name("method", method) + label.removeprefix(method)


def method_order(method: str) -> tuple[int, str]:
    """Returns a sort key: full, ceiling, fewer-epochs, random; the others by name; sadp last."""
    if method in FIRST_METHODS:
        return FIRST_METHODS.index(method), ""
    return (len(FIRST_METHODS) + (method == "sadp"), method)


def is_axis(name: str) -> bool:
    """Returns whether a setting belongs to the time or the weight axis."""
    return name in AXES or name.startswith(PREFIXES["sparsity_options"])


def is_method_option(name: str) -> bool:
    """Returns whether a setting is an option of the method, or its budget."""
    return name == "budget" or name.startswith(PREFIXES["method_options"])


def without(settings: Settings, *names: str) -> Settings:
    """Returns the settings without the named ones."""
    return {name: value for name, value in settings.items() if name not in names}


def settings_order(settings: Settings) -> str:
    """Returns a sort key of a group: its settings in their order, numbers by size."""
    values = [f"{value:020.9f}" if isinstance(value, int | float) else value for value in settings.values()]
    return json.dumps(values)


def time_name(settings: Settings) -> str:
    """Returns 'bptt', 'sltt' or 'sltt-k K=2'."""
    return f"sltt-k K={settings['k']}" if settings["backprop"] == "sltt-k" else str(settings["backprop"])


def weights_name(settings: Settings, rivals: Iterable[Settings] = ()) -> str:
    """Returns 'dense' or 'imp 10 % early-time (rewind=1)'.

    The percentage is the density that the run requested. The options in brackets set the run apart from its rivals of the
    same kind (`distinguishing`).
    """
    if settings["sparsity"] == "dense":
        return "dense"
    prefix = PREFIXES["sparsity_options"]
    tables = [
        {name.removeprefix(prefix): value for name, value in sorted(table.items()) if name.startswith(prefix)}
        for table in (settings, *rivals)
        if table["sparsity"] == settings["sparsity"]
    ]
    options = settings_text(tables[0], distinguishing(tables[0], tables))
    name = f"{settings['sparsity']} {percent(settings['density'])}{' early-time' if settings['early_time'] else ''}"
    return f"{name} ({', '.join(options)})" if options else name


def titles(groups: Sequence[Settings]) -> list[str]:
    """Returns the title of each group: its main settings, and those that differ among groups of its data set and network.

    Args:
        groups: Each group's settings: `Spec.flat` or a part of it. A group without settings of the time and the weight
            axis contains runs of all their choices.
    """
    found = []
    for settings in groups:
        rivals = [other for other in groups if all(other[name] == settings[name] for name in ("dataset", "backbone"))]
        names = [name for name in differing(rivals) if name not in IN_EVERY_TITLE and not is_axis(name)]
        more = [f"{name.replace('_', '-')}={shown(value)}" for name, value in settings.items() if name in names]
        found.append(" · ".join([*_main_settings(settings), *more, *_differing_axes(settings, rivals)]))
    return found


def _main_settings(settings: Settings) -> list[str]:
    return [
        settings["dataset"],
        settings["backbone"],
        f"{settings['train_examples']:,} examples",
        count(settings["epochs"], "epoch"),
        *([f"T={settings['timesteps']}"] if "timesteps" in settings else []),
        settings["precision"],
        *(["equal updates"] if settings["protocol"] == "updates" else []),
        *(["validation accuracy"] if settings["evaluate_on"] == "validation" else []),
    ]


def _differing_axes(settings: Settings, rivals: Sequence[Settings]) -> list[str]:
    if "backprop" not in settings:
        return []
    of_rivals = [(time_name(rival), weights_name(rival, rivals)) for rival in rivals]
    names = (time_name(settings), weights_name(settings, rivals))
    return [name for name, others in zip(names, zip(*of_rivals, strict=True), strict=True) if len(set(others)) > 1]
