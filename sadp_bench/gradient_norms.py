"""Exact per-example gradient norms over all parameters, without a backward pass an example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold
from torch.nn.modules.batchnorm import _BatchNorm

from sadp_bench.errors import BadInput
from sadp_bench.losses import Loss

CHUNK_NUMBERS = {"cpu": 2**20, "cuda": 2**26}  # patches and gradients held at a time: what a cache, or a GPU, likes

Pair = tuple[Tensor, Tensor]  # a layer's input and the loss's gradient at its output, time first where there is time


def gradient_norms(model: nn.Module, loss: Loss, input: Tensor, label_B: Tensor) -> Tensor:
    """||d loss_i / d theta|| for each example i of a batch, over all parameters theta. [B].

    One batched backward pass of the summed loss: hooks hold each layer's input a and error d, and the example's
    gradient is sum over time and positions of d a^T (Goodfellow, arXiv 1510.01799, carried over to convolutions
    and to weights shared over time). The network must be in evaluation mode: batch norm would mix examples.
    Raises BadInput for parameters of layers other than convolution, linear and batch norm.
    """
    assert not model.training, "batch norm in training mode mixes the examples' gradients"
    pairs: dict[nn.Module, list[Pair]] = {}
    handles = [module.register_forward_hook(_keep(pairs)) for module in _measured(model)]
    try:
        with torch.enable_grad():
            total = loss(model(input), label_B).sum()
            torch.autograd.grad(total, [p for p in model.parameters() if p.requires_grad])
    finally:
        for handle in handles:
            handle.remove()
    square_B = torch.zeros(len(label_B), device=label_B.device, dtype=torch.float64)
    for module, calls in pairs.items():
        square_B += square_norms(module, calls, len(label_B))
    return square_B.sqrt()


def _measured(model: nn.Module) -> list[nn.Module]:
    measured: list[nn.Module] = []
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.requires_grad]
        if not own:
            continue
        if not isinstance(module, nn.Conv2d | nn.Linear | _BatchNorm) or getattr(module, "groups", 1) != 1:
            raise BadInput(
                f"exact gradient norms know convolution (groups=1), linear and batch norm; '{name}' is a "
                f"{type(module).__name__} with parameters of its own"
            )
        measured.append(module)
    return measured


def _keep(pairs: dict[nn.Module, list[Pair]]) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        held = inputs[0].detach()
        output.register_hook(lambda error: pairs.setdefault(module, []).append((held, error.detach())))

    return hook


def square_norms(module: nn.Module, calls: list[Pair], batch: int) -> Tensor:
    """Squared norm of each example's gradient of one layer's parameters; several calls add up before the square. [B].

    Products are taken in the type that the layer computed in, and summed in float32 at least.
    """
    a, d = (joined([by_time(module, pair[side], batch) for pair in calls]) for side in (0, 1))
    d = d.float() if d.dtype == torch.float16 else d  # whose squares leave its range
    a = a.to(d.dtype)
    of_chunk: Any = _norm_square if isinstance(module, _BatchNorm) else _weight_square
    most = CHUNK_NUMBERS.get(a.device.type, CHUNK_NUMBERS["cpu"])
    size = max(1, most // _numbers(module, a, d))
    chunks = zip(a.split(size, 1), d.split(size, 1), strict=True)
    return torch.cat([of_chunk(module, a, d) for a, d in chunks])


def joined(calls: list[Tensor]) -> Tensor:
    """Of one call there is nothing to copy."""
    return calls[0] if len(calls) == 1 else torch.cat(calls)


def _numbers(module: nn.Module, a: Tensor, d: Tensor) -> int:
    """Of an example: its gradient's, or its input's, as patches in a convolution."""
    inputs = a[:, 0].numel()
    if isinstance(module, nn.Conv2d):
        inputs = len(d) * d.shape[3:].numel() * module.weight[0].numel()
    return max(1, inputs, sum(p.numel() for p in module.parameters()))


def by_time(module: nn.Module, x: Tensor, batch: int) -> Tensor:
    """A layer's input or output, with any layout of time before the batch -> [T, B, features]; T = 1 for a static layer."""
    features = 1 if isinstance(module, nn.Linear) else 3
    return x.reshape(-1, batch, *x.shape[x.dim() - features :])


def _weight_square(module: nn.Conv2d | nn.Linear, a: Tensor, d: Tensor) -> Tensor:
    """a: [T, B, ...], d: [T, B, ...]; the gradient is one batched product over time and positions."""
    steps, batch = d.shape[:2]
    if isinstance(module, nn.Conv2d):
        assert isinstance(module.padding, tuple)
        a = unfold(a.flatten(0, 1), module.kernel_size, module.dilation, module.padding, module.stride)
        a = a.unflatten(0, (steps, batch)).transpose(2, 3)
        d = d.flatten(3).transpose(2, 3)
    a = a.reshape(steps, batch, -1, a.shape[-1]).transpose(0, 1).flatten(1, 2)
    d = d.reshape(steps, batch, -1, d.shape[-1]).transpose(0, 1).flatten(1, 2)
    square_B = _wide(torch.bmm(d.transpose(1, 2), a)).square().sum((1, 2))
    return square_B if module.bias is None else square_B + _wide(d).sum(1).square().sum(1)


def _norm_square(module: _BatchNorm, a: Tensor, d: Tensor) -> Tensor:
    assert module.running_mean is not None and module.running_var is not None
    a, d = _wide(a), _wide(d)
    shape = (-1, *[1] * (a.dim() - 3))
    deviation = (module.running_var + module.eps).sqrt().view(shape)
    normalised = (a - module.running_mean.view(shape)) / deviation
    over = (0, *range(3, a.dim()))
    return (normalised * d).sum(over).square().sum(1) + d.sum(over).square().sum(1)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
