"""GRAD-MATCH: examples whose weighted last-layer gradients sum to the full gradient."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from baselines.coreset import ROWS, Coreset, Gradients, joined, shares
from sadp_bench.pruner import BadInput, Survey

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
BY = ("class", "batch")
MOST_STEPS = 3  # steps of the pursuit for each example to choose; few examples are ever removed
FORMED = 1 << 24  # elements of the batches' gradients at a time: 128 MB, twice while they are stacked
LEAST = 1e-10  # share of the highest product with the target; a product below it is rounding


class GradMatch(Coreset):
    """Keeps examples whose weighted last-layer gradients sum to the gradient of their class. Weights: least squares.

    Source: Killamsetty et al., "GRAD-MATCH: Gradient Matching based Data Subset Selection for Efficient Deep Model
    Training", ICML 2021.

    Kind: static.
    Scoring: a tenth of the run and a pass.

    Let g_i = e_i x [f_i, 1] (see `Gradients`), and b the sum of g_i over a class. Orthogonal matching pursuit minimises
    ||sum of w_j g_j over S - b||^2 + l2 m ||w||^2 with w >= 0. It adds the example of the highest g_j . (residual). Then it
    solves for all weights of S again (non-negative least squares). m is the mean of ||g_i||^2 over the class.

    With by="batch" the pursuit chooses fixed random mini-batches by their mean gradients, over all classes (the paper's PB
    variant). Then each example has the weight of its batch. Training shuffles the examples of all chosen batches, and the
    paper trains on the batches as they are.

    The factor m and the scale of the weights are ours. In the paper the penalty is l2 ||w||^2, and the weights keep their
    size. A class that is learnt well has short gradients, and the paper's penalty removes nearly all its weight. With m
    the penalty is the same for every class. The weights of each class are scaled to the mean 1, so that every class counts
    by its number of examples.

    An example whose weight becomes 0 leaves S, and another can take its place. In the authors' code it still counts in the
    budget. The pursuit may end before it has K examples: no further example has a positive product with the residual, or
    3 K steps are over. The rest is drawn at random with weight 1 before scaling, as in the authors' code. DeepCore (Guo et
    al. 2022) keeps fewer than K then. Its weights may be negative until the last step, and its l2 is 1. Here the budget is
    exact, and every class keeps the same share. The subset is chosen once, and the paper chooses anew every 20 epochs.

    A block of M examples takes 8 (M^2 + M K + K^2) bytes. The choice of half of 1,000 takes about half a second of one core.
    A larger class is cut into equal blocks at random, because the time of a block grows with M^3. With by="batch", M is the
    number of all batches. Their gradients take at most 256 MB or 16 M (D + 1) bytes, the larger of the two. ImageNet has
    10,000 batches of 128: about 2 GB, and hours of one core.

    Args:
        prune_ratio: The share of visits to save.
        by: What is chosen: examples of each "class", or mini-batches of all classes ("batch").
        l2: The penalty of the squared weights, above 0, in units of m. The paper's 0.5 has no unit.
        batch: The most examples of a mini-batch, with by="batch".
        features: "readout": the readout's input, averaged over time. "spikes": the spikes of each channel of the last
            spiking layer, summed over time and positions.
        block: The most examples of a block, with by="class".
        score_epochs: The epochs of the scoring network; 0 means a tenth of the run, at least 1.
        score_updates: The updates of the scoring network, in place of epochs; 0 means by epochs.
    """

    display_name = "Grad-Match"
    bibtex = """
    @inproceedings{killamsetty2021gradmatch,
      title = {{GRAD-MATCH}: Gradient Matching based Data Subset Selection for Efficient Deep Model Training},
      author = {Killamsetty, Krishnateja and Sivasubramanian, Durga and Ramakrishnan, Ganesh and De, Abir and
        Iyer, Rishabh},
      booktitle = {International Conference on Machine Learning},
      year = {2021},
    }
    """

    def __init__(
        self,
        prune_ratio: float,
        *,
        by: str = "class",
        l2: float = 0.5,
        batch: int = 128,
        features: str = "readout",
        block: int = 1000,
        score_epochs: int = 0,
        score_updates: int = 0,
    ) -> None:
        super().__init__(prune_ratio, features=features, score_epochs=score_epochs, score_updates=score_updates)
        if by not in BY:
            raise BadInput(f"gradmatch's by is {' or '.join(BY)}, not '{by}'")
        if not 0 < l2 < math.inf:
            raise BadInput(f"gradmatch's l2 is above 0 and finite, not {l2:g}")
        if batch < 1:
            raise BadInput(f"gradmatch's batch is at least 1 example, not {batch}")
        if block < 2:
            raise BadInput(f"gradmatch's block is at least 2 examples, not {block}")
        self.by = by
        self.l2 = l2
        self.batch = batch
        self.block = block

    def choose(self, gradients: Gradients, survey: Survey, num_kept: int) -> tuple[Tensor, Tensor]:
        """Returns the examples of each block, or of the batches, by falling weight."""
        if self.by == "batch":
            return self._batches(gradients, survey.label_N, num_kept)
        blocks = self.blocks(survey.label_N, self.block)
        chosen, weights = [], []
        for index_M, num_of_block in zip(blocks, shares(blocks, num_kept), strict=True):
            position_k, weight_k = pursuit(products(gradients.of(index_M)), num_of_block, self.l2)
            chosen.append(position_k)
            weights.append(weight_k / weight_k.mean())
        return joined(blocks, chosen, weights)

    def _batches(self, gradients: Gradients, label_N: Tensor, num_kept: int) -> tuple[Tensor, Tensor]:
        """Returns the first K examples of enough batches."""
        batches = self.blocks(label_N, self.batch, by_class=False)
        num_chosen = -(-num_kept // min(len(index_b) for index_b in batches))
        chosen, weights = pursuit(products_of_means(gradients, batches), min(num_chosen, len(batches)), self.l2)
        parts = [batches[place] for place in chosen.tolist()]
        weight_M = weights.repeat_interleave(torch.tensor([len(part) for part in parts]))
        return torch.cat(parts)[:num_kept], weight_M[:num_kept]


def products(gradients: Gradients) -> Array:
    """Returns the inner products of gradients. [M, M]."""
    result_MM = torch.empty(len(gradients), len(gradients), dtype=torch.float64)
    for row_m in torch.arange(len(gradients)).split(ROWS):
        result_MM[row_m] = gradients.of(row_m).inner(gradients)
    found: Array = result_MM.numpy()
    return found


def products_of_means(gradients: Gradients, batches: list[Tensor]) -> Array:
    """Returns the inner products of the batches' mean gradients, summed over parts of the classes. [B, B]."""
    result_BB = torch.zeros(len(batches), len(batches), dtype=torch.float64)
    num_classes = max(1, FORMED // (len(batches) * gradients.input_ND.shape[1]))
    for error_Nc in gradients.error_NC.split(num_classes, dim=1):
        part = Gradients(error_Nc, gradients.input_ND)
        mean_BP = torch.stack([part.of(index_b).sum().flatten() / len(index_b) for index_b in batches])
        result_BB.addmm_(mean_BP, mean_BP.T)
    found: Array = result_BB.numpy()
    return found


def pursuit(product_MM: Array, num_chosen: int, l2: float) -> tuple[Tensor, Tensor]:
    """Returns the positions whose weighted sum matches the sum of all, by falling weight, and the weights.

    If the pursuit ends early, the first other rows follow with weight 1.

    Args:
        product_MM: The inner products.
        num_chosen: The number of positions, at most M.
        l2: The penalty of the squared weights, relative to the mean of the squared norms.
    """
    target_M = product_MM.sum(1)
    chosen = _Chosen(product_MM, target_M, num_chosen, l2 * float(product_MM.diagonal().mean()))
    open_M = np.ones(len(target_M), dtype=bool)
    least = LEAST * float(np.abs(target_M).max(initial=0.0))
    for _ in range(MOST_STEPS * num_chosen):
        if chosen.count == num_chosen:
            break
        residual_M = np.where(open_M, chosen.residual(), -math.inf)
        best = int(residual_M.argmax())
        if residual_M[best] <= least:
            break
        open_M[best] = False
        open_M[chosen.add(best)] = True
    place_k, weight_k = chosen.places[: chosen.count], chosen.weights[: chosen.count]
    falling_k = np.lexsort((place_k, -weight_k))
    fill = open_M.nonzero()[0][: num_chosen - chosen.count]
    places = np.concatenate([place_k[falling_k], fill])
    return torch.from_numpy(places), torch.from_numpy(np.concatenate([weight_k[falling_k], np.ones(len(fill))]))


class _Chosen:
    """The chosen examples with their non-negative weights, and the inverse of their products plus l2.

    Adding and removing an example takes O(count^2) by the inverse of a matrix in blocks.
    """

    def __init__(self, product_MM: Array, target_M: Array, capacity: int, l2: float) -> None:
        self.product_MM, self.target_M, self.l2 = product_MM, target_M, l2
        self.count = 0
        self.places = np.zeros(capacity, dtype=np.int64)
        self.weights = np.zeros(capacity)
        self.rows = np.zeros((capacity, len(target_M)))  # rows of the products, next to each other for speed
        self.inverse = np.zeros((capacity, capacity))

    def residual(self) -> Array:
        """Returns the product of each example with the difference between the sum of all and that of the chosen."""
        found: Array = self.target_M - self.weights[: self.count] @ self.rows[: self.count]
        return found

    def add(self, place: int) -> list[int]:
        """Adds an example and solves for all weights. Returns the places that left, because their weights became 0."""
        n = self.count
        self.places[n], self.rows[n] = place, self.product_MM[place]
        across = self.rows[n, self.places[:n]]
        solved = self.inverse[:n, :n] @ across
        rest = self.rows[n, place] + self.l2 - across @ solved
        self.inverse[:n, :n] += np.outer(solved, solved / rest)
        self.inverse[n, :n] = self.inverse[:n, n] = -solved / rest
        self.inverse[n, n] = 1 / rest
        self.weights[n] = 0.0
        self.count += 1
        return self._solve()

    def _solve(self) -> list[int]:
        """Moves the weights to the least squares of the chosen. Examples whose weight would pass 0 are removed.

        Source: the inner loop of Lawson & Hanson, "Solving Least Squares Problems", 1974.
        """
        left: list[int] = []
        while True:
            n = self.count
            weight = self.weights[:n]
            solution = self.inverse[:n, :n] @ self.target_M[self.places[:n]]
            if n == 0 or solution.min() > 0:
                weight[:] = solution
                return left
            negative = np.flatnonzero(solution <= 0)
            step = weight[negative] / (weight[negative] - solution[negative])
            weight += step.min() * (solution - weight)
            gone = int(negative[step.argmin()])
            left.append(int(self.places[gone]))
            self._remove(gone)

    def _remove(self, at: int) -> None:
        """Removes the example at a position; the last one takes its place."""
        last = self.count - 1
        for of in (self.places, self.weights, self.rows):
            of[at] = of[last]
        inverse = self.inverse[: last + 1, : last + 1]
        inverse[[at, last]] = inverse[[last, at]]
        inverse[:, [at, last]] = inverse[:, [last, at]]
        inverse[:last, :last] -= np.outer(inverse[:last, last], inverse[last, :last] / inverse[last, last])
        self.count = last
