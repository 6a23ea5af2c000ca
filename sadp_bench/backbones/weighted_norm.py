"""Batch norm whose statistics are weighted as the loss is.

A method that draws some examples more often than others corrects the loss by weights. Plain batch norm still takes the
statistics of the drawn examples. Here an example's weight also counts in the batch's mean and variance, so both estimate
those of all data.

T time steps, B examples, R rows (a row is an example at a time step), C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from spikingjelly.activation_based import layer
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm

from sadp_bench.core.errors import BadInput
from sadp_bench.core.precision import widened, widest_dtype

HINT = "rows are [B, ...] or [T * B, ...], time first; otherwise hand in a weight for each row"


class WeightedNorm(_BatchNorm):
    """Batch norm whose statistics weight the examples by their shares within `weighted_statistics`.

        mean = sum_r s_r sum_p x_rp / (P sum_r s_r);   variance = sum_r s_r sum_p (x_rp - mean)^2 / (P sum_r s_r)

    Here s_r is the share of row r's example and P the number of positions. The running variance gets the variance times
    n / (n - 1), where n = R P is the number of values, as torch's does. Without shares, and in evaluation mode, it is
    torch's batch norm, bit for bit.

    Attributes:
        share_B: The examples' weights divided by their mean; None: all are equal. `weighted_statistics` sets it.
    """

    share_B: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Returns the input, normalised over batch, time and positions."""
        if self.share_B is None or not self.training:
            return super().forward(input)
        if getattr(self, "step_mode", "s") == "m":
            return self._weighted(input.flatten(0, 1)).unflatten(0, input.shape[:2])
        return self._weighted(input)

    def _weighted(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        values = input.numel() // max(1, input.shape[1])
        if values < 2:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.shape}")
        share_R = _of_rows(self.share_B, len(input)).to(input.device)  # type: ignore[arg-type]
        output, mean, variance = _WeightedBatchNorm.apply(input, self.weight, self.bias, share_R, self.eps)
        if self.track_running_stats:
            self._track(mean, variance * (values / (values - 1)))
        made: Tensor = output
        return made

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        for running, now in ((self.running_mean, mean), (self.running_var, variance)):
            if running is not None:
                running.lerp_(now.to(running.dtype), momentum)


class BatchNorm1d(WeightedNorm, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` with weighted statistics."""


class BatchNorm2d(WeightedNorm, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` with weighted statistics."""


class BatchNorm3d(WeightedNorm, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d` with weighted statistics."""


class StepBatchNorm1d(WeightedNorm, layer.BatchNorm1d):
    """SpikingJelly's `BatchNorm1d` with weighted statistics."""


class StepBatchNorm2d(WeightedNorm, layer.BatchNorm2d):
    """SpikingJelly's `BatchNorm2d` with weighted statistics."""


class StepBatchNorm3d(WeightedNorm, layer.BatchNorm3d):
    """SpikingJelly's `BatchNorm3d` with weighted statistics."""


KINDS: dict[type[nn.Module], type[WeightedNorm]] = {
    nn.BatchNorm1d: BatchNorm1d,
    nn.BatchNorm2d: BatchNorm2d,
    nn.BatchNorm3d: BatchNorm3d,
    layer.BatchNorm1d: StepBatchNorm1d,
    layer.BatchNorm2d: StepBatchNorm2d,
    layer.BatchNorm3d: StepBatchNorm3d,
}


def weighted_batch_norm(model: nn.Module) -> nn.Module:
    """Replaces a network's batch norms, torch's and SpikingJelly's, by norms that `weighted_statistics` can weight.

    Parameters, statistics and hooks stay the same objects, and the state dict has the same names.

    Args:
        model: The network; its batch norms are replaced in place.

    Returns:
        The network; a new layer if it is a batch norm itself.

    Raises:
        BadInput: A batch norm is of another kind, such as SyncBatchNorm.
    """
    made: dict[nn.Module, nn.Module] = {}  # a norm in two places stays one norm
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, WeightedNorm):
            if type(module) not in KINDS:
                raise BadInput(
                    f"'{name}' is a {type(module).__name__}, and weighted statistics exist for torch's and SpikingJelly's "
                    "BatchNorm1d, 2d and 3d: replace it by one of them"
                )
            kind = KINDS[type(module)]
            made[module] = kind.__new__(kind)
            made[module].__dict__ = module.__dict__
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child in made:
                module._modules[name] = made[child]
    return made.get(model, model)


@contextmanager
def weighted_statistics(model: nn.Module, weight_B: Tensor) -> Iterator[None]:
    """Weights the batch statistics of a network's weighted norms in training passes within the context.

    Example::

        with weighted_statistics(model, weight):
            logits = model(image)

    Each of several processes passes the weights of its own part of the batch. The statistics are those of that part.

    Args:
        model: The network; without weighted norms nothing happens.
        weight_B: The weight of each example's loss, or of each row of a layer's input.

    Raises:
        BadInput: The weights are not a vector. On a CPU also: a weight is negative or not finite.
    """
    norms = [module for module in model.modules() if isinstance(module, WeightedNorm)]
    share_B = shares(weight_B) if norms else None
    for norm in norms:
        norm.share_B = share_B
    try:
        yield
    finally:
        for norm in norms:
            norm.share_B = None


def shares(weight_B: Tensor) -> Tensor:
    """Returns the weights divided by their mean, [B]; all are 1 if the mean is 0. Raises BadInput for invalid weights."""
    if weight_B.dim() != 1 or not len(weight_B):
        raise BadInput(f"weights of a batch are a vector [B], not {list(weight_B.shape)}")
    # On a GPU the check would have to wait for the device.
    if weight_B.device.type == "cpu" and not bool((weight_B.isfinite() & (weight_B >= 0)).all()):
        raise BadInput("weights of a batch are finite numbers of at least 0; look at the method that gave them")
    weight_B = weight_B.detach().to(widest_dtype(weight_B.device))
    mean = weight_B.mean()
    return torch.where(mean > 0, weight_B / mean, 1.0)


def share_of(norm: nn.Module | None, examples: int) -> Tensor | None:
    """Returns the shares of so many examples in a norm's statistics, [B]; None: all are equal."""
    if not isinstance(norm, WeightedNorm) or norm.share_B is None or not norm.training:
        return None
    return _of_rows(norm.share_B, examples)


def _of_rows(share_B: Tensor, rows: int) -> Tensor:
    """Returns the share of each row. Raises BadInput where rows do not divide among the examples."""
    if rows % len(share_B):
        raise BadInput(f"{len(share_B)} weights for a batch norm's input of {rows} rows: {HINT}")
    return share_B.repeat(rows // len(share_B))


class _WeightedBatchNorm(torch.autograd.Function):
    """See `WeightedNorm`. Returns the output, the mean and the variance."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, share_R: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the normalised input, and the statistics by which it is normalised."""
        wide = widened(x)
        share_R = (share_R / share_R.sum()).to(wide.dtype)
        mean, variance = _moments(wide, share_R)
        ctx.save_for_backward(x, weight, mean, variance, share_R)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, error: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """Returns the gradients at the input, the weight and the bias.

        Each input also changes mean and variance, in proportion to its row's share. So that share of two sums over all
        values is subtracted from the gradient at constant statistics. The sums are those of the error, and of error times
        normalised input.
        """
        x, weight, mean, variance, share_R = ctx.saved_tensors
        constant, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            error, x, weight, mean, variance, None, None, False, ctx.eps, (True, True, True)
        )
        inverse = (variance + ctx.eps).rsqrt()
        factor = (inverse if weight is None else inverse * weight) / (x[0].numel() // x.shape[1])
        row = (-1, *[1] * (x.dim() - 1))
        normalised = (widened(x) - _of_channels(mean, x)) * _of_channels(inverse * of_weight, x)
        moved = normalised.add_(_of_channels(of_bias, x)).mul_(_of_channels(factor, x)).mul_(share_R.view(row))
        of_weight = None if weight is None else of_weight.to(weight.dtype)
        return (constant - moved).to(x.dtype), of_weight, None if weight is None else of_bias, None, None


def _of_channels(value_C: Tensor, x: Tensor) -> Tensor:
    return value_C.view(1, -1, *[1] * (x.dim() - 2))


def _moments(x: Tensor, share_R: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and variance, [C] each, from the rows' means and variances, by shares whose sum is 1."""
    if x.dim() == 2:
        mean_RC, variance_RC = x, torch.zeros_like(x)
    else:
        variance_RC, mean_RC = torch.var_mean(x, tuple(range(2, x.dim())), correction=0)
    mean = share_R @ mean_RC
    return mean, share_R @ (variance_RC + (mean_RC - mean).square())
