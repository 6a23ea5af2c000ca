"""The networks that `watch` supports, and the defaults that a network's layers suggest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sadp_bench.capture.layer_shapes import BOUNDED, multi_step, unbounded_layers
from sadp_bench.capture.layers import spiking_layers
from sadp_bench.capture.recorder import RECORDED
from sadp_bench.capture.signals import Signal
from sadp_bench.core.errors import BadInput

OF_READOUT = frozenset({Signal.FEATURES, Signal.LOGIT_ERRORS})
OF_LAYERS = RECORDED - OF_READOUT
SCALED = frozenset({Signal.ERROR_SQUARES, Signal.MIDDLE_ERROR_SQUARES, Signal.BOUND_RATIO})


def check_network(model: nn.Module, signals: frozenset[Signal]) -> None:
    """Raises BadInput where a network does not have these signals."""
    if signals - {Signal.LOGIT_ERRORS} and any(map(_compiled, model.modules())):
        raise BadInput(
            "hooks do not run within a network of torch.compile: watch and train the network without compilation"
        )
    if signals and isinstance(model, nn.DataParallel):
        raise BadInput("the copies of a DataParallel can't be watched: take DistributedDataParallel")
    if signals & SCALED and not any(isinstance(module, BOUNDED) for module in model.modules()):
        raise BadInput(
            f"{type(model).__name__} has no convolution or linear layer to watch: take a network that has some"
        )
    if signals & SCALED and (unbounded := unbounded_layers(model)):
        layers = ", ".join(f"'{name}', a {kind}" for name, kind in unbounded)
        raise BadInput(f"the gradient of {layers}, can't be bounded: take convolutions of one or two dimensions")


def lost_inputs(seen: dict[str, Tensor], index_B: Tensor) -> str | None:
    """Returns a warning where the first layer with inputs that are not finite has them in the batch; otherwise None."""
    for name in (Signal.INPUT_SQUARES, Signal.MIDDLE_INPUT_SQUARES):
        lost_LB = ~seen[name].isfinite() if name in seen else torch.zeros(0, 0)
        if bool(lost_LB.any()):
            first = int(lost_LB[lost_LB.any(1)][0].nonzero()[0])
            return (
                f"an input of a layer is not finite in the batch of example {int(index_B[first])}, although the loss is: the "
                "batch is left out of the scores; look at its input, and keep the optimiser from a step on this batch"
            )
    return None


def _compiled(module: nn.Module) -> bool:
    return type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None


def layer_of(model: nn.Module, readout: str | nn.Module) -> nn.Module:
    """Returns the layer of this name, or the layer itself. Raises BadInput where the model does not contain it."""
    for name, module in model.named_modules():
        if readout in (name, module) and name:
            return module
    linear = ", ".join(name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name)
    given = f"'{readout}'" if isinstance(readout, str) else f"the {type(readout).__name__} given as readout"
    raise BadInput(f"{given} is not a layer of the {type(model).__name__}; its linear layers: {linear or 'none'}")


def usual_order(model: nn.Module) -> bool | None:
    """Returns whether time is a layer's first dimension, or None where no spiking layer decides.

    Multi-step layers take all steps at once, time first; single-step layers leave time to the loop.
    """
    if any(map(multi_step, model.modules())):
        return True
    return False if spiking_layers(model) else None
