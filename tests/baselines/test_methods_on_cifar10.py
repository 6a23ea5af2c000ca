"""Each method learns real images: a short run on a part of CIFAR-10, where chance is 0.10."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from sadp_bench.core.registry import table
from sadp_bench.runs import resolve
from tests.small_runs import make_trainer, needed_options, short_scoring

SETTING = {
    "dataset": "cifar10",
    "train_examples": 1000,
    "epochs": 4,
    "batch_size": 32,
    "timesteps": 2,
    "evaluate_every": 4,
    "evaluate_on": "validation",
    "threads": 1,
    "set": {"backbone.width": 8},
}
HELD = 500  # validation images: a standard error of 1.8 points beside a margin of 10


@pytest.fixture(scope="module")
def opened():
    """Returns the data set, read once."""
    return {}


@pytest.mark.parametrize("method", sorted(table("method")))
def test_learns_well_above_chance(method, real_data, opened):
    options = SETTING["set"] | short_scoring(method) | needed_options(method, SETTING["train_examples"])
    requested = {**SETTING, "method": method, "ratio": 0.0 if method == "full" else 0.3, "set": options}
    spec, material = resolve.resolve(requested, real_data, opened)
    material = dataclasses.replace(material, held=material.held.take(torch.arange(HELD)))
    record = make_trainer(spec, material).run()
    assert record.test_accuracy > 0.2, record.test_accuracy
    assert record.epochs[-1]["train_loss"] < record.epochs[0]["train_loss"]
    assert all(0 < rate < 1 for rate in record.firing_rate)
