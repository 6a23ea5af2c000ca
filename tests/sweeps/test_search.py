"""The search of a sweep: equal points for all, trials before runs, the best point frozen, and all of it in records."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy.stats import qmc

from sadp_bench.cli.search_view import search_table
from sadp_bench.records.record import Failure
from sadp_bench.records.store import Store
from sadp_bench.records.trials import choices
from sadp_bench.sweeps import outcome, planning, scheduler
from sadp_bench.sweeps.executors import Ended
from sadp_bench.sweeps.search import Search
from tests.commands import command, refused
from tests.example_records import make_record, make_spec
from tests.sweeps.helpers import GOOD, TINY, Scripted, planned, written

SEARCH = "[search]\nlearning_rate = [0.025, 0.2]\ntrials = 4\nseed = [0, 1]\nepochs = 1\n"
RUNS = '[[sweep]]\nmethod = ["random", "sadp"]\nratio = [0.25, 0.5]\nseed = [0, 1]\n'
FILE = SEARCH + TINY + RUNS
POINTS = [0.0707, 0.025, 0.2, 0.042]
PEAKS = {
    ("full", 0.0): 0.0707,
    ("random", 0.25): 0.042,
    ("random", 0.5): 0.0707,
    ("sadp", 0.25): 0.2,
    ("sadp", 0.5): 0.025,
}


@pytest.fixture(autouse=True)
def no_rehearsal(monkeypatch):
    monkeypatch.setattr("sadp_bench.runs.trainer.expected", lambda specs, resources: [1.0])


def accuracy(spec):
    """Returns an accuracy that peaks at the method's own learning rate. Seeds differ by more than that."""
    distance = abs(np.log(spec.learning_rate / PEAKS[spec.method, spec.ratio]))
    return 0.8 - 0.05 * distance - 0.1 * spec.seed


def record_of(spec):
    kind = "1" if spec.evaluate_on == "validation" else "0"
    return make_record(spec, accuracy(spec), data_sha256=kind * 64)


def write_all(plan, store):
    for spec in plan.to_do:
        store.write(record_of(spec))
    return scheduler.Standing(plan, {spec.key for spec in plan.runs})


def searched(folder, text=FILE, schedule=write_all):
    store = Store(folder / "runs")
    return outcome.carry_out(planned(folder, text), store, lambda: planned(folder, text), schedule)


def test_points_are_van_der_corputs_with_both_ends_and_more_trials_keep_them():
    ranges = {"learning_rate": (0.025, 0.2)}
    found = [point["learning_rate"] for point in Search(ranges, 9).points()]
    fractions = [1 / 2, 0, 1, 1 / 4, 3 / 4, 1 / 8, 5 / 8, 3 / 8, 7 / 8]
    assert found == [float(f"{0.025 * 8**fraction:.3g}") for fraction in fractions]
    assert found[:4] == POINTS
    for number in range(2, 9):
        assert [point["learning_rate"] for point in Search(ranges, number).points()] == found[:number]


def test_points_in_two_dimensions_are_haltons():
    ranges = {"learning_rate": (0.01, 1.0), "weight_decay": (1e-6, 1e-2)}
    found = [list(point.values()) for point in Search(ranges, 20).points()]
    place = qmc.Halton(2, scramble=False).random(21)[1:]
    expected = np.array([0.01, 1e-6]) * np.array([100.0, 1e4]) ** place
    assert found == [[float(f"{value:.3g}") for value in row] for row in expected]


BAD = {
    "unknown": ("learning-rat = [0.1, 0.2]\ntrials = 4", "unknown key 'learning-rat'; did you mean 'learning_rate'"),
    "nothing": ("trials = 4", "searches nothing: write learning_rate or weight_decay"),
    "no range": ("learning_rate = 0.1\ntrials = 4", "learning_rate is the range [lowest, highest]"),
    "three ends": ("learning_rate = [0.1, 0.2, 0.3]\ntrials = 4", "learning_rate is the range"),
    "reversed": ("learning_rate = [0.2, 0.1]\ntrials = 4", "learning_rate is the range"),
    "zero": ("weight_decay = [0, 0.1]\ntrials = 4", "weight_decay is the range"),
    "not finite": ("learning_rate = [0.1, inf]\ntrials = 4", "learning_rate is the range"),
    "true": ("learning_rate = [true, 2]\ntrials = 4", "learning_rate is the range"),
    "no trials": ("learning_rate = [0.1, 0.2]", "trials is a whole number from 2 to 1,000, not nothing"),
    "one trial": ("learning_rate = [0.1, 0.2]\ntrials = 1", "trials is a whole number from 2"),
    "equal points": ("learning_rate = [0.1, 0.1001]\ntrials = 9", "not all different at 3 digits"),
    "on test": ('learning_rate = [0.1, 0.2]\ntrials = 4\non = "test"', "on is 'validation'"),
    "seed": ("learning_rate = [0.1, 0.2]\ntrials = 4\nseed = [-1]", "seed is a whole number from 0"),
    "seeds": ("learning_rate = [0.1, 0.2]\ntrials = 4\nseed = [1, 1]", "a list of different ones"),
    "no seed": ("learning_rate = [0.1, 0.2]\ntrials = 4\nseed = []", "a list of different ones"),
    "enormous": (f"learning_rate = [0.1, 0x{'f' * 20_000}]\ntrials = 2", "learning_rate is the range"),
    "enormous count": (f"learning_rate = [0.1, 0.2]\ntrials = 0x{'f' * 20_000}", "not a number of thousands of digits"),
    "epochs": ("learning_rate = [0.1, 0.2]\ntrials = 4\nepochs = 0", "epochs is a whole number from 1"),
}  # fmt: skip
GOOD_SEARCH = "[search]\nlearning_rate = [0.1, 0.2]\ntrials = 2\n"
BAD_WITH_RUNS = {
    "no table": ("search = 3\n" + GOOD, "[search] is not a table"),
    "two tables": ("[[search]]\ntrials = 2\n" + GOOD, "[search] is not a table"),
    "in a block": (GOOD_SEARCH + GOOD + "learning_rate = 0.1", "[[sweep]] 1: learning_rate is what [search] sets"),
    "in common": (GOOD_SEARCH + "[common]\nevaluate_on = 'test'\n" + GOOD, "evaluate_on is what [search] sets"),
    "another axis": (GOOD_SEARCH + GOOD + 'backprop = ["bptt", "sltt"]', "backprop = 'sltt' beside [search]"),
    "too long": (GOOD_SEARCH + TINY + GOOD + "epochs = [2, 3]", "write one number of epochs"),
    "too many": (GOOD_SEARCH + GOOD + "train_examples = 1437", "as a trial on validation images: --train-examples 1437"),
}  # fmt: skip


def test_a_bad_search_is_one_line_before_anything_trains(tmp_path):
    cases = {name: (f"[search]\n{text}\n{GOOD}", expected) for name, (text, expected) in BAD.items()} | BAD_WITH_RUNS
    for name, (text, expected) in cases.items():
        answer = command("sweep", written(tmp_path, text), "--out", tmp_path / "runs", "--quiet")
        refused(answer, "a.toml", expected)
        assert [child.name for child in tmp_path.iterdir()] == ["a.toml"], name


def test_every_method_and_ratio_has_the_same_trials_and_its_best_is_frozen(tmp_path):
    plan = planned(tmp_path, FILE)
    trials = plan.search.plan.runs
    by_method = {}
    for spec in trials:
        assert (spec.evaluate_on, spec.epochs, spec.evaluate_every) == ("validation", 1, 1)
        by_method.setdefault((spec.method, spec.ratio), []).append((spec.learning_rate, spec.seed))
    assert by_method == {one: [(rate, seed) for rate in POINTS for seed in (0, 1)] for one in PEAKS}
    assert plan.to_do == [] and set(plan.skipped.values()) == {"after the search"} and len(plan.runs) == 10
    ended = searched(tmp_path)
    assert not ended.left and not ended.failed and not ended.without_settings
    found = {(spec.method, spec.ratio, spec.learning_rate, spec.seed) for spec in ended.plan.runs}
    assert found == {(*one, rate, seed) for one, rate in PEAKS.items() for seed in (0, 1)}
    assert {spec.evaluate_on for spec in ended.plan.runs} == {"test"} and {s.epochs for s in ended.plan.runs} == {2}
    assert not planned(tmp_path, FILE).is_to_do


def test_a_search_resumes_and_grows_without_repeating_a_trial(tmp_path):
    search = planned(tmp_path, FILE).search
    for spec in search.plan.to_do[:-1]:
        search.store.write(record_of(spec))
    shown = json.loads(command("report", tmp_path / "runs", "--format", "json").out)["rows"]
    assert {row["evaluate_on"] for row in shown} == {"validation"}, "before the first run its trials are shown"
    assert planned(tmp_path, FILE).search.plan.to_do == search.plan.to_do[-1:]
    again = planned(tmp_path, FILE)
    assert {spec.method for spec in again.to_do} == {"full", "random", "sadp"} and len(again.skipped) == 2
    made = []
    searched(tmp_path, schedule=lambda plan, store: made.extend(plan.to_do) or write_all(plan, store))
    assert made[0] == search.plan.to_do[-1] and len(made) == 11
    more = planned(tmp_path, FILE.replace("trials = 4", "trials = 5"))
    assert {spec.learning_rate for spec in more.search.plan.to_do} == {0.119}
    with pytest.raises(planning.BadInput, match="has trials of .* of 1 epoch .* take another --out"):
        planned(tmp_path, FILE.replace("epochs = 1", "epochs = 2"))


def test_the_table_names_each_row_where_settings_and_ratios_alternate():
    means = {(0.25, 0.2): 0.61, (0.5, 0.2): 0.62, (0.25, 1.0): 0.63, (0.5, 1.0): 0.64}
    trials = []
    for (ratio, smoothing), mean in means.items():
        how = {"method_options": {"smoothing": smoothing}, "evaluate_on": "validation"}
        trials.append(make_record(make_spec("sadp", ratio, learning_rate=0.1, **how), mean))
    table = search_table(list(choices(trials).values()))
    names, points = (list(table.columns[place].cells) for place in (0, 1))
    shown = {str(name): str(point).split()[-1] for name, point in zip(names, points, strict=True)}
    assert shown == {
        f"sadp {ratio} smoothing={smoothing}": f"{100 * mean:.2f}" for (ratio, smoothing), mean in means.items()
    }


def test_of_equal_means_the_lowest_rate_is_best_and_a_point_needs_all_seeds():
    def trial(rate, seed, accuracy):
        return make_record(make_spec("random", 0.5, seed, learning_rate=rate, evaluate_on="validation"), accuracy)

    tied = [
        trial(rate, seed, 0.5 + (0.1 if (rate == 0.1) == (seed == 0) else 0)) for rate in (0.2, 0.1) for seed in (0, 1)
    ]
    [choice] = choices(tied).values()
    assert choice.chosen == {"learning_rate": 0.1} and choice.edges == {"learning_rate": "lowest"}
    [choice] = choices([*tied, trial(0.4, 1, 0.99)]).values()
    assert choice.chosen == {"learning_rate": 0.1} and choice.seeds == (0, 1)
    passed = dataclasses.replace(
        tied[0], epochs=[row | {"forward_only": 100} for row in tied[0].epochs], prepare_examples=7
    )
    [choice] = choices([passed]).values()
    assert choice.visits == 5000 + 7 + 10 * 100
    lost = trial(0.05, 0, 0.5).spec
    [choice] = choices(tied, [Failure(lost, "training diverged", "", epoch=0)]).values()
    assert choice.chosen == {"learning_rate": 0.1} and choice.edges == {} and choice.visits == 4 * 5000
    [choice] = choices(tied, [Failure(lost, "exit code 1", "")]).values()
    assert choice.edges == {"learning_rate": "lowest"}


def test_a_diverged_trial_is_no_point_and_a_lost_one_leaves_its_runs_untrained(tmp_path):
    def schedule(plan, store):
        standing = scheduler.Standing(plan, set())
        for spec in plan.to_do:
            fails = spec.evaluate_on == "validation" and spec.learning_rate == 0.2
            if fails and spec.method in ("full", "sadp"):
                epoch = 0 if spec.method == "full" else None
                standing.failed[spec.key] = Failure(spec, "it failed", "", epoch=epoch)
                store.write_failure(standing.failed[spec.key])
            else:
                store.write(record_of(spec))
                standing.done.add(spec.key)
        return standing

    ended = searched(tmp_path, schedule=schedule)
    assert {failure.spec.method for failure in ended.failed.values()} == {"sadp"}
    assert len(ended.without_settings) == 4 and {s.method for s in ended.runs.plan.runs} == {"full", "random"}
    again = planned(tmp_path, FILE)
    assert {spec.method for spec in again.search.plan.to_do} == {"sadp"} and len(again.search.plan.to_do) == 4


def test_shards_divide_no_choice(tmp_path):
    whole = planned(tmp_path, FILE)
    shards = [planned(tmp_path, FILE, shard=(number, 3)) for number in (1, 2, 3)]
    for part in (lambda plan: plan, lambda plan: plan.search.plan):
        keys = [spec.key for shard in shards for spec in part(shard).runs]
        assert sorted(keys) == sorted(spec.key for spec in part(whole).runs)
    homes = [{(s.method, s.ratio) for s in shard.runs} for shard in shards]
    assert sum(map(len, homes)) == len(PEAKS)
    assert homes == [{(s.method, s.ratio) for s in shard.search.plan.runs} for shard in shards]


class Searching(Scripted):
    """Ends every run well, with the accuracy from `accuracy`."""

    def _end(self, spec):
        self.store.write(record_of(spec))
        return Ended(spec, 0, [])


def test_the_command_searches_trains_and_reports_what_was_chosen_and_from_what(tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "TICK_SECONDS", 0.0)
    monkeypatch.setattr(scheduler, "make_executor", lambda plan, store, options: Searching(store, 100))
    words = ["sweep", written(tmp_path, FILE), "--out", tmp_path / "runs"]
    before = command(*words, "--dry-run", "--jobs", "2")
    assert (
        "40 trials: 0 done, 40 to do" in before.out and "10 runs: 0 done, 10 to do (10 after the search)" in before.out
    )
    found = json.loads(command(*words, "--dry-run", "--json").out)
    assert len(found["trials"]) == 40 and len(found["runs"]) == 10 and found["expected_seconds"] > 50
    assert {run["key"] for run in found["runs"]} == {None} == {run["spec"]["learning_rate"] for run in found["runs"]}
    answer = command(*words, "--quiet")
    assert answer.code == 0, answer
    assert "40 trials: 40 done" in answer.out and "10 runs: 10 done, 0 failed" in answer.out
    [line] = [line for line in answer.out.splitlines() if line.startswith("random 0.25")]
    assert line.split()[2:] == "0.025: 72.41 0.042: 75.00 0.0707: 72.40 0.2: 67.20 0.042".split()
    [line] = [line for line in answer.out.splitlines() if line.startswith("sadp 0.25")]
    assert line.rstrip().endswith("0.2 (highest tried)")
    again = json.loads(command(*words, "--json").out)
    assert again["done"] == 10 and len(again["records"]) == 10
    assert [choice["chosen"]["learning_rate"] for choice in again["search"]] == list(PEAKS.values())

    table = json.loads(command("report", tmp_path / "runs", "--format", "json").out)["rows"]
    [row] = [row for row in table if row["method"] == "full"]
    assert row["learning_rate"] == 0.0707 and row["search.seeds"] == [0, 1] and row["search.edges"] == {}
    assert len(table) == len(PEAKS) and len({row["group"] for row in table}) == 1
    assert {row["accuracy_difference_mean"] for row in table} == {0.0}, (
        "each is compared with full data at full's best rate"
    )
    assert all(row["n_paired"] == 2 and not row["missing_references"] for row in table)
    text = " ".join(command("report", tmp_path / "runs").out.split())
    assert "learning rate from 0.025 to 0.2, 4 trials, seeds 0 and 1, 1 epoch; " in text
    visits = 2 * 4 * sum(round(256 * (1 - ratio)) for _, ratio in PEAKS)
    assert f"{visits:,} visits in all, as many as {visits / 512:.1f} full-data runs." in text
    assert "Chosen learning rate: full 0 % 0.0707; random 25 % 0.042; random 50 % 0.0707;" in text
    assert "beyond: sadp 25 % (learning rate 0.2, the highest), sadp 50 % (learning rate 0.025, the lowest)." in text
    for format in ("csv", "html", "latex", "markdown"):
        assert command("report", tmp_path / "runs", "--format", format).code == 0, format
    trials = json.loads(command("report", tmp_path / "runs" / "search", "--format", "json").out)["rows"]
    assert len(trials) == 20 and all("search.seeds" not in row for row in trials)


def test_a_run_of_other_settings_is_no_run_of_the_search(tmp_path):
    ended = searched(tmp_path)
    other = dataclasses.replace(ended.plan.runs[0], learning_rate=0.5)
    Store(tmp_path / "runs").write(make_record(other))
    table = json.loads(command("report", tmp_path / "runs", "--format", "json").out)["rows"]
    groups = {row["group"]: row for row in table}
    assert len(groups) == 2 and any("learning-rate=0.5" in group for group in groups)
    assert any("learning-rate=searched" in group for group in groups)
