"""Recipes of papers: claim files with a table `[recipe]`. `sadp-bench run --recipe` trains the first run of such a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sadp_bench.claims.claim_file import SUFFIX, Claim, catalog, read_claim
from sadp_bench.core.errors import BadInput
from sadp_bench.core.registry import nearest
from sadp_bench.records.fields import PREFIXES, option
from sadp_bench.sweeps.search import shown
from sadp_bench.sweeps.sweep_file import read_sweep, read_tables

RECIPE_KEYS = ("differs", "not_public")
# Field -> fields of the recipe that depend on its value. Another value of the field leaves them out.
DEPENDENT = {
    "method": ("ratio", "budget"),
    "loss": ("mse_weight",),
    "optimizer": ("momentum", "nesterov"),
    "sparsity": ("density", "early_time"),
    "backprop": ("k",),
    "schedule": ("lr_clock",),
}


MACHINES = ("device", "threads", "precision", "kernel")  # fields that depend on the machine, not on the experiment


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of a paper's experiment.

    Attributes:
        claim: The paper's claim on it, with the source.
        differs: Known parts of the experiment that are different here.
        not_public: Settings and numbers that are in no public text, or in none that was found.
        fields: Fields of the run, for `runs.resolve`.
    """

    claim: Claim
    differs: tuple[str, ...]
    not_public: tuple[str, ...]
    fields: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Returns the recipe as a table."""
        about = {"differs": list(self.differs), "not_public": list(self.not_public)}
        return self.claim.to_json() | about | {"fields": dict(self.fields)}


def recipes() -> dict[str, Path]:
    """Returns the files of the recipes that the package contains, by the recipes' names."""
    return {name: path for name, path in catalog().items() if "recipe" in read_tables(path)}


def find_recipe(name: str, *, allow_imports: bool = False) -> Recipe:
    """Returns a recipe of the package by its name, or of a file by its path. Raises BadInput with the nearest name."""
    if name.endswith(SUFFIX):
        return read_recipe(Path(name), allow_imports=allow_imports)
    known = recipes()
    if name not in known:
        raise BadInput(f"unknown recipe '{name}'{nearest(name, known)} (or the path of a {SUFFIX} file)")
    return read_recipe(known[name])


def read_recipe(path: Path, *, allow_imports: bool = False) -> Recipe:
    """Returns the recipe in a file. Raises BadInput with the place.

    Args:
        path: The file.
        allow_imports: Whether it may name `package.module:Class`.
    """
    head, where = read_tables(path).get("recipe"), f"{path}, [recipe]"
    if not isinstance(head, dict):
        raise BadInput(f"{path} has no [recipe]: such a table lists what differs and what is not public")
    for key in head:
        if key not in RECIPE_KEYS:
            raise BadInput(f"{where}: unknown key '{key}'{nearest(key, RECIPE_KEYS)}")
    differs, not_public = (_texts(where, head, key) for key in RECIPE_KEYS)
    return Recipe(read_claim(path), differs, not_public, read_sweep(path, allow_imports=allow_imports)[0].fields)


def _texts(where: str, table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    given = table.get(key)
    if not isinstance(given, list) or not all(isinstance(text, str) and text.strip() for text in given):
        raise BadInput(f"{where}: {key} is a list of texts, [] for none, not {shown(given)}")
    return tuple(" ".join(text.split()) for text in given)


def filled(recipe: Recipe, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns the request of a run by a recipe, and in words what the command line changes in it or adds to it.

    A given value replaces the recipe's. Another method, network, data set or kind of connections drops the recipe's settings
    for the replaced one, except those of the neuron. With another number of epochs, the warm-up keeps its share of the run.

    Args:
        recipe: The recipe.
        given: Fields of the command line, None where they are absent, and "set".
    """
    base = dict(recipe.fields)
    own = {name: value for name, value in given.items() if value is not None and name != "set"}
    replaced = {name for name, value in own.items() if name in base and base[name] != value}
    left_out = {name for field in replaced for name in DEPENDENT.get(field, ()) if name in base and name not in own}
    for name in left_out:
        del base[name]
    settings = {key: value for key, value in base["set"].items() if not _is_orphan(key, replaced)}
    request = base | own | {"set": settings | dict(given.get("set") or {})}
    added = {name for name, value in own.items() if name not in base and name not in MACHINES}
    changed = [option(name) for name in request if name in replaced | added]
    changed += [f"--set {key}" for key, value in request["set"].items() if settings.get(key) != value]
    changed += [f"{option(name)} left out" for name in sorted(left_out)]
    changed += [f"--set {key} left out" for key in base["set"] if key not in settings]
    if base.get("warmup_epochs") and "epochs" in replaced and "warmup_epochs" not in own:
        share = base["warmup_epochs"] / base["epochs"]
        request["warmup_epochs"] = share * own["epochs"]
        changed.append(f"--warmup-epochs {request['warmup_epochs']:g}, the same share")
    return request, changed


def _is_orphan(key: str, replaced: set[str]) -> bool:
    """Returns whether a setting belongs to a method, network, data set or kind of connections that was replaced."""
    prefix = next((prefix for prefix in PREFIXES.values() if key.startswith(prefix)), PREFIXES["method_options"])
    owner = prefix.removesuffix(".")
    return owner in replaced and key not in _neuron_settings()


def _neuron_settings() -> set[str]:
    from sadp_bench.backbones.spiking import NeuronSettings  # imports torch, which a list of recipes does not need

    return {f"backbone.{of.name}" for of in dataclasses.fields(NeuronSettings)}
