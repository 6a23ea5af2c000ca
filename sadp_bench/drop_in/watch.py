"""What a pruner must see, found in anyone's network: `watch`.

T time steps, B examples, C classes, D readout features.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from sadp_bench.capture.layer_shapes import BOUNDED, multi_step, unbounded_layers
from sadp_bench.capture.layers import spiking_layers
from sadp_bench.capture.recorder import RECORDED, Recorder
from sadp_bench.capture.signals import Signal
from sadp_bench.capture.squared_norms import wide_type
from sadp_bench.core import distributed
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import LOSSES, Loss, logit_errors
from sadp_bench.drop_in.logit_source import NOTHING, Outputs, Source, find_source
from sadp_bench.drop_in.loss_scale import ScaleChecks, gradient_scales
from sadp_bench.drop_in.sampler import PrunedSampler

OF_READOUT = frozenset({Signal.FEATURES, Signal.LOGIT_ERRORS})
OF_LAYERS = RECORDED - OF_READOUT
SCALED = frozenset({Signal.ERROR_SQUARES, Signal.MIDDLE_ERROR_SQUARES, Signal.BOUND_RATIO})
CHECKED = 8  # batches at the start of each epoch that are looked at for mistakes: on a GPU each look waits for it
MAX_SKIPPED = 20  # batches in a row without finite gradients, of which the last is told


def watch(
    model: nn.Module,
    sampler: PrunedSampler,
    readout: str | nn.Module | None = None,
    *,
    loss: str | Loss = "mean",
    time_first: bool | None = None,
) -> Watch:
    """Shows the sampler's pruner what it asks for: after this, `sampler.observe(index, logits, label)` is enough.

        with watch(model, sampler):
            for epoch in range(sampler.epochs): ...

    Hooks what the coming epoch's pruner asks for, and nothing where it asks for nothing. Counted are forward passes in
    training mode whose gradient came back, until the batch is observed: once a batch, after its backward pass and before the
    next forward pass. What the loss was multiplied with (weight, batch mean, accumulation, a GradScaler) is measured at the
    logits and divided out; a batch whose gradients are not finite is left out.

    readout: the linear layer whose output is the logits, or their steps; a name, a module, or found: the last such. Without
    one (a spiking readout) all layers are bounded and none is exact. Convolutions (one or two dimensions) and linear layers
    are watched, no others.
    loss: each example's own, without its weight: "mean", cross-entropy of the logits' mean over time; "step", its mean over
    the steps; "step-mse", see `losses`; or a function (logits_TBC, label_B) -> loss_B. time_first: whether what a layer is
    shown beside its batch is time ([T, B, ...] or [T * B, ...]) or tokens ([B, tokens, ...]); by default known by
    SpikingJelly's and snnTorch's layers, and asked for where it matters.
    Raises BadInput at the first batch where logits, readout or layouts do not fit; warns of wrong weights or losses.
    """
    return Watch(model, sampler, readout, loss, time_first)


class Watch:
    """A context, or until `remove`. See `watch`."""

    def __init__(
        self,
        model: nn.Module,
        sampler: PrunedSampler,
        readout: str | nn.Module | None,
        loss: str | Loss,
        time_first: bool | None,
    ) -> None:
        if sampler.watching is not None:
            raise BadInput("this sampler is watching a network already: call remove() on what watch gave")
        if isinstance(loss, str) and loss not in LOSSES:
            raise BadInput(f"loss is one of {', '.join(LOSSES)} or a function, not '{loss}'")
        self.model, self.sampler = model, sampler
        self.loss = LOSSES[loss] if isinstance(loss, str) else loss
        self.time_first = _time_first(model) if time_first is None else time_first
        self.layers = [module for module in model.modules() if isinstance(module, BOUNDED)]
        self._named = None if readout is None else _part(model, readout)
        self._source: Source | None = None
        self._told: set[str] = set()
        self._skipped = 0
        self._outputs: list[Outputs] = []
        self._recorder: Recorder | None = None
        self.listen(sampler.pruner.watch(max(0, sampler.epoch)))
        sampler.watching = self

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Takes all hooks off; the sampler's pruner sees no more."""
        self._unhook()
        self.sampler.watching = None

    def listen(self, names: frozenset[Signal]) -> None:
        """Hooks what shows these, and nothing else; called at the start of each epoch."""
        if unknown := sorted(names - OF_LAYERS - OF_READOUT):
            raise BadInput(
                f"{type(self.sampler.pruner).__name__} asks for {', '.join(unknown)}, which watch does not show"
            )
        if names - {"logit_errors"} and any(map(_compiled, self.model.modules())):
            raise BadInput("a network of torch.compile shows nothing from within: watch and train it as it was before")
        if isinstance(self.model, nn.DataParallel):
            raise BadInput("the copies of a DataParallel cannot be watched: take DistributedDataParallel")
        if names & SCALED and not self.layers:
            raise BadInput(f"there is no convolution or linear layer to watch in {type(self.model).__name__}")
        if names & SCALED and (unbounded := unbounded_layers(self.model)):
            layers = ", ".join(f"'{name}', a {kind}" for name, kind in unbounded)
            raise BadInput(f"the gradient of {layers}, can't be bounded: take convolutions of one or two dimensions")
        self._unhook()
        self.names, self._num_seen, self._checks = names, 0, ScaleChecks()
        if names & (SCALED | {"features"}):
            self._outputs = [Outputs(self.model, module) for module in self._candidates()]
        if names & OF_LAYERS:
            self._recorder = Recorder(self.model, names, self._bounded(), of_any_loop=True, time_first=self.time_first)
            self._recorder.__enter__()

    def _unhook(self) -> None:
        for outputs in self._outputs:
            outputs.handle.remove()
        if self._recorder is not None:
            self._recorder.__exit__()
        self._outputs, self._recorder = [], None

    def _candidates(self) -> list[nn.Module]:
        """Those whose output may be the logits, the likeliest first."""
        if self._source is not None:
            return [self._source.outputs.part]
        if self._named is not None:
            return [self._named]
        linear = [module for module in self.layers if isinstance(module, nn.Linear)]
        return [*reversed(linear), *([self.model] if self.model not in linear else [])]

    def _bounded(self) -> list[nn.Module]:
        """The L layers, without the readout if its part is exact."""
        exact = self._source.outputs.part if self._source is not None and self._source.exact else None
        return [layer for layer in self.layers if layer is not exact]

    def expect(self, batch: int) -> None:
        """The size of the batch whose backward pass is next."""
        if self._recorder is not None:
            self._recorder.expect(batch)

    def seen(self, logits_TBC: Tensor, label_B: Tensor, weight_B: Tensor) -> dict[str, Tensor] | None:
        """What the pruner asked for, of the batch since the last; None where its gradients are not finite."""
        self._num_seen += 1
        try:
            return self._seen(logits_TBC, label_B, weight_B.to(logits_TBC.device))
        finally:
            for outputs in self._outputs:
                outputs.calls.clear()
            if self._recorder is not None:
                self._recorder.forget()

    def _seen(self, logits_TBC: Tensor, label_B: Tensor, weight_B: Tensor) -> dict[str, Tensor] | None:
        seen: dict[str, Tensor] = {}
        error_TBC, gradient_TBC, scale_B = logit_errors(self.loss, logits_TBC, label_B), None, None
        if self._outputs:
            source = self._source_of(logits_TBC)
            shown = source.outputs.shown(source.place, len(label_B))
            gradient_TBC, error_TBC = shown.gradient_TBC, source.back(error_TBC, len(shown.gradient_TBC))
            scale_B = gradient_scales(gradient_TBC, error_TBC, weight_B)
            if "features" in self.names and source.exact and shown.input_TBD is not None:
                seen["features"] = shown.input_TBD.to(wide_type(shown.input_TBD))
        if "logit_errors" in self.names:
            seen["logit_errors"] = error_TBC
        if self._recorder is not None:
            self._recorder.layers = self._bounded()
            seen |= self._recorder.seen(scale_B, len(label_B))
            if missing := sorted((self.names & OF_LAYERS) - {"bound_ratio"} - set(seen)):
                raise BadInput(f"no {' and no '.join(missing)} were seen of this batch: {NOTHING}")
        if gradient_TBC is None or scale_B is None:
            return seen
        if not self._finite(seen, gradient_TBC):
            return None
        if self._looks():
            self._tell(self._checks.look(gradient_TBC, error_TBC, weight_B))
        return seen

    def _source_of(self, logits_TBC: Tensor) -> Source:
        """Found in the first batch, and looked at again in some: a readout that begins at zero says little at first."""
        if self._source is None or self._looks():
            source = find_source(self._outputs, logits_TBC, self._source)
            if source is None:
                raise BadInput(self._not_found(logits_TBC))
            if self._source is None:
                for outputs in self._outputs:
                    if outputs is not source.outputs:
                        outputs.handle.remove()
                self._outputs = [source.outputs]
            self._source = source
        return self._source

    def _not_found(self, logits_TBC: Tensor) -> str:
        if not any(outputs.calls for outputs in self._outputs):
            return f"nothing was seen of this batch: {NOTHING}"
        names = {module: name for name, module in self.model.named_modules()}
        tried = ", ".join(f"'{names[o.part]}'" if names[o.part] else "the model itself" for o in self._outputs)
        shape = list(logits_TBC.shape if len(logits_TBC) > 1 else logits_TBC.shape[1:])
        return (
            f"the observed logits, {shape}, are not what {tried} put out, nor its mean, sum or last over time: observe what "
            "the loss was taken of, each batch once, or name the layer that gives it, watch(..., readout=)"
        )

    def _looks(self) -> bool:
        return self._num_seen <= CHECKED

    def _finite(self, seen: dict[str, Tensor], gradient_TBC: Tensor) -> bool:
        """Returns whether the gradients are finite, on all processes.

        On a GPU the check waits for the device. It therefore looks there only at float16, even of a single layer: these
        gradients overflow under a GradScaler, which waits anyway.
        """
        half = gradient_TBC.dtype == torch.float16 or (self._recorder is not None and self._recorder.half)
        if gradient_TBC.device.type != "cpu" and not half:
            return True
        lost = (~torch.stack([value.sum().isfinite() for value in seen.values()])).any()
        if not bool(distributed.total(lost.int())):
            self._skipped = 0
            return True
        self._skipped += 1
        if self._recorder is not None and "bound_ratio" in seen:
            self._recorder.measure_again()
        if self._skipped == MAX_SKIPPED:
            self._tell(f"the gradients of {MAX_SKIPPED} batches in a row are not finite: has training diverged?")
        return False

    def _tell(self, complaint: str | None) -> None:
        if complaint is not None and complaint not in self._told:
            self._told.add(complaint)
            warnings.warn(complaint, stacklevel=5)


def _time_first(model: nn.Module) -> bool | None:
    """What spiking layers tell: those of all steps at once take them first, those of one leave time to the loop."""
    if any(map(multi_step, model.modules())):
        return True
    return False if spiking_layers(model) else None


def _compiled(module: nn.Module) -> bool:
    return type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None


def _part(model: nn.Module, readout: str | nn.Module) -> nn.Module:
    """The layer of this name, or the layer itself, if it is one of the model's."""
    for name, module in model.named_modules():
        if readout in (name, module) and name:
            return module
    linear = ", ".join(name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name)
    shown = f"'{readout}'" if isinstance(readout, str) else f"the {type(readout).__name__} given as readout"
    raise BadInput(f"{shown} is no part of the {type(model).__name__}; its linear layers: {linear or 'none'}")
