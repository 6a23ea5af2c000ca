"""DivBS: diverse batches, by orthogonal gradients of the readout."""

from __future__ import annotations

import torch
from torch import Tensor

from sadp_bench.pruner import Candidates, Selection, Signal, WithinBatch, unweighted

SPENT = 1e-6  # share of the squared gradient; a residual below it is rounding


class DivBS(WithinBatch):
    """Trains on the candidates whose readout gradients span most of the batch's gradient. Weight 1.

    Source: Hong et al., "Diversified Batch Selection for Training Acceleration", ICML 2024.

    Kind: within the batch.
    Scoring: none.

    Every example is a candidate in every epoch, and passes forward in evaluation mode. The rule is greedy. Let s be the
    sum of the candidates' gradients, and u the part of a gradient that is orthogonal to those picked before. Each pick
    has the largest |<s, u>| / ||u||. So a candidate whose gradient lies in the span of those adds nothing.

    Candidate i has the readout gradient e_i x [f_i, 1]. e_i is the gradient of its loss at the logits, summed over time,
    and f_i the readout's input, averaged over time. That is exact where e is the same at each step, as it is for a loss
    on the time-mean of the logits. It is an estimate for the other losses.

    The budget is the share of each batch, as in the paper. Once the picked candidates span all gradients, the rule starts
    anew with the rest. Candidates without a gradient are picked at random. Both rules are ours. The authors' code draws
    each pick in proportion to |<s', g>|, where s' is the rest of s, and without the bias. Once the span is full, it draws
    the others at random.

    Args:
        prune_ratio: The share of visits to save.
    """

    display_name = "DivBS"
    bibtex = """
    @inproceedings{hong2024divbs,
      title = {Diversified Batch Selection for Training Acceleration},
      author = {Hong, Feng and Lyu, Yueming and Yao, Jiangchao and Zhang, Ya and Tsang, Ivor W. and Wang,
        Yanfeng},
      booktitle = {International Conference on Machine Learning},
      year = {2024},
    }
    """

    def choose_in_batch(self, candidates: Candidates) -> Selection:
        """Picks candidates greedily. They come in random order, which breaks ties."""
        seen = candidates.forward(frozenset({Signal.FEATURES, Signal.LOGIT_ERRORS}))
        error_CK = seen.watched[Signal.LOGIT_ERRORS].sum(0).cpu().double()  # not every device has float64
        feature_CD = seen.watched[Signal.FEATURES].mean(0).cpu().double()
        gram_CC = (error_CK @ error_CK.T) * (feature_CD @ feature_CD.T + 1)
        return unweighted(diverse(gram_CC, candidates.num_trained))


def diverse(gram_CC: Tensor, number: int) -> Tensor:
    """Returns the greedy picks of vectors with these inner products, in the order picked. Int64, [number].

    The orthogonal parts come from a pivoted Cholesky factorisation: picking p makes the column
    l = residual_p / sqrt(residual_pp), and removes l l^T from the residual and l (s . e_p) from the products with s.
    """
    open_C = torch.ones(len(gram_CC), dtype=torch.bool)
    picks: list[int] = []
    while len(picks) < number:
        residual_CC = gram_CC.clone()
        with_sum_C = gram_CC[:, open_C].sum(1)
        least_C = (SPENT * gram_CC.diagonal()).clamp_min(torch.finfo(gram_CC.dtype).tiny)
        before = len(picks)
        while len(picks) < number:
            square_C = residual_CC.diagonal()
            free_C = open_C & (square_C > least_C)
            if not bool(free_C.any()):
                break
            gain_C = (with_sum_C.square() / square_C.clamp_min(1e-300)).masked_fill(~free_C, -1)
            pick = int(gain_C.argmax())
            column_C = residual_CC[:, pick] / square_C[pick].sqrt()
            with_sum_C = with_sum_C - column_C * (with_sum_C[pick] / square_C[pick].sqrt())
            residual_CC -= torch.outer(column_C, column_C)
            open_C[pick] = False
            picks.append(pick)
        if len(picks) == before:
            picks += open_C.nonzero().squeeze(1).tolist()[: number - before]
    return torch.tensor(picks, dtype=torch.int64)
