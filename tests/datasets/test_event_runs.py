"""Every set of events trains: SADP, random and InfoBatch at half of the visits, in a run, a study and an own loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sadp_bench import SADP, PrunedSampler, watch, with_index
from sadp_bench.datasets.braille import Braille
from sadp_bench.runs.resolve import resolve
from sadp_bench.testing import check_dataset
from tests.commands import TINY, command
from tests.datasets import event_files
from tests.datasets.helpers import real
from tests.small_runs import make_trainer

RUN: dict[str, Any] = {"ratio": 0.5, "threads": 1, "device": "cpu", "batch_size": 16}
SIDE = {"dataset.side": 16}
OF_IMAGES = {"timesteps": 2, "epochs": 5, "set": {"backbone.width": 8} | SIDE}


def gesture(root: Path) -> None:
    event_files.make_gesture(root, 5)


def n_caltech101(root: Path) -> None:
    event_files.make_n_caltech101(root, number=60)


def shd(root: Path) -> None:
    event_files.make_spoken(root, "SHD", 20)


def ssc(root: Path) -> None:
    event_files.make_spoken(root, "SSC", 35)


# The maker of the files, the number of classes, and the run's options, by data set.
MADE: dict[str, tuple[Callable[[Path], Any], int, dict[str, Any]]] = {
    "dvs-gesture": (gesture, 11, OF_IMAGES),
    "cifar10-dvs": (event_files.make_cifar10_dvs, 10, OF_IMAGES),
    "n-caltech101": (n_caltech101, 3, OF_IMAGES),
    "shd": (shd, 20, {"timesteps": 4, "epochs": 8}),
    "ssc": (ssc, 35, {"timesteps": 4, "epochs": 5}),
    "braille": (lambda root: None, 27, {"timesteps": 8, "epochs": 6}),
}


def above_chance(accuracy: float, classes: int, tested: int) -> bool:
    """Returns whether guesses reach the accuracy in under 1 of 1,000 cases: 3.1 deviations above their mean."""
    chance = 1 / classes
    return accuracy > chance + 3.1 * math.sqrt(chance * (1 - chance) / tested)


def trained(method: str, dataset: str, data: Path, wanted: dict[str, Any]) -> tuple[float, int]:
    spec, material = resolve({**RUN, **wanted, "dataset": dataset, "method": method}, data)
    return make_trainer(spec, material).run().test_accuracy, len(material.held)


@pytest.mark.parametrize("dataset", MADE)
def test_methods_at_half_of_the_visits_learn_above_chance(dataset: str, tmp_path: Path) -> None:
    make, classes, wanted = MADE[dataset]
    make(tmp_path)
    for method in ("sadp", "random", "infobatch"):
        accuracy, tested = trained(method, dataset, tmp_path, wanted)
        assert above_chance(accuracy, classes, tested), f"{method}: {accuracy:.2f} of {tested}"


def test_real_recordings_are_learned_above_chance(real_data: Path) -> None:
    of_gesture = OF_IMAGES | {"epochs": 8, "batch_size": 8}
    for dataset, cls_name, classes, wanted in (
        ("dvs-gesture", "dvs_gesture:DVSGesture", 5, of_gesture),
        ("shd", "spoken:SHD", 10, {"timesteps": 20, "epochs": 40, "batch_size": 4, "learning_rate": 0.05}),
    ):
        module, _, name = cls_name.partition(":")
        real(real_data, getattr(__import__(f"sadp_bench.datasets.{module}", fromlist=[name]), name))
        accuracy, tested = trained("sadp", dataset, real_data, wanted)
        assert above_chance(accuracy, classes, tested), f"{dataset}: {accuracy:.2f} of {tested}"


@pytest.mark.parametrize("dataset", ["dvs-gesture", "cifar10-dvs", "n-caltech101", "shd", "braille"])
def test_the_contract_of_data_sets_holds(dataset: str, tmp_path: Path) -> None:
    MADE[dataset][0](tmp_path)
    options = {"side": 8} if dataset not in ("shd", "braille") else {}
    check_dataset(dataset, options, data=tmp_path, timesteps=3)


def test_a_study_of_vectors_compares_scores_with_exact_norms(tmp_path: Path) -> None:
    words = [
        "study",
        "--dataset",
        "braille",
        "--train-examples",
        200,
        "--timesteps",
        4,
        "--epochs",
        1,
        "--examples",
        32,
    ]
    answer = command(*words, "--threads", 1, "--out", tmp_path, "--quiet")
    assert answer.code == 0, answer.err
    assert len(list(tmp_path.glob("braille-mlp-*.study.json"))) == 1


def test_a_run_by_command_records_the_split_and_shows_it(tmp_path: Path) -> None:
    words = ["--dataset", "braille", "--timesteps", 4, "--quiet", "--out", tmp_path]
    answer = command("run", "--method", "sadp", "--ratio", 0.5, *TINY, *words, "--backbone", "mlp")
    assert answer.code == 0, answer.err
    shown = command("report", tmp_path, "--format", "markdown")
    assert "Split of braille: sha1-9:1; test list" in " ".join(shown.out.split()), shown.out


class OwnNetwork(nn.Module):
    """Two linear layers over [T, B, F]."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.readout = nn.Linear(12, 32), nn.Linear(32, 27)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.readout(torch.relu(self.hidden(input)))  # type: ignore[no-any-return]


def loss_of_all(network: nn.Module, input_N: torch.Tensor, label_N: torch.Tensor) -> float:
    with torch.no_grad():
        return float(nn.functional.cross_entropy(network(input_N.transpose(0, 1)).mean(0), label_N))


def test_an_own_loop_prunes_vectors() -> None:
    data = Braille(Path("nowhere"), 4).train.take(torch.arange(0, 1215, 3))
    torch.manual_seed(0)
    input_N = (data.input_N[:, :, 0, 0].float() / Braille.scale - Braille.mean[0]) / Braille.std[0]
    network, train_set = OwnNetwork(), TensorDataset(input_N, data.label_N)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    sampler = PrunedSampler(SADP(0.5), labels=data.label_N, epochs=3, batch_size=32, seed=0)
    loader = DataLoader(with_index(train_set), batch_sampler=sampler)
    before, visits = loss_of_all(network, input_N, data.label_N), 0
    with watch(network, sampler):
        for epoch in range(3):
            sampler.set_epoch(epoch)
            for input_B, label_B, index_B in loader:
                logits_TBC = network(input_B.transpose(0, 1))
                loss_B = nn.functional.cross_entropy(logits_TBC.mean(0), label_B, reduction="none")
                optimizer.zero_grad()
                (sampler.weight(index_B) * loss_B).mean().backward()
                sampler.observe(index_B, logits_TBC, label_B)
                optimizer.step()
                visits += len(index_B)
    assert abs(visits / (3 * len(data)) - 0.5) < 0.02
    assert (
        loss_of_all(network, input_N, data.label_N) < before
    )  # of all examples: SADP draws those of high loss more often
