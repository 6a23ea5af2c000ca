"""NaN does not hide behind spikes: a run whose network is not finite fails, whatever its method, and records no accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sadp_bench.capture.finite import FiniteWatch
from sadp_bench.core import registry
from sadp_bench.core.errors import Diverged
from sadp_bench.records.store import Store, read_all
from sadp_bench.runs.run import run
from sadp_bench.training import evaluation
from sadp_bench.training.data import Loader
from tests.small_runs import make_trainer, needed_options, resolved, small_bench
from tests.stopping import StopsAt


def with_nan(num_examples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets one pixel of every fourth example to NaN, in the data with `num_examples` examples."""
    input_of = Loader.input

    def planted(self: Loader, index_B: torch.Tensor, augmentation: Any = None) -> torch.Tensor:
        input = input_of(self, index_B, augmentation)
        if len(self) == num_examples:
            input[index_B % 4 == 3, 0, 0, 0] = torch.nan
        return input

    monkeypatch.setattr(Loader, "input", planted)


def test_every_method_fails_at_the_first_epoch_that_shows_a_nan_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    with_nan(130, monkeypatch)
    for method in registry.table("method"):
        ratio, needed = 0.0 if method == "full" else 0.4, needed_options(method, 130)
        trainer = make_trainer(*resolved(method=method, ratio=ratio, epochs=4, set=needed))
        with pytest.raises(Diverged, match=f"training diverged: {method}'s network is not finite after epoch 1 .*NaN"):
            trainer.run()


def test_a_run_that_is_not_finite_is_a_failure_without_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_nan(130, monkeypatch)
    spec, material = resolved(method="sadp", ratio=0.3)
    with pytest.raises(Diverged, match="stem.0.weight"):
        run(spec, material, Store(tmp_path), StopsAt(), reference=False)
    found = read_all([tmp_path])
    assert found.records == [] and [failure.spec for failure in found.failures] == [spec]
    assert found.failures[0].epoch is not None


def test_membranes_are_watched_where_no_weight_can_become_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    with_nan(130, monkeypatch)
    bench = small_bench(set={"backbone.norm": "none"}, batch_size=130)
    bench.model.stem.requires_grad_(False)
    with pytest.raises(Diverged, match=r"\(the input, the membranes of body.0\)"):
        next(bench.rows())
    assert all(bool(parameter.isfinite().all()) for parameter in bench.model.parameters()), "the case is another"


def test_what_is_not_finite_on_held_out_data_is_no_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = small_bench()
    with_nan(len(bench.held), monkeypatch)
    with pytest.raises(Diverged, match=r"the evaluation after epoch 3 is not finite \(the input, the membranes"):
        evaluation.evaluate(bench.model, bench.held, "fp32", epoch=2)


class Masked(nn.Module):
    """A linear layer with a constant mask of -inf, as in attention."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 2)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))


def test_every_tensor_of_a_network_is_watched_but_constants() -> None:
    model = Masked()
    watch = FiniteWatch(model)
    assert watch.places() == []
    for name, value in [("last.weight", torch.nan), ("last.bias", torch.inf), ("mean", -torch.inf)]:
        tensor = dict([*model.named_parameters(), *model.named_buffers()])[name]
        kept = tensor.detach().clone()
        tensor.data.flatten()[-1] = value
        assert [place.removeprefix("the buffer ") for place in watch.places()] == [name]
        tensor.data.copy_(kept)
