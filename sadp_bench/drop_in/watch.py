"""Records a pruner's signals in a user's network: `watch`.

T time steps, B examples, C classes, D readout features.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.capture.example_rows import ExampleRows
from sadp_bench.capture.layer_shapes import BOUNDED
from sadp_bench.capture.loop_recorder import LoopRecorder
from sadp_bench.capture.signals import Signal
from sadp_bench.core import distributed
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import LOSSES, Loss, logit_errors
from sadp_bench.core.precision import widened
from sadp_bench.drop_in.batch_logits import LogitOrder, in_time
from sadp_bench.drop_in.logit_source import HOW_TO_OBSERVE, OutputRecorder, Source, find_source
from sadp_bench.drop_in.loss_scale import ScaleChecks, gradient_scales
from sadp_bench.drop_in.sampler import PrunedSampler
from sadp_bench.drop_in.watchable import OF_LAYERS, SCALED, check_network, layer_of, lost_inputs, usual_order

CHECKED_BATCHES = 8  # Batches at the start of each epoch that are checked for mistakes; a check waits for a GPU.
MAX_SKIPPED = 20  # Successive batches without finite gradients, after which a warning comes.
MANY_LOST = f"the gradients of {MAX_SKIPPED} batches in a row are not finite: lower the learning rate, or mend the loss"


def watch(
    model: nn.Module,
    sampler: PrunedSampler,
    readout: str | nn.Module | None = None,
    *,
    loss: str | Loss = "mean",
    time_first: bool | None = None,
) -> Watch:
    """Records the signals that the sampler's pruner needs, so that `sampler.observe(index, logits, label)` is enough.

    Hooks exist for the signals of the current epoch only. Until the batch is observed, they record forward passes in
    training mode that receive a gradient. Observe each batch once, after its last backward pass and before the next forward
    pass.
    Factors of the loss (weight, batch mean, accumulation, a GradScaler) are measured at the logits and divided out. A batch
    whose gradients are not finite is left out. Wrong weights or a wrong loss cause a warning. Convolutions of one or
    two dimensions and linear layers are watched; a network with other weight layers is refused.

    Example::

        with watch(model, sampler):
            for epoch in range(sampler.epochs): ...

    Args:
        model: The network.
        sampler: The sampler; it watches at most one network at a time.
        readout: The linear layer whose output, or its steps, gives the logits: a name or a module. By default it is the
            last layer that fits. Without such a layer (a spiking readout), all layers are bounded and none is exact.
        loss: Each example's loss without its weight. "mean" is the cross-entropy of the logits' mean over time, and "step"
            is the mean of the steps' cross-entropy; for "step-mse" see `losses`. A function maps (logits_TBC, label_B) to
            loss_B.
        time_first: Whether a layer's dimension beside the batch is time ([T, B, ...] or [T * B, ...]) instead of tokens
            ([B, tokens, ...]). By default SpikingJelly's and snnTorch's layers decide.

    Returns:
        A context; hooks exist until it ends or `remove` is called.

    Raises:
        BadInput: The network or an argument cannot be used. At the first batch: logits, readout or layouts do not fit.
    """
    return Watch(model, sampler, readout, loss, time_first)


class Watch:
    """A watched network: a context, which ends with `remove`. See `watch` for the arguments."""

    def __init__(
        self,
        model: nn.Module,
        sampler: PrunedSampler,
        readout: str | nn.Module | None,
        loss: str | Loss,
        time_first: bool | None,
    ) -> None:
        if sampler.watching is not None:
            raise BadInput("this sampler is watching a network already: call remove() on the result of watch first")
        if isinstance(loss, str) and loss not in LOSSES:
            raise BadInput(f"loss is one of {', '.join(LOSSES)} or a function, not '{loss}'")
        self.model, self.sampler = model, sampler
        self.loss = LOSSES[loss] if isinstance(loss, str) else loss
        self._rows = ExampleRows(model, time_first, usual_order(model))
        self.layers = [module for module in model.modules() if isinstance(module, BOUNDED)]
        self._given_readout = None if readout is None else layer_of(model, readout)
        self._source: Source | None = None
        self._warned: set[str] = set()
        self._num_skipped = 0
        self._order = LogitOrder(time_first, self._examples_first)
        self._outputs: list[OutputRecorder] = []
        self._recorder: LoopRecorder | None = None
        self.record(sampler.signals)
        sampler.watching = self

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Removes all hooks; the sampler's pruner receives no more signals."""
        self._unhook()
        self.sampler.watching = None

    def record(self, signals: frozenset[Signal]) -> None:
        """Replaces the hooks by those of an epoch's signals.

        Raises:
            BadInput: The network does not have the signals.
        """
        check_network(self.model, signals)
        self._unhook()
        self.signals, self._num_batches, self._checks = signals, 0, ScaleChecks()
        if signals & (SCALED | {Signal.FEATURES}):
            self._outputs = [OutputRecorder(self.model, module, self._rows) for module in self._candidates()]
        if signals & OF_LAYERS:
            self._recorder = LoopRecorder(self.model, signals, self._bounded(), self._rows)
            self._recorder.hook()

    def _unhook(self) -> None:
        for outputs in self._outputs:
            outputs.handle.remove()
        if self._recorder is not None:
            self._recorder.unhook()
        self._outputs, self._recorder = [], None

    def _candidates(self) -> list[nn.Module]:
        """Returns the modules whose output may be the logits, the likeliest first."""
        if self._source is not None:
            return [self._source.recorder.module]
        if self._given_readout is not None:
            return [self._given_readout]
        linear = [module for module in self.layers if isinstance(module, nn.Linear)]
        return [*reversed(linear), *([self.model] if self.model not in linear else [])]

    def _bounded(self) -> list[nn.Module]:
        """Returns the L bounded layers: all but a readout whose gradient is known exactly."""
        exact = self._source.recorder.module if self._source is not None and self._source.exact else None
        return [layer for layer in self.layers if layer is not exact]

    def in_time(self, logits: Any, batch: int) -> Tensor | None:
        """Returns the observed logits as [T, B, C]; None for another shape. With time_first=False, they may be [B, T, C]."""
        return in_time(logits, batch, self._order)

    def _examples_first(self, logits: Tensor) -> bool | None:
        """Returns whether logits with T = B are [B, T, C]; None where no outputs are recorded.

        Time comes first where calls, a step each, give the logits. Otherwise the user's time_first=False counts.
        """
        if not self._outputs:
            return None
        stepwise = [outputs for outputs in self._outputs if outputs.a_step_each(len(logits))]
        return find_source(stepwise, widened(logits), self._source, (False,)) is None

    @property
    def waits(self) -> bool:
        """Whether numbers of the batch are read anyway: in checked batches, and after float16, which overflows."""
        return bool(self.signals) and (
            self._num_batches < CHECKED_BATCHES or (self._recorder is not None and self._recorder.half)
        )

    def forget(self) -> None:
        """Drops the records of the batch, before the next one."""
        self._num_batches += 1
        for outputs in self._outputs:
            outputs.calls.clear()
        if self._recorder is not None:
            self._recorder.forget()

    def expect(self, batch: int) -> None:
        """Receives the size of the batch whose backward pass is next."""
        if self._recorder is not None:
            self._recorder.expect(batch)

    def seen(self, logits_TBC: Tensor, label_B: Tensor, weight_B: Tensor, index_B: Tensor) -> dict[str, Tensor] | None:
        """Returns the pruner's signals of the batch since the last; None where its gradients are not finite.

        Args:
            logits_TBC: The observed logits, detached.
            label_B: The labels.
            weight_B: The loss weights.
            index_B: The examples.

        Raises:
            BadInput: The logits do not fit the recorded outputs, or signals are missing.
        """
        if not self.signals:
            return {}
        try:
            return self._signals(logits_TBC, label_B, weight_B.to(logits_TBC.device), index_B)
        finally:
            self.forget()

    def _signals(
        self, logits_TBC: Tensor, label_B: Tensor, weight_B: Tensor, index_B: Tensor
    ) -> dict[str, Tensor] | None:
        seen: dict[str, Tensor] = {}
        error_TBC, gradient_TBC, scale_B = logit_errors(self.loss, logits_TBC, label_B), None, None
        direct_TBC = error_TBC
        if self._outputs:
            source = self._find_source(logits_TBC)
            steps = source.steps(len(label_B))
            error_TBC = source.output_error(error_TBC, len(steps.gradient_TBC))
            gradient_TBC, direct_TBC = (x[source.measured_steps] for x in (steps.gradient_TBC, error_TBC))
            scale_B = gradient_scales(gradient_TBC, direct_TBC, weight_B)
            if Signal.FEATURES in self.signals and source.exact and steps.input_TBD is not None:
                seen[Signal.FEATURES] = widened(steps.input_TBD)
        if Signal.LOGIT_ERRORS in self.signals:
            seen[Signal.LOGIT_ERRORS] = error_TBC
        if self._recorder is not None:
            self._recorder.layers = self._bounded()
            seen |= self._recorder.seen(scale_B, len(label_B))
            if missing := sorted((self.signals & OF_LAYERS) - {Signal.BOUND_RATIO} - set(seen)):
                raise BadInput(f"no {' and no '.join(missing)} were recorded of this batch: {HOW_TO_OBSERVE}")
        if gradient_TBC is None or scale_B is None:
            return seen
        if not self._finite(seen, gradient_TBC):
            self._warn(lost_inputs(seen, index_B))
            self._warn(MANY_LOST if self._num_skipped == MAX_SKIPPED else None)
            return None
        if self._checking:
            self._warn(self._checks.check(gradient_TBC, direct_TBC, weight_B))
        return seen

    def _orders(self) -> tuple[bool, ...]:
        """Returns whether the readout's examples may come before time, the likelier first."""
        if self._rows.given is True:
            return (False,)
        return (True, False) if self._rows.given is False or self._rows.shared() is False else (False, True)

    def _find_source(self, logits_TBC: Tensor) -> Source:
        """Returns the source of the logits.

        Each of the first batches decides anew, because outputs of a readout that starts at zero fit several relations.
        """
        if self._source is None or self._checking:
            source = find_source(self._outputs, logits_TBC, self._source, self._orders())
            if source is None:
                raise BadInput(self._why_not_found(logits_TBC))
            if self._source is None:
                for outputs in self._outputs:
                    if outputs is not source.recorder:
                        outputs.handle.remove()
                self._outputs = [source.recorder]
            self._source = source
            if source.time_first is not None:
                self._rows.time_first[source.recorder.module] = source.time_first
        return self._source

    def _why_not_found(self, logits_TBC: Tensor) -> str:
        if not any(outputs.calls for outputs in self._outputs):
            return f"nothing was recorded of this batch: {HOW_TO_OBSERVE}"
        names = {module: name for name, module in self.model.named_modules()}
        tried = ", ".join(f"'{names[o.module]}'" if names[o.module] else "the model itself" for o in self._outputs)
        shape = list(logits_TBC.shape if len(logits_TBC) > 1 else logits_TBC.shape[1:])
        return (
            f"the observed logits, {shape}, are not the output of {tried}, nor its mean, sum or last step: observe the "
            "logits that the loss was computed from, each batch once, or name their layer, watch(..., readout=)"
        )

    @property
    def _checking(self) -> bool:
        """Whether the batch is among the epoch's first, which are checked for mistakes."""
        return self._num_batches < CHECKED_BATCHES

    def _finite(self, seen: dict[str, Tensor], gradient_TBC: Tensor) -> bool:
        """Returns whether the gradients are finite, on all processes.

        On a GPU the check waits for the device, so it is made there only where a gradient is float16. Such gradients
        overflow under a GradScaler, which waits anyway.
        """
        half = gradient_TBC.dtype == torch.float16 or (self._recorder is not None and self._recorder.half)
        if gradient_TBC.device.type != "cpu" and not half:
            return True
        lost = (~torch.stack([value.sum().isfinite() for value in seen.values()])).any()
        if not bool(distributed.total(lost.int())):
            self._num_skipped = 0
            return True
        self._num_skipped += 1
        if self._recorder is not None and Signal.BOUND_RATIO in seen:
            self._recorder.measure_again()
        return False

    def _warn(self, mistake: str | None) -> None:
        """Warns of a mistake, once."""
        if mistake is not None and mistake not in self._warned:
            self._warned.add(mistake)
            warnings.warn(mistake, stacklevel=5)  # The caller of `observe`.
