"""Forward passes that a pruner requests in training: they are charged apart, and change nothing else."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sadp_bench.capture.signals import Signal
from sadp_bench.core.errors import BadInput
from sadp_bench.drop_in.sampler import PrunedSampler
from sadp_bench.pruners.base import Pruner, WithinBatch
from sadp_bench.pruners.exchange import Candidates, Observation, Selection, unweighted
from sadp_bench.records.metrics import ceiling, forward_only, forward_share
from sadp_bench.runs.preflight import check_shareable
from tests.example_records import make_record, make_spec
from tests.helpers import bench

EVERY = frozenset({Signal.FEATURES, Signal.LOGIT_ERRORS})


class First(WithinBatch):
    """Trains on the first candidates of each batch; looks at all, as its option demands."""

    def __init__(self, prune_ratio: float, *, look: bool = True) -> None:
        super().__init__(prune_ratio)
        self.look = look
        self.sizes: list[list[int]] = []

    def choose_in_batch(self, candidates: Candidates) -> Selection:
        if self.look:
            seen = candidates.forward(EVERY)
            assert seen.logits_TBC.shape[1] == len(candidates.index_C) == len(seen.loss_B)
            assert not seen.logits_TBC.requires_grad and torch.equal(seen.index_B, candidates.index_C)
            torch.testing.assert_close(
                seen.watched[Signal.LOGIT_ERRORS].sum(0),
                seen.logits_TBC.mean(0).softmax(1) - torch.nn.functional.one_hot(seen.label_B, 10),
            )
            assert seen.watched[Signal.FEATURES].shape[:2] == seen.logits_TBC.shape[:2]
        self.sizes.append([len(candidates.index_C), candidates.num_trained])
        return unweighted(torch.arange(candidates.num_trained))


class Again(Pruner):
    """Keeps all examples but the first ten, and looks at those ten at each epoch's end."""

    def select(self, epoch: int) -> Selection:
        return unweighted(torch.arange(10, self.num_examples))

    def revisit(self, epoch: int) -> Tensor:
        return torch.arange(10)

    def observe_forward(self, seen: Observation) -> None:
        self.again = [seen.epoch, *seen.index_B.tolist()]


def run_of(pruner: Pruner) -> Any:
    run = bench("random", pruner.prune_ratio, epochs=2)
    run.state.pruner = pruner
    run.prepare()
    return run, list(run.rows())


def test_a_forward_pass_of_candidates_is_counted_apart_and_changes_no_number_of_the_run() -> None:
    looked, passive = First(0.4), First(0.4, look=False)
    (run, rows), (other, plain) = run_of(looked), run_of(passive)
    for row, quiet in zip(rows, plain, strict=True):
        assert row["train_loss"] == quiet["train_loss"] and row["kept"] == quiet["kept"]
        assert row["forward_visits"] == 101 and row["forward_only"] == 101 - row["kept"]
        assert 0 < row["forward_seconds"] < row["seconds"] and row["choice_seconds"] >= 0
        assert "forward_visits" not in quiet
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name
    assert looked.sizes == passive.sizes and sum(row["kept"] for row in rows) == round(0.6 * 202)
    per_epoch = math.ceil(rows[0]["kept"] / 17)
    assert sum(size for size, _ in looked.sizes[:per_epoch]) == 101
    assert int(run.state.visits_N.sum()) == sum(row["kept"] for row in rows)


def test_a_candidate_that_is_named_twice_has_two_visits() -> None:
    class Twice(First):
        def choose_in_batch(self, candidates: Candidates) -> Selection:
            return unweighted(torch.zeros(candidates.num_trained, dtype=torch.int64))

    run, rows = run_of(Twice(0.4))
    assert int(run.state.visits_N.sum()) == sum(row["kept"] for row in rows)
    assert int((run.state.visits_N > 0).sum()) <= len(rows) * 4 and int(run.state.visits_N.max()) > 2


def test_examples_that_are_revisited_pass_forward_after_the_epoch() -> None:
    run, rows = run_of(Again(10 / 101))
    assert run.pruner.again == [1, *range(10)]
    assert [(row["kept"], row["forward_visits"], row["forward_only"]) for row in rows] == [(91, 10, 10)] * 2
    assert int(run.state.visits_N[:10].sum()) == 0


def test_the_ceiling_contains_the_forward_passes_at_their_measured_share() -> None:
    # 300 of 1000 candidates train. 2000 forward passes take 2 s of 8 s, or 1 ms each. A visit takes 5 s / 600.
    rows = [
        {"kept": 300, "forward_visits": 1000, "forward_only": 700, "forward_seconds": 1.0, "choice_seconds": 0.5}
    ] * 2
    record = make_record(make_spec("random", 0.7))
    record = dataclasses.replace(
        record,
        spec=dataclasses.replace(record.spec, epochs=2),
        num_examples=1000,
        examples_seen=600,
        epochs=rows,
        seconds=record.seconds | {"train": 8.0},
    )
    f, k = 0.001 / (5 / 600), 0.3
    assert forward_share(rows, 8.0) == pytest.approx(f) and forward_only(record) == 1400
    assert ceiling(record) == pytest.approx(1 / (f + (1 - f) * k))
    assert forward_share([{"kept": 300}], 8.0) is None
    without = dataclasses.replace(record, epochs=[{"kept": 300}] * 2)
    assert ceiling(without) == pytest.approx(1 / k) and forward_only(without) == 0


WRONG = {
    "a NoneType": None,
    "int64 [": unweighted(torch.arange(3)),
    "float32": Selection(torch.arange(16), torch.ones(16, dtype=torch.float64)),
    "a place outside": unweighted(torch.full((16,), 99)),
    "a weight": Selection(torch.arange(16), torch.zeros(16)),
}


@pytest.mark.parametrize("why", list(WRONG))
def test_a_choice_that_breaks_the_contract_is_refused(why: str) -> None:
    pruner = First(0.4)
    pruner.choose_in_batch = lambda candidates: WRONG[why]  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(BadInput, match=f"First.choose_in_batch in epoch 0 .*{why.replace('[', '.')}"):
        run_of(pruner)


def test_a_pruner_that_passes_forward_says_where_it_can_not_run() -> None:
    run = bench("divbs", 0.4)
    with pytest.raises(BadInput, match="divbs chooses among the candidates of a whole batch.*one process"):
        check_shareable(dataclasses.replace(run.spec, processes=2), run.pruner)
    for pruner in (First(0.4), Again(0.1)):
        with pytest.raises(BadInput, match="a sampler has no network"):
            PrunedSampler(pruner, num_examples=20, epochs=2, batch_size=4)
    with pytest.raises(BadInput, match="WithinBatch trains a part of its selection: override choose_in_batch"):
        run_of(WithinBatch(0.4))
    pruner = First(0.4)
    pruner.num_trained = lambda epoch, num_selected: 0  # type: ignore[method-assign]
    with pytest.raises(BadInput, match=r"num_trained\(0, 101\) returns 0"):
        run_of(pruner)
