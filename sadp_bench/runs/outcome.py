"""Results of a trained network: accuracies, firing rates and operations of an inference, and visits of each class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.capture.element_counts import element_counts
from sadp_bench.capture.synaptic_ops import MULTIPLY_ACCUMULATE_JOULES, operations
from sadp_bench.records.spec import Spec
from sadp_bench.runs.material import Material
from sadp_bench.training import evaluation
from sadp_bench.training.data import Loader

MAX_COUNTED = 512  # held examples whose synaptic operations are counted; the count runs each layer once more


def of_inference(
    model: nn.Module, held: Loader, material: Material, spec: Spec, masks: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Returns the record's entries for inference on the held examples.

    Args:
        model: The trained network.
        held: The held examples.
        material: The run's data, with the names of the classes.
        spec: The run.
        masks: The live connections, by the weights' names.
    """
    class_names = material.dataset.class_names
    by_step = evaluation.StepAccuracy(spec.timesteps, held.device)
    by_class = evaluation.ClassAccuracy(len(class_names), held.device)
    return {
        "firing_rate": evaluation.firing_rates(model, held, spec.precision, (by_step, by_class)),
        "accuracy_by_step": by_step.shares(len(held)),
        "class_accuracy": by_class.shares(class_names),
        "operations": counted_operations(model, held, masks),
    }


def counted_operations(model: nn.Module, held: Loader, masks: Mapping[str, Tensor]) -> dict[str, float]:
    """Returns the operations and the energy of one inference, synaptic and other, by three rules."""
    index_n = torch.arange(min(MAX_COUNTED, len(held)))
    batches = (held.input(index_B) for index_B in index_n.split(evaluation.EVALUATION_BATCH))
    counted = operations(model, batches, masks)
    neurons, norms = element_counts(model, held.input(index_n[:1]))
    rules = {"": counted, "rate_": counted.by_rate, "effective_": counted.effective}
    names = ("accumulates", "multiply_accumulates", "energy_joules")
    by_rule = {f"{rule}{name}": float(getattr(count, name)) for rule, count in rules.items() for name in names}
    others = {"neuron_updates": neurons, "normalised": norms}
    return by_rule | others | {"other_energy_joules": MULTIPLY_ACCUMULATE_JOULES * (neurons + norms)}


def class_visits(material: Material, visits_N: Tensor) -> dict[str, float]:
    """Returns the mean number of visits of each class that has examples, by its name."""
    label_N, visits_N = material.train.label_N, visits_N.double()
    names = material.dataset.class_names
    return {name: float(visits_N[label_N == c].mean()) for c, name in enumerate(names) if bool((label_N == c).any())}
