"""Choice of the function that computes norm, pool and neuron at once: C core on a CPU, Triton kernels on CUDA, or none."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sadp_bench.gpu import compiles
from sadp_bench.native.norm_pool_lif import DTYPES, norm_pool_lif

Block = Callable[..., tuple[Tensor, Tensor]]  # as `native.norm_pool_lif.norm_pool_lif`


def fused_block(y: Tensor, timesteps: int) -> Block | None:
    """Returns the function for a tensor, by its device and type; None where there is none."""
    if y.device.type == "cpu" and y.dtype in DTYPES:
        return norm_pool_lif
    if y.device.type == "cuda" and compiles(timesteps):
        from sadp_bench.gpu import norm_pool_lif as gpu  # imports Triton

        return gpu.norm_pool_lif
    return None
