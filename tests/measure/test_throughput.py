"""The measurement of throughput: its peers are our networks, its files and its tables are whole. No test asserts a time."""

from __future__ import annotations

import copy
import re
import shutil
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

from sadp_bench.backbones.resnet import LEAST_WIDTH
from sadp_bench.backbones.spiking import NeuronSettings
from sadp_bench.core import registry
from sadp_bench.runs import environment
from tests.benchmarks import throughput, throughput_arms
from tests.benchmarks.peers import (
    AFTER_NORM,
    BEFORE_NORM,
    PLAIN,
    RESIDUAL,
    ChannelsLastLIF,
    Kit,
    Peer,
    Shape,
    SnnTorch,
    SpikingJelly,
)
from tests.benchmarks.throughput_arms import (
    COMPILED,
    CONVOLUTIONS,
    OURS,
    PLAIN_DEFAULT,
    PLAIN_KEPT,
    Arm,
    Products,
    Workshop,
)
from tests.benchmarks.throughput_table import read, tables
from tests.paths import ROOT

TINY = ["--examples", "64", "--batch-size", "32", "--rounds", "2", "--threads", "1", "--width", "2"]
PAGE = ROOT / "docs" / "speed.md"
BEGIN, END = "<!-- throughput, from results/speed -->", "<!-- end throughput -->"


def kits() -> list[Kit]:
    """Returns both libraries, plain and by hand, with neurons whose equations are ours."""
    settings: dict[str, Any] = {"decay_input": False, "detach_reset": True, "step_mode": "m"}
    return [
        SpikingJelly(lambda: neuron.LIFNode(**settings)),
        SpikingJelly(lambda: ChannelsLastLIF(**settings), by_hand=True),
        # snnTorch's own surrogate returns float32 always.
        *(SnnTorch(partial(SnnTorch.leaky, reset_mechanism="zero", spike_grad=spikes), hand) for hand in (False, True)),
    ]


def spikes(distance: Tensor) -> Tensor:
    return (distance > 0).to(distance.dtype)


def with_weights(ours: nn.Module, kit: Kit, shape: Shape) -> nn.Module:
    """Returns a peer with the weights of ours, which it has in the same order."""
    peer = Peer(kit, shape).double().eval()
    weights = [*peer.parameters(), *norm_buffers(peer)]
    wanted = [*ours.parameters(), *norm_buffers(ours)]
    assert [x.shape for x in weights] == [x.shape for x in wanted], (shape, type(kit).__name__)
    with torch.no_grad():
        for own, other in zip(weights, wanted, strict=True):
            own.copy_(other)
    return peer


def norm_buffers(model: nn.Module) -> list[Tensor]:
    return [buffer for name, buffer in model.named_buffers() if "running" in name]


def orders(backbone: str) -> list[str]:
    """Returns the places of the pool that a backbone offers."""
    offered = "pool_at" in registry.options(registry.resolve("backbone", backbone))
    return [AFTER_NORM, BEFORE_NORM] if offered else [AFTER_NORM]


def test_the_peers_are_our_networks() -> None:
    inputs = torch.rand(2, 3, 8, 8).double(), torch.rand(2, 2, 3, 8, 8).double()  # images, events
    for backbone, pool in [(name, pool) for name in (*PLAIN, *RESIDUAL) for pool in orders(name)]:
        options = {"pool_at": pool} if len(orders(backbone)) > 1 else {}
        kind = registry.resolve("backbone", backbone)
        width = LEAST_WIDTH if backbone in RESIDUAL else 4
        ours = kind((3, 8, 8), 10, 2, NeuronSettings(), width=width, **options).double()
        for kit in kits():
            peer = with_weights(ours, kit, Shape(backbone, width, pool, (3, 8, 8), 10, 2))
            training = isinstance(kit, SpikingJelly)  # snnTorch normalises every step alone.
            for input in inputs if kit.by_hand else inputs[:1]:
                with torch.no_grad():
                    logits_TBC, wanted = (model.train(training)(input) for model in (peer, ours))
                kit.reset(peer)
                assert wanted.std() > 0 and torch.allclose(logits_TBC, wanted), (backbone, pool, kit, kit.by_hand)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the files of two invocations: every arm but the compiled ones, and some arms on events."""
    made = tmp_path_factory.mktemp("speed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "keep_freed_memory", lambda keep=True: None)
        patch.setattr(throughput_arms, "MOST_EXAMPLES", 256)
        throughput.main([*TINY, "--json", str(made / "throughput-cnn.speed.json")])
        events = ["--data", "events", "--arms", "ours,convolutions"]
        throughput.main([*TINY, *events, "--json", str(made / "throughput-cnn-events.speed.json")])
    return made


def made_by_default() -> set[str]:
    """Returns the arms of the default order of layers, whichever kernel is ours here."""
    workshop = Workshop(throughput.request_of(throughput.parser().parse_args(TINY)), 3, False)
    assert workshop.makes(PLAIN_DEFAULT) and workshop.makes(PLAIN_KEPT)
    return {name for name in throughput.chosen("") if workshop.makes(name)}


def test_a_file_holds_every_arm_by_both_clocks_and_where_it_was_measured(folder: Path) -> None:
    events, images = read(folder)
    assert set(images["arms"]) == made_by_default() and not images["skipped"]
    assert set(events["arms"]) == {"plain", OURS, CONVOLUTIONS}
    for file in (images, events):
        for name, arm in file["arms"].items():
            assert len(arm["seconds"]) == len(arm["cpu_seconds"]) == 2 and min(arm["cpu_seconds"]) > 0, name
            ratios = [a / b for a, b in zip(file["arms"]["plain"]["cpu_seconds"], arm["cpu_seconds"], strict=True)]
            assert arm["ratio"]["cpu_seconds"]["median"] == pytest.approx(sum(ratios) / 2), name
        assert file["clock"] == "cpu_seconds" and file["threads"] == 1 and file["kernel"]
        assert file["convolution_share"]["median"] > 0
        assert {"torch", "spikingjelly", "snntorch", "processor", "load_average_start"} <= set(file["environment"])
    assert set(images["ours_over"]) == {"plain", PLAIN_DEFAULT, PLAIN_KEPT, "by-hand", "snntorch", "snntorch-by-hand"}


def test_the_tables_show_every_arm_and_every_network(folder: Path) -> None:
    found = tables(read(folder))
    assert tables([]) == ""
    for name in made_by_default() - {"plain"}:
        assert f"| {name} |" in found, name
    assert (
        "| cnn, events, pool before norm, width 2, 1 thread |" in found
        and "| cnn, pool before norm, width 2, 1 thread |" in found
    )
    one, two, three = (copy.deepcopy(read(folder)[1]) for _ in range(3))
    for number, file in enumerate((one, two, three), 1):
        file["arms"][OURS]["ratio"]["cpu_seconds"] = {"median": number + 0.0, "low": 0.5, "high": 9.0}
    assert "2.00 [1.00, 3.00]" in tables([one, three, two]), "of several invocations: the median and the range"
    assert "2.00 [0.50, 9.00]" in tables([two]), "of one invocation: its interval"


def test_the_tables_of_the_page_are_those_of_the_committed_files() -> None:
    page = PAGE.read_text(encoding="utf-8")
    shown = page[page.index(BEGIN) + len(BEGIN) : page.index(END)].strip()
    assert shown == tables(read(ROOT / "results" / "speed"))


def test_convolutions_alone_are_those_of_a_step() -> None:
    """Every convolution and the readout is recorded once forward and once backward, with the step's types."""
    convolutions = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1, bias=False)
    model = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(20, 2))
    with Products() as recorded, torch.autocast("cpu", torch.bfloat16):
        model(torch.rand(2, 3, 4, 4)).float().sum().backward()
    names = Counter(func._schema.name.removeprefix("aten::") for func, _, _ in recorded.calls)
    assert names == {"convolution": 2, "convolution_backward": 2, "addmm": 1, "mm": 2}
    inputs = {args[0].dtype for func, args, _ in recorded.calls if func._schema.name == "aten::convolution"}
    assert inputs == {torch.bfloat16}
    recorded.again(2)


def test_what_can_not_be_measured_is_refused_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in (
        (["--rounds", "1"], "--rounds is at least 2, not 1"),
        (["--arms", "ours,theirs"], "not 'theirs'"),
        (["--examples", "65", "--batch-size", "32"], "65 is no multiple of the batch size, 32"),
        (["--set", "width=4"], "--set takes backbone.KEY=VALUE, not 'width=4'"),
        (["--set", "backbone.norm=none"], "leave out backbone.norm=none"),
    ):
        with pytest.raises(SystemExit, match=re.escape(expected)) as ended:
            throughput.main([*words, "--threads", "1"])
        assert len(str(ended.value).splitlines()) == 1


def test_an_arm_without_its_library_or_compiler_is_left_out_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "snntorch", None)
    workshop = Workshop(throughput.request_of(throughput.parser().parse_args(TINY)), 3, False)
    arms, skipped = throughput.made(workshop, [*COMPILED, "snntorch"])
    assert not arms and set(skipped) == {*COMPILED, "snntorch"}
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all(line.startswith("left out ") for line in lines)


def test_rounds_turn_around_and_each_arm_has_its_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Any] = []
    monkeypatch.setattr(environment, "keep_freed_memory", events.append)
    arms = {name: Arm(partial(events.append, name), "fp32", keeps) for name, keeps in (("a", False), ("b", True))}
    found = throughput.timed(arms, 2, torch.device("cpu"))
    assert events == [False, "a", True, "b", True, "b", False, "a", False, "a", True, "b"]
    assert all(len(seconds) == 2 for of_arm in found.values() for seconds in of_arm.values()), "the first is not timed"
    for for_both in (False, True):
        workshop = Workshop(throughput.request_of(throughput.parser().parse_args(TINY)), 3, for_both)
        assert workshop.make(OURS).keeps_memory and workshop.make("by-hand").keeps_memory == for_both
        assert workshop.makes(PLAIN_KEPT) != for_both and workshop.make(PLAIN_KEPT).keeps_memory


def test_every_invocation_of_all_has_options_that_exist() -> None:
    for name, (invocations, words) in throughput.ALL.items():
        options = throughput.parser().parse_args(words.split())
        assert invocations >= 1 and options.rounds >= (2 if invocations > 1 else 6), (
            f"{name}: six rounds give an interval"
        )
        batch_size = options.batch_size or {"images": 128, "events": 64}[options.data]
        assert options.examples % batch_size == 0 and options.examples >= 2 * batch_size, f"{name}: SADP keeps a batch"
        throughput.chosen(options.arms)
