"""OrderDP: the highest losses of a random subset."""

from __future__ import annotations

import torch

from sadp_bench.pruner import BadInput, Observation, Pruner, ScoringContext, Selection, unweighted
from sadp_bench.sampling import ranked

CANDIDATES = 0.8  # share of the examples; the authors' run on CIFAR takes 0.8 x 0.375


class OrderDP(Pruner):
    """Draws candidates at random in each epoch, and keeps those of the highest last loss. Weight 1.

    Source: Jin et al., "OrderDP: A Theoretically Guaranteed Lossless Dynamic Data Pruning Framework", ICLR 2026
    (arXiv 2606.08574).

    Kind: dynamic.
    Scoring: none.

    An epoch draws s N candidates uniformly without replacement, and keeps the share q of them that has the highest last
    training loss. Unseen examples have an infinite loss. The seed breaks ties. An example's chance depends on the rank of
    its loss alone. So training minimises another loss, with less weight on easy examples.

    The budget is ours: s q = 1 - ratio, and the K of an epoch is exact. The paper sets s and q. Known traps of the public
    code: It starts at a loss of 3, so seen examples with a higher loss come before unseen ones. It replaces a method of
    DataLoader, and seeds NumPy globally with the number of the epoch.

    Args:
        prune_ratio: The share of visits to save.
        candidates: s, from 1 - ratio (all candidates are kept: `random` in effect) to 1 (the highest losses of all);
            0 means 0.8, or 1 - ratio where that is more.
    """

    display_name = "OrderDP"
    bibtex = """
    @inproceedings{jin2026orderdp,
      title = {{OrderDP}: A Theoretically Guaranteed Lossless Dynamic Data Pruning Framework},
      author = {Jin and others},
      booktitle = {International Conference on Learning Representations},
      eprint = {2606.08574},
      archiveprefix = {arXiv},
      year = {2026},
    }
    """
    takes_budget = True

    def __init__(self, prune_ratio: float, *, candidates: float = 0.0) -> None:
        super().__init__(prune_ratio)
        if candidates and not 1 - prune_ratio - 1e-9 <= candidates <= 1:
            raise BadInput(
                f"orderdp's candidates is 0 (the larger of {CANDIDATES:g} and 1 - ratio), or from 1 - ratio = "
                f"{1 - prune_ratio:g} to 1, not {candidates:g}"
            )
        self.candidates = candidates
        self.loss_N = torch.empty(0)

    def prepare(self, context: ScoringContext) -> None:
        """Sets all losses to infinity."""
        super().prepare(context)
        self.loss_N = torch.full((context.num_examples,), torch.inf, device=context.device)

    def observe(self, seen: Observation) -> None:
        """Keeps each example's last loss."""
        self.loss_N[seen.index_B] = seen.loss_B.to(self.loss_N.dtype)

    def select(self, epoch: int) -> Selection:
        """Returns the K highest losses of the epoch's candidates."""
        num_kept, generator = self.num_kept(epoch), self.generator(epoch)
        share = self.candidates or max(CANDIDATES, 1 - self.prune_ratio)
        num_candidates = max(num_kept, round(share * self.num_examples))
        candidates = torch.randperm(self.num_examples, generator=generator)[:num_candidates]
        return unweighted(candidates[ranked(self.loss_N.cpu()[candidates], generator)[:num_kept]])
