"""No training step waits for the device: the copies and reads of an epoch do not grow with its number of batches."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from itertools import count
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sadp_bench.backbones.spiking import LIF
from sadp_bench.core.clock import Clock
from sadp_bench.core.progress import Progress
from sadp_bench.training import loop
from sadp_bench.training.data import Loader
from sadp_bench.training.optimizer import make_optimizer
from sadp_bench.training.step import TrainingStep
from tests.small_runs import make_trainer, resolved, small_bench

META = torch.device("meta")
aten = torch.ops.aten
READS = {aten._local_scalar_dense.default, aten.is_nonzero.default, aten.nonzero.default, aten.equal.default}


class Waits(TorchDispatchMode):
    """Counts what would make the process wait for a GPU: reads of a value, and copies to and from the device.

    The device is "meta", which computes nothing: a read gives 0, a copy to the CPU zeros.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        on_device = any(x.is_meta for x in tensors)
        if func in READS and on_device:
            self.found[str(func)] += 1
            return 0.0
        if func is aten._to_copy.default and "device" in kwargs and kwargs["device"] != args[0].device:
            self.found[f"copy to {kwargs['device']}"] += 1
            if on_device:
                return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        elif on_device and any(not x.is_meta and x.dim() for x in tensors):
            self.found[f"copy within {func}"] += 1
        return func(*args, **kwargs)


def waits_of_an_epoch(batch_size: int, **requested: Any) -> Counter[str]:
    spec, material = resolved(
        batch_size=batch_size, epochs=1, train_examples=40, augment="crop-flip,cutout", **requested
    )
    trainer = make_trainer(spec, material)
    trainer.context.device = META
    trainer.pruner.prepare(trainer.context)
    model, dataset = trainer.model.to(META), material.dataset
    data = Loader(material.train, dataset.scale, dataset.mean, dataset.std, META)
    state = loop.TrainingState(model, trainer.pruner, make_optimizer(model, spec))
    with Waits() as waits:
        rows = list(loop.train(state, data, spec, Clock(META), Progress(), spec.seed))
    assert len(rows) == 1
    return waits.found


def test_the_waits_of_an_epoch_do_not_grow_with_its_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    def neuron(self: Any, current: torch.Tensor, membrane: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return current.sigmoid(), membrane

    monkeypatch.setattr(LIF, "_on_any", neuron)  # SpikingJelly refuses the device
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # so does torch
    kinds: list[dict[str, Any]] = [
        {"method": "full", "backprop": "sltt"},
        *({"method": "sadp", "ratio": 0.3, "set": {"score": score}} for score in ("layers", "readout", "spikes")),
    ]
    for kind in kinds:
        few, many = (waits_of_an_epoch(size, **kind) for size in (20, 10))
        assert few and not many - few, f"{kind}: each step waits for {many - few}"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_no_step_but_the_first_waits_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    step, calls = TrainingStep.__call__, count()

    def strict(self: TrainingStep, *words: Any, **more: Any) -> Any:
        torch.cuda.set_sync_debug_mode("error" if next(calls) else "default")
        try:
            return step(self, *words, **more)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    bench = small_bench(method="sadp", ratio=0.3, batch_size=10, augment="crop-flip,cutout", device="cuda")
    monkeypatch.setattr(TrainingStep, "__call__", strict)
    assert len(list(bench.rows())) == 2 and next(calls) > 10
