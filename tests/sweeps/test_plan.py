"""The plan of a sweep: references first and once, shards, what is done already, how long the rest will take."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sadp_bench.records.file_lock import Lock
from sadp_bench.records.record import Failure
from sadp_bench.records.store import Store
from sadp_bench.runs import expected_cost, resolve
from sadp_bench.runs.expected_cost import EVALUATION_COST
from sadp_bench.runs.preparation import preparations
from sadp_bench.sweeps import planning
from tests.commands import command, refused
from tests.example_records import make_record, make_spec
from tests.sweeps.helpers import GOOD, TINY, planned


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
    result = [(spec.method, spec.ratio, spec.seed, spec.backbone_options["width"]) for spec in plan.runs]
    assert result == [
        *(("full", 0, seed, width) for seed, width in ((0, 4), (1, 4), (0, 8))),
        *((method, ratio, seed, 4) for method in ("random", "sadp") for ratio in (0.25, 0.5) for seed in (0, 1)),
        ("random", 0.5, 0, 8),
    ]
    assert all(plan.runs.index(spec.reference()) <= plan.runs.index(spec) for spec in plan.runs)


def test_what_the_file_leaves_open_is_as_run_resolves_it(tmp_path):

    plan = planned(tmp_path, GOOD + "seed = 3\nset.fresh = false", jobs=2)
    spec, _ = resolve.resolve({"method": "random", "ratio": 0.5, "seed": 3, "set": {"fresh": "false"}})
    [own] = [one for one in plan.runs if one.method == "random"]
    assert {**own.to_json(), "threads": 0} == {**spec.to_json(), "threads": 0}


@pytest.mark.parametrize(("cores", "jobs", "threads"), [(8, 1, 8), (8, 3, 2), (2, 5, 1)])
def test_each_job_gets_its_share_of_the_cores(cores, jobs, threads, tmp_path, monkeypatch):
    monkeypatch.setattr("sadp_bench.core.cores.available_threads", lambda: cores)
    monkeypatch.setattr("sadp_bench.runs.trainer.expected", lambda specs, resources: [1.0])
    plan = planned(tmp_path, GOOD + "epochs = 1\ntrain_examples = 256", jobs=jobs)
    assert {spec.threads for spec in plan.runs} == {threads}


METHODS = [make_spec(), *(make_spec(m, r, s) for m in ("random", "el2n", "grand") for r in (0.3, 0.5) for s in (0, 1))]
SCORING = {spec.key for spec in METHODS if spec.method in ("el2n", "grand")}


@given(st.integers(1, 20), st.permutations(METHODS))
def test_shards_are_a_partition_that_keeps_together_what_shares_scores(total, specs):
    group = planning.sharers(specs, preparations(specs))
    shards = [planning.shard_of(specs, group, (number, total)) for number in range(1, total + 1)]
    assert sorted(spec.key for shard in shards for spec in shard) == sorted(spec.key for spec in specs)
    home = {spec.key: number for number, shard in enumerate(shards) for spec in shard}
    for method in ("el2n", "grand"):
        for seed in (0, 1):
            assert len({home[spec.key] for spec in specs if (spec.method, spec.seed) == (method, seed)}) == 1
    sizes = [len({group[spec.key] for spec in shard}) for shard in shards]
    assert max(sizes) - min(sizes) <= 1


def test_only_methods_that_score_share():
    found = preparations(METHODS)
    assert {spec.key for spec in METHODS if found[spec.key].scoring} == SCORING
    group = planning.sharers(METHODS, found)
    sizes = {spec.method: [*group.values()].count(group[spec.key]) for spec in METHODS}
    assert sizes == {"full": 1, "random": 1, "el2n": 2, "grand": 2}


def test_all_methods_and_ratios_of_a_seed_share_a_search():
    tickets = [dataclasses.replace(spec, sparsity="imp", density=density) for spec in METHODS for density in (0.3, 0.5)]
    group = planning.sharers(tickets, preparations(tickets))
    shared = {(spec.seed, spec.density): group[spec.key] for spec in tickets}
    assert len(set(shared.values())) == 4
    assert all(group[spec.key] == shared[spec.seed, spec.density] for spec in tickets)


def test_a_run_like_a_finished_one_is_expected_to_take_as_long(tmp_path, monkeypatch):
    """The estimate includes visits before training: scores, a search for connections, or both."""
    monkeypatch.setattr(planning, "start_seconds", lambda spec: 0.0)
    kinds = {
        "plain": "", "eb": 'sparsity = "eb"\ndensity = 0.5\n', "imp": 'sparsity = "imp"\ndensity = 0.3\n',
        "early": 'sparsity = "eb"\ndensity = 0.5\nearly_time = true\nset.sparsity.early_rule = "max"\n',
        "pq": 'sparsity = "pq"\ndensity = 0.4\n',
    }  # fmt: skip
    for name, text in kinds.items():
        folder = tmp_path / name
        folder.mkdir()
        block = f'[[sweep]]\nmethod = "forgetting"\nratio = 0.5\nseed = 1\nthreads = 1\nepochs = 4\n{text}'
        full, pruned = planned(folder, block).runs
        store = Store(folder / "runs")
        for spec, scoring in ((full, 0), (pruned, 4)):
            # A visit in training takes one second, and one in evaluation EVALUATION_COST seconds.
            search = {"plain": 0, "eb": 4, "imp": 4 + 4 * 3, "early": 5, "pq": 0}[name]
            visits = round(spec.train_examples * spec.epochs * (1 - spec.ratio))
            prepared = spec.train_examples * (scoring + search)
            record = make_record(spec, train=visits, prepare=prepared, examples_seen=visits, prepare_examples=prepared)
            record = dataclasses.replace(
                record,
                test_examples=360,
                fitted_examples=spec.train_examples,
                epochs=[row | {"test_accuracy": 0.5} for row in record.epochs],
            )
            record.seconds["evaluate"] = EVALUATION_COST * (360 * 5 + spec.train_examples)
            store.write(record)
        again = planned(folder, block.replace("seed = 1", "seed = 2"))
        expected = [again.seconds[spec.key] for spec in again.to_do]
        taken = [sum(store.find(spec).seconds.values()) for spec in (full, pruned)]
        taken[1] -= full.train_examples * search  # It takes the reference's.
        assert expected == pytest.approx(taken), name


def test_scoring_is_expected_once_of_all_ratios(tmp_path, monkeypatch):
    def expected(specs, material):
        return [256 * 2.0 for _ in specs]  # the reference's visits, a second each

    monkeypatch.setattr(expected_cost, "EVALUATION_COST", 0.0)
    monkeypatch.setattr("sadp_bench.runs.trainer.expected", expected)
    monkeypatch.setattr(planning, "start_seconds", lambda spec: 0.0)
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
    assert list(planning.states(plan, store).values()) == ["done", "failed before"]
    lock = Lock(store.path(plan.runs[1], ".lock"))
    assert lock.acquire()
    assert list(planning.states(plan, store).values()) == ["done", "being trained"]
    lock.release(finished=True)


def test_a_broken_record_stops_the_sweep_before_anything_trains(tmp_path):
    path = Store(tmp_path / "runs").path(planned(tmp_path, TINY + GOOD).runs[0])
    path.parent.mkdir()
    path.write_text("{")
    refused(command("sweep", tmp_path / "a.toml", "--out", tmp_path / "runs", "--quiet"), path.name, "delete it")
    assert [child.name for child in path.parent.iterdir()] == [path.name]
