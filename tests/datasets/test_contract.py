"""A data set that breaks the contract is refused in one line before anything trains, whatever command loads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sadp_bench.datasets import contract
from sadp_bench.datasets.contract import first_breach
from sadp_bench.datasets.loading import load
from sadp_bench.testing import ContractBroken, check_dataset
from tests.commands import TINY, command, complaint
from tests.datasets import strangers
from tests.datasets.helpers import refusal
from tests.datasets.strangers import BREACHES, Images, Recordings, breach, changed, labels

STRANGER = ["--dataset", "tests.datasets.strangers:Stranger"]
FEW = [*TINY, "--train-examples", 32]


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns a function that makes commands load a given stranger's class."""
    return lambda kind: monkeypatch.setattr(strangers, "Stranger", kind, raising=False)


def test_every_breach_is_refused_with_its_rule_in_one_line() -> None:
    for base, declared, words in BREACHES:
        line = refusal(load, breach(base, declared), "stranger", Path("nowhere"), 2)
        assert all(word in line for word in words), f"{line}, not {words}"


def test_every_command_that_loads_data_refuses_a_breach_before_training(tmp_path: Path, declare: Any) -> None:
    declare(breach(Images, {"train_input": strangers.NAN}))
    (tmp_path / "sweep.toml").write_text(
        f'[common]\ndataset = "{STRANGER[1]}"\n[[sweep]]\nmethod = "full"\nratio = 0.0\n'
    )
    out = ["--out", tmp_path / "out"]
    commands = [
        ["run", "--method", "full", "--ratio", 0, *FEW, *STRANGER, *out],
        ["sweep", tmp_path / "sweep.toml", "--allow-imports", *out],
        ["speed", *FEW, "--epochs", 9, "--rounds", 2, *STRANGER],
        ["study", *FEW, *STRANGER, "--examples", 16, *out],
    ]
    wrong = [complaint(command(*words), STRANGER[1], "example 17 of `train`") for words in commands]
    assert not any(wrong), wrong
    assert not (tmp_path / "out").exists()


def test_a_data_set_that_keeps_the_contract_trains_and_is_reported(tmp_path: Path, declare: Any) -> None:
    declare(breach(Recordings, {"class_names": ("=1+1", "_鶴", "<b>", "$\\frac{é")}))
    words = ["--method", "random", "--ratio", 0.5, "--no-reference", "--quiet"]
    answer = command("run", *words, *FEW, *STRANGER, "--out", tmp_path)
    assert answer.code == 0, answer.err
    assert command("report", tmp_path).code == 0


def test_check_dataset_passes_what_keeps_the_contract(declare: Any) -> None:
    arrays = {"mean": np.array([0.5]), "std": torch.tensor([0.25]), "class_names": ["a", np.str_("b"), "c", "é d"]}
    strided = {"train_labels": torch.stack([labels(40)] * 2, 1)[:, 0], "test_input": Images.test_input.transpose(2, 3)}
    for kind in (Images, Recordings, breach(Images, arrays), breach(Images, strided)):
        declare(kind)
        check_dataset(STRANGER[1])
    check_dataset("digits")


class DrawnAnew(Images):
    def __init__(self, root: Path, timesteps: int) -> None:
        super().__init__(root, timesteps)
        self.train = self.train.take(torch.randperm(40))


class Unlocated(Images):
    @classmethod
    def locate(cls, root: Path) -> Any:
        return True


def test_check_dataset_finds_what_one_load_does_not_show(declare: Any) -> None:
    unsteady = {
        DrawnAnew: "loads other examples",
        Unlocated: "`locate`",
        breach(Recordings, {"frames": 2}): "`timesteps`",
        breach(Images, {"std": (0.0,)}): "`std` is above 0",
    }
    for kind, words in unsteady.items():
        declare(kind)
        with pytest.raises(ContractBroken, match=words):
            check_dataset(STRANGER[1])


def test_pixels_are_looked_at_in_chunks_and_the_first_bad_example_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "CHUNK_BYTES", 3 * 64 * 4)
    for place in (0, 2, 3, 38, 39):
        bad = breach(Images, {"train_input": changed(Images.train_input, slice(place, None), float("nan"))})
        assert f"example {place} of `train`" in (first_breach(bad(Path("nowhere"), 2), 2) or "")
