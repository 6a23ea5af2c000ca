"""`sadp-bench check`: an unchanged package passes, and planted regressions fail, on the same machine and on another."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from sadp_bench.records.store import read_all
from tests.commands import command
from tests.gate import planted_regressions as planted
from tests.gate.helpers import METHODS, check, elsewhere, train

SMALL = {"epochs": 4, "train_examples": 260, "batch_size": 20, "evaluate_every": 4}
# Scores take some hundred updates to differ much between examples, and so visits.
LONG = {"epochs": 12, "train_examples": 1400, "batch_size": 32, "evaluate_every": 12}
Plant = Callable[[], AbstractContextManager[Any]]


def only(folder: Path, method: str, out: Path) -> Path:
    """Returns the records of one method and of full data."""
    out.mkdir(exist_ok=True)
    for path in [*folder.glob(f"*-{method}-*.json"), *folder.glob("*-full-*.json")]:
        shutil.copy(path, out)
    return out


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("gate") / "reference", METHODS, range(3), **SMALL)


@pytest.fixture(scope="module")
def long_reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a reference from another processor, in name only."""
    folder = tmp_path_factory.mktemp("gate")
    return elsewhere(train(folder / "here", ["sadp"], range(3), **LONG), folder / "elsewhere")


def test_an_unchanged_package_passes_bit_for_bit(reference: Path, tmp_path: Path) -> None:
    answer, failed, result = check(reference, "--run", "--out", tmp_path / "new", "--quiet")
    assert (answer.code, failed, result["passed"], answer.err) == (0, {}, True, "")
    assert result["environment"] == {"same": True, "differing": []}
    assert {c["outcome"] for c in result["comparisons"]} == {"passed"}
    exact = {c["name"] for c in result["comparisons"] if c["run"] == "sadp 0.5" and c["kind"] == "here"}
    assert exact == {"mean weight", "visits", "train loss", "test accuracy"}
    anywhere = {c["name"] for c in result["comparisons"] if c["run"] == "infobatch 0.5" and c["kind"] == "anywhere"}
    assert anywhere == {"data", "budget", "parameters", "counts", "learning rate", "mean weight"}
    text = command("check", reference, "--against", tmp_path / "new")
    assert text.code == 0
    assert text.out.splitlines()[-1] == f"passed: {len(result['comparisons'])} passed, 0 failed, 0 skipped"
    assert all(run in text.out for run in ("full 0", "random 0.5", "infobatch 0.5", "sadp 0.5"))


def test_an_unchanged_package_passes_on_another_machine(reference: Path, tmp_path: Path) -> None:
    with planted.another_machine():
        there = train(tmp_path / "there", METHODS, range(3), **SMALL)
    assert "visits" in str(check(reference, "--against", there)[1]), "it computes otherwise, or the test shows nothing"
    answer, failed, result = check(elsewhere(reference, tmp_path / "elsewhere"), "--against", there)
    assert (answer.code, failed) == (0, {})
    assert result["environment"]["differing"] == [f"processor Other → {_processor(there)}"]
    skipped = {c["name"] for c in result["comparisons"] if c["outcome"] == "skipped"}
    assert {"visits", "train loss", "test accuracy"} <= skipped


def _processor(folder: Path) -> str:
    return str(read_all([folder]).records[0][1].environment["processor"])


# The comparisons that must fail: on the same machine, and on another one. Without any the other machine is not tested.
PLANTS: dict[str, tuple[Plant, str, set[str], set[str]]] = {
    "scores off": (planted.weights_not_undone_in_scores, "sadp", {"visits", "train loss", "mean weight"}, set()),
    "weights dropped": (
        planted.dropped_weights,
        "sadp",
        {"train loss", "mean weight", "spread of the mean weight"},
        {"spread of the mean weight"},
    ),
    "InfoBatch's weights dropped": (
        planted.dropped_weights_of_infobatch,
        "infobatch",
        {"mean weight", "train loss"},
        {"mean weight"},
    ),
    "weights ignored": (planted.weights_ignored_by_the_loop, "sadp", {"train loss", "visits"}, set()),
    "one example fewer": (planted.one_example_fewer, "sadp", {"counts", "visits"}, {"counts"}),
    "constant budget": (planted.constant_budget, "sadp", {"counts", "visits"}, {"counts"}),
    "budget missed": (planted.missed_budget, "sadp", {f"run of seed {s}" for s in range(3)}, set()),
    "crash": (planted.crash, "sadp", {f"run of seed {s}" for s in range(3)}, set()),
}


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_regression_fails(name: str, reference: Path, tmp_path: Path) -> None:
    plant, method, here, there = PLANTS[name]
    whole = only(reference, method, tmp_path / "reference")
    new = only(reference, "full", tmp_path / "new")  # it need not be trained again to show what becomes of the method
    with plant():
        answer, failed, _ = check(whole, "--out", new, "--quiet")
    assert answer.code == 1
    assert {f"{method} 0.5: {what}" for what in here} <= set(failed)
    assert all(run.startswith(method) for run in failed)
    if there:
        answer, failed, _ = check(elsewhere(whole, tmp_path / "elsewhere"), "--against", new)
        assert answer.code == 1 and {f"{method} 0.5: {what}" for what in there} <= set(failed)


@pytest.mark.parametrize(
    ("plant", "finding"),
    [
        (planted.weights_not_undone_in_scores, "spread of the visits"),
        (planted.scores_of_the_next_example, "agreement of the visits"),
    ],
)
def test_wrong_scores_show_in_the_visits_on_another_machine(
    plant: Plant, finding: str, long_reference: Path, tmp_path: Path
) -> None:
    with plant():
        train(tmp_path, ["sadp"], range(3), **LONG)
    answer, failed, _ = check(long_reference, "--against", tmp_path)
    assert answer.code == 1 and f"sadp 0.5: {finding}" in failed


def test_failures_are_reported_in_one_line_each_with_the_way_to_renew(reference: Path, tmp_path: Path) -> None:
    whole, new = only(reference, "sadp", tmp_path / "reference"), tmp_path / "new"
    with planted.one_example_fewer():
        answer = command("check", whole, "--out", new, "--quiet", "--junit", tmp_path / "deep" / "gate.xml")
    assert answer.code == 1
    lines = [line for line in answer.out.splitlines() if line.startswith("FAILED  ")]
    kept = {r.spec.method: r.epochs[0]["kept"] for _, r in read_all([whole]).records}["sadp"]
    assert (
        f"kept in epoch 1: {kept} → {kept - 1}, and 4 more of its values, in 3 of 3 seeds; must be the same" in lines[0]
    )
    assert any("of 260 examples were shown another number of times" in line for line in lines)
    assert f"cp {new}/*.json {whole}/" in answer.out
    assert answer.out.splitlines()[-1].startswith("FAILED: ")
    suite = ElementTree.parse(tmp_path / "deep" / "gate.xml").getroot().find("testsuite")
    assert suite is not None
    cases = suite.findall("testcase")
    failed = [case for case in cases if case.find("failure") is not None]
    assert int(suite.get("tests", 0)) == len(cases) and int(suite.get("failures", 0)) == len(failed) == len(lines)
    assert {case.get("classname") for case in failed} == {"sadp 0.5"}
    first = failed[0].find("failure")
    assert first is not None and str(first.get("message")) in lines[0]


def test_a_method_of_ones_own_is_run_only_where_the_records_are_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train(tmp_path / "reference", ["tests.gate.planted_regressions:Half"], range(3), **SMALL | {"epochs": 1})
    answer = command("check", folder)
    assert answer.code == 2 and "--allow-imports" in answer.err and "tests.gate.planted_regressions:Half" in answer.err
    assert check(folder, "--allow-imports")[0].code == 0
    monkeypatch.setattr(planted, "SHARE", 0.503)
    assert "tests.gate.planted_regressions:Half 0.5: counts" in check(folder, "--allow-imports")[1]


@pytest.mark.slow
def test_one_sleep_a_batch_is_a_warning(reference: Path, tmp_path: Path) -> None:
    whole = only(reference, "sadp", tmp_path / "reference")
    now = only(reference, "sadp", tmp_path / "now")
    with planted.sleep_in_every_batch():
        answer = command("check", whole, "--against", now, "--speed", "--quiet")
    assert (answer.code, answer.err) == (0, "")
    assert "WARNING  sadp 0.5: efficiency" in answer.out, answer.out
