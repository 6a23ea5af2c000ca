"""The choice of a kernel for a run on CUDA, without a GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sadp_bench.backbones.fused import fused_block
from sadp_bench.core.errors import BadInput
from sadp_bench.gpu import MOST_STEPS, compiles
from sadp_bench.runs import environment
from sadp_bench.runs.resolve import RunRequest

CUDA = torch.device("cuda")


@pytest.mark.skipif(not compiles(1), reason="needs Triton")
def test_the_kernels_of_cuda_run_on_request_where_they_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "choose_device", lambda name: CUDA)
    monkeypatch.setattr(environment, "bf16_is_fast", lambda device: True)

    def kernel(**requested: Any) -> str:
        return RunRequest.of({"method": "full", "ratio": 0.0, **requested}).fields["kernel"]

    assert kernel() == "python" and kernel(kernel="native") == "native" == kernel(kernel="native", precision="fp64")
    with pytest.raises(BadInput, match=f"--kernel native: its Triton kernels need .* at most {MOST_STEPS} time steps"):
        kernel(kernel="native", timesteps=MOST_STEPS + 1)
    assert environment.implementation(CUDA, "native") == "sadp-bench-triton"
    y: Any = SimpleNamespace(device=CUDA, dtype=torch.float32)
    made = fused_block(y, MOST_STEPS)
    assert made is not None and made.__module__ == "sadp_bench.gpu.norm_pool_lif"
    assert fused_block(y, MOST_STEPS + 1) is None and fused_block(torch.empty(0, dtype=torch.float64), 1) is None
