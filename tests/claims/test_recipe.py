"""Recipes: every file, the command line's precedence over it, and one line for each fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sadp_bench.claims.claim_file import catalog
from sadp_bench.claims.recipe import filled, find_recipe, read_recipe, recipes
from sadp_bench.cli.terminal import MOST
from sadp_bench.core.errors import BadInput
from sadp_bench.core.registry import entries
from sadp_bench.records.store import read_all
from sadp_bench.runs.resolve import RunRequest
from tests.claims.helpers import GOOD, METRIC, SWEEP, written
from tests.commands import command, refused

NAMES = (
    "infobatch-cifar100 lottery-cifar10 pq-cifar10 sadp-imagenet sew-cifar10-dvs sltt-cifar10 sltt-dvs-gesture "
    "spikformer-cifar10 tet-cifar10-dvs".split()
)
RECIPE = '\n[recipe]\ndiffers = ["all"]\nnot_public = []\n'
ON_CPU = {"device": "cpu", "kernel": "python", "precision": "fp32", "threads": 1}


def test_the_recipes_are_known_and_every_one_has_a_claim() -> None:
    assert list(recipes()) == NAMES
    assert set(recipes()) < set(catalog())


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_names_its_claim_and_fills_a_run_of_two_epochs(name: str) -> None:
    recipe = find_recipe(name)
    assert recipe.claim.source and any(c.isdigit() for c in recipe.claim.source)
    assert recipe.differs or recipe.not_public
    if recipe.fields["backbone"] not in {entry.name for entry in entries("backbone")}:
        pytest.skip(f"{recipe.fields['backbone']} is not built yet")
    request, changed = filled(recipe, {"epochs": 2, "train_examples": 2000, "set": {}, "method": None} | ON_CPU)
    fields = RunRequest.of(request).fields
    assert (fields["epochs"], request["train_examples"], "--epochs" in changed) == (2, 2000, True)
    for key, value in recipe.fields.items():
        if key not in ("epochs", "set", "seed", "warmup_epochs"):
            assert fields[key] == value or key == "augment", key
    for key, value in recipe.fields["set"].items():
        owner, _, option = key.rpartition(".")
        assert fields[f"{owner or 'method'}_options"][option] == value, key


def test_what_the_command_line_gives_takes_the_place_of_the_recipes() -> None:
    recipe = find_recipe("sltt-cifar10")
    given = {"learning_rate": 0.05, "loss": "step", "set": {"backbone.tau": "1.5"}, "epochs": None}
    request, changed = filled(recipe, given)
    assert (request["learning_rate"], request["loss"], request["epochs"]) == (0.05, "step", 200)
    assert request["set"]["backbone.tau"] == "1.5" and request["set"]["backbone.reset"] == "soft"
    assert sorted(changed) == ["--learning-rate", "--loss", "--set backbone.tau"]
    added = filled(recipe, {"train_examples": 500, "threads": 1, "set": {"backbone.width": "16"}})[1]
    assert added == ["--train-examples", "--set backbone.width"]
    assert filled(recipe, {"learning_rate": 0.1, "set": {}})[1] == []


def test_settings_of_what_is_replaced_are_left_out_and_the_report_says_so() -> None:
    request, changed = filled(find_recipe("infobatch-cifar100"), {"method": "random", "ratio": 0.3, "set": {}})
    assert request["set"] == {} and changed == ["--method", "--ratio", "--set native left out"]
    request, changed = filled(find_recipe("infobatch-cifar100"), {"method": "sadp", "set": {}})
    assert "ratio" not in request and "--ratio left out" in changed
    request, _ = filled(find_recipe("sltt-dvs-gesture"), {"backbone": "cnn", "dataset": "nmnist", "set": {}})
    neuron = {"backbone.tau", "backbone.reset", "backbone.surrogate", "backbone.detach_reset"}
    assert request["set"].keys() == neuron  # without the pool and the dropout of vgg11, and the frames of the data set
    request, changed = filled(find_recipe("tet-cifar10-dvs"), {"loss": "mean", "optimizer": "sgd", "set": {}})
    assert "mse_weight" not in request and "--mse-weight left out" in changed
    request, _ = filled(find_recipe("pq-cifar10"), {"sparsity": "dense", "set": {}})
    assert "density" not in request


def test_the_warm_up_keeps_its_share_of_the_run() -> None:
    recipe = find_recipe("spikformer-cifar10")
    assert filled(recipe, {"epochs": 30, "set": {}})[0]["warmup_epochs"] == pytest.approx(2)
    assert filled(recipe, {"epochs": 30, "warmup_epochs": 5, "set": {}})[0]["warmup_epochs"] == 5
    assert "--warmup-epochs 0.133333, the same share" in filled(recipe, {"epochs": 2, "set": {}})[1]


BAD: dict[str, tuple[str, str]] = {
    "no table": (GOOD, "has no [recipe]"),
    "no lists": (GOOD + "\n[recipe]\ndiffers = []\n", "not_public is a list of texts, [] for none, not None"),
    "a text": (GOOD + '\n[recipe]\ndiffers = "all"\nnot_public = []\n', "differs is a list of texts"),
    "an empty text": (GOOD + '\n[recipe]\ndiffers = [" "]\nnot_public = []\n', "differs is a list of texts"),
    "unknown key": (GOOD + RECIPE + 'differ = "x"\n', "did you mean 'differs'"),
    "no claim": (METRIC + SWEEP + RECIPE, "has no [claim]"),
    "code": (GOOD.replace('"random", "el2n"', '"os:abort"') + RECIPE, "would import that module"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_recipe_is_one_line(case: str, tmp_path: Path) -> None:
    text, line = BAD[case]
    path = written(tmp_path, text)
    with pytest.raises(BadInput) as error:
        read_recipe(path)
    assert str(path) in str(error.value) and line in str(error.value)


def test_the_command_trains_by_a_file_and_says_what_it_changed(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD + RECIPE)
    words = ("--epochs", "1", "--train-examples", "64", "--batch-size", "16", "--threads", "1", "--no-reference")
    answer = command("run", "--recipe", path, *words, "--out", tmp_path / "runs")
    assert answer.code == 0, answer.err
    assert f"recipe {path.stem}: Nobody, 2020" in answer.err and "changed here: --epochs" in answer.err
    [(_, record)] = read_all([tmp_path / "runs"]).records
    spec = record.spec
    assert (spec.method, spec.ratio, spec.epochs, spec.backbone_options["width"]) == ("random", 0.5, 1, 4)


def test_unknown_names_and_missing_options_are_one_line(tmp_path: Path) -> None:
    refused(command("run", "--recipe", "sltt-cifar1"), "unknown recipe", "did you mean 'sltt-cifar10'")
    refused(command("run", "--ratio", "0.5"), "Missing option '--method'")
    refused(command("run", "--method", "random"), "Missing option '--ratio'")
    refused(command("run", "--recipe", "infobatch-cifar100", "--method", "sadp"), "Missing option '--ratio'")


def test_the_list_has_every_recipe_with_its_source_and_what_differs() -> None:
    found: list[dict[str, Any]] = json.loads(command("list", "recipes", "--json").out)
    assert [recipe["name"] for recipe in found] == NAMES
    text = command("list", "recipes").out
    assert all(len(line) <= MOST for line in text.splitlines())
    whole = "".join(text.split())  # a line may end at a hyphen
    for recipe in found:
        for part in (recipe["text"], recipe["source"], *recipe["differs"], *recipe["not_public"]):
            assert "".join(part.split()) in whole
