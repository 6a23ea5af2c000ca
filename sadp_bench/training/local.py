"""Local learning: each block of a network learns from an auxiliary head of its own, and no error passes between blocks.

T time steps, B examples, C channels, H rows, W columns.
"""

from __future__ import annotations

import copy

import torch
from spikingjelly.activation_based import layer
from torch import Tensor, nn

from sadp_bench.backbones.spiking import Backbone
from sadp_bench.capture.heads import NAME, heads_of
from sadp_bench.capture.recorder import Recorder
from sadp_bench.core import distributed
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import WeightedLoss
from sadp_bench.core.precision import widened
from sadp_bench.core.rng import isolated
from sadp_bench.training.backprop import Backprop

POOLED = 2  # rows and columns of a head's input, at most


class Local(Backprop):
    """Local learning: gradients flow through all time steps of a block, and not from block to block.

    Source: the idea is that of Nokland & Eidnes, "Training Neural Networks with Local Error Signals", ICML 2019, and of
    Ma et al. for spiking networks. The heads, their place and their pool are ours.

    A block ends with its neuron, or in a residual network with its addition. Its output is detached before it enters the
    next block. A head makes logits of every time step from the output: an average pool of images to at most 2x2, then a
    linear layer. The run's loss of these logits trains the block and the head. The readout trains the last block. Each
    block goes backward before the next goes forward, so the memory is that of the largest block. See `add_heads`.
    """

    def __call__(
        self, input: Tensor, loss: WeightedLoss, draws: torch.Generator, recorder: Recorder | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Backprop`. Logits and losses are those of the readout."""
        heads = heads_of(self.model)

        def backward(loss_B: Tensor) -> None:
            with torch.autocast(self.device.type, enabled=False):
                loss.total(loss_B).backward()

        def of_block(block: int, output_TBCHW: Tensor) -> Tensor:
            backward(loss.of_examples(widened(heads[block](output_TBCHW))))
            return output_TBCHW.detach()

        # Autocast's cache would keep a weight's copy, and the graph that made it, beyond the weight's block.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False):
            logits_TBC = widened(self.model(input, of_block=of_block))
        # The gradient of `note_loss` stops at this view, so it calls no hooks on the network's tensors.
        if recorder is not None:
            logits_TBC = logits_TBC.view_as(logits_TBC)
        loss_B = loss.of_examples(logits_TBC)
        if recorder is not None:
            recorder.note_loss(logits_TBC, loss_B)
        backward(loss_B)
        distributed.average_gradients(self.model)
        return logits_TBC.detach(), loss_B.detach()


def add_heads(model: nn.Module, input_shape: tuple[int, int, int], num_classes: int, seed: int) -> None:
    """Attaches a head to each block of a network but the last. The network's own weights stay as they are.

    Args:
        model: The network, on the CPU.
        input_shape: C, H, W.
        num_classes: Classes, the last dimension of the logits.
        seed: Seed of the heads' weights.

    Raises:
        BadInput: The network has a single block.
    """
    assert isinstance(model, Backbone)
    shapes = block_shapes(model, input_shape)[:-1]
    if not shapes:
        raise BadInput(
            f"--backprop local needs a backbone of two blocks or more, and the body of {type(model).__name__} has one: "
            "override Backbone.blocks, or take bptt"
        )
    with isolated(seed, "local heads", torch.device("cpu")):
        heads = [_head(shape, num_classes) for shape in shapes]
    model.add_module(NAME, nn.ModuleList(heads))


def block_shapes(model: Backbone, input_shape: tuple[int, int, int]) -> list[torch.Size]:
    """Returns each block's output shape, (C, H, W) or (D,), from a pass of one time step through a copy of the network."""
    copied = copy.deepcopy(model).double().eval()  # A float64 network runs everywhere, and no native kernel takes it.
    shapes = []
    with torch.no_grad():
        x = copied.stem(torch.zeros(1, *input_shape, dtype=torch.float64))[None]
        for block in copied.blocks():
            for module in block:
                x = module(x)
            shapes.append(x.shape[2:])
    return shapes


def _head(shape: torch.Size, num_classes: int) -> nn.Sequential:
    """Returns a head that maps a block's output, (C, H, W) or (D,), to logits [T, B, classes]. It pools images alone."""
    if len(shape) == 1:
        return nn.Sequential(layer.Linear(shape[0], num_classes, step_mode="m"))
    channels, height, width = shape
    side = min(POOLED, height), min(POOLED, width)
    pool = layer.AdaptiveAvgPool2d(side, step_mode="m")
    return nn.Sequential(pool, nn.Flatten(2), layer.Linear(channels * side[0] * side[1], num_classes, step_mode="m"))
