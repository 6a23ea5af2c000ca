"""The training loop against plain PyTorch."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from sadp_bench.capture.layers import spiking_layers
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from sadp_bench.pruners.exchange import Observation
from sadp_bench.runs.trainer import RunTrainer
from sadp_bench.training import evaluation, loop, optimizer, rehearsal
from tests.small_runs import Chosen, assert_same_weights, make_trainer, numbers, resolved, small_bench, weights_of
from tests.training.digits import MEAN, SCALE, STD


def shown_by_hand(image: Tensor, row: int, column: int, mirrored: bool) -> Tensor:
    """Padded by one pixel (an eighth of 8), cropped and mirrored; [1, 8, 8], stored values."""
    padded = torch.zeros(1, 10, 10)
    padded[:, 1:9, 1:9] = image
    crop = padded[:, row : row + 8, column : column + 8]
    return crop.flip(-1) if mirrored else crop


def input_by_hand(examples: Any, order: list[int], look: tuple[Tensor, Tensor, Tensor] | None) -> Tensor:
    shown = []
    for i in order:
        image = examples.input_N[i].float()
        if look is not None:
            image = shown_by_hand(image, int(look[0][i]), int(look[1][i]), bool(look[2][i]))
        shown.append(image)
    gain, shift = np.float32(1 / (SCALE * STD)), np.float32(-MEAN / STD)
    return (torch.stack(shown) * gain + shift).contiguous(memory_format=torch.channels_last)


def plain_training(bench: RunTrainer, augmented: bool) -> tuple[torch.nn.Module, list[float]]:
    """The run as one would write it without the package; only the model and the named streams are the package's."""
    spec, examples = bench.spec, bench.material.train
    num = len(examples)
    model = bench.resources.model(spec.seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9, weight_decay=spec.weight_decay)
    losses = []
    for epoch in range(spec.epochs):
        model.train()
        look = None
        if augmented:
            generator = stream(spec.seed, "augmentation", epoch)
            offsets = torch.randint(0, 3, (2, num), generator=generator)
            look = offsets[0], offsets[1], torch.rand(num, generator=generator) < 0.5
        order = torch.randperm(num, generator=stream(spec.seed, "order", epoch)).tolist()
        num_batches = math.ceil(num / spec.batch_size)
        shown, total = 0, 0.0
        for batch in range(num_batches):
            size = num // num_batches + (batch < num % num_batches)
            chosen = order[shown : shown + size]
            share = (epoch + shown / num) / spec.epochs
            optimizer.param_groups[0]["lr"] = spec.learning_rate * 0.5 * (1 + math.cos(math.pi * share))
            label = examples.label_N[torch.tensor(chosen)]
            optimizer.zero_grad()
            loss = cross_entropy(model(input_by_hand(examples, chosen, look)).mean(0), label)
            loss.backward()
            optimizer.step()
            shown += size
            total += loss.item() * size
        losses.append(total / num)
    return model, losses


@pytest.mark.parametrize("augment", ["none", "crop-flip"])
def test_full_data_training_equals_a_plain_pytorch_loop_bit_for_bit(augment: str) -> None:
    bench = small_bench(augment=augment, epochs=3, schedule="cosine")
    rows = list(bench.rows())
    model, losses = plain_training(bench, augment == "crop-flip")
    assert_same_weights(weights_of(bench.model), weights_of(model))
    assert [row["train_loss"] for row in rows] == pytest.approx(losses, rel=1e-6)
    assert [(row["epoch"], row["kept"], row["mean_weight"]) for row in rows] == [(e, 130, 1.0) for e in range(3)]


@pytest.mark.parametrize("method, ratio", [("full", 0.0), ("sadp", 0.5), ("el2n", 0.5)])
def test_a_second_run_with_the_same_seed_gives_the_same_record_but_for_times(method: str, ratio: float) -> None:
    spec, material = resolved(method=method, ratio=ratio, augment="crop")
    one, other = (make_trainer(spec, material) for _ in range(2))
    assert numbers(one.run()) == numbers(other.run())
    assert_same_weights(weights_of(one.model), weights_of(other.model))


def test_another_seed_gives_another_run() -> None:
    rows = [list(small_bench(seed=seed).rows()) for seed in (0, 1)]
    assert rows[0][0]["train_loss"] != rows[1][0]["train_loss"]


def seen_images(pruner: Chosen, **requested: Any) -> tuple[dict[str, Tensor], list[list[tuple[int, Tensor]]]]:
    """The initial weights, and each epoch's (index, image) pairs in the order in which the network saw them."""
    bench = small_bench(pruner, augment="crop-flip", **requested)
    initial = weights_of(bench.model)
    inputs: list[Tensor] = []
    bench.model.register_forward_pre_hook(lambda module, given: inputs.append(given[0].clone()))
    pairs: list[list[tuple[int, Tensor]]] = [[] for _ in range(bench.spec.epochs)]

    def pair(seen: Observation) -> None:
        pairs[seen.epoch] += zip(seen.index_B.tolist(), inputs[-1], strict=True)

    pruner.when_seen = pair
    list(bench.rows())
    return initial, pairs


def test_runs_with_different_pruners_share_initial_weights_order_and_augmentation() -> None:
    some = torch.randperm(130, generator=torch.Generator().manual_seed(5))[:61]
    initial, everything = seen_images(Chosen(torch.arange(130)))
    initial_of_some, pruned = seen_images(Chosen(some))
    assert_same_weights(initial, initial_of_some)
    kept = set(some.tolist())
    for all_pairs, pairs in zip(everything, pruned, strict=True):
        wanted = [(index, image) for index, image in all_pairs if index in kept]
        assert [index for index, _ in pairs] == [index for index, _ in wanted]
        assert all(torch.equal(a, b) for (_, a), (_, b) in zip(pairs, wanted, strict=True))
    assert [index for index, _ in everything[0]] != [index for index, _ in everything[1]]


def test_the_order_of_a_selection_does_not_matter() -> None:
    one, other = small_bench(Chosen(torch.arange(80))), small_bench(Chosen(torch.arange(80).flip(0)))
    assert [row["train_loss"] for row in one.rows()] == [row["train_loss"] for row in other.rows()]
    assert_same_weights(weights_of(one.model), weights_of(other.model))


def test_weights_multiply_the_loss_before_the_batch_mean_and_nothing_is_renormalised() -> None:
    index_K = torch.arange(0, 60, 2)
    weight_K = torch.linspace(0.2, 3.7, 30)
    requested = {"precision": "fp64", "epochs": 1, "schedule": "constant", "weight_decay": 0.0}
    bench = small_bench(Chosen(index_K, weight_K), **requested)
    model = bench.resources.model(bench.spec.seed)
    before = [p.detach().clone() for p in model.parameters()]
    input = (bench.material.train.input_N[index_K].double() / SCALE - MEAN) / STD
    label = bench.material.train.label_N[index_K]
    logits = model(input).mean(0)
    loss_B = logits.logsumexp(1) - logits[torch.arange(30), label]
    gradients = torch.autograd.grad((weight_K.double() * loss_B).sum() / 30, list(model.parameters()))
    (row,) = bench.rows()
    for now, was, gradient in zip(bench.model.parameters(), before, gradients, strict=True):
        torch.testing.assert_close(now.detach(), was - bench.spec.learning_rate * gradient, rtol=1e-9, atol=1e-12)
    assert row["mean_weight"] == pytest.approx(float(weight_K.mean()))
    assert row["train_loss"] == pytest.approx(loss_B.mean().item())  # unweighted
    assert row["weighted_loss"] == pytest.approx((weight_K.double() * loss_B).mean().item())


@pytest.mark.parametrize("loss", ["mean", "step"])
def test_an_observer_sees_the_batch_as_it_was_before_the_update(loss: str) -> None:
    pruner = Chosen(torch.arange(40), watch=frozenset({"features", "spike_counts", "logit_errors"}))
    bench = small_bench(pruner, loss=loss, epochs=1, precision="fp64")
    readout = bench.resources.model(0).readout  # untrained, as at the only batch
    pruner.when_seen = lambda seen: gradients.append(all(p.grad is not None for p in bench.model.parameters()))
    gradients: list[bool] = []
    list(bench.rows())
    (seen,) = pruner.seen
    assert gradients == [True]  # after the backward pass
    assert torch.equal(seen.label_B, bench.material.train.label_N[seen.index_B])
    assert not seen.logits_TBC.requires_grad and not seen.loss_B.requires_grad
    features = seen.watched["features"]
    assert features.dtype == torch.float64 and seen.watched["spike_counts"].shape == (3, 2, 40)
    torch.testing.assert_close(features.double() @ readout.weight.T + readout.bias, seen.logits_TBC)
    target = one_hot(seen.label_B, 10)
    p = seen.logits_TBC.mean(0).softmax(1) if loss == "mean" else seen.logits_TBC.softmax(2)
    torch.testing.assert_close(seen.watched["logit_errors"], ((p - target) / 2).expand(2, 40, 10))
    at_label = [seen.logits_TBC.log_softmax(2)[:, i, y] for i, y in enumerate(seen.label_B.tolist())]
    if loss == "step":
        torch.testing.assert_close(seen.loss_B, -torch.stack(at_label).mean(1))


def states() -> tuple[Tensor, Any, Any]:
    return torch.get_rng_state(), np.random.get_state(), random.getstate()


def assert_untouched(before: tuple[Tensor, Any, Any]) -> None:
    now = states()
    assert torch.equal(before[0], now[0])
    assert np.array_equal(before[1][1], now[1][1]) and before[1][2:] == now[1][2:]
    assert before[2] == now[2]


@pytest.mark.parametrize("method", ["full", "sadp", "el2n", "grand", "forgetting", "infobatch", "random"])
def test_no_global_random_state_is_touched_by_a_whole_run(method: str) -> None:
    torch.rand(3), np.random.rand(3), random.random()
    before = states()
    spec, material = resolved(method=method, ratio=0.0 if method == "full" else 0.4, augment="crop-flip")
    make_trainer(spec, material).run()
    assert_untouched(before)


def test_the_global_random_state_does_not_change_a_run() -> None:
    rows = []
    for seed in (1, 2):
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        rows.append([row["train_loss"] for row in small_bench(augment="crop-flip").rows()])
    assert rows[0] == rows[1]


def rates_seen(**requested: Any) -> list[float]:
    pruner = Chosen(torch.arange(requested.pop("kept", 130)))
    bench = small_bench(pruner, **requested)
    rates: list[float] = []
    optimizer_rate = optimizer.learning_rate

    def kept(spec: Any, share: float) -> float:
        rates.append(optimizer_rate(spec, share))
        return rates[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "learning_rate", kept)
        rows = list(bench.rows())
    assert rows[-1]["learning_rate"] == rates[-1]
    of_epoch = len(rates) // len(rows)  # batches of equal sizes
    means = [sum(rates[start : start + of_epoch]) / of_epoch for start in range(0, len(rates), of_epoch)]
    if requested.get("batch_size") == 65:
        assert [row["mean_learning_rate"] for row in rows] == pytest.approx(means)
    return rates


def test_the_learning_rate_follows_the_share_of_the_run_and_not_the_number_of_steps() -> None:
    of_all = rates_seen(epochs=4, batch_size=65)  # 2 batches an epoch
    of_half = rates_seen(epochs=4, batch_size=65, kept=65)  # 1 batch
    assert of_all == pytest.approx([0.05 * (1 + math.cos(math.pi * k / 8)) for k in range(8)])
    assert of_half == pytest.approx(of_all[::2])
    assert rates_seen(schedule="constant", learning_rate=0.03) == [0.03] * 6


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_bfloat16_trains_with_float32_weights_and_logits(optimizer: str) -> None:
    pruner = Chosen(torch.arange(130), watch=frozenset({"features", "spike_counts", "logit_errors"}))
    bench = small_bench(pruner, precision="bf16", optimizer=optimizer, learning_rate=0.01)
    dtypes = set()
    for neuron in spiking_layers(bench.model):
        neuron.register_forward_hook(lambda module, inputs, output: dtypes.add(output.dtype))
    rows = list(bench.rows())
    assert all(math.isfinite(row["train_loss"]) for row in rows)
    assert dtypes == {torch.bfloat16}
    assert {p.dtype for p in bench.model.parameters()} == {torch.float32}
    assert {seen.logits_TBC.dtype for seen in pruner.seen} == {torch.float32}
    assert {value.dtype for seen in pruner.seen for value in seen.watched.values()} == {torch.float32}
    assert 0 <= evaluation.evaluate(bench.model, bench.held, "bf16") <= 1


def test_divergence_is_refused_with_the_epoch_and_the_learning_rate() -> None:
    bench = small_bench(learning_rate=1e30, epochs=3)
    with pytest.raises(BadInput, match=r"diverged.*epoch 1 .*--learning-rate 1e\+30"):
        list(bench.rows())


def test_a_rehearsal_leaves_weights_optimiser_and_random_state_untouched() -> None:
    rehearsed, plain = small_bench(augment="crop-flip"), small_bench(augment="crop-flip")
    before, random_states = weights_of(rehearsed.model), states()
    rehearsed.model.zero_grad()
    assert rehearsal.rehearse(rehearsed.model, rehearsed.data, rehearsed.spec) > 0
    assert_untouched(random_states)
    assert_same_weights(before, weights_of(rehearsed.model))
    assert all(p.grad is None for p in rehearsed.model.parameters()) and rehearsed.model.training
    for one, other in zip(rehearsed.rows(), plain.rows(), strict=True):
        assert one["train_loss"] == other["train_loss"]
    assert_same_weights(weights_of(rehearsed.model), weights_of(plain.model))


@pytest.mark.parametrize("ratio, kept", [(0.3, [130] * 7), (0.75, [130, 130, 65]), (0.7, [130] * 3)])
def test_a_shortened_run_has_the_epochs_it_requested_for_and_no_rest(ratio: float, kept: list[int]) -> None:
    """(1 - 0.7) * 10 is 3.0000000000000004: no fourth epoch of one example."""
    bench = small_bench(method="fewer-epochs", ratio=ratio, epochs=10, batch_size=30)
    assert [row["kept"] for row in bench.rows()] == kept


@pytest.mark.parametrize(
    "num_examples, batch_size, ratio, epochs, num_epochs",
    [
        (130, 50, 0.5, 2, 3),  # 3 updates an epoch on all, 2 on half
        (300, 64, 0.3, 3, 4),  # 15 updates at 4 an epoch: the last epoch is partial
        (257, 64, 0.5, 3, 6),  # half is 129 and 128 in turn: 3 and 2 updates
    ],
)
def test_the_protocol_of_equal_updates_makes_as_many_as_full_data_training(
    num_examples: int, batch_size: int, ratio: float, epochs: int, num_epochs: int
) -> None:
    requested = {"train_examples": num_examples, "batch_size": batch_size, "epochs": epochs}
    updates = []
    for protocol in ({"method": "full", "ratio": 0.0}, {"method": "random", "ratio": ratio, "protocol": "updates"}):
        bench = small_bench(**requested, **protocol)
        steps: list[int] = []
        bench.pruner.observe = lambda seen, steps=steps: steps.append(1)  # type: ignore[method-assign]
        rows = list(bench.rows())
        updates.append(len(steps))
    assert updates == [epochs * -(-num_examples // batch_size)] * 2
    assert len(rows) == num_epochs == math.ceil(loop.run_length(bench.pruner, bench.spec, num_examples))


def test_the_protocol_of_equal_epochs_makes_as_many_as_requested() -> None:
    bench = small_bench(method="random", ratio=0.5, epochs=3)
    assert [row["kept"] for row in bench.rows()] == [65, 65, 65]
