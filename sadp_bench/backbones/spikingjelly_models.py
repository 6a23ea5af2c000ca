"""SpikingJelly's networks, with the suite's neuron and its contract of inputs and logits.

T time steps, B examples, C channels or classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from typing import Any, ClassVar

import torch
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.model.qkformer import QKFormer as QKFormerNetwork
from spikingjelly.activation_based.model.spike_driven_transformer import SpikeDrivenTransformer as SDTNetwork
from spikingjelly.activation_based.model.spikformer import Spikformer as SpikformerNetwork
from torch import Tensor, nn

from sadp_bench.backbones.resnet import LEAST_WIDTH
from sadp_bench.backbones.spiking import LIF, NeuronSettings, check_width
from sadp_bench.backbones.step_by_step import OfStep, StepByStep
from sadp_bench.capture.layers import reset_state
from sadp_bench.core.errors import BadInput
from sadp_bench.core.registry import nearest

PACKAGE = "spikingjelly.activation_based.model"
# Modules of the package with functions that build networks. These end with a linear layer, and can run step by step.
MODULES = (
    "maxformer ms_resnet qkformer sew_resnet spike_driven_transformer spikformer spiking_resnet spiking_vgg".split()
)
# The modules whose networks return the mean of the logits over time.
OF_ALL_STEPS = {"maxformer", "ms_resnet", "qkformer", "spike_driven_transformer"}
# Depth of `QKFormer` -> blocks of its three stages.
STAGES = {3: (1, 1, 1), 4: (1, 1, 2), 10: (1, 2, 7)}


class Adapted(StepByStep):
    """A network of SpikingJelly that takes [T, B, C, H, W] and returns logits, [T, B, C], or their mean over time, [B, C].

    A static image is repeated over T, so the first convolution is computed at every step. A mean over time becomes
    logits of one time step. Their loss `mean` equals that of all steps.

    Args:
        network: SpikingJelly's network. Its last linear layer makes the logits.
        timesteps: Time steps, T. The network uses the first T event frames.

    Attributes:
        mean_over_time: Whether the network returns the mean of the logits. If its steps run one by one, it never does.
    """

    needs_images: ClassVar[bool] = True
    mean_over_time: ClassVar[bool] = False

    def __init__(self, network: nn.Module, timesteps: int) -> None:
        super().__init__()
        functional.set_step_mode(network, "m")
        for module in network.modules():
            if isinstance(neuron := getattr(module, "attn_lif", None), LIF):
                neuron.v_threshold /= 2  # as in the sources: 0.5, and 1 for all other neurons
        self.network, self.timesteps = network, timesteps

    @property
    def readout(self) -> nn.Linear:
        """The layer that makes the logits."""
        return [module for module in self.network.modules() if isinstance(module, nn.Linear)][-1]

    def forward(self, input: Tensor, of_step: OfStep | None = None) -> Tensor:
        """Returns logits_TBC.

        Args:
            input: [B, C, H, W] (static) or [T, B, C, H, W] (events).
            of_step: See `StepByStep.each_step`.
        """
        static = input.dim() == 4
        x_TBCHW = input.expand(self.timesteps, *input.shape) if static else input[: self.timesteps]
        if of_step is not None:
            return self.each_step([partial(self._logits, x[None]) for x in x_TBCHW], of_step)
        reset_state(self.network)  # Its dropout keeps masks between calls.
        return self._logits(x_TBCHW)

    def _logits(self, x_TBCHW: Tensor) -> Tensor:
        logits: Tensor = self.network(x_TBCHW)
        return logits if logits.dim() == 3 else logits[None]


class Spikformer(Adapted):
    """Spikformer 4-384: spiking self-attention on patches of 4x4 pixels; SpikingJelly's network.

    The paper's neuron decays its input: --set backbone.decay_input=true. A step on a CPU takes about ten times as long as
    a ResNet-18's.

    Source: Zhou et al., ICLR 2023.

    Args:
        input_shape: Shape of an image: C, H, W.
        num_classes: Classes, the readout's outputs.
        timesteps: Time steps, T.
        neuron: Settings of all spiking layers. Neurons of an attention have half the threshold.
        width: Channels of a token.
        depth: Blocks of attention and perceptron.
        heads: Attention heads.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        timesteps: int,
        neuron: NeuronSettings,
        *,
        width: int = 384,
        depth: int = 4,
        heads: int = 12,
    ) -> None:
        _check(width, depth, heads, 8)
        channels, height, width_of_image = input_shape
        network = SpikformerNetwork(
            timesteps,
            channels,
            height,
            width_of_image,
            4,
            num_classes,
            width,
            heads,
            depths=depth,
            spiking_neuron=_neuron(neuron),
        )
        super().__init__(network, timesteps)


class SDT(Adapted):
    """Spike-driven Transformer 2-512: masks and additions instead of products of spikes; SpikingJelly's network.

    Two pools make tokens of 4x4 pixels, as in the authors' setting for CIFAR.

    Source: Yao et al., NeurIPS 2023.

    Args:
        input_shape: Shape of an image: C, H, W.
        num_classes: Classes, the readout's outputs.
        timesteps: Time steps, T.
        neuron: Settings of all spiking layers. Neurons of an attention have half the threshold.
        width: Channels of a token.
        depth: Blocks of attention and perceptron.
        heads: Attention heads.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        timesteps: int,
        neuron: NeuronSettings,
        *,
        width: int = 512,
        depth: int = 2,
        heads: int = 8,
    ) -> None:
        _check(width, depth, heads, 8)
        network = _SDTSteps(
            timesteps,
            input_shape[0],
            num_classes,
            width,
            heads,
            depth,
            pooling_stat="0011",
            spiking_neuron=_neuron(neuron),
        )
        super().__init__(network, timesteps)


class QKFormer(Adapted):
    """QKFormer: attention of spikes that is linear in the tokens, in three stages; SpikingJelly's network.

    It has the stem for ImageNet and four pools, so a 32x32 image ends as 2x2 tokens. The authors' network for CIFAR has
    another stem. With depth=10 it is the authors' 10-384.

    Source: Zhou et al., NeurIPS 2024.

    Args:
        input_shape: Shape of an image: C, H, W.
        num_classes: Classes, the readout's outputs.
        timesteps: Time steps, T.
        neuron: Settings of all spiking layers. Neurons of an attention have half the threshold.
        width: Channels of a token of the last stage.
        depth: Blocks of all stages: 3, 4 or 10.
        heads: Attention heads of each stage.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        timesteps: int,
        neuron: NeuronSettings,
        *,
        width: int = 384,
        depth: int = 4,
        heads: int = 6,
    ) -> None:
        _check(width, depth, heads, 8, 4 * heads)
        check_width(width, 8 * LEAST_WIDTH)  # The first shortcut, 1x1 and stride 2, reads an eighth of the channels.
        if depth not in STAGES:
            raise BadInput(f"backbone.depth of qkformer is one of {', '.join(map(str, STAGES))}, not {depth}")
        network = _QKFormerSteps(
            timesteps,
            input_shape[0],
            num_classes,
            width,
            (heads,) * 3,
            STAGES[depth],
            spiking_neuron=_neuron(neuron),
        )
        super().__init__(network, timesteps)


class SpikingJellyModel(Adapted):
    """Any other network of SpikingJelly with a linear readout: spikingjelly:NAME, such as spikingjelly:maxformer_cifar.

    Widths, stem and depth are the library's. The neurons are the suite's. Networks of the modules maxformer, ms_resnet,
    qkformer and spike_driven_transformer return the mean of the logits over time. Most are made for images of 224x224.

    Source: Fang et al., Science Advances 2023 (SpikingJelly).

    Args:
        input_shape: Shape of an image: C, H, W.
        num_classes: Classes, the readout's outputs.
        timesteps: Time steps, T.
        neuron: Settings of all spiking layers. Neurons of an attention have half the threshold.

    Attributes:
        name: Name of the function that builds the network.
    """

    name: ClassVar[str]

    def __init__(
        self, input_shape: tuple[int, int, int], num_classes: int, timesteps: int, neuron: NeuronSettings
    ) -> None:
        build = builders()[self.name]
        takes = inspect.signature(build).parameters
        if "in_channels" not in takes and input_shape[0] != 3:
            raise BadInput(
                f"spikingjelly:{self.name} takes images of 3 channels, not {input_shape[0]}: take another network"
            )
        given = {"T": timesteps, "in_channels": input_shape[0], "cnf": "ADD"}
        options = {name: value for name, value in given.items() if name in takes}
        super().__init__(build(**options, num_classes=num_classes, spiking_neuron=_neuron(neuron)), timesteps)
        self._check_shape(input_shape)

    def _check_shape(self, input_shape: tuple[int, int, int]) -> None:
        """Raises BadInput if the network fails on an image of the shape."""
        training = self.training
        try:
            with torch.no_grad():
                self.eval()(torch.zeros(1, *input_shape), lambda step, logits: logits())
        except (RuntimeError, ValueError) as error:
            side = "x".join(map(str, input_shape))
            raise BadInput(f"spikingjelly:{self.name} can't take inputs of {side}: {error}") from None
        self.train(training)

    @classmethod
    def named(cls, name: str) -> type[SpikingJellyModel]:
        """Returns the class of the network of a name. Raises BadInput for an unknown name."""
        if name not in builders():
            wanted = f"has no network '{name}'" if name else "needs the name of a network, spikingjelly:NAME"
            raise BadInput(f"backbone spikingjelly {wanted}{nearest(name, builders())}")
        return _named(name)


@cache
def _named(name: str) -> type[SpikingJellyModel]:
    mean = builders()[name].__module__.rpartition(".")[2] in OF_ALL_STEPS
    members = {"name": name, "mean_over_time": mean, "__module__": __name__, "__doc__": SpikingJellyModel.__doc__}
    made: Any = type(name, (SpikingJellyModel,), members)
    kind: type[SpikingJellyModel] = made
    return kind


@cache
def builders() -> dict[str, Callable[..., nn.Module]]:
    """Returns SpikingJelly's functions that build a network, by name."""
    modules: list[Any] = [import_module(f"{PACKAGE}.{name}") for name in MODULES]
    return {
        name: getattr(module, name)
        for module in modules
        for name in module.__all__
        if inspect.isfunction(getattr(module, name))
    }


class _SDTSteps(SDTNetwork):
    """SpikingJelly's network without the mean over time before its last layer, which is linear."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits, [T, B, C], of [T, B, C, H, W]."""
        x = self.patch_embed(x)
        for block in self.blocks:
            x = block(x)
        logits_TBC: Tensor = self.head(self.head_lif(x.flatten(3).mean(-1)))
        return logits_TBC


class _QKFormerSteps(QKFormerNetwork):
    """SpikingJelly's network without the mean over time; see `_SDTSteps`."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits, [T, B, C], of [T, B, C, H, W]."""
        for embed, stage in zip(
            (self.patch_embed1, self.patch_embed2, self.patch_embed3),
            (self.stage1, self.stage2, self.stage3),
            strict=True,
        ):
            x = embed(x)
            for block in stage:
                x = block(x)
        logits_TBC: Tensor = self.head(x.flatten(3).mean(-1))
        return logits_TBC


def _neuron(settings: NeuronSettings) -> Callable[..., LIF]:
    """Returns a function that builds a neuron. It ignores the settings that SpikingJelly's networks pass."""
    return lambda **_: LIF(settings)


def _check(width: int, depth: int, heads: int, *divisors: int) -> None:
    """Raises BadInput where a width is no multiple of the heads and of the divisors, or a number is below 1."""
    for name, value in (("depth", depth), ("heads", heads)):
        if value < 1:
            raise BadInput(f"backbone.{name} is at least 1, not {value}")
    check_width(width)
    for divisor in (heads, *divisors):
        if width % divisor:
            raise BadInput(f"backbone.width is a multiple of {divisor} with backbone.heads={heads}, not {width}")
