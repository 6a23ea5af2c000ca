"""An estimate of the memory that a training step needs at least. A run that can't fit is refused before training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sadp_bench.capture.heads import heads_of
from sadp_bench.core.memory import check_room, machine_bytes
from sadp_bench.core.rng import isolated
from sadp_bench.records.fields import STEP_BY_STEP
from sadp_bench.records.spec import Spec
from sadp_bench.runs.building import build_model, weight_bytes
from sadp_bench.runs.material import Material
from sadp_bench.training.backprop import at_precision

PROBED = 2, 4  # examples of a forward pass; batch norm in training mode needs more than one value of each channel
LIKELY = 2000  # bytes that a step keeps per byte of its input; no network of this package keeps more at width 64
LIKELY_WIDTH = 64  # channels


def check_step_fits(spec: Spec, material: Material, model: nn.Module) -> None:
    """Raises BadInput where a training step on the CPU needs more memory than there is.

    The system would kill such a process without a message. A GPU reports the error itself, and its kernels keep less.

    Args:
        spec: The run.
        material: Its data.
        model: Its network.
    """
    room = machine_bytes()
    if spec.device != "cpu" or room is None or _likely_bytes(spec, material) < room:
        return
    try:
        needed = kept_bytes(spec, material, model)
    except Exception:  # Another package's network may refuse the time steps of the probe; then there is no estimate.
        return
    check_room(
        needed,
        f"a training step with batch size {spec.batch_size}, {spec.timesteps:,} time steps and backbone options "
        f"{spec.backbone_options}",
        "lower one of them",
    )


def _likely_bytes(spec: Spec, material: Material) -> float:
    """Returns bytes that a step is unlikely to exceed, from the spec alone."""
    channels, height, width = material.train.input_shape
    input_bytes = 4 * spec.batch_size * spec.timesteps * channels * height * width / spec.processes
    return LIKELY * max(1, spec.backbone_options.get("width", 0) / LIKELY_WIDTH) * input_bytes


def kept_bytes(spec: Spec, material: Material, model: nn.Module) -> int:
    """Returns the bytes that a training step keeps at least: weights, their gradients, and activations.

    Activations are the tensors that autograd saves for the backward pass. Each example adds the same number of bytes, and
    so does each further time step of an example. So forward passes of few examples, at one and at two time steps,
    determine all others. Local learning keeps the activations of the largest block: at least the mean over the blocks.
    """
    (first, fixed), (two, _) = (_probe(spec, material, timesteps) for timesteps in (1, 2))
    steps = 1 if spec.backprop in STEP_BY_STEP else spec.timesteps
    of_example = first + (steps - 1) * (two - first)
    activations = fixed + of_example * spec.batch_size // spec.processes
    return 2 * weight_bytes(model) + activations // (1 + len(heads_of(model)))


def _probe(spec: Spec, material: Material, timesteps: int) -> tuple[int, int]:
    """Returns the bytes that autograd saves in a forward pass: for each example, and for any number of them."""
    model = build_model(spec, material, spec.seed, timesteps)
    dtype = torch.float64 if spec.precision == "fp64" else torch.float32
    events = (timesteps,) if material.dataset.events else ()
    few, more = (
        saved_bytes(model, torch.zeros(*events, batch, *material.train.input_shape, dtype=dtype), spec)
        for batch in PROBED
    )
    of_example = (more - few) // (PROBED[1] - PROBED[0])
    return of_example, few - PROBED[0] * of_example


def saved_bytes(model: nn.Module, input: Tensor, spec: Spec) -> int:
    """Returns the size of the tensors that autograd saves in a training forward pass, without parameters and buffers."""
    known = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    found: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    forward = at_precision(model.train(), spec.precision, input.device)
    with isolated(spec.seed, "rehearsal", input.device), torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        logits_TBC = forward(input)
    assert logits_TBC.requires_grad
    return sum(found.values())
