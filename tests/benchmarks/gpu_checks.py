"""The parts of tests/benchmarks/gpu.py that run in a process each: python tests/benchmarks/gpu_checks.py PART [--device D]

A part prints its lines, and as the last one a JSON object; it exits with code 1 where something differs from the CPU.
With `--device cpu` (a rehearsal) it compares the CPU with itself, on small sizes, and its seconds are meaningless.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    if sys.argv[-1] == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it at its import

import torch
from spikingjelly.activation_based import functional, surrogate
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sadp_bench.capture.signals import Signal
from sadp_bench.core.lif_equation import LIFEquation
from sadp_bench.core.progress import Progress
from sadp_bench.core.rng import stream
from sadp_bench.gpu import compiles
from sadp_bench.pruners.exchange import Observation
from sadp_bench.records.spec import Spec
from sadp_bench.runs import environment
from sadp_bench.runs.resolve import resolve
from sadp_bench.runs.resources import Resources
from sadp_bench.runs.trainer import RunTrainer
from sadp_bench.training.augmentation import draw_augmentation
from sadp_bench.training.optimizer import make_optimizer
from sadp_bench.training.step import TrainingStep
from tests.benchmarks.throughput_arms import DATA
from tests.gpu.cases import CASES, Case, outcome
from tests.gpu.oracle import differences

SIGNALS = frozenset(Signal) - {Signal.INPUT_SQUARES, Signal.ERROR_SQUARES}
# Relative difference of norms. In float32 a membrane within rounding of its threshold may spike on one device alone, and
# one such spike in the first layer changes the gradient of a small network by a tenth.
ALLOWED = {"fp64": 1e-7, "fp32": 0.2}
Found = dict[str, Any]


def say(text: str) -> None:
    print(text, flush=True)


def seconds_of(work: Callable[[], object], device: torch.device, times: int) -> float:
    """Returns the seconds of a call, once it has run a few times."""
    for _ in range(3):
        work()
    start = now(device)
    for _ in range(times):
        work()
    return (now(device) - start) / times


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def card(device: torch.device) -> Found:
    """Names the device, and measures its bf16 products, its memory, and the operations of a training step an image."""
    tiny = device.type == "cpu"
    n, length = (256, 2**20) if tiny else (8192, 2**30)
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    rate = 2 * n**3 / seconds_of(lambda: a @ b, device, 3 if tiny else 50)
    source = torch.zeros(length, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    bytes_rate = 2 * length / seconds_of(lambda: target.copy_(source), device, 3 if tiny else 20)
    found = {
        "environment": environment.describe(device, torch.get_num_threads()),
        "triton": compiles(4),
        "bf16_products_per_second": rate,
        "memory_bytes_per_second": bytes_rate,
        "operations_per_image": operations(8 if tiny else 64),
    }
    say(f"{found['environment']['processor']}: {rate / 1e12:.1f} TFLOP/s of bf16, {bytes_rate / 1e12:.3f} TB/s")
    say(f"a step of resnet18: {found['operations_per_image'] / 1e9:.2f} GFLOP an image; {found['environment']}")
    return found


def operations(width: int) -> float:
    """Returns the operations per image of `resnet18`'s convolutions and products in a training step."""
    spec, trainer = prepared(
        backbone="resnet18",
        width=width,
        device="cpu",
        precision="fp32",
        examples=2,
        method="full",
        ratio=0.0,
        batch_size=2,
    )
    step = TrainingStep(trainer.model, spec, trainer.data)
    with FlopCounterMode(display=False) as counter:
        step(torch.arange(2), torch.ones(2), stream(0, "operations"))
    return counter.get_total_flops() / 2


def kernels(device: torch.device) -> Found:
    """Compares the fused block with torch and SpikingJelly in float64 on the CPU."""
    from sadp_bench.gpu import norm_pool_lif as gpu

    def block(case: Case, y: Tensor, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor]:
        before = case.before()
        before = None if before is None else before.to(device)
        facts = case.neuron, case.timesteps, case.pool, case.still, before, case.share_B()
        return gpu.norm_pool_lif(y, norm, *facts)

    cases = CASES if device.type == "cuda" else dict(list(CASES.items())[:3])
    found = {name: differences(case, outcome(case, block, case.dtype, str(device))) for name, case in cases.items()}
    again = [outcome(CASES["training"], block, torch.float32, str(device)) for _ in range(2)]
    found["same bits twice"] = [name for name, value in again[0].items() if not torch.equal(value, again[1][name])]
    for name, differing in found.items():
        say(f"{name}: {'; '.join(differing) or 'equal'}")
    return {"differing": {name: differing for name, differing in found.items() if differing}}


def blocks(device: torch.device) -> Found:
    """Times the fused block against torch's norm and SpikingJelly's neuron, forward and backward, bf16, channels last."""
    from sadp_bench.gpu import norm_pool_lif as gpu

    equation, found = LIFEquation(2.0, 1.0, 1.0, False, "atan"), {}
    tiny = device.type == "cpu"
    for channels, side in ((64, 32), (128, 16), (256, 8), (512, 4)):
        if tiny:
            channels, side = 4, 4
        size = (4 * (2 if tiny else 128), channels, side, side)
        y = torch.randn(size, device=device, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
        y.requires_grad_()
        norm, error = nn.BatchNorm2d(channels).to(device), torch.randn_like(y)

        def fused(y: Tensor = y, norm: nn.BatchNorm2d = norm) -> Tensor:
            return gpu.norm_pool_lif(y, norm, equation, 4, 1, False, None)[0]

        def plain(y: Tensor = y, norm: nn.BatchNorm2d = norm) -> Tensor:
            x = norm(y).unflatten(0, (4, -1)).movedim(2, -1)
            v = torch.zeros(x.shape[1:], device=device)
            spikes = functional.lif_multi_step(x, v, 2.0, False, 1.0, 0.0, surrogate.ATan(), True)[0]
            return spikes.movedim(-1, 2).flatten(0, 1)

        seconds = {
            name: seconds_of(lambda block=block, error=error: block().backward(error), device, 1 if tiny else 20)
            for name, block in (("fused", fused), ("plain", plain))
        }
        passes = (
            y.numel() * y.element_size() * 11 / seconds["fused"] / 1e12
        )  # a block moves each number of 2 bytes 11 times
        say(
            f"{list(size)}: fused {seconds['fused'] * 1e3:.3f} ms ({passes:.2f} TB/s), plain {seconds['plain'] * 1e3:.3f} ms"
        )
        found[f"{channels}x{side}x{side}"] = seconds
    return found


def prepared(
    *, backbone: str, width: int, device: str, precision: str, examples: int, data: str = "images", **more: Any
) -> tuple[Spec, RunTrainer]:
    """Returns a prepared run with the weights of its seed, the same on every device."""
    request = {"method": "sadp", "ratio": 0.3, "epochs": 3, "batch_size": 8, **more}
    request |= {"dataset": DATA[data], "train_examples": examples, "backbone": backbone, "device": device}
    spec, material = resolve({**request, "precision": precision, "set": {"backbone.width": width}})
    trainer = RunTrainer(spec, Resources(spec, material), Progress())
    trainer.prepare()
    return spec, trainer


def shown(spec: Spec, trainer: RunTrainer) -> dict[str, Tensor]:
    """Returns a training step's input, losses, gradients and signals, and the weights after the update."""
    model, data = copy.deepcopy(trainer.model).train(), trainer.data
    step, made = TrainingStep(model, spec, data, make_optimizer(model, spec)), dict[str, Tensor]()
    index_B = torch.arange(len(data)).flip(0)
    look = draw_augmentation("crop-flip", len(data), data.padding, data.sides, stream(0, "looks"), data.device)
    made["input"] = data.input(index_B, look)

    def observe(seen: Observation) -> None:
        gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
        made.update({"losses": seen.loss_B, "gradients": torch.cat(gradients), **seen.watched})

    with step.recording(SIGNALS):
        step(index_B, torch.linspace(0.5, 1.5, len(data)), stream(0, "draws"), augmentation=look, observe=observe)
    made["weights"] = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    made["running statistics"] = torch.cat([buffer.double().flatten() for buffer in model.buffers()])
    return {name: value.detach().double().cpu() for name, value in made.items()}


def distance(ours: Tensor, wanted: Tensor) -> float:
    """Returns the norm of the difference over the norm."""
    return float((ours - wanted).norm() / wanted.norm().clamp_min(1e-30))


def network(device: torch.device, backbone: str) -> Found:
    """Compares a training step on the device with the same step on the CPU: float64 and float32 without TF32."""
    torch.backends.cudnn.allow_tf32 = False
    if device.type == "cpu":  # a rehearsal: Triton's interpreter takes the place of the C core
        from sadp_bench.backbones import spiking
        from sadp_bench.gpu import norm_pool_lif as gpu

        spiking.fused_block = lambda y, timesteps: gpu.norm_pool_lif
    found, differing = {}, []
    width = 16 if device.type == "cuda" else 8
    for precision, allowed in ALLOWED.items() if device.type == "cuda" else [("fp32", 0.2)]:
        for backprop in ("bptt", "sltt", "sltt-k", "local"):
            for data in ("images", "events") if backbone == "cnn" else ("images",):
                settings = {"backbone": backbone, "width": width, "precision": precision, "backprop": backprop}
                settings |= {"k": 2} if backprop == "sltt-k" else {}
                settings |= {"data": data, "examples": 48 if device.type == "cuda" else 12}
                wanted = shown(*prepared(device="cpu", kernel="python", **settings))
                for kernel in ("python", "native"):
                    ours = shown(*prepared(device=str(device), kernel=kernel, **settings))
                    far = {what: distance(ours[what], value) for what, value in wanted.items()}
                    name = f"{backbone} {precision} {backprop} {data} {kernel}"
                    worst = max(far, key=lambda what: far[what])
                    say(f"{name}: at most {far[worst]:.1e} ({worst})")
                    found[name] = far
                    if far["input"] > 1e-6 or not all(value <= allowed for value in far.values()):
                        differing.append(name)
    return {"relative_differences": found, "differing": differing}


def selections(device: torch.device) -> Found:
    """Compares what SADP selects in three epochs of float64 on the device and on the CPU."""
    settings = {"backbone": "cnn", "width": 8, "precision": "fp64", "examples": 512 if device.type == "cuda" else 96}
    visits, rows = [], []
    for at in (str(device), "cpu"):
        spec, trainer = prepared(device=at, **settings)
        rows.append([(row["kept"], round(row["train_loss"], 6)) for row in trainer.rows()])
        visits.append(trainer.state.visits_N)
    equal = torch.equal(*visits) and rows[0] == rows[1]
    say(f"three epochs of sadp in float64: {rows[0]}; {'the same examples' if equal else f'NOT {rows[1]}'}")
    return {"differing": [] if equal else ["selections"], "rows": rows}


PARTS: dict[str, Callable[..., Found]] = {
    "card": card, "kernels": kernels, "blocks": blocks, "network": network, "selections": selections,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("more", nargs="*", help="the backbone of `network`")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    found = PARTS[options.part](torch.device(options.device), *options.more)
    say(json.dumps(found))
    sys.exit(1 if found.get("differing") else 0)


if __name__ == "__main__":
    main()
