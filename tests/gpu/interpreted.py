"""Saves the fused block's results of all cases on Triton's interpreter: TRITON_INTERPRET=1 python -m ... RESULTS

It has a process to itself, because Triton decides at its import whether it interprets.
"""

import sys

import torch

from sadp_bench.gpu import norm_pool_lif as gpu
from tests.gpu.cases import CASES, outcome


def block(case, y, norm):
    return gpu.norm_pool_lif(y, norm, case.neuron, case.timesteps, case.pool, case.still, case.before(), case.share_B())


if __name__ == "__main__":
    gpu.PROGRAMS = 2  # so that a program of a small input has a second tile
    made = {name: outcome(case, block, case.dtype) for name, case in CASES.items()}
    torch.save(made, sys.argv[1])
