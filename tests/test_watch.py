"""`watch`: what it hooks and finds, that scales leave no trace in what it shows, and that mistakes are told."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from small import Chosen, hooks_of, small_bench
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from watched import ALL, MIDDLE, SQUARES, assert_close, own_loss, sampler_for, uneven, watched

from baselines.random_subset import Random
from sadp_bench.engine import learning_rate, set_learning_rate
from sadp_bench.errors import BadInput
from sadp_bench.examples import draw_augmentation
from sadp_bench.losses import step_loss
from sadp_bench.own_loop import PrunedSampler, with_index
from sadp_bench.pruners.sadp import SADP
from sadp_bench.streams import stream
from sadp_bench.watching import MOST_SKIPPED, watch

N = 12
LABELS = torch.arange(N) % 3


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        yield


def small_net(**kind: Any) -> nn.Sequential:
    torch.manual_seed(5)
    head = nn.Linear(6, 3, **kind)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 6), nn.Tanh(), head).double()


INPUT = torch.randn(N, 1, 4, 4, generator=stream(1, "watch"), dtype=torch.float64)


class Loop:
    """A loop of someone's own over one batch or several, on a small network."""

    def __init__(
        self, names: frozenset[str] = ALL, weight_N: Tensor | None = None, net: nn.Module | None = None, **how: Any
    ):
        self.net = small_net() if net is None else net
        self.weight_N = uneven(N) if weight_N is None else weight_N
        self.sampler = sampler_for(names, self.weight_N)
        self.watch = watch(self.net, self.sampler, **how)

    @property
    def seen(self) -> list[dict[str, Tensor]]:
        assert isinstance(self.sampler.pruner, Chosen)
        return [dict(seen.watched) for seen in self.sampler.pruner.seen]

    def logits(self, index_B: Tensor) -> Tensor:
        out: Tensor = self.net(INPUT[index_B].to(next(self.net.parameters()).dtype))
        return out

    def step(self, index_B: Tensor | None = None, total: Callable[[Tensor, Tensor], Tensor] | None = None) -> Tensor:
        """total: of weights and losses, what is driven backward; by default their product's mean."""
        index_B = torch.arange(N) if index_B is None else index_B
        logits = self.logits(index_B)
        loss_B, weight_B = own_loss(logits, LABELS[index_B]), self.sampler.weight(index_B)
        ((weight_B * loss_B).mean() if total is None else total(weight_B, loss_B)).backward()
        self.sampler.observe(index_B, logits, LABELS[index_B])
        return logits


def plain() -> dict[str, Tensor]:
    loop = Loop()
    loop.step()
    return loop.seen[0]


SCALES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "no mean": lambda weight, loss: (weight * loss).sum(),
    "divided for accumulation": lambda weight, loss: (weight * loss).mean() / 4,
    "a loss scale": lambda weight, loss: 2.0**16 * (weight * loss).mean(),
    "no weights": lambda weight, loss: loss.mean(),
}


@pytest.mark.parametrize("total", SCALES.values(), ids=SCALES.keys())
@pytest.mark.filterwarnings("ignore:the weights do not reach")
def test_what_the_loss_is_multiplied_with_does_not_reach_the_squares(total: Any) -> None:
    loop = Loop()
    loop.step(total=total)
    assert_close(loop.seen[0], plain())


def test_gradient_accumulation_over_micro_batches_shows_the_same_squares() -> None:
    names = ALL - {"tightness"}  # of the first batch's first examples
    loop = Loop(names)
    for index_B in torch.arange(N).split(3):
        loop.step(index_B, lambda weight, loss: (weight * loss).mean() / 4)
    found = {name: torch.cat([seen[name] for seen in loop.seen], 1) for name in names}
    assert_close(found, {name: value for name, value in plain().items() if name in names})


def test_a_batch_in_chunks_shows_the_tightness_though_the_weights_were_asked_for_at_once() -> None:
    loop = Loop()
    loop.sampler.weight(torch.arange(N))
    for index_B in torch.arange(N).split(4):
        logits = loop.logits(index_B)
        (loop.weight_N[index_B] * own_loss(logits, LABELS[index_B])).mean().backward()
        loop.sampler.observe(index_B, logits, LABELS[index_B])
    assert ["tightness" in seen for seen in loop.seen] == [False, True, False]


def test_a_grad_scaler_on_the_cpu_shows_the_same_squares() -> None:
    loop = Loop()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    loop.step(total=lambda weight, loss: scaler.scale((weight * loss).mean()))
    assert scaler.is_enabled() and scaler.get_scale() == 2.0**10
    assert_close(loop.seen[0], plain())


def test_bfloat16_autocast_shows_the_squares_to_its_precision() -> None:
    loop = Loop(net=small_net().float())
    with torch.autocast("cpu", torch.bfloat16):
        logits = loop.logits(torch.arange(N))
        loss_B = own_loss(logits, LABELS)
    assert logits.dtype == torch.bfloat16
    (loop.sampler.weight(torch.arange(N)) * loss_B).mean().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop.sampler.observe(torch.arange(N), logits, LABELS)
    assert {value.dtype for value in loop.seen[0].values()} == {torch.float32}
    for name, expected in plain().items():
        if "squares" in name or name == "tightness":
            torch.testing.assert_close(loop.seen[0][name].double(), expected, rtol=0.05, atol=0)


def test_an_example_without_an_error_gets_the_scale_that_the_others_tell() -> None:
    loop, errors = Loop(), list[Tensor]()
    with torch.no_grad():
        for layer, factor in ((0, 10.0), (3, 10.0), (5, 30.0)):
            loop.net[layer].weight.mul_(factor)  # type: ignore[union-attr, operator]

    def keep(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        output.register_hook(lambda error: errors.append((error * N / uneven(N)[:, None]).square().sum(1)))

    loop.net[3].register_forward_hook(keep)  # type: ignore[union-attr]
    logits = loop.step()
    error_B = (logits.detach().softmax(1) - torch.eye(3)[LABELS]).norm(dim=1)
    assert 0 < float(error_B.min()) < 1e-3 * float(error_B.max())  # too small to tell their scale
    torch.testing.assert_close(loop.seen[0]["error_squares"][1], errors[0], rtol=1e-9, atol=0)


def test_a_batch_that_overflows_is_left_out_and_the_next_shows_all() -> None:
    loop = Loop()
    loop.step(total=lambda weight, loss: torch.inf * (weight * loss).mean())
    assert loop.seen == [] and loop.sampler.visited == []
    loop.net.zero_grad()
    loop.step()
    assert len(loop.seen) == 1
    assert_close(loop.seen[0], plain())


def test_an_overflow_within_the_network_is_left_out_too() -> None:
    loop = Loop()

    def overflow(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        output.register_hook(lambda error: error * torch.inf)

    handle = loop.net[0].register_forward_hook(overflow)  # type: ignore[union-attr]
    loop.watch.listen(ALL)  # hooks that are younger see what the older made of the gradient
    loop.step()
    assert loop.seen == []
    handle.remove()
    loop.step()
    assert_close(loop.seen[0], plain())


def test_gradients_that_stay_infinite_are_told() -> None:
    loop = Loop(SQUARES)
    with pytest.warns(UserWarning, match=f"the gradients of {MOST_SKIPPED} batches in a row are not finite"):
        for _ in range(MOST_SKIPPED):
            loop.step(total=lambda weight, loss: torch.nan * (weight * loss).mean())


# What counts


def test_evaluation_passes_do_not_get_in() -> None:
    loop = Loop()

    def look_aside() -> None:
        with torch.no_grad():
            loop.logits(torch.arange(5))
        loop.net.eval()
        loop.logits(torch.arange(5)).sum().backward()  # an adversarial example's gradient, say
        loop.net.train()
        loop.logits(torch.arange(5))  # to log something

    look_aside()
    index_B = torch.arange(N)
    logits = loop.logits(index_B)
    look_aside()
    (loop.sampler.weight(index_B) * own_loss(logits, LABELS)).mean().backward()
    look_aside()
    loop.sampler.observe(index_B, logits, LABELS)
    assert_close(loop.seen[0], plain())


def test_a_copy_made_meanwhile_does_not_get_in() -> None:
    loop = Loop()
    averaged = torch.optim.swa_utils.AveragedModel(loop.net)
    averaged(INPUT[:5]).sum().backward()
    loop.step()
    averaged.update_parameters(loop.net)
    assert_close(loop.seen[0], plain())


def test_activation_checkpoints_count_once() -> None:
    from torch.utils.checkpoint import checkpoint

    for reentrant in (False, True):
        loop = Loop()
        body = loop.net[:5]  # type: ignore[index]
        loop.logits = lambda index, b=body, r=reentrant, loop=loop: loop.net[5](  # type: ignore[method-assign]
            checkpoint(b, INPUT[index].requires_grad_(), use_reentrant=r)
        )
        loop.step()
        assert_close(loop.seen[0], plain())


def test_frozen_layers_have_no_gradient_to_bound() -> None:
    loop = Loop(SQUARES)
    loop.net[0].requires_grad_(False)  # type: ignore[union-attr]
    loop.step()
    expected = plain()["error_squares"]
    assert torch.equal(loop.seen[0]["error_squares"][0], torch.zeros(N).double())
    torch.testing.assert_close(loop.seen[0]["error_squares"][1], expected[1], rtol=1e-9, atol=0)


def test_nothing_asked_is_nothing_hooked_and_hooks_go() -> None:
    net = small_net()
    assert hooks_of(net) == 0
    with watch(net, sampler_for(frozenset(), uneven(N))):
        assert hooks_of(net) == 0
    with watch(net, sampler_for(frozenset({"logit_errors"}), uneven(N))):
        assert hooks_of(net) == 0  # they come from the logits
    loop = Loop(frozenset({"features"}), net=net)
    assert hooks_of(net) == 3  # the two linear layers and the network itself, until the readout is known
    loop.step()
    assert hooks_of(net) == 1
    loop.watch.remove()
    assert hooks_of(net) == 0 and loop.sampler.watching is None
    with pytest.raises(KeyError), Loop(net=net).watch:
        raise KeyError
    assert hooks_of(net) == 0


def test_tightness_is_hooked_in_the_epochs_that_ask_for_it() -> None:
    pruner = SADP(0.0)
    sampler = PrunedSampler(pruner, num_examples=N, epochs=6, batch_size=6)
    net, asked = small_net(), []
    observe = pruner.observe
    pruner.observe = lambda seen: (asked.append("tightness" in seen.watched), observe(seen))[1]  # type: ignore[method-assign]
    loader: Any = DataLoader(with_index(TensorDataset(INPUT, LABELS)), batch_sampler=sampler)
    with watch(net, sampler):
        for epoch in range(6):
            sampler.set_epoch(epoch)
            for image, label, index in loader:
                logits = net(image)
                (sampler.weight(index) * own_loss(logits, label)).mean().backward()
                sampler.observe(index, logits, label)
    due = [True, False]
    assert asked == due * 5 + [False, False]  # of every epoch among the first four, then of every fourth


# The readout


class Head(nn.Module):
    """[B, 1, 4, 4] -> logits by 3 steps of a linear head, in one of the ways in which networks give theirs."""

    def __init__(self, give: Callable[[Tensor], Any], bias: bool = True) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.body, self.head = nn.Linear(16, 6).double(), nn.Linear(6, 3, bias=bias).double()
        self.give = give

    def forward(self, x: Tensor) -> Any:
        steps = torch.stack([(k * self.body(x.flatten(1))).tanh() for k in (0.5, 1.0, 2.0)])
        return self.give(self.head(steps))


GIVEN: dict[str, Callable[[Tensor], Tensor]] = {
    "steps": lambda out: out,
    "mean": lambda out: out.mean(0),
    "sum": lambda out: out.sum(0),
    "last": lambda out: out[-1],
}


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("given", GIVEN)
def test_the_readout_is_found_by_its_output_and_its_part_is_exact(given: str, outside: bool) -> None:
    from sadp_bench.pruners.sadp import readout_square

    net = Head((lambda out: (out, {"more": out * 2})) if outside else GIVEN[given])
    run = (lambda x: GIVEN[given](net(x)[0])) if outside else net
    found = watched(net, lambda: run(INPUT), LABELS, time_first=True)
    exact = []
    for i in range(N):
        total = own_loss(run(INPUT[i : i + 1]), LABELS[i : i + 1]).sum()
        exact.append(sum(g.square().sum() for g in torch.autograd.grad(total, list(net.head.parameters()))))
    torch.testing.assert_close(readout_square(found), torch.stack(exact), rtol=1e-9, atol=0)  # type: ignore[arg-type]
    assert found["features"].shape == (3, N, 6) and len(found["error_squares"]) == 1


@pytest.mark.parametrize("how", ["fires", "no bias"])
def test_without_a_linear_readout_every_layer_is_bounded(how: str) -> None:
    net = Head(lambda out: out.sigmoid() if how == "fires" else out, bias=how == "fires")
    found = watched(net, lambda: net(INPUT), LABELS, time_first=True)
    assert found.keys() == ALL - {"features"} and found["error_squares"].shape == (2, N)
    exact = []
    for i in range(N):
        total = own_loss(net(INPUT[i : i + 1]), LABELS[i : i + 1]).sum()
        exact.append([sum(g.square().sum() for g in torch.autograd.grad(total, list(part.parameters()), retain_graph=True))
                      for part in (net.body, net.head)])  # fmt: skip
    exact_LB = torch.tensor(exact).T
    assert (exact_LB <= found["input_squares"] * found["error_squares"] * (1 + 1e-9)).all()
    torch.testing.assert_close(found["tightness"][0], exact_LB[:, :3].sum(1), rtol=1e-9, atol=0)
    sadp = SADP(0.0, score="readout")
    sampler = PrunedSampler(sadp, num_examples=N, epochs=2, batch_size=N)
    with watch(net, sampler, time_first=True), pytest.raises(BadInput, match="take score=layers"):
        sampler.set_epoch(0)
        logits = net(INPUT)
        own_loss(logits, LABELS).mean().backward()
        sampler.observe(torch.arange(N), logits, LABELS)


def test_a_readout_that_begins_at_zero_is_understood_when_it_moves() -> None:
    net = Head(GIVEN["sum"])
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.zero_()
    loop = Loop(ALL - {"tightness"}, net=net, time_first=True)
    loop.step()  # mean, sum and last are all zero
    with torch.no_grad():
        net.head.weight.normal_()
    loop.step()
    net.give = lambda out: out.sum(0)
    expected = watched(net, lambda: net(INPUT), LABELS, ALL - {"tightness"}, time_first=True)
    assert_close(loop.seen[1], expected)


def test_a_readout_may_be_named_or_given() -> None:
    for readout in ("5", small_net()[5]):
        net = small_net()
        loop = Loop(net=net, readout=readout if isinstance(readout, str) else net[5])
        loop.step()
        assert_close(loop.seen[0], plain())


# Mistakes


def observed_twice(loop: Loop) -> None:
    logits = loop.step()
    loop.sampler.observe(torch.arange(N), logits, LABELS)


def one_left_out(loop: Loop) -> None:
    loop.logits(torch.arange(N).flip(0)).square().sum().backward()
    loop.step()


def one_left_out_later(loop: Loop) -> None:
    loop.step()
    one_left_out(loop)


def before_its_backward_pass(loop: Loop) -> None:
    loop.sampler.observe(torch.arange(N), loop.logits(torch.arange(N)), LABELS)


def in_evaluation_mode(loop: Loop) -> None:
    loop.net.eval()
    loop.step()


def twice_backward(loop: Loop) -> None:
    logits = loop.logits(torch.arange(N))
    loss_B = own_loss(logits, LABELS)
    loss_B.mean().backward(retain_graph=True)
    loss_B.mean().backward()
    loop.sampler.observe(torch.arange(N), logits, LABELS)


def other_logits(loop: Loop) -> None:
    logits = loop.logits(torch.arange(N))
    own_loss(logits, LABELS).mean().backward()
    loop.sampler.observe(torch.arange(N), logits / 2, LABELS)


def rows_that_do_not_divide(loop: Loop) -> None:
    logits = loop.logits(torch.arange(N))
    own_loss(logits[:5], LABELS[:5]).mean().backward()
    loop.sampler.observe(torch.arange(5), logits[:5], LABELS[:5])


def logits_of_others(loop: Loop) -> None:
    loop.sampler.observe(torch.arange(N), torch.zeros(5, 3), LABELS)


MISTAKES: list[tuple[Callable[[Loop], Any], str]] = [
    (observed_twice, "nothing was seen of this batch: observe each batch once, after its backward pass"),
    (one_left_out, "are not what '5', '3', the model itself put out"),
    (one_left_out_later, "are not what '5' put out"),
    (before_its_backward_pass, "nothing was seen of this batch"),
    (in_evaluation_mode, "in training mode"),
    (twice_backward, "backward pass came twice"),
    (other_logits, r"the observed logits, \[12, 3\], are not what '5', '3', the model itself put out"),
    (rows_that_do_not_divide, r"the observed logits, \[5, 3\]"),
    (logits_of_others, r"logits are \[B, C\] or \[T, B, C\] of the 12 examples, not \[5, 3\]"),
]


@pytest.mark.parametrize(("mistake", "told"), MISTAKES, ids=lambda x: getattr(x, "__name__", ""))
def test_mistakes_are_told_in_one_line(mistake: Callable[[Loop], Any], told: str) -> None:
    with pytest.raises(BadInput, match=told) as error:
        mistake(Loop())
    assert "\n" not in str(error.value)


def test_rows_that_do_not_divide_name_their_layer() -> None:
    loop = Loop(frozenset({"input_squares"}))
    with pytest.raises(BadInput, match=r"the layer '\d': its rows, \[12\], do not divide among the 5 examples"):
        rows_that_do_not_divide(loop)


def test_an_example_that_was_not_drawn_is_refused() -> None:
    sampler = PrunedSampler(SADP(0.5), num_examples=N, epochs=2, batch_size=N)
    net = small_net()
    with watch(net, sampler):
        sampler.set_epoch(0)
        other = next(i for i in range(N) if i not in sampler.batches[0])
        logits = net(INPUT[[other]])
        own_loss(logits, LABELS[[other]]).mean().backward()
        with pytest.raises(BadInput, match=f"example {other} is not among those of epoch 0"):
            sampler.observe(torch.tensor([other]), logits, LABELS[[other]])


BAD: dict[str, tuple[Callable[[nn.Module, PrunedSampler], Any], str]] = {
    "loss": (lambda net, s: watch(net, s, loss="mse"), "loss is one of mean, step or a function, not 'mse'"),
    "readout": (lambda net, s: watch(net, s, "fc"), "'fc' is no part of the Sequential; its linear layers: 3, 5"),
    "module": (lambda net, s: watch(net, s, nn.Linear(1, 1)), "the Linear given as readout is no part"),
    "twice": (lambda net, s: [watch(net, s), watch(net, s)], "watching a network already"),
    "compiled": (lambda net, s: watch(torch.compile(net), s), "torch.compile shows nothing from within"),
    "compiled within": (lambda net, s: [net[3].compile(), watch(net, s)], "torch.compile shows nothing from within"),
    "copied": (lambda net, s: watch(nn.DataParallel(net), s), "take DistributedDataParallel"),
    "no layers": (lambda net, s: watch(nn.Sequential(nn.Tanh()), s), "no convolution or linear layer"),
}


@pytest.mark.parametrize(("mistake", "told"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_watched_is_refused(mistake: Any, told: str) -> None:
    net = small_net()
    with pytest.raises(BadInput, match=told):
        mistake(net, sampler_for(ALL, uneven(N)))


def test_what_only_the_suites_own_loop_shows_is_refused() -> None:
    with pytest.raises(BadInput, match="Chosen asks for norm_error_squares, which watch does not show"):
        watch(small_net(), sampler_for(frozenset({"norm_error_squares"}), uneven(N)))


CLASS_WEIGHT = torch.tensor([1.0, 3.0, 0.2]).double()
WRONG: dict[str, tuple[Any, str]] = {
    "weights forgotten": (lambda weight, loss, logits: loss.mean(), "the weights do not reach the loss"),
    "weights after the mean": (lambda weight, loss, logits: (weight * loss.mean()).mean(), "the weights do not reach"),
    "class weights": (
        lambda weight, loss, logits: (weight * loss * CLASS_WEIGHT[LABELS]).mean(),
        "not that of the assumed loss",
    ),
    "smoothed labels": (
        lambda weight, loss, logits: (
            weight * cross_entropy(logits, LABELS, reduction="none", label_smoothing=0.2)
        ).mean(),
        "not that of the assumed loss",
    ),
}


@pytest.mark.parametrize(("total", "told"), WRONG.values(), ids=WRONG.keys())
def test_a_loss_that_is_not_the_weighted_assumed_one_is_told_once(total: Any, told: str) -> None:
    loop = Loop()
    with torch.no_grad():
        loop.net[5].weight.mul_(10)  # type: ignore[union-attr, operator]
    with pytest.warns(UserWarning, match=told) as warned:
        for _ in range(3):
            logits = loop.logits(torch.arange(N))
            total(loop.sampler.weight(torch.arange(N)), own_loss(logits, LABELS), logits).backward()
            loop.sampler.observe(torch.arange(N), logits, LABELS)
    assert len(warned) == 1 and warned[0].filename == __file__ and "\n" not in str(warned[0].message)


@pytest.mark.parametrize("divided", [True, False])
def test_weights_that_are_divided_by_their_sum_are_told(divided: bool) -> None:
    loop = Loop(SQUARES, weight_N=torch.tensor([0.5, 2.0, 0.125, 1.0, 4.0, 1.5, 0.75, 3.0, 1.0, 1.0, 0.3, 0.2]))

    def train() -> None:
        for index_B in torch.arange(N).split(3):
            loop.step(index_B, lambda weight, loss: (weight * loss).sum() / (weight.sum() if divided else 3))

    if divided:
        with pytest.warns(UserWarning, match="divided by the sum of the weights"):
            train()
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            train()


def balanced_loss(logits_TBC: Tensor, label_B: Tensor) -> Tensor:
    return own_loss(logits_TBC, label_B) * CLASS_WEIGHT[label_B]


def test_another_loss_may_be_told() -> None:
    loop = Loop(loss=balanced_loss)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop.step(total=lambda weight, loss: (weight * loss * CLASS_WEIGHT[LABELS]).mean())
    expected = plain()
    factor_B = CLASS_WEIGHT[LABELS].square()
    torch.testing.assert_close(loop.seen[0]["error_squares"], expected["error_squares"] * factor_B, rtol=1e-9, atol=0)
    assert isinstance(loop.sampler.pruner, Chosen)
    torch.testing.assert_close(
        loop.sampler.pruner.seen[0].loss_B, balanced_loss(loop.logits(torch.arange(N)), LABELS).detach()
    )


def test_labels_may_be_probabilities_as_those_of_mixed_images_are() -> None:
    loop, share_B = Loop(), torch.linspace(0.1, 0.9, N).double()
    one_hot = torch.eye(3).double()
    mixed = share_B[:, None] * one_hot[LABELS] + (1 - share_B[:, None]) * one_hot[(LABELS + 1) % 3]
    logits = loop.logits(torch.arange(N))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (loop.sampler.weight(torch.arange(N)) * cross_entropy(logits, mixed, reduction="none")).mean().backward()
        loop.sampler.observe(torch.arange(N), logits, mixed)
    torch.testing.assert_close(
        loop.seen[0]["logit_errors"][0], logits.detach().softmax(1) - mixed, rtol=1e-9, atol=1e-12
    )


def test_a_loss_at_every_step_may_be_told() -> None:
    net = Head(GIVEN["steps"])
    with torch.no_grad():
        net.head.weight.mul_(20)
    names = frozenset(SQUARES | {"logit_errors"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = watched(net, lambda: net(INPUT), LABELS, names, step_loss, loss="step", time_first=True)
    with pytest.warns(UserWarning, match="not that of the assumed loss"):
        watched(net, lambda: net(INPUT), LABELS, names, step_loss, time_first=True)
    logits_TBC = net(INPUT).detach()
    error_TBC = (logits_TBC.softmax(2) - torch.eye(3)[LABELS]) / 3
    torch.testing.assert_close(found["logit_errors"], error_TBC, rtol=1e-9, atol=1e-12)


# Whole runs


def test_a_loop_with_watch_trains_as_the_suite_does() -> None:
    asked: dict[str, Any] = {"epochs": 5, "augment": "crop", "precision": "fp64", "set": {"backbone.norm": "none"}}
    bench = small_bench(method="sadp", ratio=0.5, **asked)
    rows = list(bench.rows())
    hand = small_bench(method="full", **asked)
    spec, data, model = hand.spec, hand.data, hand.model
    sampler = PrunedSampler(SADP(0.5), labels=data.label_N, epochs=5, batch_size=50, seed=spec.seed)
    loader: Any = DataLoader(with_index(TensorDataset(data.label_N)), batch_sampler=sampler)
    with watch(model.train(), sampler):
        for epoch in range(sampler.epochs):
            sampler.set_epoch(epoch)
            look = draw_augmentation(spec.augment, len(data), data.padding, stream(spec.seed, "augmentation", epoch))
            shown = 0
            for label_B, index_B in loader:
                set_learning_rate(
                    hand.training.optimizer, learning_rate(spec, (epoch + shown / rows[epoch]["kept"]) / 5)
                )
                logits_TBC = model(data.input(index_B, look))
                hand.training.optimizer.zero_grad()
                (sampler.weight(index_B) * own_loss(logits_TBC, label_B)).mean().backward()
                sampler.observe(index_B, logits_TBC, label_B)
                hand.training.optimizer.step()
                shown += len(index_B)
            assert shown == rows[epoch]["kept"]
    assert isinstance(bench.pruner, SADP) and isinstance(sampler.pruner, SADP)
    torch.testing.assert_close(sampler.pruner.square_N, bench.pruner.square_N, rtol=1e-6, atol=0)
    torch.testing.assert_close(sampler.pruner.tightness_2L, bench.pruner.tightness_2L, rtol=1e-6, atol=0)
    assert torch.equal(sampler.pruner.visit_N, bench.pruner.visit_N)
    for ours, theirs in zip(model.parameters(), bench.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_explicit_watched_goes_before_what_watch_found() -> None:
    loop = Loop(MIDDLE)
    own = {name: torch.ones(2, N) for name in MIDDLE}
    loop.sampler.weight(torch.arange(N))
    loop.sampler.observe(torch.arange(N), torch.zeros(N, 3), LABELS, watched=own)
    assert_close(loop.seen[0], own)


def test_a_pruner_that_watches_nothing_needs_no_watch() -> None:
    sampler = PrunedSampler(Random(0.5), num_examples=N, epochs=2, batch_size=3)
    net = small_net()
    with watch(net, sampler):
        for indices in sampler:
            index_B = torch.tensor(indices)
            sampler.observe(index_B, net(INPUT[index_B]), LABELS[index_B])
