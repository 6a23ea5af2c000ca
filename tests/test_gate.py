"""`sadp-bench check`: an unchanged package passes, and planted regressions are told, on the same machine and on another."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import planted
import pytest
import typer
from commands import Answer, command
from example_records import ENVIRONMENT, make_record, make_spec
from small import resolved

from sadp_bench import cli, speed
from sadp_bench.progress import Progress
from sadp_bench.record import Failure, Record
from sadp_bench.store import Store, read_all
from sadp_bench.visits import pack
from sadp_bench.workbench import Bench, train_one

SMALL = {"epochs": 4, "train_examples": 260, "batch_size": 20, "evaluate_every": 4}
# Scores take some hundred updates to differ much between examples, and so visits.
LONG = {"epochs": 12, "train_examples": 1400, "batch_size": 32, "evaluate_every": 12}
METHODS = {"full": 0.0, "random": 0.5, "infobatch": 0.5, "sadp": 0.5}
Plant = Callable[[], AbstractContextManager[Any]]


def train(out: Path, methods: Iterable[str], seeds: Iterable[int], **asked: Any) -> Path:
    for seed in seeds:
        for method in methods:
            spec, material = resolved(method=method, ratio=METHODS.get(method, 0.5), seed=seed, **asked)
            Store(out).write(train_one(Bench(spec, material, Progress())))
    return out


def only(folder: Path, method: str, out: Path) -> Path:
    """The records of one method, and of full data."""
    out.mkdir(exist_ok=True)
    for path in [*folder.glob(f"*-{method}-*.json"), *folder.glob("*-full-*.json")]:
        shutil.copy(path, out)
    return out


def altered(folder: Path, out: Path, change: Callable[[Record], Record]) -> Path:
    for _, record in read_all([folder]).records:
        Store(out).write(change(record))
    return out


def elsewhere(folder: Path, out: Path) -> Path:
    """The same records, said to be another processor's."""
    return altered(folder, out, lambda r: dataclasses.replace(r, environment={**r.environment, "processor": "Other"}))


def check(*words: Any) -> tuple[Answer, dict[str, str], Any]:
    """The answer, by "run: name" the lines of what failed, and all that `--json` tells."""
    answer = command("check", *words, "--json")
    told = json.loads(answer.out)
    failed = {f"{c['run']}: {c['name']}": c["text"] for c in told["comparisons"] if c["outcome"] == "failed"}
    return answer, failed, told


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("gate") / "reference", METHODS, range(3), **SMALL)


@pytest.fixture(scope="module")
def long_reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Only said to be another processor's."""
    folder = tmp_path_factory.mktemp("gate")
    return elsewhere(train(folder / "here", ["sadp"], range(3), **LONG), folder / "elsewhere")


def test_an_unchanged_package_passes_bit_for_bit(reference: Path, tmp_path: Path) -> None:
    answer, failed, told = check(reference, "--run", "--out", tmp_path / "new", "--quiet")
    assert (answer.code, failed, told["passed"], answer.err) == (0, {}, True, "")
    assert told["environment"] == {"same": True, "differing": []}
    skipped = {c["name"] for c in told["comparisons"] if c["outcome"] != "passed"}
    assert skipped == {"spread of the mean weight"}  # too few epochs
    exact = {c["name"] for c in told["comparisons"] if c["run"] == "sadp 0.5" and c["kind"] == "here"}
    assert exact == {"mean weight", "visits", "train loss", "test accuracy"}
    anywhere = {c["name"] for c in told["comparisons"] if c["run"] == "infobatch 0.5" and c["kind"] == "anywhere"}
    assert anywhere == {"data", "budget", "parameters", "counts", "learning rate", "mean weight"}
    text = command("check", reference, "--against", tmp_path / "new")
    assert (
        text.code == 0
        and text.out.splitlines()[-1] == f"passed: {len(told['comparisons']) - 1} passed, 0 failed, 1 skipped"
    )
    assert all(run in text.out for run in ("full 0", "random 0.5", "infobatch 0.5", "sadp 0.5"))


@pytest.mark.parametrize("seeds", [range(3), range(3, 6)])
def test_an_unchanged_package_passes_on_another_machine(seeds: range, tmp_path: Path) -> None:
    here = train(tmp_path / "here", METHODS, seeds, **SMALL)
    with planted.another_machine():
        there = train(tmp_path / "there", METHODS, seeds, **SMALL)
    assert "visits" in str(check(here, "--against", there)[1]), "it computes otherwise, or the test shows nothing"
    answer, failed, told = check(elsewhere(here, tmp_path / "elsewhere"), "--against", there)
    assert (answer.code, failed) == (0, {})
    assert told["environment"]["differing"] == [f"processor Other → {_processor(there)}"]
    skipped = {c["name"] for c in told["comparisons"] if c["outcome"] == "skipped"}
    assert {"visits", "train loss", "test accuracy"} <= skipped


def _processor(folder: Path) -> str:
    return str(read_all([folder]).records[0][1].environment["processor"])


# The comparisons that must tell: on the same machine, and on another one. Of none on another machine nothing is promised.
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
    "constant schedule": (planted.constant_schedule, "sadp", {"counts", "visits"}, {"counts"}),
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
    ("plant", "tells"),
    [
        (planted.weights_not_undone_in_scores, "spread of the visits"),
        (planted.scores_of_the_next_example, "agreement of the visits"),
    ],
)
def test_wrong_scores_show_in_the_visits_on_another_machine(
    plant: Plant, tells: str, long_reference: Path, tmp_path: Path
) -> None:
    with plant():
        train(tmp_path, ["sadp"], range(3), **LONG)
    answer, failed, _ = check(long_reference, "--against", tmp_path)
    assert answer.code == 1 and f"sadp 0.5: {tells}" in failed


def test_failures_are_told_in_one_line_each_with_the_way_to_renew(reference: Path, tmp_path: Path) -> None:
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
    folder = train(tmp_path / "reference", ["planted:Half"], range(3), **SMALL | {"epochs": 1})
    answer = command("check", folder)
    assert answer.code == 2 and "--allow-imports" in answer.err and "planted:Half" in answer.err
    assert check(folder, "--allow-imports")[0].code == 0
    monkeypatch.setattr(planted, "SHARE", 0.503)
    assert "planted:Half 0.5: counts" in check(folder, "--allow-imports")[1]


def by_hand(folder: Path, accuracies: dict[tuple[str, float], list[float]], **changed: Any) -> Path:
    for (method, ratio), values in accuracies.items():
        for seed, accuracy in enumerate(values):
            Store(folder).write(make_record(make_spec(method, ratio, seed), accuracy, **changed))
    return folder


FULL, SADP = ("full", 0.0), ("sadp", 0.5)
BEFORE = {FULL: [0.70, 0.71, 0.69], SADP: [0.68, 0.69, 0.67]}  # a spread of 0.01, four degrees of freedom
WIDTH = 7.1732 * 0.01 * (2 / 3) ** 0.5  # the t distribution's 99.9 % quantile, from a printed table
OTHER = {**ENVIRONMENT, "torch": "2.7.0"}


def accuracy_of_sadp(told: Any, name: str = "accuracy") -> Any:
    [found] = [c for c in told["comparisons"] if (c["run"], c["name"], c["kind"]) == ("sadp 0.5", name, "band")]
    return found


@pytest.mark.parametrize(("drop", "code"), [(0.0, 0), (WIDTH - 0.001, 0), (WIDTH + 0.001, 1)])
def test_a_mean_accuracy_may_fall_as_far_as_the_seeds_spread(drop: float, code: int, tmp_path: Path) -> None:
    before = by_hand(tmp_path / "reference", BEFORE)
    after = by_hand(
        tmp_path / "now", {key: [a - drop for a in values] for key, values in BEFORE.items()}, environment=OTHER
    )
    answer, failed, told = check(before, "--against", after)
    assert answer.code == code
    assert set(failed) == ({"sadp 0.5: accuracy", "full 0: accuracy"} if code else set())
    assert accuracy_of_sadp(told)["allowed"] == pytest.approx(0.68 - WIDTH, abs=1e-5)


def test_a_method_is_also_held_against_full_data_of_the_same_seed(tmp_path: Path) -> None:
    before = by_hand(
        tmp_path / "reference", {FULL: [0.6, 0.7, 0.8], SADP: [0.58, 0.69, 0.78], ("random", 0.5): [0.5, 0.6, 0.7]}
    )
    after = by_hand(
        tmp_path / "now",
        {FULL: [0.6, 0.7, 0.8], SADP: [0.52, 0.63, 0.72], ("random", 0.5): [0.5, 0.6, 0.7]},
        environment=OTHER,
    )
    answer, failed, told = check(before, "--against", after)
    assert answer.code == 1 and list(failed) == ["sadp 0.5: accuracy minus full data's"]
    found = accuracy_of_sadp(told, "accuracy minus full data's")
    assert (found["reference"], found["now"]) == (pytest.approx(-0.05 / 3), pytest.approx(-0.23 / 3))


def test_a_higher_accuracy_is_told_and_no_failure(tmp_path: Path) -> None:
    before = by_hand(tmp_path / "reference", BEFORE)
    after = by_hand(tmp_path / "now", BEFORE | {SADP: [0.8, 0.8, 0.8]}, environment=OTHER)
    answer = command("check", before, "--against", after)
    assert answer.code == 0
    assert "WARNING  sadp 0.5: accuracy: 68.00 → 80.00 %" in answer.out and "2 warnings" in answer.out


@pytest.mark.parametrize(("words", "code"), [([], 0), (["--accuracy-margin", 3], 1), (["--accuracy-margin", 4.1], 0)])
def test_one_seed_has_a_margin_in_place_of_a_band(words: list[Any], code: int, tmp_path: Path) -> None:
    before = by_hand(tmp_path / "reference", {SADP: [0.68]})
    after = by_hand(tmp_path / "now", {SADP: [0.64]}, environment=OTHER)
    answer, _, told = check(before, "--against", after, *words)
    assert answer.code == code
    assert accuracy_of_sadp(told)["allowed"] == pytest.approx(0.68 - (words[-1] if words else 5) / 100)


def test_no_exact_leaves_out_what_only_the_same_machine_repeats(tmp_path: Path) -> None:
    before, after = (
        by_hand(tmp_path / "reference", BEFORE),
        by_hand(tmp_path / "now", BEFORE | {SADP: [0.68, 0.67, 0.69]}),
    )
    assert command("check", before, "--against", after).code == 1
    assert command("check", before, "--against", after, "--no-exact").code == 0


def test_a_gpu_is_never_held_to_the_last_bit(tmp_path: Path) -> None:
    on_gpu = {**ENVIRONMENT, "device": "cuda"}
    before = by_hand(tmp_path / "reference", BEFORE, environment=on_gpu)
    after = by_hand(tmp_path / "now", BEFORE | {SADP: [0.68, 0.67, 0.69]}, environment=on_gpu)
    answer, _, told = check(before, "--against", after)
    assert answer.code == 0 and told["environment"]["differing"] == ["a GPU adds in no fixed order"]


def test_other_data_are_told_and_nothing_else_is_compared(tmp_path: Path) -> None:
    before = by_hand(tmp_path / "reference", BEFORE)
    after = by_hand(tmp_path / "now", BEFORE, data_sha256="1" * 64)
    answer, failed, told = check(before, "--against", after)
    assert answer.code == 1 and len(told["comparisons"]) == len(failed) == 2
    assert "data_sha256: 000000000000 → 111111111111, in 3 of 3 seeds" in failed["sadp 0.5: data"]


def test_counts_that_the_seeds_do_not_share_are_exact_on_the_same_machine_only(tmp_path: Path) -> None:
    spec = [make_spec("sadp", 0.5, seed) for seed in range(3)]
    for seed, seen in enumerate([5000, 5010, 5000]):
        Store(tmp_path / "reference").write(make_record(spec[seed], examples_seen=seen))
        Store(tmp_path / "here").write(make_record(spec[seed], examples_seen=5000))
        Store(tmp_path / "there").write(make_record(spec[seed], examples_seen=5000, environment=OTHER))
    assert list(check(tmp_path / "reference", "--against", tmp_path / "here")[1]) == ["sadp 0.5: counts"]
    assert check(tmp_path / "reference", "--against", tmp_path / "there")[0].code == 0


def test_visits_are_compared_example_by_example(tmp_path: Path) -> None:
    for name, counts in {"reference": [5] * 1000, "now": [6, 4] + [5] * 998}.items():
        record = make_record(make_spec("sadp", 0.5), visits=pack(counts))
        Store(tmp_path / name).write(record)
    _, failed, _ = check(tmp_path / "reference", "--against", tmp_path / "now")
    assert failed == {
        "sadp 0.5: visits": "2 of 1,000 examples were shown another number of times, in 1 of 1 seed; must be the same"
    }


def test_a_run_that_failed_is_a_regression_and_one_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    before, after = by_hand(tmp_path / "reference", BEFORE), by_hand(tmp_path / "now", BEFORE)
    lost = make_spec("sadp", 0.5, 1)
    Store(after).path(lost).unlink()
    answer = command("check", before, "--against", after)
    assert (answer.code, answer.out) == (2, "")
    assert f"lacks 1 of the reference's 6 runs: {Store(after).path(lost).name}" in answer.err
    Store(after).write_failure(Failure(lost, "training diverged", "2025-01-01T00:00:00+00:00"))
    answer, failed, _ = check(before, "--against", after)
    assert answer.code == 1
    assert failed["sadp 0.5: run of seed 1"] == "seed 1 did not finish: training diverged"


def test_bad_input_is_refused_in_one_line(tmp_path: Path) -> None:
    good, other = by_hand(tmp_path / "good", BEFORE), by_hand(tmp_path / "other", BEFORE)
    (tmp_path / "empty").mkdir()
    torn = by_hand(tmp_path / "torn", {SADP: [0.5]})
    next(torn.glob("*.json")).write_text("{")
    imports, unknown = tmp_path / "imports", tmp_path / "unknown"
    Store(imports).write(make_record(make_spec("os:abort", 0.5)))
    Store(unknown).write(make_record(make_spec(backbone="no-such-net")))
    for words, says in (
        ([tmp_path / "none"], "no folder"),
        ([tmp_path / "empty"], "holds no records; make them"),
        ([torn], "the reference is damaged"),
        ([good, "--against", tmp_path / "none"], "no folder"),
        ([good, "--against", tmp_path / "empty"], "lacks 6 of the reference's 6 runs"),
        ([good, "--against", good], "are one folder"),
        ([good, "--out", good / "new"], "one lies in the other"),
        ([good, "--against", other, "--run"], "leave --run and --out out"),
        ([good, "--against", other, "--accuracy-margin", "-1"], "from 0 to 100, not -1"),
        ([good, "--against", other, "--accuracy-margin", "nan"], "from 0 to 100, not nan"),
        ([good, "--against", other, "--junit", tmp_path], "no regular file"),
        ([imports], "'os:abort' would import that module"),
        ([unknown], "the reference's full 0, seed 0 can't be made here: unknown backbone 'no-such-net'"),
    ):
        answer = command("check", *words)
        assert (answer.code, answer.out) == (2, "") and says in answer.err, words
        assert len(answer.err.splitlines()) == 1, words


def timed(folder: Path) -> Path:
    """Full data takes 100 s, half of it 52: an efficiency of 0.962."""
    for seed in range(3):
        Store(folder).write(make_record(make_spec(seed=seed), train=100.0))
        Store(folder).write(make_record(make_spec("sadp", 0.5, seed), train=52.0))
    return folder


@pytest.mark.parametrize(("efficiency", "warns"), [(0.95, False), (0.90, False), (0.88, True)])
def test_a_drop_of_efficiency_is_a_warning(
    efficiency: float, warns: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def measure(asked: Any, methods: Any, ratios: Any, *rest: Any) -> dict[str, Any]:
        calls.append((asked["epochs"], asked["dataset"], asked["set"]["backbone.width"], methods, ratios))
        noise = {"median": 1.0, "spread": 0.02, "what": ""}
        return {"rows": [{"efficiency": efficiency, "efficiency_spread": 0.01, "new": 1}], "noise_floor": noise}

    monkeypatch.setattr(speed, "measure", measure)
    folder, now = timed(tmp_path / "reference"), timed(tmp_path / "now")
    answer = command("check", folder, "--against", now, "--speed")
    assert answer.code == 0 and calls == [(10, "digits", 32, ["sadp"], [0.5])]
    assert ("WARNING  sadp 0.5: efficiency: 0.962 → " in answer.out) == warns


@pytest.mark.slow
def test_one_sleep_a_batch_is_a_warning(reference: Path, tmp_path: Path) -> None:
    whole = only(reference, "sadp", tmp_path / "reference")
    now = only(reference, "sadp", tmp_path / "now")
    with planted.sleep_in_every_batch():
        answer = command("check", whole, "--against", now, "--speed", "--quiet")
    assert (answer.code, answer.err) == (0, "")
    assert "WARNING  sadp 0.5: efficiency" in answer.out, answer.out


DOCUMENT = (Path(__file__).resolve().parent.parent / "docs" / "ci.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("line", sorted(set(re.findall(r"sadp-bench (?:check|sweep) [^#\n`]+", DOCUMENT))))
def test_a_documented_command_parses(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    typer.main.get_command(cli.app).commands[name].make_context(name, arguments)
