"""The figure of each method's visits: shares by epoch and difficulty, for any registered method."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.benchmarks import method_visits
from tests.benchmarks.method_visits import difficulty_of, made, shares_of, tenths, trained

REQUESTED = {
    "dataset": "digits", "train_examples": 204, "epochs": 3, "ratio": 0.5, "batch_size": 50, "timesteps": 2, "threads": 1,
    "seed": 0, "device": "cpu", "precision": "fp32", "set": {"backbone.width": 4},
}  # fmt: skip


def test_shares_are_those_of_the_examples_shown_by_epoch_and_tenth() -> None:
    tenth_N = tenths(torch.arange(204.0).flip(0))
    assert tenth_N[0] == 9 and tenth_N[-1] == 0 and set(tenth_N.bincount().tolist()) == {20, 21}
    fewer = shares_of({**REQUESTED, "method": "fewer-epochs", "ratio": 1 / 3}, tenth_N)
    assert fewer == [[1.0, 1.0, 0.0]] * 10, "an epoch that the run leaves out shows nothing"
    fixed = shares_of({**REQUESTED, "method": "random", "set": REQUESTED["set"] | {"fresh": False}}, tenth_N)
    assert all(len(set(row)) == 1 and 0 < row[0] < 1 for row in fixed), "a fixed subset is the same in every epoch"
    fresh = shares_of({**REQUESTED, "method": "random"}, tenth_N)
    assert all(row[0] + row[1] == pytest.approx(1.0, abs=2e-3) for row in fresh), "two slices of one shuffle are all"
    shown_E = tenth_N.bincount().double() @ torch.tensor(fresh, dtype=torch.float64)
    assert shown_E.tolist() == pytest.approx([102.0] * 3, abs=0.2)


def test_difficulty_is_the_mean_of_the_losses_in_training() -> None:
    loss_N = difficulty_of(REQUESTED)
    rows = list(trained({**REQUESTED, "method": "full", "ratio": 0.0}).rows())
    assert float(loss_N.mean()) == pytest.approx(sum(row["train_loss"] for row in rows) / 3, rel=1e-5)
    assert len(loss_N) == 204 and len(loss_N.unique()) > 190


def test_the_picture_is_drawn_once_for_each_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = made(["sadp", "random", "fewer-epochs"], REQUESTED, tmp_path)
    assert list(content["shares"]) == ["fewer-epochs", "sadp", "random"], "in the order of the list of methods"
    assert (tmp_path / "visits.png").read_bytes().startswith(b"\x89PNG")
    before = (tmp_path / "visits.json").read_bytes()
    monkeypatch.setattr(method_visits, "shares_of", lambda *_: pytest.fail("it is trained again"))
    assert (
        made(["sadp", "random"], REQUESTED, tmp_path) == content and (tmp_path / "visits.json").read_bytes() == before
    )


def test_a_method_that_cannot_run_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = made(["random", "no-such"], REQUESTED, tmp_path)
    assert list(content["shares"]) == ["random"] and "no-such: left out: unknown method" in capsys.readouterr().out
