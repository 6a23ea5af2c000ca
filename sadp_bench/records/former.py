"""Options and rules that were added, renamed or retired after some records were made. Those records keep their keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sadp_bench.core.errors import BadInput

# Fields that were added later, with the values that older records mean. The key leaves a field out at this value.
LATER: dict[str, Any] = {
    "processes": 1,
    "backprop": "bptt",
    "k": 0,
    "sparsity": "dense",
    "density": 1.0,
    "early_time": False,
    "sparsity_options": {},
    "dataset_options": {},
    "kernel": "python",
    "mse_weight": 0.05,
    "lr_clock": "epochs",
    "budget": "constant",
    "label_smoothing": 0.0,
    "warmup_epochs": 0.0,
    "momentum": 0.9,
    "nesterov": False,
    "clip_norm": 0.0,
    "ema": 0.0,
}
# The later fields of the axes, and the budget: a plain run has them at the values of `LATER`.
OF_AXES = ("backprop", "k", "sparsity", "density", "early_time", "sparsity_options", "budget")
# Options that were added later, by table and owner, with the values that older records mean. A spec without the option
# gets this value, and the key leaves the option out at this value.
FORMER_OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "method_options": {
        "infobatch": {"drop_share": 0.9, "variant": "mean"},
        "random": {"rescale": False},
        **dict.fromkeys(("el2n", "grand", "forgetting"), {"keep": "hardest", "score_updates": 0, "untrained": False}),
    },
    "backbone_options": {
        **dict.fromkeys(("cnn", "vgg11"), {"pool": "avg", "pool_at": "after-norm", "dropout": 0.0}),
        "resnet18-sltt": {"dropout": 0.0},
    },
    "sparsity_options": {
        "imp": {"early_rule": "max", "search_ratio": 0.0},
        "eb": {"early_rule": "max", "search_ratio": 0.0},
        "pq": {"shrink": False, "start": 0.5},
    },
    "dataset_options": {"nmnist": {"by": "time"}},
}
# Later options that choose a rule, with the former rule, which was corrected since. Reports add the rule to the name of a
# run by the former rule.
FORMER_RULES: dict[str, Any] = {"early_rule": "max", "shrink": False, "drop_share": 0.9}
# By table and owner: present name -> name in the key, for renamed options. Another option now has a former name, so an
# older record is recognised by the option's value (`FORMER_VALUES`, by present name).
KEY_NAMES: dict[str, dict[str, dict[str, str]]] = {
    "backbone_options": dict.fromkeys(("cnn", "vgg11"), {"pool_at": "pool", "pool": "pool_kind"})
}
FORMER_VALUES = {"pool_at": ("before-norm", "after-norm")}
# By method, options that no longer exist, with the only values that a record may have. Every key is still made with them,
# so that older records keep their keys, and equal new runs get the same keys.
RETIRED: dict[str, dict[str, Any]] = {"sadp": {"warmup": 0.0, "refresh": 0, "refresh_share": 0.1}}

PLACES = ("file", "folder")  # options with a path, beside the `sha256` of its content

# By method, the former option that is now the field `budget` of every method. The key of the method's runs is still made
# with the option, and without the field.
BUDGET_OPTION = {"sadp": "schedule"}


def former_options(table: str, owner: str) -> dict[str, Any]:
    """Returns the options of a table that older records lack, with the values that they mean."""
    return FORMER_OPTIONS[table].get(owner, {})


def in_key(table: str, owner: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a table of options as the key contains it: by former names, without options at the values of older records.

    A `file` or `folder` beside its `sha256` is left out, because the run depends on the content and not on its path.
    """
    former, names = former_options(table, owner), _key_names(table, owner)
    if "sha256" in options:
        options = {name: value for name, value in options.items() if name not in PLACES}
    kept = {name: value for name, value in options.items() if name not in former or value != former[name]}
    return {names.get(name, name): value for name, value in kept.items()}


def _key_names(table: str, owner: Any) -> dict[str, str]:
    return KEY_NAMES.get(table, {}).get(owner, {}) if isinstance(owner, str) else {}


def former_names(table: str, fields: Mapping[str, Any]) -> dict[str, str]:
    """Returns the options of a table that have a former name: former name -> present name."""
    options = fields.get(table)
    return {
        of_key: name
        for name, of_key in _key_names(table, fields.get(table.removesuffix("_options"))).items()
        if isinstance(options, dict) and options.get(of_key) in FORMER_VALUES.get(name, ())
    }


def budget_option(method: Any) -> str | None:
    """Returns the option of a method that became the field `budget`; None: it had no such option."""
    return BUDGET_OPTION.get(method) if isinstance(method, str) else None


def with_budget_field(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a record's spec with the field `budget` in place of the option that it was before."""
    options, name = data.get("method_options"), budget_option(data.get("method"))
    if name is None or not isinstance(options, dict) or name not in options:
        return dict(data)
    rest = {other: value for other, value in options.items() if other != name}
    return {"budget": options[name], **data, "method_options": rest}


def without_retired(method: Any, options: Any) -> Any:
    """Returns a record's method options without those that no longer exist."""
    retired = RETIRED.get(method) if isinstance(method, str) else None
    if not retired or not isinstance(options, dict):
        return options
    for name, value in retired.items():
        if options.get(name, value) != value:
            raise BadInput(
                f"{method}'s option {name} is {options[name]!r}, and this version has no such option: it reads {value!r} "
                "only; read the record with the version that made it"
            )
    return {name: value for name, value in options.items() if name not in retired}
