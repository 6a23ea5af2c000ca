"""Sparse training from scratch, rewired as far as the PQ index finds the live weights compressible.

G groups of weights (a layer, or each of its output neurons), M weights in each, d of them live.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.core.errors import BadInput
from sadp_bench.core.precision import widest_dtype
from sadp_bench.core.rng import stream
from sadp_bench.sparsity.base import Masks, SearchContext, Sparsity, density, laid_out, num_live, prunable

PQ_GROUPS = ("layer", "neuron")


class PQ(Sparsity):
    """Trains a sparse network from scratch and rewires it by the PQ index: prunes small weights, regrows by momentum.

    Source: Shen, Xu, Pan & Chen, "Improving the Sparse Structure Learning of Spiking Neural Networks from the View of
    Compression Efficiency", ICLR 2025 (arXiv 2502.13572); index and bound: Diao et al., ICLR 2023; densities of the
    layers: Mocanu et al., Nature Communications 2018, with kernel sizes as in Evci et al., ICML 2020.

    Training starts with random masks. Every few epochs, but not after the last epoch, the c d smallest of each
    group's d live weights are pruned, and as many others are regrown from 0 where the gradient's momentum is largest.
    So each group's density is constant. c is `rewiring_share`. Masked weights keep the momentum of their gradients.

    The paper leaves open, and we chose: p, q and `every`; c d is rounded down; no more weights are pruned than others
    are dead; a weight that was just pruned is not regrown at once.

    Args:
        density: The share of the weights that exist.
        early_time: Refused, because nothing is searched.
        adaptive: False: c is the fixed `share`, whatever the index. This control is missing in the paper.
        share: c where it is not adaptive.
        every: Epochs between rewirings; 0: max(1, E / 10).
        per: The groups: "layer" or "neuron" (output channel).
        p: Of the index, 0 < p < q.
        q: Of the index.
        eta: How much worse the kept weights may approximate all.
        gamma: The scale of c.
        beta: The cap of c.
    """

    dense_momentum = True

    def __init__(
        self,
        density: float = 1.0,
        early_time: bool = False,
        *,
        adaptive: bool = True,
        share: float = 0.3,
        every: int = 0,
        per: str = "layer",
        p: float = 0.5,
        q: float = 1.0,
        eta: float = 0.001,
        gamma: float = 1.0,
        beta: float = 0.9,
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
        self.adaptive, self.share, self.every, self.per = adaptive, share, every, per
        self.p, self.q, self.eta, self.gamma, self.beta = p, q, eta, gamma, beta

    def prepare(self, context: SearchContext, model: nn.Module) -> dict[str, Any]:
        """Draws random masks. Returns the epochs between rewirings and the density."""
        shapes = {name: tuple(weight.shape) for name, weight in prunable(model).items()}
        total = sum(map(math.prod, shapes.values()))
        self.masks = random_masks(shapes, erdos_renyi(shapes, num_live(total, self.density)), context.seed)
        return {"rewire_every": self._every(context.num_epochs), "density": density(self.masks)}

    def after_epoch(self, epoch: int, num_epochs: int) -> None:
        """Rewires all weights if it is time."""
        if epoch + 1 < num_epochs and (epoch + 1) % self._every(num_epochs) == 0:
            self.masks = {name: self._rewired(name, mask) for name, mask in self.masks.items()}
            self.apply()

    def _every(self, num_epochs: int) -> int:
        return self.every or max(1, round(num_epochs / 10))

    @torch.no_grad()
    def _rewired(self, name: str, mask: Tensor) -> Tensor:
        weight = self.model.get_parameter(name)
        groups = len(weight) if self.per == "neuron" else 1
        weight_GM, live_GM = weight.reshape(groups, -1), mask.reshape(groups, -1)
        momentum_GM = momentum(self.optimizer, weight).reshape(groups, -1)
        return laid_out(
            rewire(weight_GM, momentum_GM, live_GM, self._share(weight_GM, live_GM)).view(weight.shape), weight
        )

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


def rewire(weight_GM: Tensor, momentum_GM: Tensor, live_GM: Tensor, share_G: Tensor) -> Tensor:
    """Returns the new mask, as dense as the old one in each group. [G, M].

    The floor(c d) smallest |w| are pruned, but no more than others were dead, and as many dead weights with the largest
    |momentum| grow. Ties go by position.
    """
    live_G = live_GM.sum(1)
    dead_G = live_GM.shape[1] - live_G
    num_G = (share_G.to(widest_dtype(share_G.device)) * live_G + 1e-9).floor().long().minimum(dead_G)
    pruned_GM = lowest(weight_GM.abs().masked_fill(~live_GM, math.inf), num_G)
    grown_GM = lowest((-momentum_GM.abs()).masked_fill(live_GM, math.inf), num_G)
    return live_GM & ~pruned_GM | grown_GM


def lowest(value_GM: Tensor, num_G: Tensor) -> Tensor:
    """Returns the mask of each row's `num_G` lowest values. Ties go by position. [G, M]."""
    rank_GM = value_GM.argsort(dim=1, stable=True).argsort(dim=1)
    return rank_GM < num_G[:, None]


def momentum(optimizer: torch.optim.Optimizer, weight: Tensor) -> Tensor:
    """Returns the gradient's running mean, which optimizers keep under several names."""
    state = optimizer.state.get(weight, {})
    found = state.get("momentum_buffer", state.get("exp_avg"))
    if found is None:
        raise BadInput(f"pq regrows weights by the gradient's momentum, and {type(optimizer).__name__} keeps none")
    return found


def erdos_renyi(shapes: Mapping[str, Sequence[int]], num_live: int) -> dict[str, int]:
    """Returns the number of live weights of each layer, `num_live` in all.

    They are in proportion to the sum of the shape's numbers (inputs, outputs, kernel sides), so that large layers are
    the sparsest, and at most the layer's size. Largest remainders decide the rounding.

    Source: Mocanu et al., Nature Communications 2018; with kernel sizes ("ERK") Evci et al., ICML 2020.
    """
    size = {name: math.prod(shape) for name, shape in shapes.items()}
    assert 0 <= num_live <= sum(size.values())
    share = {name: Fraction(size[name]) for name in shapes}
    open_layers = list(shapes)
    while open_layers:
        left = num_live - sum(size[name] for name in shapes if name not in open_layers)
        scale = Fraction(left, sum(sum(shapes[name]) for name in open_layers))
        share |= {name: scale * sum(shapes[name]) for name in open_layers}
        full = [name for name in open_layers if share[name] > size[name]]
        share |= {name: Fraction(size[name]) for name in full}
        open_layers = [name for name in open_layers if name not in full] if full else []
    number = {name: math.floor(exact) for name, exact in share.items()}
    by_remainder = sorted(shapes, key=lambda name: number[name] - share[name])
    for name in by_remainder[: num_live - sum(number.values())]:
        number[name] += 1
    return number


def random_masks(shapes: Mapping[str, Sequence[int]], number: Mapping[str, int], seed: int) -> Masks:
    """Returns random masks with `number` live weights of each layer, drawn without replacement."""
    masks = {}
    for name, shape in shapes.items():
        size = math.prod(shape)
        chosen = torch.randperm(size, generator=stream(seed, f"sparsity {name}"))[: number[name]]
        masks[name] = torch.zeros(size, dtype=torch.bool).index_fill_(0, chosen, True).view(*shape)
    return masks
