"""A checkpoint or a file of scores whose checksum is right and whose content is not is never used, and that is reported."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from sadp_bench.core.errors import BadInput
from sadp_bench.pruners.base import KeepAll
from sadp_bench.pruners.exchange import Observation
from sadp_bench.runs.trainer import RunTrainer
from sadp_bench.training import checkpoint, shared_file
from sadp_bench.training.checkpoint import read_state
from sadp_bench.training.state_checks import contents
from tests.small_runs import make_trainer
from tests.stopping import Stopped, StopsAt, requested, saved

CPU = torch.device("cpu")


def first_tensor(table: Any) -> str:
    return next(name for name, value in table.items() if isinstance(value, torch.Tensor) and value.is_floating_point())


def altered(state: Any, place: str, value: Any) -> None:
    """Sets the entry at 'a/b/c'; a number is a position in a list, and '*' the first float tensor's name."""
    *path, last = place.split("/")
    for name in path:
        state = state[int(name)] if name.isdecimal() else state[name]
    key = (
        int(last) if last.isdecimal() and not isinstance(state, dict) else first_tensor(state) if last == "*" else last
    )
    state[key] = value(state[key]) if callable(value) else value


WRONG = [None, "text", -1.0, math.nan, math.inf, [1], {"a": 1}, torch.zeros(3), 1j]
OF_SCORES: dict[str, list[Any]] = {
    "score_N": [
        *WRONG,
        lambda score_N: score_N[:-1],
        lambda score_N: score_N[:, None],
        lambda score_N: score_N.to(torch.complex64),
        lambda score_N: score_N.index_fill(0, torch.tensor([5]), math.nan),
        lambda score_N: score_N > 0,
        lambda score_N: score_N.to_sparse(),
    ],
    "seconds": WRONG,
    "cpu_seconds": WRONG,
    "visits": [*WRONG, 1.5, True],
    "by": [None, 1, torch.zeros(1)],
    "made_in": [torch.zeros(3)],
}
OF_SEARCHES: dict[str, list[Any]] = {
    **{name: values for name, values in OF_SCORES.items() if name != "score_N"},
    "ticket": [None, "text", [1], {"a": torch.zeros(1)}, {"a": math.nan}],
    "model": WRONG,
    "model/*": [*WRONG, lambda value: value.double(), lambda value: value[1:], lambda value: value / 0],
    "sparsity": WRONG,
    "sparsity/masks": [
        *WRONG,
        {},
        lambda masks: dict([*masks.items()][1:]),
        lambda masks: masks | {"stem.0.weight": 1},
    ],
}
OF_CHECKPOINTS: dict[str, list[Any]] = {
    "identity": WRONG,
    "replaces": [1.0, [1], torch.zeros(2)],
    "environment": [*WRONG[:6], {"torch": torch.zeros(1)}],
    "seconds": [*WRONG, {"train": 1.0}],
    "seconds/train": WRONG,
    "cpu_seconds": [*WRONG, {"train": math.nan}],
    "visits": [*WRONG, 0.5],
    "scores_from": [1, torch.zeros(1)],
    "ticket": [None, "text", [1], {"a": torch.zeros(1)}, {"a": math.nan}],
    "gradient_cosine": [None, "text", [1], {"first": 1.5}, {"least": "text"}, {"least_layer": 1}, {"examples": -1}],
    "training": WRONG,
    "training/rows": [None, "text", {"a": 1}, lambda rows: rows[1:], lambda rows: rows * 2, lambda rows: rows[:-1]],
    "training/rows/0/epoch": [*WRONG, 7, False],
    "training/rows/0/kept": [*WRONG, 0, 10**6, 12.0],
    "training/rows/1/train_loss": WRONG,
    "training/rows/1/seconds": WRONG,
    "training/rows/1/test_accuracy": [*WRONG, 1.5],
    "training/rows/1/learning_rate": WRONG,
    "training/visits_N": [*WRONG, lambda visits_N: visits_N + 1, lambda visits_N: visits_N.double()],
    "training/model": WRONG,
    "training/model/*": [*WRONG, lambda value: value.double(), lambda value: value[1:], lambda value: value / 0],
    "training/optimizer": WRONG,
    "training/optimizer/param_groups": [*WRONG, []],
    "training/optimizer/param_groups/0/momentum": [0.1, "text", None],
    "training/optimizer/state": [
        *WRONG,
        lambda state: {0: {"momentum_buffer": torch.zeros(2)}},
        lambda state: {**state, 0: {}},
        lambda state: {**state, 0: "text"},
        lambda state: {"x": state[0]},
    ],  # fmt: skip
    "training/optimizer/state/0/momentum_buffer": [*WRONG, lambda value: value.double(), lambda value: value / 0],
    "training/optimizer/param_groups/0": [lambda group: {k: v for k, v in group.items() if k != "dampening"}],
    "training/pruner": WRONG,
    "training/pruner/num_examples": [5, "text"],
    "training/pruner/prune_ratio": [0.9, None],
    "training/pruner/score_sq_N": [*WRONG, lambda score_N: score_N[1:]],
    "training/sparsity": WRONG,
    "training/sparsity/masks": [*WRONG, {"stem.0.weight": torch.ones(3)}],
}


def test_scores_and_searches_of_the_wrong_kind_are_made_anew_and_that_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eb = {"sparsity": "eb", "density": 0.3, "epochs": 2}
    trainer = saved(
        *requested("el2n", **eb), tmp_path, scores_path=tmp_path / "a.scores", search_path=tmp_path / "a.search"
    )
    trainer.prepare()
    files = (trainer.context._scores_file, OF_SCORES), (trainer.context._search_file, OF_SEARCHES)
    read = {file.path: read_state(file.path, CPU) for file, _ in files}
    for shared, wrong in files:
        assert shared._find() is not None
        for place, values in wrong.items():
            for value in values:
                state = copy.deepcopy(read[shared.path])
                altered(state, place, value)
                monkeypatch.setattr(shared_file, "read_state", lambda path, device, state=state: state)
                shared._progress = progress = StopsAt()
                assert shared._find() is None, f"{shared.noun} with another {place}: used: {value}"
                assert len(progress.messages) == 1 and str(shared.path) in progress.messages[0], progress.messages
        monkeypatch.undo()


def test_a_checkpoint_of_another_content_is_set_aside_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Stopped):
        saved(*requested("sadp"), tmp_path, StopsAt(13)).run()
    trainer = saved(*requested("sadp"), tmp_path, progress := StopsAt())
    path, good = tmp_path / "run.ckpt", read_state(tmp_path / "run.ckpt", CPU)
    (tmp_path / "run.ckpt.before").unlink()
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    for place, values in OF_CHECKPOINTS.items():
        for value in values:
            state = copy.deepcopy(good)
            altered(state, place, value)
            path.touch()
            monkeypatch.setattr(checkpoint, "read_state", lambda path, device, state=state: state)
            progress.messages.clear()
            trainer._resume()
            assert not trainer.prepared, f"a checkpoint with another {place} is taken up: {value}"
            assert len(progress.messages) == 1 and "set aside" in progress.messages[0], (
                place,
                value,
                progress.messages,
            )
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    path.touch()
    monkeypatch.setattr(checkpoint, "read_state", lambda path, device: good)
    trainer._resume()
    assert trainer.prepared and len(trainer.state.rows) == 3, "the unaltered one is refused"


class Learns(KeepAll):
    """Keeps all examples. Its attributes change their types after the first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.mean: Any = 0
        self.last: Any = None

    def observe(self, seen: Observation) -> None:
        self.mean, self.last = self.mean + seen.loss_B.mean(), {"loss": [float(seen.loss_B[0])]}


def test_a_pruner_whose_numbers_become_tensors_goes_on(tmp_path: Path) -> None:
    def learns(stop: int | None) -> RunTrainer:
        trainer = saved(*requested("full"), tmp_path, StopsAt(stop))
        trainer.state.pruner = Learns()
        return trainer

    with pytest.raises(Stopped):
        learns(8).run()
    trainer = learns(None)
    trainer._resume()
    assert trainer.prepared and isinstance(trainer.pruner.mean, torch.Tensor)


OF_PREPARATIONS = [
    ("fits/scoring 1/spent/seconds", -1.0),
    ("fits/scoring 1/training/rows/0/kept", math.nan),
    ("search_kept/visits", "text"),
    ("search_kept/fits", 0.5),
    ("kept", None),
    ("scores", {"score_N": torch.zeros(3)}),
    ("fits", [1]),
]


def test_a_checkpoint_of_a_preparation_is_checked_and_a_training_in_it_begins_anew(tmp_path: Path) -> None:
    undisturbed = make_trainer(*requested("el2n"))
    undisturbed.prepare()
    with pytest.raises(Stopped):
        saved(*requested("el2n"), tmp_path, StopsAt(9)).run()
    good = read_state(tmp_path / "run.ckpt", CPU)["context"]
    trainer = make_trainer(*requested("el2n"), progress := StopsAt())
    for place, value in OF_PREPARATIONS:
        state = copy.deepcopy(good)
        altered(state, place, value)
        with pytest.raises(BadInput, match="whole, but"), contents():
            trainer.context.check_state(state)
    altered(good, "fits/scoring 1/training/model/*", lambda value: value[1:])
    trainer.context.load_state_dict(good)
    trainer.prepare()
    assert any("training scoring 1 is whole, but its network's" in line for line in progress.messages), (
        progress.messages
    )
    assert torch.equal(trainer.pruner.score_N, undisturbed.pruner.score_N)
