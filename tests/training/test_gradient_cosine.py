"""The cosine of SLTT's gradient with BPTT's: against autograd by hand, and that a run with it is the run without it."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import layer
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, linear

from sadp_bench.backbones.spiking import LIF, SURROGATES, Backbone, NeuronSettings
from sadp_bench.core.rng import stream
from sadp_bench.records.record import Record
from sadp_bench.records.spec import Spec
from sadp_bench.sparsity.base import Masks, prunable
from sadp_bench.training.augmentation import draw_augmentation
from sadp_bench.training.gradient_cosine import Cosines, RunCosine, _at_once, _by_step, cosines, gradient_cosines
from sadp_bench.training.step import TrainingStep
from tests.small_runs import assert_same_weights, make_trainer, numbers, resolved, weights_of

TIMESTEPS = 4


class Tiny(Backbone):
    """Two convolutions with a neuron behind each, and a readout, on images of 8x8."""

    def __init__(self, settings: NeuronSettings) -> None:
        body = [LIF(settings), layer.Conv2d(3, 2, 3, padding=1, bias=False, step_mode="m"), LIF(settings)]
        stem = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1, bias=False))
        super().__init__(TIMESTEPS, stem, nn.Sequential(*body), 2 * 64, 10)


def by_hand(model: Tiny, settings: NeuronSettings, input: Tensor, label_B: Tensor, through_time: bool) -> list[Tensor]:
    """Returns the gradients of the three weights by autograd over one graph of plain functions."""
    weights = stem, body, readout = model.stem[0].weight, model.body[1].weight, model.readout.weight
    fire = SURROGATES[settings.surrogate]()
    carried = [torch.zeros(()), torch.zeros(())]
    loss = torch.zeros(())

    def neuron(place: int, x: Tensor) -> Tensor:
        charged = (1 - 1 / settings.tau) * carried[place] + x
        spikes = fire(charged - settings.threshold)
        fired = spikes.detach() if settings.detach_reset else spikes
        v = charged * (1 - fired) if settings.reset == "hard" else charged - settings.threshold * fired
        carried[place] = v if through_time else v.detach()
        return spikes

    for _ in range(TIMESTEPS):
        first = neuron(0, conv2d(input, stem, padding=1))
        second = neuron(1, conv2d(first, body, padding=1))
        loss = loss + cross_entropy(linear(second.flatten(1), readout, model.readout.bias), label_B) / TIMESTEPS
    return list(torch.autograd.grad(loss, weights))


def cosine(one: Tensor, other: Tensor) -> float:
    return float(one.flatten() @ other.flatten() / (one.norm() * other.norm()))


NEURONS = {
    "default": NeuronSettings(),
    "paper": NeuronSettings(tau=1.1, reset="soft", surrogate="triangle", detach_reset=False),
}


@pytest.mark.parametrize("name", NEURONS)
def test_the_cosines_are_those_of_autograd_by_hand(name: str) -> None:
    spec, material = resolved(timesteps=TIMESTEPS, precision="fp64", loss="step", backprop="sltt-k", k=1)
    data, settings = make_trainer(spec, material).data, NEURONS[name]
    torch.manual_seed(0)
    model = Tiny(settings).double()
    with torch.no_grad():
        model.body[1].weight.mul_(3)  # spikes, so that gradients reach the stem
    index_B = torch.arange(20, 52)
    hands = [by_hand(model, settings, data.input(index_B), data.label_N[index_B], t) for t in (False, True)]
    pairs = dict(zip(("stem.0", "body.1", "readout"), zip(*hands, strict=True), strict=True))
    mask = torch.rand(model.body[1].weight.shape) > 0.5
    for masks in ({}, {"body.1.weight": mask}):
        live: Masks = masks
        wanted = {
            at: [gradient * live[f"{at}.weight"] if f"{at}.weight" in live else gradient for gradient in pair]
            for at, pair in pairs.items()
        }
        found = gradient_cosines(model, data, spec, [index_B], live)
        assert found.layers == pytest.approx({at: cosine(*pair) for at, pair in wanted.items()}, abs=1e-9)
        flat = [torch.cat([pair[side].flatten() for pair in wanted.values()]) for side in (0, 1)]
        assert found.whole == pytest.approx(cosine(*flat), abs=1e-9)
        assert found.least() == min(found.layers.items(), key=lambda pair: pair[1])
    assert found.layers["readout"] == 1 > max(found.layers["stem.0"], found.layers["body.1"])  # type: ignore[type-var]
    halves = [gradient_cosines(model, data, spec, [half], {}).whole for half in index_B.split(16)]
    assert gradient_cosines(model, data, spec, list(index_B.split(16)), {}).whole == pytest.approx(sum(halves) / 2)


def test_of_one_step_it_is_exactly_1() -> None:
    for precision in ("fp32", "bf16", "fp64"):
        requested = {"timesteps": 1, "precision": precision, "loss": "step", "backprop": "sltt"}
        trainer = make_trainer(*resolved(**requested, augment="crop"))
        found = gradient_cosines(trainer.model, trainer.data, trainer.spec, [torch.arange(50)], {})
        assert found.whole == 1.0 and set(found.layers.values()) == {1.0} and len(found.layers) > 2, precision


def of_training(trainer: Any, backprop: str, index_B: Tensor) -> dict[str, Tensor]:
    """Returns the gradients of a training step on a copy of the network."""
    model, found, spec, data = copy.deepcopy(trainer.model).train(), dict[str, Tensor](), trainer.spec, trainer.data
    looks = stream(spec.seed, "gradient cosine")
    augmentation = draw_augmentation(spec.augment, len(data), data.padding, data.sides, looks)

    def keep(seen: Any) -> None:
        found.update({at: weight.grad.clone() for at, weight in prunable(model).items()})

    step = TrainingStep(model, spec.of_valid(backprop=backprop), data)
    step(index_B, torch.ones(len(index_B)), stream(0, "a"), augmentation=augmentation, observe=keep)
    return found


@pytest.mark.parametrize(("backbone", "norm"), [("cnn", "none"), ("resnet18-sltt", "batch"), ("sew-resnet18", "none")])
def test_its_gradients_are_those_of_a_training_step(backbone: str, norm: str) -> None:
    """SLTT's always are. BPTT's are without batch norm, or if batch norm takes the statistics of all steps."""
    asked = {"timesteps": 3, "precision": "fp64", "loss": "step-mse", "augment": "crop", "backbone": backbone}
    settings = {"backbone.norm": norm, "backbone.reset": "soft", "backbone.tau": 1.5}
    trainer = make_trainer(*resolved(**asked, backprop="sltt", set=settings))
    of, index_B = (trainer.model, trainer.data, trainer.spec), torch.arange(40)
    before = weights_of(trainer.model)
    sltt, bptt = (of_training(trainer, name, index_B) for name in ("sltt", "bptt"))
    pairs = [(_by_step(*of, index_B, False), sltt), (_at_once(*of, index_B), bptt)]
    pairs += [(_by_step(*of, index_B, True), bptt)] if norm == "none" else []
    for found, wanted in pairs:
        assert found.keys() == wanted.keys()
        for at, gradient in found.items():
            torch.testing.assert_close(gradient, wanted[at], rtol=1e-7, atol=1e-12, msg=at)
    wanted_whole = cosines(sltt, bptt).whole
    assert gradient_cosines(*of, [index_B], {}, "all").whole == pytest.approx(wanted_whole, abs=1e-9)
    assert_same_weights(weights_of(trainer.model), before)
    assert all(weight.grad is None for weight in trainer.model.parameters())


def test_a_gradient_of_nothing_has_no_cosine() -> None:
    one, zero = torch.ones(3), torch.zeros(3)
    found = cosines({"a.weight": one, "b.weight": one}, {"a.weight": -one, "b.weight": zero})
    assert found.layers == {"a": -1.0, "b": None} and found.least() == ("a", -1.0)
    assert found.whole == pytest.approx(-1 / math.sqrt(2))
    for bad in (zero, torch.full((3,), math.nan), torch.full((3,), math.inf)):
        assert cosines({"a.weight": one}, {"a.weight": bad}) == Cosines(None, {"a": None})
    assert Cosines(None, {"a": None}).least() is None


REQUESTED: dict[str, Any] = {"epochs": 3, "loss": "step", "augment": "crop-flip", "method": "sadp", "ratio": 0.4}


def trained(spec: Spec, material: Any) -> tuple[Record, dict[str, Tensor]]:
    trainer = make_trainer(spec, material)
    return trainer.run(), weights_of(trainer.model)


def test_a_run_by_sltt_has_it_and_is_otherwise_the_run_without(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = {"backprop": "sltt-k", "k": 1, "sparsity": "random", "density": 0.5}
    spec, material = resolved(**REQUESTED, **axes)
    record, weights = trained(spec, material)
    found = record.gradient_cosine
    assert all(0 < found[name] < 1 for name in ("first", "last", "least")) and found["first"] != found["last"]
    assert found["examples"] == spec.batch_size and f"{found['least_layer']}.weight" in weights
    assert Record.from_json(record.to_json()) == record
    older = {name: value for name, value in record.to_json().items() if name != "gradient_cosine"}
    assert Record.from_json(older).gradient_cosine == {}
    monkeypatch.setattr(RunCosine, "due", lambda *_: False)
    plain, of_plain = trained(spec, material)
    assert plain.gradient_cosine == {}
    assert numbers(plain) == numbers(record) | {"gradient_cosine": {}}
    assert_same_weights(of_plain, weights)


def test_no_other_run_has_it() -> None:
    for backprop in ("bptt", "local"):
        assert make_trainer(*resolved(epochs=1, backprop=backprop)).run().gradient_cosine == {}, backprop


def test_a_measurement_that_fails_for_want_of_memory_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("sadp_bench.training.gradient_cosine.gradient_cosines", too_large)
    assert make_trainer(*resolved(epochs=1, loss="step", backprop="sltt")).run().gradient_cosine == {}


def test_the_batch_shrinks_with_the_time_steps_and_never_below_two_examples() -> None:
    spec, material = resolved(loss="step", backprop="sltt", batch_size=130)
    data = make_trainer(spec, material).data
    sizes = {t: RunCosine(spec.of_valid(timesteps=t), data).num_examples for t in (1, 8, 16, 2000)}
    assert sizes == {1: 128, 8: 128, 16: 64, 2000: 2}
