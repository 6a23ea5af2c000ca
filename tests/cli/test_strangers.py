"""A stranger's code that raises or breaks the contract ends a run in one line: the call, the error and its place."""

from __future__ import annotations

import math
import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch

from sadp_bench.core import registry, strangers
from sadp_bench.core.errors import BadInput
from sadp_bench.pruners.base import KeepAll
from sadp_bench.pruners.contract import selection_of
from sadp_bench.pruners.exchange import Selection
from tests.commands import Answer, command, complaint
from tests.helpers import prepared

MODULE = """
import torch
from torch import nn
from sadp_bench import Pruner, Selection
from sadp_bench.datasets.digits import Digits

class Base(Pruner):
    def select(self, epoch):
        return Selection(torch.arange(self.num_kept(epoch)), torch.ones(self.num_kept(epoch)))

class NoRatio(Base):
    def __init__(self): super().__init__(0.5)
class InitRaises(Base):
    def __init__(self, prune_ratio): raise KeyError("nope")
class NoSuperPrepare(Base):
    def prepare(self, context): pass
class NoDefault(Base):
    def __init__(self, prune_ratio, *, share): super().__init__(prune_ratio)
class OddDefault(Base):
    def __init__(self, prune_ratio, *, shares=[1]): super().__init__(prune_ratio)
class OddAnnotation(Base):
    def __init__(self, prune_ratio, *, share: "Nowhere" = 1): super().__init__(prune_ratio)
class CheckRaises(Base):
    def check(self, num_epochs): 1 / 0
class PrepareRaises(Base):
    def prepare(self, context): context.nothing
class ScoresNaN(Base):
    def prepare(self, context):
        super().prepare(context)
        context.scores(lambda: torch.full((self.num_examples,), torch.nan))
class NoScoringEpochs(Base):
    def scoring_epochs(self, num_epochs): return None
class NoRunEpochs(Base):
    def run_epochs(self, epochs): return None
class OddWatch(Base):
    def watch(self, epoch): return ["losses"]
class ObserveRaises(Base):
    def observe(self, seen): seen.nothing
class StateRaises(Base):
    def state_dict(self): 1 / 0
class SelectsNone(Base):
    def select(self, epoch): return None
class SelectsNaN(Base):
    def select(self, epoch): return Selection(torch.arange(4), torch.full((4,), torch.nan))
class SelectExits(Base):
    def select(self, epoch): raise SystemExit(0)
class SelectRaises(Base):
    def select(self, epoch): return chosen()
def chosen():
    raise RuntimeError("of two\\nlines")

class Net(nn.Module):
    def __init__(self, input_shape, num_classes, timesteps, neuron):
        super().__init__()
        self.timesteps, self.last = timesteps, nn.Linear(64, num_classes)
    def forward(self, x): return self.last(x.flatten(1)).expand(self.timesteps, -1, -1)
class NetNoArguments(nn.Module):
    def __init__(self): super().__init__()
class NetInitRaises(Net):
    def __init__(self, *inputs): raise OSError("no file")
class NetReturnsNone(Net):
    def forward(self, x): return None
class NetWithoutTime(Net):
    def forward(self, x): return super().forward(x)[0]
class NetRaisesInTraining(Net):
    def forward(self, x):
        if self.training: raise ValueError("odd")
        return super().forward(x)
class DataRaises(Digits):
    def __init__(self, *given): raise ConnectionError("no net")
"""
BEYOND_THEIR_CODE = {  # by class or module: what the line contains
    "NoRatio": "'stranger:NoRatio' is not built from (prune_ratio, *, settings)",
    "InitRaises": "method 'stranger:InitRaises': InitRaises.__init__ raised KeyError: 'nope' (stranger.py, line 14)",
    "NoSuperPrepare": "its prepare super().prepare(context)",
    "NoDefault": "setting 'share' has no plain default",
    "OddDefault": "setting 'shares' has no plain default",
    "OddAnnotation": "annotations can't be read: NameError: name 'Nowhere' is not defined",
    "CheckRaises": "CheckRaises.check raised ZeroDivisionError: division by zero (stranger.py, line",
    "PrepareRaises": "PrepareRaises.prepare raised AttributeError",
    "ScoresNaN": "makes scores that are NaN for 64 examples: they are 64 real numbers",
    "NoScoringEpochs": "scoring_epochs returns None",
    "NoRunEpochs": "run_epochs(1) returns None",
    "OddWatch": "watch(0) returns ['losses'], and must return a set of signals",
    "ObserveRaises": "ObserveRaises.observe raised AttributeError",
    "StateRaises": "StateRaises.state_dict raised ZeroDivisionError",
    "SelectsNone": "SelectsNone.select(0) returns a NoneType, and must return Selection(index_K, weight_K)",
    "SelectsNaN": "gives a weight that is not a finite number above 0",
    "SelectExits": "SelectExits.select raised SystemExit: 0 (stranger.py, line",
    "SelectRaises": "SelectRaises.select raised RuntimeError: of two lines (stranger.py, line 50)",
    "NetNoArguments": "is not built from (input_shape, num_classes, timesteps, neuron)",
    "NetInitRaises": "NetInitRaises.__init__ raised OSError: no file",
    "NetReturnsNone": "returns a NoneType, and must return logits [T, B, classes]",
    "NetWithoutTime": "returns logits of shape [2, 10], and must return [T, 2, 10]",
    "NetRaisesInTraining": "NetRaisesInTraining.forward raised ValueError: odd",
    "DataRaises": "DataRaises.__init__ raised ConnectionError: no net",
}
MODULES = {  # by name: the text, and what the line contains
    "of_bad_syntax": ("x = (\n", "can't be imported: SyntaxError: '(' was never closed (of_bad_syntax.py, line 1)"),
    "raises": ("\nraise RuntimeError('at import')", "can't be imported: RuntimeError: at import (raises.py, line 2)"),
    "needs_more": ("import nowhere_at_all", "No module named 'nowhere_at_all' (needs_more.py, line 1)"),
    "leaves": ("import sys\nsys.exit(0)", "can't be imported: SystemExit: 0 (leaves.py, line 2)"),
    "empty": ("", "module empty has no class 'Mine'"),
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes to a folder with the strangers' modules."""
    (tmp_path / "stranger.py").write_text(MODULE)
    for name, (text, _) in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(strangers, "_loaded", {})
    monkeypatch.delitem(sys.modules, "stranger", raising=False)


def try_it(name: str, *words: str) -> Answer:
    kind = "--backbone" if name.startswith("Net") else "--dataset" if name.startswith("Data") else "--method"
    path = name if ":" in name else f"stranger:{name}"
    base = ["--method", "random", "--ratio", "0.5", "--epochs", "1", "--train-examples", "64", "--batch-size", "32"]
    base += ["--threads", "1", "--checkpoint-seconds", "0", "--no-reference", "--quiet", kind, path]
    return command("run", *base, *words)


def test_whatever_a_strangers_class_raises_or_breaks_is_one_line(tmp_path: Path) -> None:
    wrong = [complaint(try_it(name), expected) for name, expected in BEYOND_THEIR_CODE.items()]
    wrong += [complaint(try_it(f"{name}:Mine"), expected) for name, (_, expected) in MODULES.items()]
    assert not any(wrong), "\n".join(filter(None, wrong))
    assert not [path for path in tmp_path.rglob("*.json")], "a record or a failure of a run that trained nothing"


def test_every_rule_of_a_selection_is_checked_in_every_loop() -> None:
    index, ones = torch.arange(4), torch.ones(4)
    wrong: list[tuple[Any, str]] = [
        (torch.arange(5), "returns a Tensor, and must return Selection"),
        (Selection([1, 2], [1.0, 1.0]), "of two tensors"),  # type: ignore[arg-type]
        (Selection(index.int(), ones), "must be int64"),
        (Selection(index[:, None], ones), "must be int64"),
        (Selection(index[:0], ones[:0]), "selects nothing"),
        (Selection(index, ones.double()), "must be float32"),
        (Selection(index, ones[:3]), "for 4 examples"),
        (Selection(index + 1, ones), "outside [0, 4)"),
        (Selection(index - 1, ones), "outside [0, 4)"),
        (Selection(index // 2, ones), "twice"),
        *((Selection(index, ones * bad), "finite number above 0") for bad in (math.nan, math.inf, 0.0, -1.0)),
    ]
    for selection, expected in wrong:
        pruner = prepared(KeepAll(), 4)
        pruner.select = lambda epoch, selection=selection: selection
        with pytest.raises(BadInput, match=re.escape(expected)):
            selection_of(pruner, 0)
    assert selection_of(prepared(KeepAll(), 4), 0).index_K.tolist() == [0, 1, 2, 3]


def test_a_strangers_class_that_keeps_the_contract_trains() -> None:
    for name in ("Base", "Net"):
        answer = try_it(name, "--json")
        assert answer.code == 0, answer.err


def test_debug_shows_the_traceback_before_or_after_the_command() -> None:
    for answer in (
        try_it("SelectRaises", "--debug"),
        command("--debug", "run", "--method", "stranger:InitRaises", "--ratio", 0),
    ):
        assert answer.code == 2 and answer.out == ""
        assert "Traceback" in answer.err and "stranger.py" in answer.err
        assert answer.err.splitlines()[-1].startswith("sadp-bench: method 'stranger:")


def test_a_table_that_another_package_publishes_and_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("theirs", "stranger:PRUNERS", "sadp_bench.pruners")
    monkeypatch.setattr(registry, "published", lambda group: [point])
    with pytest.raises(
        BadInput, match=r"the table 'theirs' of methods .* can't be imported: AttributeError: .*PRUNERS"
    ):
        registry.table("method")
    sys.modules["stranger"].PRUNERS = ["mine"]  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match="no table of names and 'package.module:Class'; mend or uninstall"):
        registry.table("method")


def test_a_defect_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object, **named: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("sadp_bench.runs.run.run", broken)
    with pytest.raises(ZeroDivisionError, match="ours"):
        try_it("Base")
