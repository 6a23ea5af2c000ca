"""The passes over the training set that scoring may request: features, spikes and errors at the logits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sadp_bench.capture.channel_spikes import ChannelSpikes
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import loss_of
from sadp_bench.core.progress import Progress
from tests.helpers import bench

ALL = frozenset({"errors", "features", "spikes"})


@pytest.mark.parametrize("backbone", ["cnn", "resnet18"])
def test_a_survey_contains_the_inputs_of_the_readout_the_spikes_of_channels_and_the_errors(backbone: str) -> None:
    run = bench(
        "el2n", 0.5, backbone=backbone, loss="step", train_examples=43, timesteps=3, set={"backbone.threshold": 0.1}
    )
    model = run.context.fresh_model(0)
    found = run.context.survey(model, ALL)
    inputs, spikes = [], []
    model.readout.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    last = [m for m in model.modules() if type(m).__name__ == "LIF"][-1]
    last.register_forward_hook(lambda module, given, output: spikes.append(output))
    model.eval()
    logits_TBC = model(run.data.input(torch.arange(43))).detach().requires_grad_()
    loss_B = loss_of("step", 0.0)(logits_TBC, run.data.label_N)
    (error_TBC,) = torch.autograd.grad(loss_B.sum(), logits_TBC)
    assert found.feature_ND is not None and found.spikes_ND is not None and found.error_NC is not None
    torch.testing.assert_close(found.feature_ND, inputs[-1].mean(0))
    torch.testing.assert_close(found.spikes_ND, spikes[-1].sum((0, 3, 4)), rtol=0, atol=0)
    torch.testing.assert_close(found.error_NC, error_TBC.sum(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.loss_N, loss_B.detach(), rtol=1e-4, atol=1e-6)
    assert found.spikes_ND.max() > 0
    assert not model.readout._forward_pre_hooks or len(model.readout._forward_pre_hooks) == 1  # the test's


def test_a_survey_makes_the_watched_fields_alone_and_names_those_it_knows() -> None:
    run = bench("el2n", 0.5, train_examples=43)
    found = run.context.survey(run.model)
    assert found.feature_ND is None and found.spikes_ND is None and found.error_NC is None
    with pytest.raises(BadInput, match=r"a survey watches errors, features, gradient_norms, spikes, not spike"):
        run.context.survey(run.model, frozenset({"spike"}))


class Lines(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, line: str) -> None:
        self.lines.append(line)


def test_a_silent_scoring_network_is_reported_before_training() -> None:
    for threshold, is_silent in ((1e6, True), (0.1, False)):
        for method, options in (
            ("entropy", {}),
            ("ccs", {"score": "el2n"}),
            ("moderate", {}),
            ("craig", {"features": "spikes"}),
            ("drop", {}),
        ):
            progress, settings = Lines(), {"backbone.threshold": threshold, "backbone.width": 4, **options}
            run = bench(method, 0.5, progress, train_examples=43, set=settings)
            run.pruner.prepare(run.context)
            said = [line for line in progress.lines if "the scoring network is silent: the logits" in line]
            assert len(said) == is_silent and all("score_epochs" in line for line in said), (method, progress.lines)


def test_scores_that_are_all_equal_are_reported() -> None:
    for score_N, is_reported in (
        (torch.zeros(43), True),
        (torch.full((43,), 1 / 3), True),
        (torch.arange(43.0) / 1e4, False),
        (torch.cat([torch.zeros(42), torch.tensor([torch.inf])]), False),
    ):
        run = bench("el2n", 0.5, progress := Lines(), train_examples=43)
        run.context.scores(lambda score_N=score_N: score_N)
        assert any("all scores are equal" in line for line in progress.lines) == is_reported, score_N


def test_a_network_without_spiking_layers_has_no_spike_counts() -> None:
    model = nn.Linear(3, 2)
    with ChannelSpikes(model) as spikes, pytest.raises(BadInput, match="no spiking layer"):
        model(torch.ones(4, 3))
        spikes.counts()
