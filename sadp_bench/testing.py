"""The contracts of a pruner and of a data set as executable checks, for classes of this suite and of other packages.

from sadp_bench.testing import check_dataset, check_pruner
check_pruner("mypkg.mine:Mine")
check_pruner("infobatch", {"delta": 0.75}, ratio=0.3)
check_dataset("mypkg.mine:Squares")
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from sadp_bench.core import registry
from sadp_bench.core.errors import BadInput
from sadp_bench.core.progress import Progress
from sadp_bench.datasets.base import Dataset, data_root
from sadp_bench.datasets.contract import first_breach
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.contract import selection_fault
from sadp_bench.pruners.exchange import Candidates, Observation, Selection
from sadp_bench.runs.building import make_pruner
from sadp_bench.runs.material import Material
from sadp_bench.runs.resolve import RunRequest, resolve
from sadp_bench.runs.resources import Resources
from sadp_bench.runs.trainer import BUDGET_TOLERANCE, RunTrainer

# Sizes that do not divide each other, so that budgets and batches have remainders.
SETTING = {
    "dataset": "digits",
    "backbone": "mlp",
    "train_examples": 203,
    "batch_size": 29,
    "epochs": 5,
    "timesteps": 2,
    "precision": "fp32",
    "threads": 1,
    "device": "cpu",
}
SMALL_NETWORK = {"backbone.width": 4}
INTERRUPTED_AFTER = 2  # epoch, from 0
SIMULATED = torch.device("privateuseone")  # stands for the GPU in `SecondDevice`


class ContractBroken(AssertionError):
    """A pruner or a data set breaks its contract; the message contains the fault and its correction."""


def check_dataset(
    dataset: str,
    options: Mapping[str, Any] | None = None,
    *,
    data: Path | None = None,
    timesteps: int | None = None,
) -> None:
    """Loads a data set and compares it with the contract in docs/data.md; trains nothing.

    Both parts have finite examples of one shape and type, with labels that `class_names` has. Names are distinct and
    printable. The statistics fit the channels. Recordings have the requested number of frames. A second load gives the
    same examples, also with the settings that the files decided. `locate` finds the files.

    Args:
        dataset: A registered name or `package.module:Class`.
        options: The data set's settings.
        data: The folder of the data sets; None: the usual one.
        timesteps: Frames of a recording; None: the data set's default.

    Raises:
        ContractBroken: The data set breaks the contract.
        BadInput: There is no such data set, or its files are absent.
    """
    requested = {"method": "full", "ratio": 0.0, "dataset": dataset, "timesteps": timesteps}
    requested["set"] = {f"dataset.{name}": value for name, value in (options or {}).items()}
    fields = RunRequest.of(requested).fields
    kind, root, frames = registry.resolve("dataset", dataset), data_root(data), fields["timesteps"]
    settings = fields["dataset_options"]
    first, found = _digest(kind, root, frames, settings)
    if kind.events:
        _digest(kind, root, frames + 1, settings)
    if _digest(kind, root, frames, {**settings, **found}) != (first, found):
        raise ContractBroken("the data set loads other examples the second time; draw from a fixed seed")
    if not isinstance(kind.locate(root, **settings), Path):
        raise ContractBroken("the data set's `locate` returns no path, although its files are there")


def _digest(
    kind: type[Dataset], root: Path, timesteps: int, settings: Mapping[str, Any]
) -> tuple[bytes, dict[str, Any]]:
    """Returns the hash of the examples of a data set, and the settings that its files decide.

    Raises ContractBroken where it breaks the contract.
    """
    dataset = kind(root, timesteps, **settings)
    if breach := first_breach(dataset, timesteps, settings):
        raise ContractBroken(f"the data set breaks a rule: {breach}")
    return dataset.train.digest().digest() + dataset.test.digest().digest(), dict(dataset.found)


def check_pruner(method: str, options: Mapping[str, Any] | None = None, *, ratio: float = 0.4) -> None:
    """Runs a method on 203 images of digits for 5 epochs, and compares every epoch with the contract.

    Selections are distinct, in range, of the right types and weights. The budget is realised to within 0.5 points of all
    visits. The same seed gives the same selections. Global random state stays unchanged. A state that is saved and loaded
    in the middle gives the same rest of the run. On a simulated GPU no operation mixes tensors of different devices.

    Args:
        method: A registered name or `package.module:Class`.
        options: The method's settings.
        ratio: The pruning ratio.

    Raises:
        ContractBroken: The method breaks the contract.
        BadInput: There is no such method, or it refuses the settings.
    """
    spec, material = resolve({**SETTING, "method": method, "ratio": ratio, "set": {**SMALL_NETWORK, **(options or {})}})
    before = _global_state()
    first = _CheckedRun(spec, material)
    first.run()
    _require(_same_state(before, _global_state()), "touches a global random state; draw from `self.generator(epoch)`")
    _check_budget(first)
    second = _CheckedRun(spec, material)
    second.run(interrupted_after=INTERRUPTED_AFTER)
    _check_repeated(first.selections, second.selections)
    same = [a == b for a, b in zip(first.choices, second.choices, strict=True)]
    _require(all(same), "chooses otherwise with the same seed, or after its state was saved and loaded")
    _CheckedRun(spec, material, simulated=True).run()


class _CheckedRun:
    """A run whose selections are checked and kept.

    Args:
        spec: The run.
        material: Its data.
        simulated: Whether the pruner works on a simulated GPU.
    """

    def __init__(self, spec: Any, material: Material, simulated: bool = False) -> None:
        self.trainer = RunTrainer(spec, Resources(spec, material), Progress())
        self.simulated = simulated
        self.selections: list[Selection] = []
        self.choices: list[tuple[int, list[int], list[float]]] = []
        self.visits = 0

    def run(self, interrupted_after: int | None = None) -> None:
        """Trains the run.

        Args:
            interrupted_after: The epoch after which a new pruner continues with the state of the old one.
        """
        pruner, context = self.trainer.pruner, self.trainer.context
        if self.simulated:
            on_second_device(pruner)
        pruner.prepare(_DeviceContext(context) if self.simulated else context)
        self._check_calls(pruner)
        for row in self.trainer.rows():
            self.visits += row["kept"]
            if row["epoch"] == interrupted_after:
                self._replace_pruner()

    def _check_calls(self, pruner: Pruner) -> None:
        """Wraps the pruner's methods such that its selections and choices are checked and kept."""
        pruner.select = self._checked(pruner.select)  # type: ignore[method-assign]
        pruner.choose_in_batch = self._noted(pruner.choose_in_batch)  # type: ignore[method-assign]

    def _noted(self, choose: Any) -> Any:
        def noted(candidates: Candidates) -> Selection:
            choice: Selection = choose(candidates)
            self.choices.append((candidates.epoch, choice.index_K.tolist(), choice.weight_K.tolist()))
            return choice

        return noted

    def _checked(self, select: Any) -> Any:
        def checked(epoch: int) -> Selection:
            selection: Selection = select(epoch)
            check_selection(selection, self.trainer.context.num_examples)
            self.selections.append(Selection(selection.index_K.clone(), selection.weight_K.clone()))
            return selection

        return checked

    def _replace_pruner(self) -> None:
        old, new = self.trainer.pruner, make_pruner(self.trainer.spec)
        del old.select, old.choose_in_batch  # The wrapped methods are not a part of the state.
        try:
            state = old.state_dict()
        except BadInput as error:
            raise ContractBroken(str(error)) from None
        _require(isinstance(state, dict), f"state_dict returns a {type(state).__name__}, not a dict")
        new.load_state_dict(state)
        self._check_calls(new)
        self.trainer.state.pruner = new


def check_selection(selection: Selection, num_examples: int) -> None:
    """Raises ContractBroken where a selection breaks the contract of `sadp_bench.Selection`."""
    fault = selection_fault(selection, num_examples)
    _require(not fault, fault)


def _check_budget(run: _CheckedRun) -> None:
    spec, pruner = run.trainer.spec, run.trainer.pruner
    saved = 1 - run.visits / (run.trainer.context.num_examples * spec.epochs)
    if not pruner.exempt:
        _require(
            abs(saved - spec.ratio) <= BUDGET_TOLERANCE,
            f"saves {saved:.4f} of the visits for a ratio of {spec.ratio:g}; keep `self.num_kept(epoch)` examples, or make "
            "up for it in other epochs",
        )
    epochs = math.ceil(pruner.run_epochs(spec.epochs))
    _require(len(run.selections) == epochs, f"ran {len(run.selections)} epochs where it announced {epochs}")


def _check_repeated(first: Iterable[Selection], second: Iterable[Selection]) -> None:
    for epoch, (a, b) in enumerate(zip(first, second, strict=True)):
        if epoch <= INTERRUPTED_AFTER:
            why = "selects otherwise with the same seed; draw from `self.generator(epoch)`"
        else:
            why = (
                "selects otherwise after its state was saved and loaded; keep what `select` needs in plain attributes or "
                "tensors, or override `state_dict` and `load_state_dict`"
            )
        same = torch.equal(a.index_K, b.index_K) and torch.equal(a.weight_K, b.weight_K)
        _require(same, f"{why} (epoch {epoch})")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ContractBroken(f"the pruner {message}")


def _global_state() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _same_state(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    (_, keys_a, *rest_a), (_, keys_b, *rest_b) = a[1], b[1]
    return a[0] == b[0] and np.array_equal(keys_a, keys_b) and rest_a == rest_b and torch.equal(a[2], b[2])


class _DeviceContext:
    """A scoring context whose device is the simulated one."""

    device: Any = SIMULATED

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class SecondDevice(TorchFunctionMode):
    """Simulates a GPU: within the context, an operation on marked tensors and tensors of the CPU raises.

    A tensor is marked if it is created on `SIMULATED`, is moved there, or results from a marked one. As on a GPU, tensors
    without dimensions go with any other, and a tensor of the CPU may index a marked one.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls a function of torch on the CPU, checks the devices of its arguments, and marks its results."""
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if func == Tensor.device.__get__:
            return SIMULATED if _is_marked(args[0]) else func(*args)
        if name in ("to", "cpu"):
            return _moved(func, *args, **kwargs)
        given = _tensors(args, kwargs)
        marked = any(map(_is_marked, given))
        if kwargs.get("device") is not None:
            marked = torch.device(kwargs["device"]) == SIMULATED
            kwargs["device"] = "cpu" if marked else kwargs["device"]
            _require(not (marked and kwargs.get("generator")), "fills a tensor of a GPU from a generator of the CPU")
        elif name != "copy_":
            _check_together(name, args, given)
        results = func(*args, **kwargs)
        for tensor in _tensors(results):
            if not any(tensor is argument for argument in given):
                tensor.simulated = marked
        return results


def on_second_device(pruner: Pruner) -> None:
    """Wraps a pruner's methods such that they run within the simulation of a GPU and observe its tensors."""

    def simulated(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(given: Any) -> Any:
            if isinstance(given, Candidates):
                forward = given.forward
                given = dataclasses.replace(given, forward=lambda watch: _marked(forward(watch)))
            with SecondDevice():
                return method(_marked(given) if isinstance(given, Observation) else given)

        return call

    for name in ("prepare", "select", "observe", "observe_forward", "choose_in_batch"):
        setattr(pruner, name, simulated(getattr(pruner, name)))


def _marked(seen: Observation) -> Observation:
    fields = {name: getattr(seen, name).to(SIMULATED) for name in ("index_B", "label_B", "logits_TBC", "loss_B")}
    return dataclasses.replace(seen, watched={name: v.to(SIMULATED) for name, v in seen.watched.items()}, **fields)


def _tensors(*values: Any) -> list[Any]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _is_marked(tensor: Tensor) -> bool:
    return getattr(tensor, "simulated", False)


def _moved(func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Returns `tensor.to(...)` or `tensor.cpu()`, marked if the target is."""
    values = [*args, *kwargs.values()]
    target = (
        "cpu" if func == Tensor.cpu else next((v for v in values if isinstance(v, torch.device | str | Tensor)), None)
    )
    if target is None or isinstance(target, Tensor):
        marked = _is_marked(tensor if target is None else target)
    else:
        marked = torch.device(target) == SIMULATED
    if not marked and not _is_marked(tensor):
        return func(tensor, *args, **kwargs)
    dtype = next((v.dtype if isinstance(v, Tensor) else v for v in values if isinstance(v, torch.dtype | Tensor)), None)
    moved = tensor.to(dtype or tensor.dtype, copy=True)
    moved.simulated = marked  # type: ignore[attr-defined]
    return moved


def _check_together(name: str, args: Any, given: list[Tensor]) -> None:
    """Raises ContractBroken where a GPU would refuse the devices of a call's tensors."""
    if name in ("__getitem__", "__setitem__") and _is_marked(args[0]):
        given = _tensors(args[0], args[2:])  # The index may lie on the CPU.
    if any(map(_is_marked, given)) and any(tensor.dim() and not _is_marked(tensor) for tensor in given):
        raise ContractBroken(
            f"the pruner would fail on a GPU: `{name}` meets tensors of `context.device` and of the CPU; create all of them "
            "on `context.device`, or move them to the CPU"
        )
