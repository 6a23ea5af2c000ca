"""Executors of runs: processes of their own, and what a worker sends back."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

from sadp_bench.core.errors import BadInput
from sadp_bench.records.record import Failure
from sadp_bench.records.store import FAILED, Store
from sadp_bench.sweeps import executors
from sadp_bench.sweeps.executors import Local, Options, run_words
from sadp_bench.sweeps.processes import launched
from sadp_bench.sweeps.ray_executor import RayCluster, keep
from sadp_bench.sweeps.scheduler import Scheduler, Watcher, devices
from tests.commands import comes
from tests.example_records import make_record, make_spec
from tests.sweeps.helpers import FULL, RANDOM, SADP, plan_of


@pytest.fixture
def store(tmp_path):
    (tmp_path / "runs").mkdir()
    return Store(tmp_path / "runs")


def test_the_words_are_those_of_the_run_and_nothing_else(tmp_path):
    words = run_words(SADP, tmp_path, Options(jobs=3, data=tmp_path / "data", checkpoint_seconds=7))
    assert words[: 1 + len(SADP.words())] == ["run", *SADP.words()]
    assert words[1 + len(SADP.words()) :] == [
        *("--no-reference", "--json", "--out", str(tmp_path), "--concurrent-jobs", "3", "--checkpoint-seconds", "7"),
        *("--data", str(tmp_path / "data")),
    ]


def test_a_gpu_run_sees_its_own_device_alone(store, monkeypatch):
    code = "import os, time; print(os.environ.get('CUDA_VISIBLE_DEVICES')); time.sleep(60)"
    monkeypatch.setattr(executors, "fresh", lambda _, environment: launched([sys.executable, "-c", code], environment))
    specs = [make_spec("random", 0.5, seed, device="cuda") for seed in range(2)]
    local = Local(store, Options(jobs=2), ["5", "7"])
    for spec in specs:
        local.start(spec, 0)
    assert comes(lambda: all(map(local.latest, specs)))
    assert list(map(local.latest, specs)) == ["5", "7"]
    local.stop()
    assert local.ended() == []


def test_gpus_are_those_that_are_visible_and_one_a_job(monkeypatch):
    cuda = [make_spec(device="cuda")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert devices(cuda, 2) == ["5", "7"] and devices([FULL], 9) == []
    with pytest.raises(BadInput, match="--jobs 3 with runs on cuda: 2 GPUs"):
        devices(cuda, 3)
    with pytest.raises(BadInput, match="take 'cuda'"):
        devices([make_spec(device="cuda:1")], 2)
    assert devices([make_spec(device="cuda:1")], 1) == []


def test_a_clusters_capacity_is_that_of_its_scarcest_resource():
    cluster = object.__new__(RayCluster)
    cluster._ray = SimpleNamespace(cluster_resources=lambda: {"CPU": 16.0, "GPU": 3.0})
    for least, runs in (({"CPU": 2, "GPU": 0.0}, 8), ({"CPU": 2, "GPU": 0.5}, 6), ({"CPU": 32, "GPU": 0.0}, 0)):
        cluster._least = least
        assert cluster.capacity() == runs, least


def test_a_process_that_cannot_be_started_is_a_failure_of_its_run(store, monkeypatch):
    def none_left(*_):
        raise OSError("Cannot allocate memory")

    monkeypatch.setattr(executors, "fresh", none_left)
    monkeypatch.setattr(executors, "Warm", lambda: SimpleNamespace(start=none_left, close=lambda: None))
    standing = Scheduler(plan_of(RANDOM), store, Local(store, Options()), Watcher(), 0).run()
    assert standing.failed[RANDOM.key].reason.endswith("the process could not be started: Cannot allocate memory")


# What a worker sends back


def sent(store, spec, name=None, of=None):
    return {name or store.path(spec).name: json.dumps(make_record(of or spec).to_json()).encode()}


def test_what_a_worker_sends_is_kept_under_the_names_of_its_run(store):
    scores = str(store.scores_path(SADP).relative_to(store.folder))
    keep(store, SADP, {**sent(store, SADP), scores: b"scores", "../evil.json": b"{}", "/tmp/evil.json": b"{}"})
    assert store.find(SADP) == make_record(SADP) and store.scores_path(SADP).read_bytes() == b"scores"
    keep(store, SADP, {**sent(store, SADP), scores: b"others"})
    assert store.scores_path(SADP).read_bytes() == b"scores"
    found = sorted(path for path in store.folder.parent.rglob("*") if path.is_file())
    assert found == sorted([store.path(SADP), store.scores_path(SADP)])


def test_a_record_of_another_run_or_no_record_at_all_is_refused(store):
    with pytest.raises(BadInput, match="not of"):
        keep(store, SADP, sent(store, SADP, of=RANDOM))
    for content in (b"", b"{", b"[]", b"\xff", b"[" * 100_000):
        with pytest.raises(BadInput):
            keep(store, SADP, {store.path(SADP).name: content})
    assert not list(store.folder.iterdir())


def test_a_failure_that_a_worker_sends_is_kept(store):
    failure = Failure(SADP, "diverged", "2025-01-01T00:00:00+00:00", epoch=3)
    keep(store, SADP, {store.path(SADP, FAILED).name: json.dumps(failure.to_json()).encode()})
    assert store.find_failure(SADP) == failure


def test_what_a_lost_worker_had_begun_counts_as_an_interruption(store):
    keep(store, RANDOM, sent(store, RANDOM), interruptions=2)
    assert store.find(RANDOM) == make_record(RANDOM, interruptions=2)
