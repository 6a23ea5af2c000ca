"""Ceiling: all data in the number of updates of a pruned run."""

from __future__ import annotations

import dataclasses
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from baselines.ceiling import Ceiling
from sadp_bench.core import memory
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from sadp_bench.pruners.base import KeepAll
from sadp_bench.pruners.contract import update_size, updates_of
from sadp_bench.pruners.sampling import kept_in_epoch
from sadp_bench.records.comparison import compare
from sadp_bench.records.metrics import nominal_maximum
from sadp_bench.reports import render
from sadp_bench.reports.grouping import rows
from sadp_bench.runs import preflight, step_memory
from sadp_bench.runs.expected_cost import training_visits
from sadp_bench.training.optimizer import learning_rate, make_optimizer
from tests.commands import TINY, command
from tests.example_records import make_record, make_spec
from tests.helpers import Updates, bench, prepared
from tests.reports.helpers import row_of


class Sizes(Updates):
    """Keeps the size of every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def advance(self, visits: int) -> None:
        self.sizes.append(visits)


def trained(method: str, ratio: float, **requested: Any) -> tuple[Any, list[Any], list[list[int]]]:
    """Returns the run, its rows, and the sizes of each epoch's batches."""
    progress = Sizes()
    run = bench(method, ratio, progress, **requested)
    run.pruner.prepare(run.context)
    found, sizes = [], []
    for row in run.rows():
        found.append(row)
        sizes.append(progress.sizes)
        progress.sizes = []
    return run, found, sizes


@pytest.mark.parametrize(("ratio", "protocol"), [(0.3, "epochs"), (0.7, "updates")])
def test_every_epoch_shows_all_examples_in_the_updates_of_random(ratio: float, protocol: str) -> None:
    run, found, sizes = trained("ceiling", ratio, epochs=3, protocol=protocol)
    of_random = trained("random", ratio, epochs=3, protocol=protocol)[2]
    assert list(map(len, sizes)) == list(map(len, of_random))
    assert all(max(of_epoch) - min(of_epoch) <= 1 for of_epoch in sizes)
    whole = found if protocol == "epochs" else found[:-1]
    assert all(row["kept"] == 101 and row["mean_weight"] == 1 for row in whole)
    assert int(run.state.visits_N.min()) >= len(whole)


def test_the_number_of_updates_is_that_of_random_for_any_sizes() -> None:
    for n, ratio, batch, epoch in product(
        (7, 101, 1437, 60_000), (0.0, 0.1, 1 / 3, 0.5, 0.7, 0.9), (1, 3, 64), range(9)
    ):
        kept = kept_in_epoch(n, ratio, epoch)
        if not kept:
            continue
        of_random, pruner = -(-kept // batch), prepared(Ceiling(ratio), n)
        assert pruner.num_updates(epoch, n, batch) == of_random, (n, ratio, batch, epoch)
        for left in {1, of_random // 2, of_random - 1} - {0, of_random}:  # a partial epoch of the protocol `updates`
            shown = int(left / of_random * n + 0.5)
            assert pruner.num_updates(epoch, shown, batch) == left, (n, ratio, batch, epoch, left)


def test_the_run_is_a_plain_loop_over_all_data_with_the_larger_batch() -> None:
    run, found, sizes = trained("ceiling", 0.6, train_examples=120, batch_size=16, epochs=2)
    assert sizes == [[40] * 3] * 2, "16 / 0.4"
    model, rates = run.resources.model(), []
    optimizer = make_optimizer(model, run.spec)
    model.train()
    for epoch in range(2):
        order_N = torch.randperm(120, generator=stream(run.spec.seed, "order", epoch))
        for number, index_B in enumerate(order_N.split(40)):
            rates.append(learning_rate(run.spec, (epoch + number / 3) / 2))
            optimizer.param_groups[0]["lr"] = rates[-1]
            optimizer.zero_grad()
            cross_entropy(model(run.data.input(index_B)).mean(0), run.data.label_N[index_B]).backward()
            optimizer.step()
    by_visits = trained("ceiling", 0.6, train_examples=120, batch_size=16, epochs=2, lr_clock="visits")[1]
    assert [row["learning_rate"] for row in by_visits] == pytest.approx([row["learning_rate"] for row in found])
    assert found[-1]["learning_rate"] == pytest.approx(rates[-1])
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_estimates_contain_the_larger_update(monkeypatch: pytest.MonkeyPatch) -> None:
    assert update_size(Ceiling(0.6), 1000, 16) == 40 and update_size(KeepAll(), 1000, 16) == 16
    assert update_size(Ceiling(0.9), 101, 64) == 101, "no update shows more than all examples"
    assert training_visits(make_spec("ceiling", 0.6)) == pytest.approx(10_000)
    assert training_visits(make_spec("ceiling", 0.6, protocol="updates")) == pytest.approx(25_000)
    run = bench("ceiling", 0.6)
    asked: list[int] = []
    monkeypatch.setattr(preflight, "check_step_fits", lambda spec, *_: asked.append(spec.batch_size))
    preflight.check_runs([run.spec, run.spec.reference()], run.resources)
    assert asked == [-(-17 * 6 // 3)], "34: two updates of 101 examples instead of six"
    monkeypatch.undo()
    for module in (memory, step_memory):
        monkeypatch.setattr(module, "machine_bytes", lambda: 10**4)
    with pytest.raises(BadInput, match=f"a training step with batch size {asked[0]}.*lower one of them"):
        preflight.check_runs([run.spec], run.resources)


def test_a_number_of_updates_that_is_none_is_refused() -> None:
    for number in (0, 102, 2.0, True, None):
        pruner = KeepAll()
        pruner.num_updates = lambda *_, number=number: number  # type: ignore[method-assign]
        with pytest.raises(BadInput, match=r"KeepAll.num_updates\(0, 101, 17\) returns .* from 1 to 101"):
            updates_of(pruner, 0, 101, 17)


def test_reports_call_it_a_control_without_a_saving() -> None:
    records = [make_record(make_spec(seed=seed), 0.70 + 0.01 * seed) for seed in range(3)]
    for method, accuracy in (("ceiling", 0.695), ("random", 0.65), ("sadp", 0.66)):
        specs = [make_spec(method, 0.5, seed) for seed in range(3)]
        records += [make_record(spec, accuracy + 0.01 * spec.seed, 50.0) for spec in specs]
    for place, record in enumerate(records):
        if record.spec.method == "ceiling":
            seen = [row | {"kept": 1000} for row in record.epochs]
            seconds = record.seconds | {"train": 99.0}
            records[place] = dataclasses.replace(record, examples_seen=10_000, epochs=seen, seconds=seconds)
    row = row_of(rows(records), "ceiling", 0.5)
    assert row.verdict is None and row.speedup.mean == pytest.approx(100 / 99) and row.nominal_maximum == 1
    assert nominal_maximum(row.runs[0].spec) == 1 and compare(row.runs[0], None).ceiling == 1
    shown = render(records, [], "markdown")
    assert "| ceiling 50 % | -0.50 (3)" in shown and "/ 1.00x" in shown and "| sadp | " in shown
    assert "a control that trains on all data" in shown and "saved another share" not in shown
    assert (
        "ceiling"
        not in shown.split("a control that trains on all data")[0].split("best mean accuracy")[-1].split("\n\n")[0]
    )


def test_the_command_runs_it_and_its_panel_is_honest(tmp_path: Path) -> None:
    answer = command("run", "--method", "ceiling", "--ratio", 0.5, *TINY, "--out", tmp_path, "--batch-size", 32)
    assert answer.code == 0, answer.err
    assert "0.0000" in answer.out and "1.000 x" in answer.out and "every example is shown in every epoch" in answer.out
