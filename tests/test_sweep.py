"""A sweep file becomes the runs that it says, references once, and what cannot work is refused before anything trains."""

from __future__ import annotations

import io
import itertools
import json
import time
import urllib.error
from pathlib import Path

import pytest
from commands import command
from example_records import make_record, make_spec
from hypothesis import given
from hypothesis import strategies as st

from sadp_bench import parts, sweep
from sadp_bench.errors import BadInput
from sadp_bench.lock import Lock
from sadp_bench.record import Failure
from sadp_bench.store import Store
from sadp_bench.sweepfile import read

ROOT = Path(__file__).resolve().parent.parent
TINY = """
[common]
epochs = 2
train_examples = 256
threads = 1
set.backbone.width = 4
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "a.toml"
    path.write_text(text)
    return path


def planned(folder: Path, text: str, **how):
    return sweep.make_plan(written(folder, text), Store(folder / "runs"), **how)


def chosen(asked):
    """What a run asks for, without where."""
    return [{**one.fields, "set": dict(one.fields["set"])} for one in asked]


# The file


def test_a_block_is_the_product_of_its_lists(tmp_path):
    text = """
    [common]
    seed = [0, 1]
    [[sweep]]
    method = ["random", "sadp"]
    ratio = [0.3, 0.5, 0.7]
    set.x = [1, 2]
    """
    expected = [
        {"seed": seed, "method": method, "ratio": ratio, "set": {"x": x}}
        for seed in (0, 1)
        for method in ("random", "sadp")
        for ratio in (0.3, 0.5, 0.7)
        for x in (1, 2)
    ]
    assert chosen(read(written(tmp_path, text))) == expected


@given(
    st.dictionaries(st.sampled_from(["seed", "epochs", "threads"]), st.lists(st.integers(1, 9), min_size=1), max_size=3)
)
def test_there_are_as_many_runs_as_the_lists_lengths_multiply_to(tmp_path_factory, lists):
    text = "\n".join(["[[sweep]]", 'method = "sadp"', "ratio = 0.3", *(f"{k} = {v}" for k, v in lists.items())])
    runs = read(written(tmp_path_factory.mktemp("sweep"), text))
    assert len(runs) == len(list(itertools.product(*lists.values())))


def test_a_block_replaces_commons_keys_and_adds_to_its_settings(tmp_path):
    text = """
    [common]
    method = "random"
    ratio = [0.3, 0.5]
    epochs = 3
    set = { fresh = false, "backbone.width" = 4 }
    [[sweep]]
    [[sweep]]
    method = "sadp"
    ratio = 0.7
    set.smoothing = 0.5
    set.backbone.tau = 3.0
    set.backbone.width = 8
    """
    plain = {"fresh": False, "backbone.width": 4}
    assert chosen(read(written(tmp_path, text))) == [
        {"method": "random", "ratio": 0.3, "epochs": 3, "set": plain},
        {"method": "random", "ratio": 0.5, "epochs": 3, "set": plain},
        {
            "method": "sadp",
            "ratio": 0.7,
            "epochs": 3,
            "set": {**plain, "backbone.width": 8, "smoothing": 0.5, "backbone.tau": 3.0},
        },
    ]


def test_hyphens_are_underscores(tmp_path):
    [run] = read(written(tmp_path, '[[sweep]]\nmethod = "sadp"\nratio = 0.3\nbatch-size = 7'))
    assert run.fields["batch_size"] == 7


GOOD = '[[sweep]]\nmethod = "random"\nratio = 0.5\n'
BAD_FILES = {
    "no TOML": ("method = [", "is not TOML"),
    "not UTF-8": (b"\xff\xfe", "is not TOML"),
    "bottomless": ("a = " + "[" * 100_000, "is not TOML"),
    "empty": ("", "has no [[sweep]]"),
    "single brackets": ('[sweep]\nmethod = "sadp"', "has no [[sweep]]"),
    "unknown table": (GOOD + "[comon]\n", "did you mean 'common'"),
    "key outside": ('epochs = 3\n[[sweep]]\nmethod = "sadp"', "unknown table 'epochs'"),
    "common no table": ("common = 3\n" + GOOD, "[common] is not a table"),
    "unknown key": (GOOD + "epoch = 3", "[[sweep]] 1: unknown key 'epoch'; did you mean 'epochs'?"),
    "unknown key in common": ("[common]\nbatchsize = 3\n" + GOOD, "[common]: unknown key 'batchsize'; did you mean 'batch"),
    "torchrun's": (GOOD + "processes = 2", "unknown key 'processes'"),
    "twice": (GOOD + "batch-size = 3\nbatch_size = 4", "batch_size is there twice"),
    "setting twice": (GOOD + 'set = { "backbone.width" = 4, backbone = { width = 8 } }', "set.backbone.width is there twice"),
    "no method": ("[[sweep]]\nratio = 0.5", "[[sweep]] 1 lacks method"),
    "no ratio": (GOOD + '[[sweep]]\nmethod = "sadp"', "[[sweep]] 2 lacks ratio"),
    "empty list": (GOOD + "seed = []", "seed is an empty list"),
    "text for a number": (GOOD + 'epochs = "many"', "epochs is a whole number or a list of such, not 'many'"),
    "fraction": (GOOD + "epochs = [1, 1.5]", "epochs is a whole number or a list of such, not '1.5'"),
    "true for a number": (GOOD + "seed = true", "seed is a whole number"),
    "a date": (GOOD + "epochs = 2020-01-01", "epochs is a whole number"),
    "a list of lists": (GOOD + "seed = [[1]]", "seed is a whole number"),
    "a number for a name": ('[[sweep]]\nmethod = 3\nratio = 0.5', "method is a name"),
    "too large": (GOOD + f"seed = 0x{'f' * 20_000}", "seed is at most"),
    "set no table": (GOOD + "set = 3", "set is a table"),
    "set too deep": (GOOD + "set.smoothing.more = 3", "set.smoothing is a setting's value"),
    "set a date": (GOOD + "set.fresh = 2020-01-01", "set.fresh is a setting's value"),
    "too many": (GOOD + f"seed = {list(range(400))}\nepochs = {list(range(1, 400))}", "159,600 runs"),
    "code": ('[[sweep]]\nmethod = ["sadp", "os:abort"]\nratio = 0.5', "method 'os:abort' would import that module"),
    "code as backbone": (GOOD + 'backbone = "os:abort"', "--allow-imports"),
    "code as data set": (GOOD + 'dataset = "os:abort"', "--allow-imports"),
    "method in the last block": (GOOD * 2 + '[[sweep]]\nmethod = "sdap"\nratio = 0.5', "[[sweep]] 3: unknown method 'sdap'"),
    "ratio for the method": (GOOD + '[[sweep]]\nmethod = "full"\nratio = 0.5', "[[sweep]] 2: "),
    "ratio for the data": (GOOD + '[[sweep]]\nmethod = "sadp"\nratio = 0.99', "[[sweep]] 2: ratio 0.99 of 1437 examples"),
    "ratio 1": (GOOD + '[[sweep]]\nmethod = "sadp"\nratio = [0.3, 1.0]', "[[sweep]] 2: --ratio is at least 0 and below 1"),
    "seed": (GOOD + "seed = [0, -1]", "[[sweep]] 1: --seed is at least 0, not -1"),
    "setting": (GOOD + "set.frehs = true", "did you mean 'fresh'"),
    "setting of the network": (GOOD * 2 + 'set.backbone.norm = ["batch", "layer"]', "[[sweep]] 2: backbone.norm"),
    "examples": (GOOD + "train_examples = 9999", "digits has 1437"),
    "device": (GOOD + 'device = "tpu"', "auto, cpu, cuda"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "says"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_is_one_line_that_names_it_before_anything_trains(content, says, tmp_path):
    path = tmp_path / "a.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(command("sweep", path, "--out", tmp_path / "runs", "--quiet"), says)
    assert [child.name for child in tmp_path.iterdir()] == ["a.toml"]


def refused(answer, *says):
    assert answer.code == 2 and answer.out == ""
    assert answer.err.count("\n") == 1 and answer.err.startswith("sadp-bench: ")
    for part in says:
        assert part in answer.err


BAD_OPTIONS = {
    "jobs": (["--jobs", "0"], "--jobs is at least 1"),
    "retries": (["--retries", "-1"], "--retries is at least 0"),
    "checkpoint": (["--checkpoint-seconds", "nan"], "--checkpoint-seconds is at least 0"),
    "executor": (["--executor", "slurm"], "local or ray"),
    "address": (["--address", "1.2.3.4:5"], "belongs to --executor ray"),
    "gpus": (["--gpus-per-run", "0.5"], "belongs to --executor ray"),
    "gpus 0": (["--executor", "ray", "--gpus-per-run", "0"], "--gpus-per-run is above 0"),
    **{f"shard {text}": (["--shard", text], "--shard is i/n") for text in ("0/3", "4/3", "1", "1/", "a/b", "-1/2", "1/2/3")},
}  # fmt: skip


@pytest.mark.parametrize(("words", "says"), BAD_OPTIONS.values(), ids=BAD_OPTIONS.keys())
def test_bad_options_are_refused_before_anything_trains(words, says, tmp_path):
    refused(command("sweep", written(tmp_path, GOOD), "--out", tmp_path / "runs", "--quiet", *words), says)
    assert not list(tmp_path.rglob("*.json"))


def test_a_file_that_is_not_there_is_named(tmp_path):
    refused(command("sweep", tmp_path / "no.toml"), "no.toml", "No such file")
    refused(command("sweep", tmp_path), "Is a directory")


def test_a_missing_data_set_in_the_last_block_stops_the_sweep(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("sadp_bench.datasets.base.urlopen", offline)
    path = written(tmp_path, GOOD + GOOD + 'dataset = "cifar10"')
    answer = command("sweep", path, "--data", tmp_path / "no data", "--out", tmp_path / "runs")
    assert answer.code == 2 and "[[sweep]] 2: " in answer.err.splitlines()[-1]
    assert "no data" in answer.err and "Traceback" not in answer.err and not (tmp_path / "runs").exists()


def test_a_disk_that_is_too_small_stops_the_sweep(tmp_path, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr("sadp_bench.store.shutil.disk_usage", lambda path: Usage)
    refused(command("sweep", written(tmp_path, TINY + GOOD), "--out", tmp_path / "runs", "--quiet"), "MiB left")


# The plan


def test_references_come_first_and_once(tmp_path):
    blocks = """
    [[sweep]]
    method = ["random", "sadp"]
    ratio = [0.25, 0.5]
    seed = [0, 1]
    [[sweep]]
    method = "random"
    ratio = 0.5
    [[sweep]]
    method = "random"
    ratio = 0.5
    set.backbone.width = 8
    """
    plan = planned(tmp_path, TINY + blocks)
    told = [(spec.method, spec.ratio, spec.seed, spec.backbone_options["width"]) for spec in plan.runs]
    assert told == [
        *(("full", 0, seed, width) for seed, width in ((0, 4), (1, 4), (0, 8))),
        *((method, ratio, seed, 4) for method in ("random", "sadp") for ratio in (0.25, 0.5) for seed in (0, 1)),
        ("random", 0.5, 0, 8),
    ]
    assert all(plan.runs.index(spec.reference()) <= plan.runs.index(spec) for spec in plan.runs)


def test_what_the_file_leaves_open_is_as_run_resolves_it(tmp_path):

    plan = planned(tmp_path, GOOD + "seed = 3\nset.fresh = false", jobs=2)
    spec, _ = parts.resolve({"method": "random", "ratio": 0.5, "seed": 3, "set": {"fresh": "false"}})
    [own] = [one for one in plan.runs if one.method == "random"]
    assert {**own.to_json(), "threads": 0} == {**spec.to_json(), "threads": 0}


@pytest.mark.parametrize(("cores", "jobs", "threads"), [(8, 1, 8), (8, 3, 2), (2, 5, 1)])
def test_each_job_gets_its_share_of_the_cores(cores, jobs, threads, tmp_path, monkeypatch):
    monkeypatch.setattr("sadp_bench.environment.available_threads", lambda: cores)
    monkeypatch.setattr("sadp_bench.workbench.expected", lambda specs, material: [1.0])
    plan = planned(tmp_path, GOOD + "epochs = 1\ntrain_examples = 256", jobs=jobs)
    assert {spec.threads for spec in plan.runs} == {threads}


METHODS = [make_spec(), *(make_spec(m, r, s) for m in ("random", "el2n", "grand") for r in (0.3, 0.5) for s in (0, 1))]
SCORING = {spec.key: float(spec.method in ("el2n", "grand")) for spec in METHODS}


@given(st.integers(1, 20), st.permutations(METHODS))
def test_shards_are_a_partition_that_keeps_together_what_shares_scores(total, specs):
    group = sweep.sharers(specs, SCORING)
    shards = [sweep.shard_of(specs, group, (number, total)) for number in range(1, total + 1)]
    assert sorted(spec.key for shard in shards for spec in shard) == sorted(spec.key for spec in specs)
    home = {spec.key: number for number, shard in enumerate(shards) for spec in shard}
    for method in ("el2n", "grand"):
        for seed in (0, 1):
            assert len({home[spec.key] for spec in specs if (spec.method, spec.seed) == (method, seed)}) == 1
    sizes = [len({group[spec.key] for spec in shard}) for shard in shards]
    assert max(sizes) - min(sizes) <= 1


def test_only_methods_that_score_share():
    scoring = sweep.scoring_epochs(METHODS)
    assert {spec.method for spec in METHODS if scoring[spec.key]} == {"el2n", "grand"}
    group = sweep.sharers(METHODS, scoring)
    sizes = {spec.method: [*group.values()].count(group[spec.key]) for spec in METHODS}
    assert sizes == {"full": 1, "random": 1, "el2n": 2, "grand": 2}


@pytest.fixture
def evaluation_costs_half(monkeypatch):
    monkeypatch.setattr(sweep, "EVALUATION_COST", 0.5)


def test_a_shape_with_records_is_estimated_from_their_seconds_and_visits(evaluation_costs_half):
    slow = make_record(make_spec(), train=100.0, examples_seen=10_000)  # 1,000 s of evaluation, on 100 examples
    fast = make_record(make_spec("el2n", 0.5), train=300.0, prepare=40.0, examples_seen=5_000, prepare_examples=1_000)
    for number, row in enumerate(fast.epochs):
        row.update({"test_accuracy": 0.5} if number % 2 else {})
    other = make_record(make_spec(batch_size=32), train=1.0)
    rates = sweep.seconds_per_visit([slow, fast, other])
    expected = (1100 / (10_000 + 50) + 1340 / (6_000 + 6 * 50)) / 2
    assert rates[sweep.shape(make_spec("random", 0.7, epochs=3))] == pytest.approx(expected)
    assert sweep.shape(make_spec(threads=2)) not in rates and len(rates) == 2


def test_visits_are_those_of_training_scoring_and_evaluation(evaluation_costs_half):
    assert sweep.visits(make_spec(), 0) == 10_000
    assert sweep.visits(make_spec("random", 0.7), 0) == pytest.approx(3_000)
    assert sweep.visits(make_spec("random", 0.7, protocol="updates"), 0) == 10_000
    assert sweep.visits(make_spec("random", 0.7, evaluate_every=3), 100) == pytest.approx(3_000 + 5 * 50)
    specs = [make_spec("el2n", 0.5), make_spec("forgetting", 0.5)]
    scoring = sweep.scoring_epochs(specs)  # a tenth of the run's ten epochs, and all of them
    assert [sweep.visits(spec, 0, scoring[spec.key]) for spec in specs] == [6_000, 15_000]


def test_scoring_is_expected_once_of_all_ratios(tmp_path, monkeypatch):
    def expected(specs, material):
        return [256 * 2.0 for _ in specs]  # the reference's visits, a second each

    monkeypatch.setattr(sweep, "EVALUATION_COST", 0.0)
    monkeypatch.setattr("sadp_bench.workbench.expected", expected)
    monkeypatch.setattr(sweep, "STARTUP_SECONDS", 0.0)
    block = '[[sweep]]\nmethod = "forgetting"\nratio = [0.25, 0.5]\n'
    plan = planned(tmp_path, TINY + block)
    assert [plan.seconds[spec.key] for spec in plan.runs] == pytest.approx([512, 384 + 512, 256])
    assert plan.expected_seconds(1) == pytest.approx(512 + 384 + 512 + 256)
    assert plan.expected_seconds(100) == pytest.approx(384 + 512), "no sooner than its longest run"
    there = Store(tmp_path / "runs").scores_path(plan.runs[1])
    there.parent.mkdir(parents=True)
    there.write_bytes(b"")
    again = planned(tmp_path, TINY + block)
    assert [again.seconds[spec.key] for spec in again.runs] == pytest.approx([512, 384, 256])


def test_what_has_a_record_is_done_and_costs_nothing(tmp_path):
    store = Store(tmp_path / "runs")
    first = planned(tmp_path, TINY + GOOD)
    assert first.to_do == first.runs and not (tmp_path / "runs").exists()
    store.write(make_record(first.runs[0]))
    store.write_failure(Failure(first.runs[1], "exit code 1", "2025-01-01T00:00:00+00:00"))
    plan = planned(tmp_path, TINY + GOOD)
    assert plan.to_do == plan.runs[1:] and list(plan.seconds) == [plan.runs[1].key]
    assert list(sweep.states(plan, store).values()) == ["done", "failed before"]
    lock = Lock(store.path(plan.runs[1], ".lock"))
    assert lock.acquire()
    assert list(sweep.states(plan, store).values()) == ["done", "being trained"]
    lock.release(finished=True)


def test_a_broken_record_stops_the_sweep_before_anything_trains(tmp_path):
    path = Store(tmp_path / "runs").path(planned(tmp_path, TINY + GOOD).runs[0])
    path.parent.mkdir()
    path.write_text("{")
    refused(command("sweep", tmp_path / "a.toml", "--out", tmp_path / "runs", "--quiet"), path.name, "delete it")
    assert [child.name for child in path.parent.iterdir()] == [path.name]


# What is shown


def test_a_dry_run_shows_runs_states_and_time_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "EVALUATION_COST", 0.0)
    store, runs = Store(tmp_path / "runs"), planned(tmp_path, TINY + GOOD).runs
    path = written(tmp_path, TINY + GOOD + "seed = [0, 1]")
    store.write(make_record(runs[0], train=256.0, examples_seen=512))  # and 1,000 s of evaluation: 2.45 s a visit
    before = sorted(tmp_path.rglob("*"))
    told = command("sweep", path, "--out", store.folder, "--dry-run", "--quiet")
    assert told.code == 0 and told.err == ""
    rows = [line.split() for line in told.out.splitlines()]
    assert rows[:3] == [
        ["run", "state", "expected"],
        ["full", "0", "seed=0", "done"],
        [*"full 0 seed=1 to do 21 min 01 s".split()],
    ]
    assert told.out.splitlines()[-1] == "4 runs: 1 done, 3 to do, about 42 min 07 s with 1 job"
    found = json.loads(command("sweep", path, "--out", store.folder, "--dry-run", "--json").out)
    assert [run["state"] for run in found["runs"]] == ["done", "to do", "to do", "to do"]
    assert found["runs"][0]["spec"] == runs[0].to_json() and found["runs"][0]["seconds"] is None
    assert found["expected_seconds"] == pytest.approx(1256 / 512 * (512 + 256 + 256) + 3 * sweep.STARTUP_SECONDS)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_sweep_with_nothing_to_do_says_so(tmp_path):
    path, store = written(tmp_path, TINY + GOOD), Store(tmp_path / "runs")
    for spec in planned(tmp_path, TINY + GOOD).runs:
        store.write(make_record(spec))
    told = command("sweep", path, "--out", store.folder)
    assert told.code == 0 and told.err == "" and told.out.startswith("2 runs: 2 done, 0 failed; sadp-bench report")
    assert "2 runs: all done" in command("sweep", path, "--out", store.folder, "--dry-run").out
    found = json.loads(command("sweep", path, "--out", store.folder, "--json", "--executor", "ray").out)
    assert found["done"] == 2 and len(found["records"]) == 2 and found["failed"] == []


def test_titles_name_what_differs_and_nothing_else():
    from sadp_bench.overview import titles

    specs = [
        make_spec(),
        make_spec("sadp", 0.3, method_options={"smoothing": 0.1}),
        make_spec("sadp", 0.3, seed=1, method_options={"smoothing": 0.2}),
        make_spec("random", 0.3, method_options={"fresh": True}),
    ]
    assert list(titles(specs).values()) == [
        "full 0  seed=0",
        "sadp 0.3  seed=0  smoothing=0.1",
        "sadp 0.3  seed=1  smoothing=0.2",
        "random 0.3  seed=0",
    ]


def test_the_overview_shows_counts_the_time_left_and_what_goes_on():
    from rich.console import Console

    from sadp_bench.overview import Overview
    from sadp_bench.scheduler import Running, Standing

    specs = [make_spec("sadp", 0.3, seed) for seed in range(5)]
    plan = sweep.Plan(specs, frozenset(), {}, {}, {spec.key: 120.0 for spec in specs})
    standing = Standing(plan, {specs[0].key}, {specs[1].key: Failure(specs[1], "exit code 1", "")})
    standing.running[specs[2].key] = Running(specs[2], time.monotonic(), None, "epoch 3/20 [b]kept[/b] " + "x" * 200)
    console = Console(file=io.StringIO(), width=100)
    console.print(Overview(plan, 1).shown(standing))
    first, bar, row = console.file.getvalue().splitlines()
    assert first == "1 done, 1 running, 1 failed, 2 to do, about 6 min 00 s left" and bar
    assert row.startswith("sadp 0.3  seed=2  0 s  epoch 3/20 [b]kept[/b] xx") and len(row) <= 100


# The files that come along


@pytest.mark.parametrize(
    ("name", "kinds", "seeds"),
    [("smoke", {0.3, 0.5}, 1), ("cifar10-cpu", {0.3, 0.5, 0.7}, 3), ("cifar10", {0.3, 0.5, 0.7}, 5)],
)
def test_the_experiments_hold_every_method_at_every_ratio(name, kinds, seeds, request, monkeypatch):
    from sadp_bench.registry import table

    if name != "smoke":
        request.getfixturevalue("real_data")
    monkeypatch.setattr("sadp_bench.workbench.expected", lambda specs, material: [1.0])
    plan = sweep.make_plan(ROOT / "experiments" / f"{name}.toml", Store(ROOT / "nowhere"))
    networks = len({spec.backbone for spec in plan.runs})
    told = [(spec.method, spec.ratio) for spec in plan.runs]
    wanted = {(method, ratio) for method in table("method") for ratio in kinds if method != "full"} | {("full", 0)}
    assert set(told) == wanted and all(told.count(one) == seeds * networks for one in wanted)


def test_the_example_of_their_readme_is_a_sweep_file(tmp_path):
    text = (ROOT / "experiments" / "README.md").read_text().partition("```toml\n")[2].partition("```")[0]
    told = [(one.fields["method"], one.fields["ratio"], one.fields["seed"]) for one in read(written(tmp_path, text))]
    assert len(told) == 2 * 2 * 3 + 2 * 2 * 3 and set(told) == set(
        itertools.product(("random", "infobatch", "sadp"), (0.3, 0.5), (0, 1, 2))
    )


def test_a_name_with_a_colon_is_taken_where_the_file_is_trusted(tmp_path):
    text = '[[sweep]]\nmethod = "sadp_bench.pruners.sadp:SADP"\nratio = 0.5\n'
    assert len(planned(tmp_path, TINY + text, allow_imports=True).runs) == 2
    with pytest.raises(BadInput, match="--allow-imports"):
        planned(tmp_path, TINY + text)
