"""The optimizers without torch's wrappers: the same numbers as torch's own, and no compiler loaded."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from sadp_bench.training.optimizer import make_optimizer
from tests.example_records import make_spec

TORCH = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=0.1, weight_decay=0.01),
}


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.full((2, 3), 1.0 + step)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("name", TORCH)
def test_only_a_gpu_has_a_fused_optimizer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, model, other = (
        make_spec(optimizer=name, learning_rate=0.1, weight_decay=0.01),
        nn.Linear(3, 2),
        nn.Linear(3, 2),
    )
    other.load_state_dict(model.state_dict())
    plain = make_optimizer(other, spec)
    monkeypatch.setattr(nn.Parameter, "is_cuda", True, raising=False)
    fused = make_optimizer(model, spec)
    assert fused.defaults["fused"] and not plain.defaults["fused"]
    stepped(model, fused, 3)
    stepped(other, plain, 3)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("name", TORCH)
def test_an_optimizer_steps_saves_and_goes_on_as_torchs_own(name: str) -> None:
    spec = make_spec(optimizer=name, learning_rate=0.1, weight_decay=0.01)
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    other.load_state_dict(model.state_dict())
    ours, torchs = make_optimizer(model, spec), TORCH[name](other.parameters())
    stepped(model, ours, 2)
    stepped(other, torchs, 2)
    again = make_optimizer(model, spec)
    again.load_state_dict(copy.deepcopy(torchs.state_dict()))
    assert repr(again.state_dict()) == repr(ours.state_dict()) == repr(torchs.state_dict())
    stepped(model, again, 2)
    stepped(other, torchs, 2)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


def test_no_run_imports_the_compiler(tmp_path: Path) -> None:
    """`torch._dynamo` takes as long as the import of torch. A process of its own, as other tests may import it."""
    code = f"""if True:
        import sys
        from sadp_bench.cli.app import main
        words = "run --epochs 1 --train-examples 128 --threads 1 --set backbone.width=4 --no-reference --quiet".split()
        for optimizer in {list(TORCH)}:
            for method in ("sadp", "el2n"):
                try:
                    main([*words, "--method", method, "--ratio", "0.3", "--optimizer", optimizer, "--out", {str(tmp_path)!r}])
                except SystemExit as end:
                    assert not end.code, end.code
                assert not {{"torch._dynamo", "torch._inductor"}} & set(sys.modules), (method, optimizer)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
