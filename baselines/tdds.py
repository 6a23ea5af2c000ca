"""TDDS: how the movement of an example's prediction varies while a network trains."""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.dyn_unc import check_window
from baselines.dynamics import DivergenceRecorder
from baselines.scored import Scored
from sadp_bench.pruner import BadInput, ScoringContext

LEAST_WINDOW = 3  # presentations: two moves, which may differ


class TDDS(Scored):
    """Keeps the examples whose prediction moves most unevenly, late in a shortened training run. Weight 1.

    Source: Zhang, Du, Li, Xie & Zhou, "Spanning Training Progress: Temporal Dual-Depth Scoring (TDDS) for Enhanced Dataset
    Pruning", CVPR 2024 (arXiv 2311.13613).

    Kind: static.
    Scoring: 35 % of the run.

    With p[t] the softmax at presentation t (train mode, augmented, before the update), a move is
    d[t] = sum_c |p_c[t] log((p_c[t] + 1e-8) / (p_c[t-1] + 1e-8))|. In each window of J = 10 presentations, R is the norm
    of the J - 1 moves' deviations from their mean. S <- (1 - decay) S + decay R from window to window, decay 0.9.

    With this decay, as in the authors' code, the last window has nine tenths of the weight. So the time at which scoring
    ends is the main setting. The authors' public command ends at epoch 30 of 200 with J = 10. Ends for other ratios are not
    public to us. Here one order serves all ratios: `score_epochs` 0 means 35 % of the run, and at least 3 epochs. This share
    is ours. A scoring run of fewer than J epochs has J = its epochs. Memory is N x (C + J): scoring keeps a prediction of
    all classes for each example.

    Trap: the `tdds` in the repository of DUAL's authors computes every window from the first J presentations. Its results
    do not measure this score.

    Args:
        prune_ratio: The share of visits to save.
        window: J, the presentations in a window, at least 3.
        decay: The last window's share of the score, above 0 and at most 1.
        offset: The share of all examples, from the highest score, that is dropped as too hard.
        score_epochs: The epochs of a scoring network; 0 means 35 % of the run.
        score_runs: The number of scoring networks.
        keep: "hardest" (the highest scores), "easiest" (the lowest) or "middle".
        score_updates: The number of updates of a scoring network, in place of epochs.
    """

    display_name = "TDDS"
    bibtex = """
    @inproceedings{zhang2024tdds,
      title = {Spanning Training Progress: Temporal Dual-Depth Scoring ({TDDS}) for Enhanced Dataset Pruning},
      author = {Zhang, Xin and Du, Jiawei and Li, Yunsong and Xie, Weiying and Zhou, Joey Tianyi},
      booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
      eprint = {2311.13613},
      archiveprefix = {arXiv},
      year = {2024},
    }
    """
    least_epochs = LEAST_WINDOW
    surveys = 0

    def __init__(
        self,
        prune_ratio: float,
        *,
        window: int = 10,
        decay: float = 0.9,
        offset: float = 0.0,
        score_epochs: int = 0,
        score_runs: int = 1,
        keep: str = "hardest",
        score_updates: int = 0,
    ) -> None:
        super().__init__(
            prune_ratio,
            offset=offset,
            score_epochs=score_epochs,
            score_runs=score_runs,
            keep=keep,
            score_updates=score_updates,
        )
        check_window("tdds", window, LEAST_WINDOW)
        if not 0 < decay <= 1:
            raise BadInput(f"tdds's decay is above 0 and at most 1, not {decay:g}")
        self.window = window
        self.decay = decay

    def default_epochs(self, num_epochs: int) -> int:
        """Returns 35 % of the run, at least 3 epochs if the run has them."""
        return min(num_epochs, max(LEAST_WINDOW, round(0.35 * num_epochs)))

    def score(self, context: ScoringContext) -> Tensor:
        """Returns each example's score, averaged over the scoring networks."""
        runs = []
        for run in range(self.score_runs):
            recorder = DivergenceRecorder(min(self.window, int(self.length(context))), self.decay)
            self.fit(context, run, recorder)
            runs.append(recorder.score_N.cpu())
        return torch.stack(runs).mean(0)
