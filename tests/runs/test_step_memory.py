"""The memory of a training step is estimated from a few examples at one and two time steps; what can't fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sadp_bench.core import memory
from sadp_bench.runs import step_memory
from sadp_bench.runs.building import build_model, weight_bytes
from sadp_bench.runs.resolve import resolve
from sadp_bench.runs.step_memory import kept_bytes, saved_bytes
from tests.commands import TINY, command, complaint, refused
from tests.small_runs import SMALL

EVENTS = "tests.datasets.strangers:Recordings"


def resolved(**requested: Any) -> tuple[Any, Any]:
    return resolve(SMALL | {"train_examples": 40, "batch_size": 12, "timesteps": 5} | requested)


def test_the_estimate_is_what_autograd_saves_of_a_whole_batch_at_all_steps() -> None:
    for requested in (
        {"set": {"backbone.width": 4}},
        {"dataset": EVENTS, "set": {"backbone.width": 4}},
        {"backbone": "sew-resnet18", "set": {"backbone.width": 8}},
        {"precision": "bf16", "set": {"backbone.width": 4}},
    ):
        spec, material = resolved(**requested)
        model = build_model(spec, material, 0)
        input = material.train.input_N[: spec.batch_size].float() / 16
        whole = saved_bytes(model, input.transpose(0, 1) if material.dataset.events else input, spec)
        estimate = kept_bytes(spec, material, model) - 2 * weight_bytes(model)
        assert 0.98 * whole <= estimate <= whole, f"{requested}: {estimate} of {whole} bytes"


def test_the_estimate_leaves_no_trace_in_random_states_or_the_network() -> None:
    spec, material = resolved(set={"backbone.width": 4})
    model = build_model(spec, material, 0)
    before, state = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    kept_bytes(spec, material, model)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_step_that_fits_into_no_memory_is_refused_by_every_command_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (memory, step_memory):
        monkeypatch.setattr(module, "machine_bytes", lambda: 100_000)
    out = ["--out", tmp_path / "out"]
    (tmp_path / "sweep.toml").write_text('[common]\nthreads = 1\n[[sweep]]\nmethod = "random"\nratio = 0.5\n')
    commands = [
        ["run", "--method", "random", "--ratio", 0.5, *TINY, *out, "--quiet"],
        ["speed", *TINY[2:], "--rounds", 2, "--quiet"],
        ["study", *TINY, "--examples", 64, *out, "--quiet"],
        ["sweep", tmp_path / "sweep.toml", *out, "--quiet"],
    ]
    wrong = [complaint(command(*words), "a training step with batch size 64", "GiB of memory") for words in commands]
    assert not any(wrong), wrong
    assert not list(tmp_path.rglob("*.json"))


def test_frames_that_fit_into_no_memory_are_refused_before_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("Train", "Test"):
        for digit in range(10):
            (tmp_path / "NMNIST" / part / str(digit)).mkdir(parents=True)
            (tmp_path / "NMNIST" / part / str(digit) / "1.bin").write_bytes(bytes(5))
    monkeypatch.setattr(memory, "machine_bytes", lambda: 10**6)
    words = [
        "run",
        "--method",
        "full",
        "--ratio",
        0,
        "--dataset",
        "nmnist",
        "--data",
        tmp_path,
        "--out",
        tmp_path / "runs",
    ]
    refused(command(*words, "--timesteps", 100), "N-MNIST in 100 frames", "lower --timesteps")
