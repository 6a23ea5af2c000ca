"""`sadp-bench check` on records made by hand: what is held exactly, what in bands, what only warns, what is refused."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from sadp_bench.cli import app, parsing
from sadp_bench.measure import speed
from sadp_bench.records.record import Failure
from sadp_bench.records.store import Store
from sadp_bench.records.visit_counts import pack
from tests.commands import command
from tests.example_records import ENVIRONMENT, make_record, make_spec
from tests.gate.helpers import by_hand, check
from tests.paths import ROOT

FULL, SADP = ("full", 0.0), ("sadp", 0.5)
BEFORE = {FULL: [0.70, 0.71, 0.69], SADP: [0.68, 0.69, 0.67]}
SEEDS = {FULL: [0.70, 0.71, 0.69, 0.71, 0.69], SADP: [0.68, 0.69, 0.67, 0.69, 0.67]}  # a spread of 0.01
# The 99.95 % quantile of t with eight degrees of freedom, half of both sides', from a printed table: five comparisons share a
# chance of 0.005, and each has two bands.
WIDTH = 5.0413 * 0.01 * (2 / 5) ** 0.5
OTHER = {**ENVIRONMENT, "torch": "2.7.0"}


def accuracy_of_sadp(result: Any, name: str = "accuracy") -> Any:
    [found] = [c for c in result["comparisons"] if (c["run"], c["name"], c["kind"]) == ("sadp 0.5", name, "band")]
    return found


def test_a_mean_accuracy_may_fall_as_far_as_the_seeds_spread(tmp_path: Path) -> None:
    before = by_hand(tmp_path / "reference", SEEDS)
    for drop, code in ((0.0, 0), (WIDTH - 0.001, 0), (WIDTH + 0.001, 1)):
        fallen = {key: [a - drop for a in values] for key, values in SEEDS.items()}
        after = by_hand(tmp_path / f"now {drop}", fallen, environment=OTHER)
        answer, failed, result = check(before, "--against", after)
        assert answer.code == code, drop
        assert set(failed) == ({"sadp 0.5: accuracy", "full 0: accuracy"} if code else set()), drop
        assert accuracy_of_sadp(result)["allowed"] == pytest.approx(0.68 - WIDTH, abs=1e-5)


def test_a_seed_that_collapses_does_not_widen_the_band_until_it_passes(tmp_path: Path) -> None:
    before = by_hand(tmp_path / "reference", SEEDS)
    after = by_hand(tmp_path / "now", SEEDS | {SADP: [0.68, 0.69, 0.67, 0.69, 0.10]}, environment=OTHER)
    answer, failed, _ = check(before, "--against", after)
    assert answer.code == 1 and "sadp 0.5: accuracy" in failed


def test_a_method_is_also_held_against_full_data_of_the_same_seed(tmp_path: Path) -> None:
    full = {FULL: [0.6, 0.7, 0.8, 0.7], ("random", 0.5): [0.5, 0.6, 0.7, 0.6]}
    before = by_hand(tmp_path / "reference", full | {SADP: [0.58, 0.69, 0.78, 0.69]})
    after = by_hand(tmp_path / "now", full | {SADP: [0.50, 0.61, 0.70, 0.61]}, environment=OTHER)
    answer, failed, result = check(before, "--against", after)
    assert answer.code == 1 and list(failed) == ["sadp 0.5: accuracy minus full data's"]
    found = accuracy_of_sadp(result, "accuracy minus full data's")
    assert (found["reference"], found["now"]) == (pytest.approx(-0.015), pytest.approx(-0.095))


def test_a_higher_accuracy_is_reported_and_no_failure(tmp_path: Path) -> None:
    before = by_hand(tmp_path / "reference", BEFORE)
    after = by_hand(tmp_path / "now", BEFORE | {SADP: [0.8, 0.8, 0.8]}, environment=OTHER)
    answer = command("check", before, "--against", after)
    assert answer.code == 0
    assert "WARNING  sadp 0.5: accuracy: 68.00 → 80.00 %" in answer.out and "2 warnings" in answer.out


def test_one_seed_has_a_margin_in_place_of_a_band(tmp_path: Path) -> None:
    before = by_hand(tmp_path / "reference", {SADP: [0.68]})
    after = by_hand(tmp_path / "now", {SADP: [0.64]}, environment=OTHER)
    for words, code in (([], 0), (["--accuracy-margin", 3], 1), (["--accuracy-margin", 4.1], 0)):
        answer, _, result = check(before, "--against", after, *words)
        assert answer.code == code, words
        assert accuracy_of_sadp(result)["allowed"] == pytest.approx(0.68 - (words[-1] if words else 5) / 100)


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
    answer, _, result = check(before, "--against", after)
    assert answer.code == 0 and result["environment"]["differing"] == ["a GPU adds in no fixed order"]


def test_other_data_are_reported_and_nothing_else_is_compared(tmp_path: Path) -> None:
    before = by_hand(tmp_path / "reference", BEFORE)
    after = by_hand(tmp_path / "now", BEFORE, data_sha256="1" * 64)
    answer, failed, result = check(before, "--against", after)
    assert answer.code == 1 and len(result["comparisons"]) == len(failed) == 2
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
    for words, expected in (
        ([tmp_path / "none"], "no folder"),
        ([tmp_path / "empty"], "contains no records; make them"),
        ([torn], "the reference is damaged"),
        ([good, "--against", tmp_path / "none"], "no folder"),
        ([good, "--against", tmp_path / "empty"], "lacks 6 of the reference's 6 runs"),
        ([good, "--against", good], "are the same folder"),
        ([good, "--out", good / "new"], "one contains the other"),
        ([good, "--against", other, "--run"], "leave --run and --out out"),
        ([good, "--against", other, "--accuracy-margin", "-1"], "from 0 to 100, not -1"),
        ([good, "--against", other, "--accuracy-margin", "nan"], "from 0 to 100, not nan"),
        ([good, "--against", other, "--junit", tmp_path], "no regular file"),
        ([imports], "'os:abort' would import that module"),
        ([unknown], "the reference's full 0, seed 0 cannot be trained here: unknown backbone 'no-such-net'"),
    ):
        answer = command("check", *words)
        assert (answer.code, answer.out) == (2, "") and expected in answer.err, words
        assert len(answer.err.splitlines()) == 1, words


def timed(folder: Path) -> Path:
    """Full data takes 100 s, half of it 52: an efficiency of 0.962."""
    for seed in range(3):
        Store(folder).write(make_record(make_spec(seed=seed), train=100.0))
        Store(folder).write(make_record(make_spec("sadp", 0.5, seed), train=52.0))
    return folder


def test_a_drop_of_efficiency_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def measured(efficiency: float, requested: Any, methods: Any, ratios: Any) -> dict[str, Any]:
        calls.append((requested["epochs"], requested["dataset"], requested["set"]["backbone.width"], methods, ratios))
        noise = {"median": 1.0, "spread": 0.02, "what": ""}
        return {"rows": [{"efficiency": efficiency, "efficiency_spread": 0.01, "new": 1}], "noise_floor": noise}

    folder, now = timed(tmp_path / "reference"), timed(tmp_path / "now")
    for efficiency, warns in ((0.95, False), (0.90, False), (0.88, True)):
        monkeypatch.setattr(speed, "measure_speed", lambda *given, value=efficiency: measured(value, *given[:3]))
        answer = command("check", folder, "--against", now, "--speed")
        assert answer.code == 0 and calls.pop() == (10, "digits", 32, ["sadp"], [0.5])
        assert ("WARNING  sadp 0.5: efficiency: 0.962 → " in answer.out) == warns, efficiency


def test_documented_commands_parse() -> None:
    document = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    lines = sorted(set(re.findall(r"sadp-bench (?:check|sweep) [^#\n`]+", document)))
    assert lines
    for line in lines:
        _, name, *arguments = shlex.split(line)
        parsing.parser(name, app.function(name)).make_context(name, arguments)
