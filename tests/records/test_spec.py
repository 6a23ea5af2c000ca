"""Options that no longer exist: records that contain them load under their keys, and new runs have the same keys."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import math
import pickle
from pathlib import Path

import pytest

from sadp_bench.core import registry
from sadp_bench.core.errors import BadInput
from sadp_bench.gate.rerun import request_of
from sadp_bench.pruners.sadp import SADP
from sadp_bench.records.fields import PREFIXES
from sadp_bench.records.former import FORMER_OPTIONS, RETIRED
from sadp_bench.records.naming import method_labels
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import read
from sadp_bench.runs.resolve import RunRequest
from tests.example_records import make_spec

RESULTS = Path(__file__).parents[2] / "results"


def committed() -> list[Path]:
    """Returns the files of the committed records of SADP that contain its retired options."""
    files = [
        path
        for path in sorted(RESULTS.glob("*/*-sadp-r*-s*.json"))
        if json.loads(path.read_text())["spec"]["method_options"].keys() >= RETIRED["sadp"].keys()
    ]
    assert len(files) > 90
    return files


def test_records_with_retired_options_load_under_their_keys_and_print_commands_without_them() -> None:
    for path in committed():
        spec = read(path).spec
        assert spec.key in path.name and not spec.method_options.keys() & RETIRED["sadp"].keys(), path
        assert not any("warmup" in word or "refresh" in word for word in spec.words()), path
        assert Spec.from_json(spec.to_json()).key == spec.key, path


def test_a_retired_option_at_another_value_is_refused() -> None:
    fields = json.loads(committed()[0].read_text())["spec"]
    for name, value in (("warmup", 0.1), ("refresh", 2), ("refresh_share", 0.5)):
        changed = fields | {"method_options": fields["method_options"] | {name: value}}
        with pytest.raises(BadInput, match=f"^sadp's option {name} is {value}, and this version has no such option"):
            Spec.from_json(changed)


def test_a_new_run_has_the_key_of_the_committed_record_of_the_same_settings() -> None:
    path = sorted((RESULTS / "ci").glob("*sadp*.json"))[0]
    defaults = {name: default for name, (_, default) in registry.options(SADP).items()}
    new = dataclasses.replace(read(path).spec, method_options=defaults | {"draw": "balanced"}, budget="falling")
    assert new.key in path.name


def test_the_option_that_became_the_budget_is_read_as_it_and_makes_the_same_key() -> None:
    path = sorted((RESULTS / "ci").glob("*sadp*.json"))[0]
    data = json.loads(path.read_text())
    assert data["spec"]["method_options"]["schedule"] == "falling" and "budget" not in data["spec"]
    spec = Spec.from_json(data["spec"])
    assert spec.budget == "falling" and "schedule" not in spec.method_options and spec.key == data["key"]
    assert Spec.from_json(spec.to_json()) == spec, "a record of now has the field"
    constant, of_random = dataclasses.replace(spec, budget="constant"), make_spec(method="random", method_options={})
    assert constant.key != spec.key and constant.reference().key == spec.reference().key
    falling = dataclasses.replace(of_random, budget="falling")
    assert falling.key != of_random.key and falling.any_method().key == of_random.any_method().key
    assert set(method_labels([of_random, falling]).values()) == {"random (budget=constant)", "random (budget=falling)"}


def test_records_before_a_corrected_rule_keep_their_keys_and_their_commands_name_the_former_rule() -> None:
    shown: dict[str, set[str]] = {}
    for path in sorted(RESULTS.glob("*/*.json")):
        data = json.loads(path.read_text())
        if "spec" not in data or "kind" in data:  # a study, or a measurement of speed
            continue
        spec = read(path).spec
        assert spec.key == data["key"] and spec.key in path.name, path
        for table, owners in FORMER_OPTIONS.items():
            owner = getattr(spec, table.removesuffix("_options"))
            if owner not in owners:
                continue
            assert RunRequest.of(request_of(spec)).spec(spec.train_examples) == spec, path
            former = owners[owner].keys() - data["spec"].get(table, {}).keys()
            prefix = PREFIXES[table].removeprefix("method.")
            words = {word for word in spec.words() if word.removeprefix(prefix).partition("=")[0] in former}
            shown.setdefault(f"{owner} {spec.early_time}", set()).update(words)
    assert shown["imp True"] == shown["eb True"] == {"sparsity.early_rule=max", "sparsity.search_ratio=0.0"}
    assert shown["pq False"] == {"sparsity.shrink=false", "sparsity.start=0.5"}
    assert shown["infobatch False"] == {"drop_share=0.9", "variant=mean"}
    # Without early time the rule changes nothing.
    assert shown["imp False"] == shown["eb False"] == {"sparsity.search_ratio=0.0"}


def test_the_key_leaves_out_an_option_at_its_former_value_alone() -> None:
    for sparsity, early_time in (("imp", True), ("eb", True)):
        fields = {"sparsity": sparsity, "density": 0.5, "early_time": early_time}
        older = make_spec(**fields, sparsity_options={"kl_share": 0.6})
        assert older == make_spec(**fields, sparsity_options={"kl_share": 0.6, "early_rule": "max"})
        newer = make_spec(**fields, sparsity_options={"kl_share": 0.6, "early_rule": "second"})
        assert newer.key != older.key
        without = [dataclasses.replace(spec, early_time=False) for spec in (older, newer)]
        assert without[0] == without[1] and without[0].key == without[1].key
    older = make_spec(sparsity="pq", density=0.2, sparsity_options={"share": 0.3})
    assert older.sparsity_options == {"share": 0.3, "shrink": False, "start": 0.5}
    assert dataclasses.replace(older, sparsity_options=older.sparsity_options | {"shrink": True}).key != older.key


def test_a_setting_that_no_reader_of_the_record_accepts_is_refused_before_the_run() -> None:
    unfit = ("a\nb", "no\xa0break", "\ud800", math.inf, math.nan, 10**400, {1, 2}, b"bytes", [["\x1b[2J"]])
    names = [of.name for of in dataclasses.fields(Spec)]
    for name, value in itertools.product(names, unfit):
        changed = {name: {"mine": value}} if name in PREFIXES else {name: value}
        with pytest.raises(BadInput):
            dataclasses.replace(make_spec(), **changed)
            pytest.fail(f"{changed} is accepted")
    with pytest.raises(
        BadInput, match=r"^--set backbone.mine is 'a\\nb', and no record may contain control characters"
    ):
        make_spec(backbone_options={"mine": "a\nb"})
    with pytest.raises(BadInput, match="--set a.nb is 1"):
        make_spec(method_options={"a\nb": 1})
    assert make_spec(method_options={"mine": [None, True, 1.5, "鶴", ("é",)]}).key


def test_what_a_spec_remembers_is_that_of_its_own_fields() -> None:
    """Keys and derived specs are computed once for each object. A copy with other fields has its own."""
    spec = make_spec("random", 0.5, backprop="sltt", loss="step", backbone_options={"width": 4})
    derived = {name: getattr(spec, name) for name in ("reference", "plain", "any_ratio", "any_seed", "any_method")}
    keys = {name: make().key for name, make in derived.items()} | {"itself": spec.key}
    assert spec.reference() is spec.reference() and len(set(keys.values())) == len(keys) - 1  # the seed is 0 already
    others = {
        "seed": 1,
        "ratio": 0.3,
        "method": "el2n",
        "epochs": 11,
        "protocol": "updates",
        "backprop": "bptt",
        "density": 0.5,
    }
    for name, value in (others | {"early_time": True, "backbone_options": {"width": 8}, "processes": 2}).items():
        changed = dataclasses.replace(spec, **{name: value})
        assert changed.key != spec.key, name
        fresh = Spec.from_json(changed.to_json())
        for made in derived:
            assert getattr(changed, made)() == getattr(fresh, made)(), (name, made)
            assert dataclasses.replace(getattr(changed, made)()).key == getattr(changed, made)().key, (name, made)
    for twin in (copy.copy(spec), copy.deepcopy(spec), pickle.loads(pickle.dumps(spec))):
        assert twin == spec and twin.key == spec.key
        assert dataclasses.replace(twin, seed=7).key == dataclasses.replace(spec, seed=7).key != spec.key
