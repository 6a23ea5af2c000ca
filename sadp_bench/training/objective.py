"""The loss that a run trains by."""

from __future__ import annotations

from sadp_bench.core.losses import Loss, loss_of
from sadp_bench.records.spec import Spec


def run_loss(spec: Spec) -> Loss:
    """Returns the loss of a run's examples, with its label smoothing."""
    return loss_of(spec.loss, spec.mse_weight, spec.label_smoothing)
