"""The fused block's kernels against torch and SpikingJelly in float64, on Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from sadp_bench.backbones.spiking import SURROGATES
from sadp_bench.gpu import compiles
from tests.gpu.cases import CASES, Case, outcome
from tests.paths import ROOT

pytestmark = pytest.mark.skipif(not compiles(1), reason="needs Triton")
# Of the largest number: rounding of the type that a block computes in, and of the type that it returns.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 1e-5}
ROUNDING = {torch.bfloat16: 2.0**-7}  # The interpreter cuts digits off where a GPU rounds to the nearest.


def plain(distances: list[float], case: Case, y: Tensor, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor]:
    """Torch's norm and pool, SpikingJelly's neuron; the membranes' least distance to the threshold joins `distances`."""
    x = nn.functional.avg_pool2d(y if norm is None else norm(y), case.pool)
    x = x.expand(case.timesteps, *x.shape) if case.still else x.unflatten(0, (case.timesteps, -1))
    before, facts = case.before(), case.neuron
    settings = (facts.tau, facts.gain != 1, facts.threshold, None if facts.soft else 0.0, SURROGATES[facts.surrogate]())
    membrane = torch.zeros_like(x[0]) if before is None else before.to(x.dtype)
    spikes, after, trace = functional.lif_multi_step(x, membrane, *settings, True, store_v_seq=True)
    charged = torch.cat([membrane[None], trace[:-1]]) * (1 - 1 / facts.tau) + facts.gain * x
    distances.append(float((charged - facts.threshold).detach().abs().min()))
    return spikes.flatten(0, 1), after


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    path = tmp_path_factory.mktemp("gpu") / "results.pt"
    command = [sys.executable, "-m", "tests.gpu.interpreted", str(path)]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"TRITON_INTERPRET": "1"})
    return torch.load(path)


def test_the_block_equals_torch_and_spikingjelly(interpreted: dict[str, dict[str, Tensor]]) -> None:
    for name, case in CASES.items():
        distances: list[float] = []
        ours, wanted = interpreted[name], outcome(case, partial(plain, distances), torch.float64)
        assert min(distances) > 1e-6, f"{name}: a membrane is within rounding of the threshold; draw others"
        assert 0.02 < wanted["spikes"].mean() < 0.9, f"{name}: the case shows nothing"
        assert ours.keys() == wanted.keys() and torch.equal(ours["spikes"], wanted["spikes"]), name
        for what, value in wanted.items():
            rounding = ROUNDING.get(case.dtype, 0) if what == "input's gradient" else 0
            far = (ours[what] - value).abs() - rounding * value.abs()
            assert far.max() <= TOLERANCE[case.dtype] * value.abs().max(), f"{name}: {what}"


def test_the_compiler_takes_every_kernel() -> None:
    """The interpreter runs Python that the compiler refuses. Translates for CUDA, which needs no GPU."""
    from triton import language as tl
    from triton._C.libtriton import ir
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, make_backend

    from sadp_bench.gpu import neuron_kernels, norm_kernels

    target = GPUTarget("cuda", 90, 32)
    backend, context = make_backend(target), ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    options = backend.parse_options({"enable_fp_fusion": False})
    of_images = {"y_ptr", "error_ptr", "spikes_ptr"}
    sizes = {"C": 5, "H": 9, "W": 7, "T": 3, "ROWS": 64, "PIXELS": 128, "CHANNELS": 8, "EPS": 1e-5, "MOMENTUM": 0.1}
    constants = sizes | {"KEEP": 0.5, "GAIN": 1.0, "THRESHOLD": 1.0, "WIDE": tl.float32, "SURROGATE": "sigmoid"}
    of_norm = [getattr(norm_kernels, name) for name in ("moments", "scales", "backward_scales", "backward_norm")]
    for pool, flag in ((1, False), (2, True)):
        flags = dict.fromkeys(("NORM", "OF_BATCH", "TRACKED", "AFFINE", "STILL", "SOFT", "CARRIED"), flag)
        for kernel in (neuron_kernels.forward, neuron_kernels.backward, *of_norm):
            compiled = {k: v for k, v in (constants | flags | {"POOL": pool}).items() if k in kernel.arg_names}
            kinds = {
                word: "constexpr" if word in compiled else ("*bf16" if word in of_images else "*fp32")
                for word in kernel.arg_names
            }
            kinds |= {word: "i32" for word in kernel.arg_names if word in ("pixels", "sites", "programs")}
            source = ASTSource(kernel, kinds, compiled)
            codegen, modules = backend.get_codegen_implementation(options), backend.get_module_map()
            assert source.make_ir(target, options, codegen, modules, context).verify(), kernel.fn.__name__
