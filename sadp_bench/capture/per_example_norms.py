"""Exact per-example gradient norms over all parameters, from a single batched backward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import group_norm
from torch.nn.modules.batchnorm import _BatchNorm

from sadp_bench.capture.layer_shapes import BOUNDED, by_time, channels_last, images, num_features, window
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import Loss
from sadp_bench.core.precision import wide_dtype, widened, widest_dtype

# Numbers of patches and gradients in memory at a time, by device type. Fastest in trials; on a CPU about a cache's size.
CHUNK_NUMBERS = {"cpu": 2**20, "cuda": 2**26}

# A layer's input, and the loss's gradient at its output; time comes first where there is time.
Pair = tuple[Tensor, Tensor]


def gradient_norms(
    model: nn.Module,
    loss: Loss,
    input: Tensor,
    label_B: Tensor,
    forward: Callable[[Tensor], Tensor] | None = None,
    time_first: bool | None = True,
) -> Tensor:
    """Returns ||d loss_i / d theta|| for each example i of a batch, over all parameters theta.

    Makes one batched backward pass of the summed loss. Hooks hold each layer's input a and error d. An example's gradient
    is the sum of d a^T over time and positions (Goodfellow, arXiv 1510.01799; here also for convolutions and for weights
    shared over time). The network must be in evaluation mode, because batch norm in training mode mixes the examples.

    Args:
        model: The network, in evaluation mode.
        loss: Returns the loss of each example.
        input: The batch's inputs.
        label_B: The labels.
        forward: Returns the logits, [T, B, C] or [B, C], of an input; the model by default.
        time_first: Whether time comes first in the layers' inputs. See `layer_shapes.arranged`.

    Returns:
        Float64, [B].

    Raises:
        BadInput: A parameter that trains belongs to a layer other than convolution, linear, batch and group norm. Or it is
            used outside of the calls of a single layer, as tied weights are.
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
    square_B = torch.zeros(len(label_B), device=label_B.device, dtype=widest_dtype(label_B.device))
    for module, calls in pairs.items():
        square_B += square_norms(module, calls, len(label_B), time_first)
    return square_B.sqrt()


def _measured(model: nn.Module) -> list[nn.Module]:
    measured: list[nn.Module] = []
    for name, module in model.named_modules():
        if not any(p.requires_grad for p in module.parameters(recurse=False)):
            continue
        if (
            not isinstance(module, (*BOUNDED, _BatchNorm, nn.GroupNorm))
            or getattr(module, "running_mean", module) is None
        ):
            raise BadInput(
                "exact gradient norms support convolutions of one or two dimensions, linear layers, group norm of images and "
                f"batch norm with running statistics; '{name}' is a {type(module).__name__}: freeze its parameters, or take "
                "another score"
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
                f"exact gradient norms need each parameter in the calls of a single layer; those of '{name}' are used "
                "elsewhere too (tied weights?): untie them, or take another score"
            )


def _keep(pairs: dict[nn.Module, list[Pair]]) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        held = inputs[0].detach()
        output.register_hook(lambda error: pairs.setdefault(module, []).append((held, error.detach())))

    return hook


def square_norms(
    module: nn.Module, calls: list[Pair], batch: int, time_first: bool | None = True, *, cheapest: bool = False
) -> Tensor:
    """Returns the squared norm of each example's gradient with respect to a layer's parameters.

    Gradients of several calls add up before the square. Products have the layer's data type; sums are at least float32.

    Args:
        module: A convolution, linear, batch or group norm layer.
        calls: Input and output gradient of each call.
        batch: The number of examples, B.
        time_first: Whether time comes first. See `layer_shapes.arranged`.
        cheapest: Whether the product is the cheapest for the shape. Its rounding differs. By default the product is the
            same for all shapes.

    Returns:
        [B].
    """
    a, d = (joined([_steps(module, pair[side], batch, time_first) for pair in calls]) for side in (0, 1))
    d = d.float() if d.dtype == torch.float16 else d  # Squares can exceed the range of float16.
    a = a.to(d.dtype)
    if hasattr(module, "unmerged"):  # a convolution that computes more than its weight, such as a pool
        module, a = module.unmerged(a)  # type: ignore[operator]
    of_weight = _cheapest_square if cheapest else _weight_square
    of_chunk: Any = _norm_square if isinstance(module, _BatchNorm | nn.GroupNorm) else of_weight
    most = CHUNK_NUMBERS.get(a.device.type, CHUNK_NUMBERS["cpu"])
    size = max(1, most // _numbers(module, a, d))
    chunks = zip(a.split(size, 1), d.split(size, 1), strict=True)
    return torch.cat([of_chunk(module, a, d) for a, d in chunks])


def _steps(module: nn.Module, x: Tensor, batch: int, time_first: bool | None) -> Tensor:
    """Returns [T, B, ...]. Tokens of a convolution become time steps, because their gradients add up in the same way."""
    features = num_features(module, x)
    x = by_time(module, x, batch, time_first)
    tokens = x.dim() - 2 - features
    if tokens == 0 or isinstance(module, nn.Linear):
        return x
    return x.flatten(2, 1 + tokens).movedim(2, 1).flatten(0, 1)


def joined(calls: list[Tensor]) -> Tensor:
    """Returns the time steps of all calls. Images stay in their memory format, and a single call is not copied."""
    if len(calls) > 1 and channels_last(calls[0]):
        return torch.cat([call.movedim(-3, -1) for call in calls]).movedim(-1, -3)
    return calls[0] if len(calls) == 1 else torch.cat(calls)


def _numbers(module: nn.Module, a: Tensor, d: Tensor) -> int:
    """Returns how many numbers an example needs: the larger of its gradient and its input (patches, in a convolution)."""
    inputs = a[:, 0].numel()
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        inputs = len(d) * d.shape[3:].numel() * module.weight[0].numel() * module.groups
    return max(1, inputs, sum(p.numel() for p in module.parameters()))


def _weight_square(module: nn.Conv1d | nn.Conv2d | nn.Linear, a: Tensor, d: Tensor) -> Tensor:
    """Returns the squares, [B], from a and d, [T, B, ...]; one batched product over time and positions for each group."""
    d, groups = _errors(module, d), getattr(module, "groups", 1)
    if module.weight.requires_grad:
        a = _patches(module, a)
        square_B = widened(torch.bmm(_grouped(d, groups).transpose(1, 2), _grouped(a, groups))).square().sum((1, 2))
        square_B = square_B if groups == 1 else square_B.view(len(d), groups).sum(1)
    else:
        square_B = widened(d).new_zeros(len(d))
    return square_B + _bias_square(module, d)


def _cheapest_square(module: nn.Conv1d | nn.Conv2d | nn.Linear, a: Tensor, d: Tensor) -> Tensor:
    """Returns the squares, [B], from a and d, [T, B, ...], by the product that takes the least time.

    With few positions p, pairs of them are cheap: |sum_p d_p a_p^T|^2 = sum_pq (d_p . d_q)(a_p . a_q). With many, a CPU
    computes each example's gradient by torch's convolution, without patches in memory.
    """
    inputs, outputs = module.weight[0].numel(), len(module.weight)
    if not module.weight.requires_grad or getattr(module, "groups", 1) > 1:
        return _weight_square(module, a, d)
    if d[:, 0].numel() // outputs * (inputs + outputs) < inputs * outputs:
        a, d = _patches(module, widened(a)), _errors(module, widened(d))
        pairs_Bpp = torch.bmm(a, a.transpose(1, 2)) * torch.bmm(d, d.transpose(1, 2))
        return pairs_Bpp.sum((1, 2)).clamp_min(0) + _bias_square(module, d)
    if d.device.type != "cpu" or not isinstance(module, nn.Conv2d) or not window(module).pads_evenly():
        return _weight_square(module, a, d)
    return _conv_square(module, a, d) + _bias_square(module, _errors(module, d))


def _conv_square(conv: nn.Conv2d, a: Tensor, d: Tensor) -> Tensor:
    """Returns the squares, [B], of a convolution's weight from a and d, [T, B, ...], an example's gradient at a time."""
    left, _, top, _ = window(conv).pads
    how = conv.weight.detach().to(d.dtype), None, conv.stride, (top, left), conv.dilation, False, (0, 0), 1
    backward, norm, wide = torch.ops.aten.convolution_backward, torch.linalg.vector_norm, wide_dtype(d)
    norms = []
    for a_of_one, d_of_one in zip(a.unbind(1), d.unbind(1), strict=True):
        _, gradient, _ = backward(d_of_one, a_of_one, *how, (False, True, False))
        norms.append(norm(gradient, dtype=wide))
    return torch.stack(norms).square()


def _patches(module: nn.Module, a: Tensor) -> Tensor:
    """Returns a layer's inputs as [B, steps and positions, numbers], of a convolution as patches."""
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        patches = window(module).unfold(images(module, a.flatten(0, 1)))
        a = patches.unflatten(0, a.shape[:2]).transpose(2, 3)
    return _in_rows(a)


def _errors(module: nn.Module, d: Tensor) -> Tensor:
    """Returns the errors at a layer's outputs as [B, steps and positions, numbers]."""
    return _in_rows(d.flatten(3).transpose(2, 3) if isinstance(module, nn.Conv1d | nn.Conv2d) else d)


def _in_rows(x: Tensor) -> Tensor:
    """Returns [T, B, ..., numbers] as [B, rows, numbers]."""
    return x.reshape(*x.shape[:2], -1, x.shape[-1]).transpose(0, 1).flatten(1, 2)


def _bias_square(module: nn.Conv1d | nn.Conv2d | nn.Linear, d: Tensor) -> Tensor | float:
    """Returns the squared norms of the bias's gradients, [B], from d, [B, rows, outputs]; 0 without a bias that trains."""
    if module.bias is None or not module.bias.requires_grad:
        return 0.0
    return widened(d).sum(1).square().sum(1)


def _grouped(x: Tensor, groups: int) -> Tensor:
    """Returns [B, n, channels] as [B * groups, n, channels of a group]."""
    return x if groups == 1 else x.unflatten(2, (groups, -1)).movedim(2, 1).flatten(0, 1)


def _norm_square(module: _BatchNorm | nn.GroupNorm, a: Tensor, d: Tensor) -> Tensor:
    """Returns the squares, [B], of a group norm, or a batch norm in evaluation mode, from a and d, [T, B, ...]."""
    a, d = widened(a), widened(d)
    if isinstance(module, nn.GroupNorm):
        normalised = group_norm(a.flatten(0, 1), module.num_groups, eps=module.eps).view_as(a)
    else:
        assert module.running_mean is not None and module.running_var is not None
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
