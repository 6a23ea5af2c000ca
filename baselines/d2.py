"""D2 pruning: difficulty and diversity by messages on a graph of nearest neighbours."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.el2n import error_norm
from baselines.geometry import Geometry, squared_distances
from sadp_bench.pruner import BadInput, Survey

ELEMENTS = 1 << 22  # distances in memory at a time: 32 MB


class D2(Geometry):
    """Keeps difficult examples of difficult neighbourhoods. Each kept example lowers its neighbours' scores. Weight 1.

    Source: Maharana, Yadav & Bansal, "D2 Pruning: Message Passing for Balancing Diversity & Difficulty in Data Pruning",
    ICLR 2024 (arXiv 2310.07931).

    Kind: static.
    Scoring: a tenth of the run and a pass.

    Two examples are neighbours if one is among the k nearest of the other. With difficulties s, forward messages give
    x_i = s_i + sum of exp(-d_ij) s_j over the neighbours j of i. Then the example i of the highest x is kept, and each
    neighbour j gets x_j - exp(-gamma d_ij) x_i, until all are kept. Distances d are Euclidean. These are the formulas of
    the authors' code ("sum", "weighted"). The seed breaks ties of scores. Among equally distant rows, those that follow
    row i in a circle of all rows come first. So equal rows do not all choose the same neighbours.

    Differences from the authors' code: s is EL2N of the early scoring network, and theirs counts forgetting events over a
    whole run. d is in units of the mean d of the graph's edges, because the scale of features depends on the network.
    `relative=false` leaves d as it is. No share of the hardest examples is left out beforehand. The budget is ours.
    gamma and k are those of the authors' example for CIFAR-10. The authors set both by data set and ratio.

    Trap: where the highest x is below 0, the message raises the neighbours' scores. It does so here too.

    The order contains all examples of a block, so all ratios share it. The graph is exact, and takes O(M^2 D) for a block
    of M examples. Its memory is M D float64, 100 MB of distances and some 200 k M bytes. For 50,000 examples of 512
    features, one core needs about 15 seconds in 10 classes, and 7 minutes over all. These times are estimates from one
    class, and from 1,000 rows.

    Args:
        prune_ratio: The share of visits to save.
        features: "readout": the readout's input, averaged over time. "spikes": the spikes of each channel of the last
            spiking layer, summed over time and positions.
        by_class: Whether each class has a graph of its own, and every class keeps the same share.
        neighbours: k, the number of nearest examples to which the graph joins an example.
        gamma: The decay of the messages of kept examples; 0: neighbours at any distance get the whole score.
        relative: Whether distances are divided by the mean distance of the graph's edges.
        score_epochs: The epochs of the scoring network; 0 means a tenth of the run, at least 1.
        score_updates: The updates of the scoring network, in place of epochs; 0 means by epochs.
    """

    display_name = "D2"
    bibtex = r"""
    @inproceedings{maharana2024d2,
      title = {{D2} Pruning: Message Passing for Balancing Diversity \& Difficulty in Data Pruning},
      author = {Maharana, Adyasha and Yadav, Prateek and Bansal, Mohit},
      booktitle = {International Conference on Learning Representations},
      eprint = {2310.07931},
      archiveprefix = {arXiv},
      year = {2024},
    }
    """

    def __init__(
        self,
        prune_ratio: float,
        *,
        features: str = "readout",
        by_class: bool = True,
        neighbours: int = 5,
        gamma: float = 0.1,
        relative: bool = True,
        score_epochs: int = 0,
        score_updates: int = 0,
    ) -> None:
        super().__init__(
            prune_ratio,
            features=features,
            by_class=by_class,
            score_epochs=score_epochs,
            score_updates=score_updates,
        )
        if neighbours < 1:
            raise BadInput(f"D2's neighbours are at least 1, not {neighbours}")
        if not 0 <= gamma < math.inf:
            raise BadInput(f"D2's gamma is at least 0 and finite, not {gamma:g}")
        self.neighbours = neighbours
        self.gamma = gamma
        self.relative = relative

    def order(self, feature_MD: Tensor, index_M: Tensor, survey: Survey) -> Tensor:
        """Returns the block's positions in the order of the greedy choice."""
        difficulty_M = error_norm(survey.logits_NC[index_M].double(), survey.label_N[index_M])
        return passed(graph_of(feature_MD, self.neighbours, self.relative), difficulty_M, self.gamma)


@dataclass(frozen=True, eq=False)
class Graph:
    """The edges of an undirected graph, in both directions, by rising start.

    Attributes:
        start_E: The rows at the edges' starts. Int64.
        end_E: The rows at the edges' ends. Int64.
        distance_E: The edges' lengths. Float64.
    """

    start_E: Tensor
    end_E: Tensor
    distance_E: Tensor


def graph_of(feature_MD: Tensor, neighbours: int, relative: bool) -> Graph:
    """Returns the graph in which each row is joined to its nearest rows, at most M - 1. On the CPU.

    Args:
        feature_MD: The rows.
        neighbours: The number of nearest rows of a row.
        relative: Whether the distances have the mean 1, where they are not all 0.
    """
    number = len(feature_MD)
    neighbours, size = min(neighbours, number - 1), max(1, ELEMENTS // number)
    starts, ends, squares = [], [], []
    for row_R in torch.arange(number, device=feature_MD.device).split(size):
        square_RM = squared_distances(feature_MD[row_R], feature_MD).scatter_(1, row_R[:, None], torch.inf)
        square_Rk, end_Rk = nearest(square_RM, row_R, neighbours)
        starts.append(row_R[:, None].expand_as(end_Rk).flatten().cpu())
        ends.append(end_Rk.flatten().cpu())
        squares.append(square_Rk.flatten().cpu())
    start_E, end_E, distance_E = torch.cat(starts), torch.cat(ends), torch.cat(squares).sqrt()
    # Two rows that are among each other's nearest are joined by one edge.
    low_E, high_E = torch.minimum(start_E, end_E), torch.maximum(start_E, end_E)
    key_E, edge_E = (low_E * number + high_E).unique(return_inverse=True)
    distance_E = torch.zeros(len(key_E), dtype=torch.float64).index_copy_(0, edge_E, distance_E)
    if relative and len(key_E) and float(distance_E.mean()) > 0:
        distance_E = distance_E / distance_E.mean()
    low_E, high_E = key_E // number, key_E % number
    start_E, sorted_E = torch.cat([low_E, high_E]).sort(stable=True)
    return Graph(start_E, torch.cat([high_E, low_E])[sorted_E], distance_E.repeat(2)[sorted_E])


def nearest(square_RM: Tensor, row_R: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    """Returns the squared distances of the rows' nearest rows, and these rows. [R, neighbours].

    Among equally distant rows, those that follow row i in a circle of all rows come first.

    Args:
        square_RM: Squared distances of some rows from all rows; infinite from themselves.
        row_R: The places of these rows among all rows.
        neighbours: The number of nearest rows of a row, at most M - 1.
    """
    square_Rk, end_Rk = square_RM.topk(neighbours, largest=False)
    last_R = square_Rk[:, -1:]
    tied_T = ((square_RM <= last_R).sum(1) > neighbours).nonzero().squeeze(1)  # where topk chose among equal distances
    number = square_RM.shape[1]
    for place_T in tied_T.split(max(1, len(row_R) // 4)):
        square_TM, last_T = square_RM[place_T], last_R[place_T]
        place_M = torch.arange(number, device=square_RM.device)
        turn_TM = (place_M - row_R[place_T][:, None] - 1) % number
        turn_TM = turn_TM.masked_fill(square_TM < last_T, -1).masked_fill(square_TM > last_T, number)
        end_Rk[place_T] = turn_TM.topk(neighbours, largest=False).indices
        square_Rk[place_T] = square_TM.gather(1, end_Rk[place_T])
    return square_Rk, end_Rk


def passed(graph: Graph, difficulty_M: Tensor, gamma: float) -> Tensor:
    """Returns all rows in greedy order: each has the highest score after the messages of those before. Int64, [M]."""
    message_E = (-graph.distance_E).exp() * difficulty_M[graph.end_E]
    score = difficulty_M.index_add(0, graph.start_E, message_E).tolist()
    first = [0, *graph.start_E.bincount(minlength=len(score)).cumsum(0).tolist()]
    ends, weights = graph.end_E.tolist(), (-gamma * graph.distance_E).exp().tolist()
    heap = [(-value, row) for row, value in enumerate(score)]  # has an outdated entry for each former score
    heapq.heapify(heap)
    is_chosen, chosen = [False] * len(score), []
    while heap:
        value, row = heapq.heappop(heap)
        if is_chosen[row] or -value != score[row]:
            continue
        is_chosen[row] = True
        chosen.append(row)
        for edge in range(first[row], first[row + 1]):
            end = ends[edge]
            if not is_chosen[end]:
                score[end] -= weights[edge] * score[row]
                heapq.heappush(heap, (-score[end], end))
    return torch.tensor(chosen)
