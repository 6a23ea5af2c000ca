"""Early-bird tickets of channels: the other channels are cut out while the run trains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sadp_bench.core.channels import OTHER_NORMS, keep_channels, named_groups
from sadp_bench.core.errors import BadInput
from sadp_bench.sparsity.base import Masks, magnitude_masks, num_live
from sadp_bench.sparsity.cutting import Cutting
from sadp_bench.sparsity.eb import check_window, settled


class Channels(Cutting):
    """Trains the dense network until its mask of channels settles, cuts the other channels out, and trains on.

    Source: You et al., "Drawing Early-Bird Tickets", ICLR 2020, with the batch norm scales of Liu et al., "Learning
    Efficient Convolutional Networks through Network Slimming", ICCV 2017. The penalty, its size and its use before and
    after the cut are those of the authors' code (GATECH-EIC/Early-Bird-Tickets). In that code the penalty is an option,
    which the authors' scripts set, and acts on all batch norms. Here it acts on those whose channels can be cut.

    Each epoch ends with a mask of the largest |scale| of all channels that can be cut. The largest one of each layer
    always stays. The mask has settled when the newest of `window` masks differs from each of the others in less than
    `distance` of its positions. The channels are cut then, or after the share `latest` of the epochs. Weights,
    statistics and the optimizer's state of the other channels stay. The schedule stays, too. The search is a part of the
    run: it costs no epoch, and the epochs after it are shorter. The input of later layers from a cut channel is lost. If
    the channel's shift alone makes it spike, no bias replaces it.

    Args:
        density: The share of the channels that stay. The layers that are tied by shortcuts do not count.
        early_time: Refused, because no network is trained before the run.
        window: The number of masks that are compared.
        distance: The share of positions below which two masks agree.
        latest: The share of the epochs after which the newest mask is taken, settled or not.
        l1: The factor of the scales' L1 norm in the loss.

    Attributes:
        drawn: The last masks, by the convolutions' names; none after the cut.
        kept: The mask of the cut; empty before it.
        cut_epoch: Epochs before the cut; 0 before it.
        converged: Whether the mask had settled.
    """

    def __init__(
        self,
        density: float = 1.0,
        early_time: bool = False,
        *,
        window: int = 5,
        distance: float = 0.1,
        latest: float = 0.5,
        l1: float = 1e-4,
    ) -> None:
        super().__init__(density, early_time)
        check_window("channels", window, distance)
        if not 0 < latest < 1:
            raise BadInput(f"channels' latest is above 0 and below 1 (a share of the epochs), not {latest:g}")
        if not 0 <= l1 < math.inf:
            raise BadInput(f"channels' l1 is at least 0, not {l1:g}")
        self.window, self.distance, self.latest, self.l1 = window, distance, latest, l1
        self.drawn: list[Masks] = []
        self.kept: Masks = {}
        self.cut_epoch = 0
        self.converged = False
        self._penalty: RemovableHandle | None = None

    def check(self, num_epochs: int, timesteps: int) -> None:
        """Raises BadInput where no epoch would follow the cut."""
        if num_epochs < 2:
            raise BadInput("--sparsity channels cuts after an epoch and trains on: that needs at least 2 epochs, not 1")

    def check_network(self, backbone: type[nn.Module], options: Mapping[str, Any], processes: int) -> None:
        """Raises BadInput where no channels can be cut, or none can be ranked."""
        super().check_network(backbone, options, processes)
        if options.get("norm") == "none":
            raise BadInput(
                "--sparsity channels ranks channels by the scales of batch norms, and backbone.norm=none has none: "
                f"{OTHER_NORMS}"
            )

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Adds the penalty's gradient before every step of the optimizer."""
        super().attach(model, optimizer)
        if self._penalty is not None:
            self._penalty.remove()
            self._penalty = None
        if self.l1:
            scales = list(_scales(model).values())

            def penalise(*_: Any) -> None:
                for scale in scales:
                    if scale.grad is not None:
                        scale.grad.add_(scale.detach().sign(), alpha=self.l1)

            self._penalty = optimizer.register_step_pre_hook(penalise)

    def after_epoch(self, epoch: int, num_epochs: int) -> None:
        """Draws a mask, and cuts if it has settled or it is time. After the cut it does nothing."""
        if self.kept:
            return
        self.drawn = [*self.drawn, channel_masks(_scales(self.model), self.density)][-self.window :]
        self.converged = settled(self.drawn, self.window, self.distance)
        if self.converged or epoch + 1 >= max(1, math.floor(self.latest * num_epochs)):
            self.kept, self.drawn, self.cut_epoch = self.drawn[-1], [], epoch + 1
            self._cut(self.model, self.optimizer)

    def shape(self, model: nn.Module) -> None:
        """See `Sparsity.shape`. Raises ValueError for masks of other channels than the network's."""
        wanted = {name: scale.shape for name, scale in _scales(model).items()}
        for masks in (*self.drawn, *([self.kept] if self.kept else [])):
            found = {name: mask.shape for name, mask in masks.items() if mask.dtype is torch.bool}
            if found != wanted:
                raise ValueError(f"masks of {found}, where the channels are {wanted}")
        if self.kept:
            self._cut(model, None)

    def _cut(self, model: nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
        for name, group in named_groups(model).items():
            keep_channels(group, self.kept[name], optimizer)

    def facts(self) -> dict[str, Any]:
        """Returns the cut's epoch, whether the mask had settled, and the facts of `Cutting`."""
        return {"cut_epoch": self.cut_epoch, "converged": self.converged, **super().facts()}

    def state_dict(self) -> dict[str, Any]:
        """Returns the masks drawn, and the cut."""
        return super().state_dict() | {
            "drawn": list(self.drawn),
            "kept": dict(self.kept),
            "cut_epoch": self.cut_epoch,
            "converged": self.converged,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads the masks drawn, and the cut. `shape` must follow."""
        super().load_state_dict(state)
        self.drawn, self.kept = list(state["drawn"]), dict(state["kept"])
        self.cut_epoch, self.converged = int(state["cut_epoch"]), bool(state["converged"])


def channel_masks(scales: Mapping[str, Tensor], share: float) -> Masks:
    """Returns masks of the globally largest |scale|, and of each layer's largest. The earlier of equal scales is chosen.

    Args:
        scales: The batch norms' scales by layer.
        share: The share of all channels to choose. At least one of each layer is chosen.
    """
    raised = {}
    for name, scale in scales.items():
        size = scale.detach().abs()
        raised[name] = size.index_fill(0, size.argsort(descending=True, stable=True)[:1], math.inf)
    return magnitude_masks(raised, max(len(raised), num_live(sum(map(len, raised.values())), share)))


def _scales(model: nn.Module) -> dict[str, nn.Parameter]:
    norms: dict[str, Any] = {name: group.norm for name, group in named_groups(model).items()}
    return {name: norm.weight for name, norm in norms.items()}
