"""Networks on the C core against the same networks in Python."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sadp_bench.backbones.spiking import NeuronSettings
from sadp_bench.backbones.weighted_norm import weighted_statistics
from sadp_bench.capture.finite import FiniteWatch
from sadp_bench.capture.per_example_norms import gradient_norms
from sadp_bench.capture.recorder import Recorder
from sadp_bench.capture.signals import Signal
from sadp_bench.core import registry
from sadp_bench.core.losses import LOSSES, WeightedLoss
from sadp_bench.native import spike_conv
from sadp_bench.native.library import absence
from sadp_bench.training.backprop import make_backprop
from tests.helpers import norm_option, ours
from tests.small_runs import small_bench

pytestmark = pytest.mark.skipif(absence() is not None, reason=f"{absence()}")

BACKBONES = [name for name in ours() if name not in ("recurrent", "sew-7b")]
TIMESTEPS, BATCH, SHAPE = 3, 5, (2, 17, 16)  # an odd side, whose last row no pool covers
WATCHED = frozenset(Signal) - {Signal.BOUND_RATIO, Signal.LOGIT_ERRORS}


@pytest.fixture(autouse=True)
def convolutions_of_few_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the C core compute these networks' convolutions too."""
    monkeypatch.setattr(spike_conv, "LEAST", 1)


def network(name: str, kernel: str, norm: str = "batch") -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = registry.resolve("backbone", name)(
            SHAPE, 10, TIMESTEPS, NeuronSettings(kernel=kernel), width=8, **norm_option(name, norm)
        )
    return model.to(memory_format=torch.channels_last)


def batch(events: bool) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    time = (TIMESTEPS,) if events else ()
    return torch.randn(*time, BATCH, *SHAPE, generator=g), torch.randint(0, 10, (BATCH,), generator=g)


def trained(model: nn.Module, backprop: str, events: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns a step's logits and the hooks' records; leaves the gradients in the model."""
    input, label_B = batch(events)
    step = make_backprop(backprop, 0, model, "fp32", torch.device("cpu"))
    weight_B = torch.linspace(0.5, 2, BATCH)
    loss = WeightedLoss(LOSSES["step"], label_B, torch.ones(BATCH), float(BATCH))
    with Recorder(model, WATCHED) as recorder, weighted_statistics(model, weight_B):  # which weights "weighted" alone
        logits, _ = step(input, loss, torch.Generator())
        return logits, recorder.seen()


@pytest.mark.parametrize("name", BACKBONES)
def test_a_network_has_the_same_logits_gradients_and_signals(name: str) -> None:
    settings = [("bptt", False, "batch"), ("bptt", True, "batch"), ("sltt", False, "batch"), ("sltt", True, "none")]
    if name in ("cnn", "resnet18"):  # which have every place of a norm
        settings += [("bptt", False, "weighted"), ("sltt", True, "weighted")]
        settings += [("bptt", True, "group")]
    for backprop, events, norm in settings:
        old, new = (network(name, kernel, norm) for kernel in ("python", "native"))
        (wanted, signals), (logits, found) = (trained(model, backprop, events) for model in (old, new))
        torch.testing.assert_close(logits, wanted)
        for p, q in itertools.chain(zip(new.parameters(), old.parameters(), strict=True)):
            assert p.grad is not None and q.grad is not None
            assert (p.grad - q.grad).norm() <= 1e-4 * q.grad.norm() + 1e-7
        torch.testing.assert_close(dict(new.named_buffers()), dict(old.named_buffers()))
        assert found.keys() == signals.keys() >= {Signal.SPIKE_COUNTS, Signal.MIDDLE_ERROR_SQUARES}
        for signal in signals:
            torch.testing.assert_close(found[signal], signals[signal], rtol=1e-3, atol=1e-7)
        torch.testing.assert_close(new.eval()(batch(events)[0]), old.eval()(batch(events)[0]))


def test_every_neuron_of_a_network_runs_on_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("a neuron runs in Python")

    for name in BACKBONES:
        model = network(name, "native")
        for module in model.modules():
            if hasattr(module, "_on_cpu"):
                monkeypatch.setattr(module, "_on_cpu", refused)
        for backprop, events in itertools.product(("bptt", "sltt"), (False, True)):
            trained(model, backprop, events)


def test_a_norm_that_is_hooked_is_called() -> None:
    old, new = (network("resnet18", kernel).eval() for kernel in ("python", "native"))
    input, label_B = batch(False)
    norms = [gradient_norms(model, LOSSES["mean"], input, label_B) for model in (old, new)]
    torch.testing.assert_close(norms[0], norms[1])


def test_a_number_that_is_not_finite_is_found() -> None:
    model = network("cnn", "native")
    watch, (input, _) = FiniteWatch(model), batch(True)
    assert watch.places() == []
    with torch.no_grad():
        model.stem[0].weight[0] = torch.nan
    with watch.passes():
        model(input)
    assert "the membranes of body.0" in watch.places() and "stem.1.running_mean" in " ".join(watch.places())


def test_a_run_records_its_kernel_and_each_kernel_has_its_key() -> None:
    runs = {kernel: small_bench(kernel=kernel, device="cpu") for kernel in ("python", "native")}
    keys = {kernel: bench.spec.key for kernel, bench in runs.items()}
    assert keys["python"] != keys["native"]
    assert "--kernel python" in " ".join(runs["python"].spec.words())
    kernels = {kernel: bench.resources.environment["kernel"] for kernel, bench in runs.items()}
    assert kernels == {"python": "sadp-bench-cpu", "native": "sadp-bench-native"}
