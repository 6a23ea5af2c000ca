"""The fused block's kernels against torch and SpikingJelly in float64, on Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from sadp_bench.gpu import compiles
from sadp_bench.native import norm_pool_lif as c_core
from sadp_bench.native.library import absence
from tests.gpu.cases import CASES, Case, Results, outcome
from tests.gpu.oracle import differences, unequal
from tests.paths import ROOT

pytestmark = pytest.mark.skipif(not compiles(1), reason="needs Triton")


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Results]:
    path = tmp_path_factory.mktemp("gpu") / "results.pt"
    command = [sys.executable, "-m", "tests.gpu.interpreted", str(path)]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"TRITON_INTERPRET": "1"})
    return torch.load(path)


def test_the_block_equals_torch_and_spikingjelly(interpreted: dict[str, Results]) -> None:
    found = {name: differences(case, interpreted[name]) for name, case in CASES.items()}
    assert not any(found.values()), found


@pytest.mark.skipif(absence() is not None, reason=f"{absence()}")
def test_the_block_equals_the_c_core(interpreted: dict[str, Results]) -> None:
    def core(case: Case, y: Tensor, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor]:
        facts = case.neuron, case.timesteps, case.pool, case.still, case.before(), case.share_B()
        return c_core.norm_pool_lif(y, norm, *facts)

    found = {
        name: unequal(case, interpreted[name], outcome(case, core, case.dtype))
        for name, case in CASES.items()
        if case.dtype in c_core.DTYPES and c_core.supports(case.norm_layer())
    }
    assert len(found) > 5 and not any(found.values()), found


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
        flags = dict.fromkeys(("NORM", "OF_BATCH", "SHARED", "TRACKED", "AFFINE", "STILL", "SOFT", "CARRIED"), flag)
        for kernel in (neuron_kernels.forward, neuron_kernels.backward, *of_norm):
            compiled = {k: v for k, v in (constants | flags | {"POOL": pool}).items() if k in kernel.arg_names}
            kinds = {
                word: "constexpr" if word in compiled else ("*bf16" if word in of_images else "*fp32")
                for word in kernel.arg_names
            }
            kinds |= {
                word: "i32" for word in kernel.arg_names if word in ("pixels", "area", "examples", "sites", "programs")
            }
            source = ASTSource(kernel, kinds, compiled)
            codegen, modules = backend.get_codegen_implementation(options), backend.get_module_map()
            assert source.make_ir(target, options, codegen, modules, context).verify(), kernel.fn.__name__
