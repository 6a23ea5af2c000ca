"""Sparse training from scratch that shrinks the network by the PQ index, a measure of compressibility.

G groups of weights (a layer, or each of its output neurons), M weights in each, d of them live.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.core.errors import BadInput
from sadp_bench.core.precision import widest_dtype
from sadp_bench.sparsity.base import SearchContext, Sparsity, density, laid_out, num_live, prunable
from sadp_bench.sparsity.random_masks import erdos_renyi, random_masks

PQ_GROUPS = ("layer", "neuron")


class PQ(Sparsity):
    """Trains a sparse network from scratch that shrinks by the PQ index: prunes small weights, regrows by momentum.

    Source: Shen, Xu, Pan & Chen, "Improving the Sparse Structure Learning of Spiking Neural Networks from the View of
    Compression Efficiency", ICLR 2025 (arXiv 2502.13572); index and bound: Diao et al., ICLR 2023; densities of the
    layers: Mocanu et al., Nature Communications 2018.

    Training starts with random masks of the density `start`. Every few epochs, but not after the last epoch, each group
    of d live weights loses c d of them, so its density is start (1 - c)^k after k times. c is `rewiring_share`. The
    2 c d smallest weights are pruned, and c d others are regrown from 0 where the gradient's momentum is largest. Once
    `density` is reached, the masks are final. A run that ends before is denser. Masked weights keep the momentum of their
    gradients.

    With `shrink` false, the former rule, the density is constant: as many weights are regrown as pruned. The layers'
    densities then depend on the kernels' sizes too (Evci et al., ICML 2020).

    The source reports densities that fall by the index's c. We infer from them that c is the shrinkage. The source leaves
    some points open, and these choices are ours: p, q and `every`. c d is rounded down. Half as many weights are regrown
    as are pruned, but at most as many as were dead. A weight that was just pruned is not regrown at once.

    Args:
        density: The share of the weights that exist in the end.
        early_time: Refused, because nothing is searched.
        adaptive: Whether c follows the index. False: c is the fixed `share`, a control that the paper does not have.
        share: c if it is not adaptive. For a control, take the `mean_share` in the record of the adaptive run.
        every: Epochs between rewirings; 0: max(1, E / 10).
        per: The groups: "layer" or "neuron" (output channel).
        p: The order of the index's lower norm, above 0 and below q.
        q: The order of the index's higher norm.
        eta: How much worse than all weights the kept weights may be in the bound; at least 0.
        gamma: The factor of c.
        beta: The upper limit of c.
        shrink: Whether the density falls by c; false: it stays.
        start: The density at the start of a network that shrinks, above `density`.

    Attributes:
        shares: c of each rewiring by layer. For a layer of several groups it is their mean, weighted by live weights.
        live: The number of live weights before each rewiring, by layer.
    """

    dense_momentum = True

    def __init__(
        self,
        density: float = 1.0,
        early_time: bool = False,
        *,
        adaptive: bool = True,
        share: float = 0.15,
        every: int = 0,
        per: str = "layer",
        p: float = 0.5,
        q: float = 1.0,
        eta: float = 0.001,
        gamma: float = 1.0,
        beta: float = 0.9,
        shrink: bool = True,
        start: float = 0.5,
    ) -> None:
        super().__init__(density, early_time)
        if density == 1:
            raise BadInput("pq needs a density below 1: choose one, or dense")
        for name, value in (("share", share), ("beta", beta)):
            if not 0 < value <= 1:
                raise BadInput(f"pq's {name} is above 0 and at most 1, not {value:g}")
        if every < 0:
            raise BadInput(f"pq's every is at least 0 (0: a tenth of the run), not {every}")
        if per not in PQ_GROUPS:
            raise BadInput(f"pq's per is one of {', '.join(PQ_GROUPS)}, not '{per}'")
        if not 0 < p < q < math.inf:
            raise BadInput(f"pq's p and q are above 0, p below q, not {p:g} and {q:g}")
        if not (0 <= eta < math.inf and 0 < gamma < math.inf):
            raise BadInput(f"pq's eta is at least 0 and gamma above 0, not {eta:g} and {gamma:g}")
        if not 0 < start <= 1:
            raise BadInput(f"pq's start is above 0 and at most 1 (the share of weights at the start), not {start:g}")
        if shrink and density >= start:
            raise BadInput(
                f"pq shrinks from density {start:g} (sparsity.start) to a lower one, not to {density:g}: lower --density, "
                "raise sparsity.start, or keep the density with --set sparsity.shrink=false"
            )
        self.adaptive, self.share, self.every, self.per = adaptive, share, every, per
        self.p, self.q, self.eta, self.gamma, self.beta = p, q, eta, gamma, beta
        self.shrink, self.start = shrink, start
        self.shares: dict[str, list[float]] = {}
        self.live: dict[str, list[int]] = {}

    def prepare(self, context: SearchContext, model: nn.Module) -> dict[str, Any]:
        """Draws random masks. Returns the epochs between rewirings and the density."""
        shapes = {name: tuple(weight.shape) for name, weight in prunable(model).items()}
        total = sum(map(math.prod, shapes.values()))
        number = num_live(total, self.start if self.shrink else self.density)
        self.masks = random_masks(shapes, erdos_renyi(shapes, number, kernels=not self.shrink), context.seed)
        return {"rewire_every": self._every(context.num_epochs), "density": density(self.masks)}

    def after_epoch(self, epoch: int, num_epochs: int) -> None:
        """Rewires all weights if it is time, unless the network has shrunk to `density`."""
        if epoch + 1 < num_epochs and (epoch + 1) % self._every(num_epochs) == 0 and not self._has_shrunk():
            self._rewire()
            self.apply()

    def facts(self) -> dict[str, Any]:
        """Returns c by layer and rewiring, its mean over all live weights, and the density at the end."""
        live = [number for numbers in self.live.values() for number in numbers]
        shares = [share for of_layer in self.shares.values() for share in of_layer]
        mean = sum(c * d for c, d in zip(shares, live, strict=True)) / max(1, sum(live))
        found = {"shares": self.shares, "mean_share": mean, "density": density(self.masks)}
        return found | ({"reached": self._has_shrunk()} if self.shrink else {})

    def state_dict(self) -> dict[str, Any]:
        """Returns masks, shares and numbers of live weights."""
        return super().state_dict() | {"shares": self.shares, "live": self.live}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads masks, shares and numbers of live weights; states of an earlier version contain masks alone."""
        super().load_state_dict(state)
        self.shares = {name: list(shares) for name, shares in state.get("shares", {}).items()}
        self.live = {name: list(numbers) for name, numbers in state.get("live", {}).items()}

    def _every(self, num_epochs: int) -> int:
        return self.every or max(1, round(num_epochs / 10))

    def _excess(self) -> int:
        """Returns the number of live weights above the final number."""
        total = sum(mask.numel() for mask in self.masks.values())
        return sum(int(mask.sum()) for mask in self.masks.values()) - num_live(total, self.density)

    def _has_shrunk(self) -> bool:
        return self.shrink and self._excess() <= 0

    @torch.no_grad()
    def _rewire(self) -> None:
        """Chooses new masks and notes each layer's share."""
        groups = {name: self._groups(name, mask) for name, mask in self.masks.items()}
        shares = {name: self._share(weight_GM, live_GM) for name, (weight_GM, _, live_GM) in groups.items()}
        lost = {name: share_of(shares[name], live_GM.sum(1)) for name, (_, _, live_GM) in groups.items()}
        if self.shrink:
            lost = dict(zip(lost, shortened(list(lost.values()), self._excess()), strict=True))
        masks = {}
        for name, (weight_GM, momentum_GM, live_GM) in groups.items():
            live_G, lost_G = live_GM.sum(1), lost[name]
            dead_G = live_GM.shape[1] - live_G
            if self.shrink:
                grown_G = lost_G.minimum(dead_G).minimum(live_G - lost_G)
                new_GM = exchange(weight_GM, momentum_GM, live_GM, lost_G + grown_G, grown_G)
            else:
                new_GM = rewire(weight_GM, momentum_GM, live_GM, shares[name])
            weight = self.model.get_parameter(name)
            masks[name] = laid_out(new_GM.view(weight.shape), weight)
            of_layer = float((shares[name] * live_G).sum() / live_G.sum().clamp_min(1))
            self.shares[name] = [*self.shares.get(name, []), of_layer]
            self.live[name] = [*self.live.get(name, []), int(live_G.sum())]
        self.masks = masks

    def _groups(self, name: str, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns a layer's weights, momenta and mask, group by group. [G, M] each."""
        weight = self.model.get_parameter(name)
        groups = len(weight) if self.per == "neuron" else 1
        found = momentum(self.optimizer, weight)
        return weight.reshape(groups, -1), found.reshape(groups, -1), mask.reshape(groups, -1)

    def _share(self, weight_GM: Tensor, live_GM: Tensor) -> Tensor:
        live_G = live_GM.sum(1)
        if not self.adaptive:
            return torch.full_like(live_G, self.share, dtype=widest_dtype(live_G.device))
        bound_G = keep_bound(pq_index(weight_GM, self.p, self.q, live_GM), live_G, self.p, self.q, self.eta)
        return rewiring_share(bound_G, live_G, self.gamma, self.beta)


def pq_index(weight_GM: Tensor, p: float, q: float, live_GM: Tensor | None = None) -> Tensor:
    """Returns I = 1 - d^(1/q - 1/p) ||w||_p / ||w||_q over the last dimension's d live weights. Float64, [G].

    I is 0 where all weights have one size, and largest, 1 - d^(1/q - 1/p), where all but one are 0. It is computed as
    1 - the ratio of the power means, which does not depend on the scale. Without weights, or where all are 0, it is
    0; the source leaves this open.

    Source: Diao et al., "Pruning Deep Neural Networks from a Sparsity Perspective", ICLR 2023.
    """
    live_GM = torch.ones_like(weight_GM, dtype=torch.bool) if live_GM is None else live_GM
    size_GM = weight_GM.detach().to(widest_dtype(weight_GM.device)).abs() * live_GM
    largest_G1 = size_GM.amax(-1, keepdim=True)
    size_GM = torch.where(largest_G1 > 0, size_GM / largest_G1, live_GM.to(size_GM.dtype))
    live_G = live_GM.sum(-1).clamp_min(1)
    mean_p_G, mean_q_G = (((size_GM**power).sum(-1) / live_G) ** (1 / power) for power in (p, q))
    return torch.where(mean_q_G > 0, 1 - mean_p_G / mean_q_G, 0.0).clamp_min(0)


def keep_bound(index_G: Tensor, live_G: Tensor, p: float, q: float, eta: float) -> Tensor:
    """Returns m = d (1 + eta)^(-q / (q - p)) (1 - I)^(p q / (q - p)), the number of the d weights that must stay. [G].

    Source: Diao et al., ICLR 2023 (the lower bound of retained parameters).
    """
    return live_G * (1 + eta) ** (-q / (q - p)) * (1 - index_G) ** (p * q / (q - p))


def rewiring_share(bound_G: Tensor, live_G: Tensor, gamma: float, beta: float) -> Tensor:
    """Returns c = gamma (1 - m / d) within [0, beta], the share of the live weights to rewire. [G]."""
    return (gamma * (1 - bound_G / live_G.clamp_min(1))).clamp(0, beta)


def share_of(share_G: Tensor, live_G: Tensor) -> Tensor:
    """Returns floor(c d), corrected for the rounding of floats. [G], int64."""
    return (share_G.to(widest_dtype(share_G.device)) * live_G + 1e-9).floor().long()


def shortened(lost: Sequence[Tensor], most: int) -> list[Tensor]:
    """Returns the numbers of weights to lose, lowered in proportion so that their sum is at most `most`.

    Largest remainders decide the rounding, of equal ones the first.

    Args:
        lost: The weights to lose in each layer's groups, [G] each.
        most: The largest sum, at least 0.
    """
    lost_A = torch.cat(list(lost)).cpu()
    total = int(lost_A.sum())
    if total > most:
        floor_A, rest_A = lost_A * most // total, lost_A * most % total
        left = most - int(floor_A.sum())
        floor_A[rest_A.argsort(descending=True, stable=True)[:left]] += 1
        lost_A = floor_A
    parts = lost_A.split([len(part) for part in lost])
    return [part.to(like.device) for part, like in zip(parts, lost, strict=True)]


def rewire(weight_GM: Tensor, momentum_GM: Tensor, live_GM: Tensor, share_G: Tensor) -> Tensor:
    """Returns the new mask, as dense as the old one in each group. [G, M].

    The floor(c d) smallest |w| are pruned, but at most as many as are dead. As many dead weights with the largest
    |momentum| grow. Ties go by position.
    """
    live_G = live_GM.sum(1)
    num_G = share_of(share_G, live_G).minimum(live_GM.shape[1] - live_G)
    return exchange(weight_GM, momentum_GM, live_GM, num_G, num_G)


def exchange(weight_GM: Tensor, momentum_GM: Tensor, live_GM: Tensor, pruned_G: Tensor, grown_G: Tensor) -> Tensor:
    """Returns the mask without each group's smallest |w| and with the dead weights of the largest |momentum|. [G, M].

    Args:
        weight_GM: The weights.
        momentum_GM: Their gradients' momenta.
        live_GM: The old mask.
        pruned_G: Weights to prune, at most the live ones.
        grown_G: Weights to grow, at most the dead ones.
    """
    pruned_GM = lowest(weight_GM.abs().masked_fill(~live_GM, math.inf), pruned_G)
    grown_GM = lowest((-momentum_GM.abs()).masked_fill(live_GM, math.inf), grown_G)
    return live_GM & ~pruned_GM | grown_GM


def lowest(value_GM: Tensor, num_G: Tensor) -> Tensor:
    """Returns the mask of each row's `num_G` lowest values. Ties go by position. [G, M]."""
    rank_GM = value_GM.argsort(dim=1, stable=True).argsort(dim=1)
    return rank_GM < num_G[:, None]


def momentum(optimizer: torch.optim.Optimizer, weight: Tensor) -> Tensor:
    """Returns the gradient's running mean. Its name depends on the optimizer. Raises BadInput if there is none."""
    state = optimizer.state.get(weight, {})
    found = state.get("momentum_buffer", state.get("exp_avg"))
    if found is None:
        raise BadInput(f"pq regrows weights by the gradient's momentum, and {type(optimizer).__name__} keeps none")
    return found
