"""The fused block by torch and SpikingJelly, and how far a kernel's results may be from it."""

from __future__ import annotations

from functools import partial

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from sadp_bench.backbones.spiking import SURROGATES
from tests.gpu.cases import Case, Results, outcome

# Tolerance relative to the largest number: the rounding of the type that a block computes in.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 1e-5}
# Tolerance relative to each number: the rounding of the returned type. A GPU rounds to the nearest number, but Triton's
# interpreter cuts digits off.
ROUNDING = {torch.bfloat16: 2.0**-7}


def weighted_norm_by_hand(x: Tensor, norm: nn.BatchNorm2d, share_R: Tensor) -> Tensor:
    """Batch norm in training mode with a share for each row, by autograd; updates the running statistics."""
    share = (share_R / share_R.sum()).view(-1, 1, 1, 1) / x[0, 0].numel()
    mean = (share * x).sum((0, 2, 3))
    variance = (share * (x - mean.view(-1, 1, 1)).square()).sum((0, 2, 3))
    number, momentum = x.numel() // x.shape[1], norm.momentum
    assert momentum is not None and norm.num_batches_tracked is not None
    with torch.no_grad():
        for running, now in ((norm.running_mean, mean), (norm.running_var, variance * number / (number - 1))):
            assert running is not None
            running.mul_(1 - momentum).add_(momentum * now)
        norm.num_batches_tracked.add_(1)
    scale = norm.weight / (variance + norm.eps).sqrt()
    return (x - mean.view(-1, 1, 1)) * scale.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)


def plain(distances: list[float], case: Case, y: Tensor, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor]:
    """Torch's norm and pool, SpikingJelly's neuron; the membranes' least distance to the threshold joins `distances`."""
    share_B = case.share_B()
    if norm is not None and share_B is not None:
        y = weighted_norm_by_hand(y, norm, share_B.to(y.dtype).repeat(len(y) // len(share_B)))
    elif norm is not None:
        y = norm(y)
    x = nn.functional.avg_pool2d(y, case.pool)
    x = x.expand(case.timesteps, *x.shape) if case.still else x.unflatten(0, (case.timesteps, -1))
    before, facts = case.before(), case.neuron
    settings = (facts.tau, facts.gain != 1, facts.threshold, None if facts.soft else 0.0, SURROGATES[facts.surrogate]())
    membrane = torch.zeros_like(x[0]) if before is None else before.to(x.dtype)
    spikes, after, trace = functional.lif_multi_step(x, membrane, *settings, True, store_v_seq=True)
    charged = torch.cat([membrane[None], trace[:-1]]) * (1 - 1 / facts.tau) + facts.gain * x
    distances.append(float((charged - facts.threshold).detach().abs().min()))
    return spikes.flatten(0, 1), after


def differences(case: Case, found: Results) -> list[str]:
    """Returns the names of tensors that differ from torch and SpikingJelly in float64 by more than rounding."""
    distances: list[float] = []
    wanted = outcome(case, partial(plain, distances), torch.float64)
    assert min(distances) > 1e-6, "a membrane is within rounding of the threshold; draw others"
    assert 0.02 < wanted["spikes"].mean() < 0.9, "the case shows nothing"
    return unequal(case, found, wanted)


def unequal(case: Case, found: Results, wanted: Results) -> list[str]:
    """Returns the names of tensors that differ by more than rounding."""
    if found.keys() != wanted.keys() or not torch.equal(found["spikes"], wanted["spikes"]):
        return ["spikes"]
    differing = []
    for name, value in wanted.items():
        rounding = ROUNDING.get(case.dtype, 0) if name == "input's gradient" else 0
        far = (found[name] - value).abs() - rounding * value.abs()
        if not far.max() <= TOLERANCE[case.dtype] * value.abs().max():
            differing.append(f"{name} by {float(far.max() / value.abs().max()):.1e} of the largest")
    return differing
