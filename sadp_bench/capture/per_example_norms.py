"""Exact per-example gradient norms over all parameters, without a backward pass an example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sadp_bench.capture.layer_shapes import BOUNDED, by_time, images, num_features, window
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import Loss

CHUNK_NUMBERS = {"cpu": 2**20, "cuda": 2**26}  # patches and gradients held at a time: what a cache, or a GPU, likes

Pair = tuple[Tensor, Tensor]  # a layer's input and the loss's gradient at its output, time first where there is time


def gradient_norms(
    model: nn.Module,
    loss: Loss,
    input: Tensor,
    label_B: Tensor,
    forward: Callable[[Tensor], Tensor] | None = None,
    time_first: bool | None = True,
) -> Tensor:
    """||d loss_i / d theta|| for each example i of a batch, over all parameters theta. [B].

    One batched backward pass of the summed loss: hooks hold each layer's input a and error d, and the example's
    gradient is sum over time and positions of d a^T (Goodfellow, arXiv 1510.01799, carried over to convolutions
    and to weights shared over time). The network must be in evaluation mode: batch norm would mix examples.
    forward: input -> logits, [T, B, C] or [B, C]; by default the model itself. time_first: see `layer_shapes.arranged`.
    Raises BadInput for parameters of layers other than convolution, linear and batch norm, and for those that are used
    outside of the calls of one layer, such as tied weights.
    """
    assert not model.training, "batch norm in training mode mixes the examples' gradients"
    pairs: dict[nn.Module, list[Pair]] = {}
    handles = [module.register_forward_hook(_keep(pairs)) for module in _measured(model)]
    try:
        with torch.enable_grad():
            logits = (forward or model)(input)
            total = loss(logits if logits.dim() == 3 else logits[None], label_B).sum()
            uses = _uses(total)
            torch.autograd.grad(total, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    _check_uses(model, uses, pairs)
    square_B = torch.zeros(len(label_B), device=label_B.device, dtype=torch.float64)
    for module, calls in pairs.items():
        square_B += square_norms(module, calls, len(label_B), time_first)
    return square_B.sqrt()


def _measured(model: nn.Module) -> list[nn.Module]:
    measured: list[nn.Module] = []
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.requires_grad]
        if not own:
            continue
        if not isinstance(module, (*BOUNDED, _BatchNorm)) or getattr(module, "running_mean", module) is None:
            raise BadInput(
                "exact gradient norms know convolutions of one or two dimensions, linear layers and batch norm with running "
                f"statistics; '{name}' is a {type(module).__name__} with parameters of its own"
            )
        measured.append(module)
    return measured


def _uses(total: Tensor) -> Counter[int]:
    """Returns how often the graph of a loss uses each parameter, by its id."""
    uses: Counter[int] = Counter()
    visited: set[Any] = set()
    nodes: list[Any] = [total.grad_fn]
    while nodes:
        for node, _ in nodes.pop().next_functions:
            if hasattr(node, "variable"):
                uses[id(node.variable)] += 1
            elif node is not None and node not in visited:
                visited.add(node)
                nodes.append(node)
    return uses


def _check_uses(model: nn.Module, uses: Counter[int], pairs: dict[nn.Module, list[Pair]]) -> None:
    for name, module in model.named_modules():
        if any(uses[id(p)] > len(pairs.get(module, ())) for p in module.parameters(recurse=False)):
            raise BadInput(
                f"exact gradient norms need each parameter in the calls of one layer alone; those of '{name}' are used "
                "elsewhere too (tied weights?): untie them, or take another score"
            )


def _keep(pairs: dict[nn.Module, list[Pair]]) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        held = inputs[0].detach()
        output.register_hook(lambda error: pairs.setdefault(module, []).append((held, error.detach())))

    return hook


def square_norms(module: nn.Module, calls: list[Pair], batch: int, time_first: bool | None = True) -> Tensor:
    """Squared norm of each example's gradient of one layer's parameters; several calls add up before the square. [B].

    Products are taken in the type that the layer computed in, and summed in float32 at least.
    """
    a, d = (joined([_steps(module, pair[side], batch, time_first) for pair in calls]) for side in (0, 1))
    d = d.float() if d.dtype == torch.float16 else d  # whose squares leave its range
    a = a.to(d.dtype)
    of_chunk: Any = _norm_square if isinstance(module, _BatchNorm) else _weight_square
    most = CHUNK_NUMBERS.get(a.device.type, CHUNK_NUMBERS["cpu"])
    size = max(1, most // _numbers(module, a, d))
    chunks = zip(a.split(size, 1), d.split(size, 1), strict=True)
    return torch.cat([of_chunk(module, a, d) for a, d in chunks])


def _steps(module: nn.Module, x: Tensor, batch: int, time_first: bool | None) -> Tensor:
    """[T, B, ...]; of a convolution without tokens, as their gradients add up like those of steps."""
    features = num_features(module, x)
    x = by_time(module, x, batch, time_first)
    tokens = x.dim() - 2 - features
    if tokens == 0 or isinstance(module, nn.Linear):
        return x
    return x.flatten(2, 1 + tokens).movedim(2, 1).flatten(0, 1)


def joined(calls: list[Tensor]) -> Tensor:
    """Of one call there is nothing to copy."""
    return calls[0] if len(calls) == 1 else torch.cat(calls)


def _numbers(module: nn.Module, a: Tensor, d: Tensor) -> int:
    """Of an example: its gradient's, or its input's, as patches in a convolution."""
    inputs = a[:, 0].numel()
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        inputs = len(d) * d.shape[3:].numel() * module.weight[0].numel() * module.groups
    return max(1, inputs, sum(p.numel() for p in module.parameters()))


def _weight_square(module: nn.Conv1d | nn.Conv2d | nn.Linear, a: Tensor, d: Tensor) -> Tensor:
    """a: [T, B, ...], d: [T, B, ...]; the gradient is one batched product over time and positions, group by group."""
    steps, batch = d.shape[:2]
    groups = 1
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        a = window(module).unfold(images(module, a.flatten(0, 1)))
        a = a.unflatten(0, (steps, batch)).transpose(2, 3)
        d = d.flatten(3).transpose(2, 3)
        groups = module.groups
    a = a.reshape(steps, batch, -1, a.shape[-1]).transpose(0, 1).flatten(1, 2)
    d = d.reshape(steps, batch, -1, d.shape[-1]).transpose(0, 1).flatten(1, 2)
    if module.weight.requires_grad:
        square_B = _wide(torch.bmm(_grouped(d, groups).transpose(1, 2), _grouped(a, groups))).square().sum((1, 2))
        square_B = square_B if groups == 1 else square_B.view(batch, groups).sum(1)
    else:
        square_B = _wide(d).new_zeros(batch)
    if module.bias is None or not module.bias.requires_grad:
        return square_B
    return square_B + _wide(d).sum(1).square().sum(1)


def _grouped(x: Tensor, groups: int) -> Tensor:
    """[B, n, channels] -> [B * groups, n, channels of a group]."""
    return x if groups == 1 else x.unflatten(2, (groups, -1)).movedim(2, 1).flatten(0, 1)


def _norm_square(module: _BatchNorm, a: Tensor, d: Tensor) -> Tensor:
    assert module.running_mean is not None and module.running_var is not None
    a, d = _wide(a), _wide(d)
    shape = (-1, *[1] * (a.dim() - 3))
    deviation = (module.running_var + module.eps).sqrt().view(shape)
    normalised = (a - module.running_mean.view(shape)) / deviation
    over = (0, *range(3, a.dim()))
    scale_B, shift_B = (normalised * d).sum(over).square().sum(1), d.sum(over).square().sum(1)
    trained = [
        square_B
        for square_B, p in ((scale_B, module.weight), (shift_B, module.bias))
        if p is not None and p.requires_grad
    ]
    return sum(trained, torch.zeros_like(scale_B))


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
