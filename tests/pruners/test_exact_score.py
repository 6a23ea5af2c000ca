"""SADP's score exact: exact gradient norms of the present network, made before each epoch and charged apart."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch

from sadp_bench.core import distributed
from sadp_bench.core.errors import BadInput, Diverged
from sadp_bench.core.losses import mean_loss
from sadp_bench.drop_in.sampler import PrunedSampler
from sadp_bench.pruners.exchange import Selection, Survey
from sadp_bench.pruners.sadp import SADP
from sadp_bench.pruners.sampling import inclusion_probability, smooth
from sadp_bench.records.metrics import score_seconds, score_visits
from sadp_bench.reports import render
from sadp_bench.runs.expected_cost import recorded_visits
from tests.baselines.test_grand import one_backward_pass_per_example
from tests.commands import TINY, command
from tests.example_records import make_record, make_spec
from tests.helpers import bench, prepared

N = 41


def test_probabilities_are_those_of_one_backward_pass_an_example_by_the_present_network() -> None:
    # Many large updates: the norms of evaluation mode are nearly equal until the running statistics fit.
    sizes = {"epochs": 3, "train_examples": N, "batch_size": 4, "learning_rate": 0.5}
    run = bench("sadp", 0.5, augment="crop", set={"score": "exact"}, **sizes)
    run.pruner.prepare(run.context)
    select, norms = run.pruner.select, []

    def compared(epoch: int) -> Selection:
        selection: Selection = select(epoch)
        model = copy.deepcopy(run.model).eval()
        norm_N = one_backward_pass_per_example(model, mean_loss, run.data.input(torch.arange(N)), run.data.label_N)
        num_kept = len(selection.index_K)
        p_N = inclusion_probability(smooth(norm_N, run.pruner.smoothing), num_kept)
        expected_K = (num_kept / (N * p_N))[selection.index_K].float()
        torch.testing.assert_close(selection.weight_K, expected_K, rtol=1e-3, atol=0)
        norms.append(norm_N)
        return selection

    run.pruner.select = compared
    rows = list(run.rows())
    assert len(norms) == 3 and not torch.allclose(norms[0], norms[2], rtol=0.1), "the network has trained between"
    assert (norms[2] / norms[2].mean()).std() > 0.05
    assert all(row["score_visits"] == N and 0 < row["score_seconds"] < row["seconds"] for row in rows)
    assert sum(row["score_seconds"] for row in rows) <= run.clock.seconds["select"]


def test_its_cost_is_shown_apart_and_counted(tmp_path: Path) -> None:
    record = make_record(make_spec("sadp", 0.5))
    plain = make_record(make_spec("random", 0.5))
    scored = [row | {"score_visits": 1000, "score_seconds": 2.5} for row in record.epochs]
    record = dataclasses.replace(record, epochs=scored)
    assert score_seconds(record) == 25 and score_visits(record) == 10_000 and not score_seconds(plain)
    assert recorded_visits(record) == recorded_visits(plain) + 10_000
    shown = render([record, plain, make_record(make_spec())], [], "markdown")
    assert "Cost of scores between the epochs, as a share of the charged seconds: sadp 25.0 %." in shown
    words = ["run", "--method", "sadp", "--ratio", 0.5, "--set", "score=exact", *TINY, "--no-reference"]
    answer = command(*words, "--out", tmp_path)
    assert answer.code == 0, answer.err
    assert "of select: passes over all examples" in answer.out


def test_where_it_can_not_run_it_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = PrunedSampler(SADP(0.5, score="exact"), num_examples=20, epochs=2, batch_size=4)
    for call in (lambda: sampler.set_epoch(0), lambda: len(sampler)):
        with pytest.raises(BadInput, match="SADP with these settings passes over all examples .*no network"):
            call()
    PrunedSampler(SADP(0.5), num_examples=20, epochs=2, batch_size=4).set_epoch(0)
    monkeypatch.setattr(distributed, "size", lambda: 2)
    with pytest.raises(BadInput, match="score exact runs on one process"):
        prepared(SADP(0.5, score="exact"), 100)


def test_a_norm_that_is_not_finite_ends_the_run() -> None:
    for value in (torch.nan, torch.inf):
        pruner, norm_N = prepared(SADP(0.5, score="exact"), 20), torch.ones(20)
        norm_N[3] = value
        pruner.rescore(1, lambda watch, n=norm_N: Survey(torch.zeros(20, 2), torch.zeros(20), torch.zeros(20), n))
        with pytest.raises(Diverged, match="the sadp scores of 1 examples are not finite"):
            pruner.select(1)
