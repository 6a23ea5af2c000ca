"""The length of a scoring network's training: epochs, updates, or none."""

from __future__ import annotations

import pytest
import torch

from baselines.el2n import EL2N, error_norm
from baselines.forgetting import Forgetting
from sadp_bench.core.errors import BadInput
from sadp_bench.core.registry import table
from sadp_bench.pruners.base import KeepAll
from sadp_bench.runs.preparation import preparation
from tests.helpers import Updates, bench
from tests.small_runs import assert_same_weights, needed_options, numbers, weights_of
from tests.stopping import requested, resumed, whole

PER_EPOCH = 6  # 101 examples in batches of at most 17


def test_a_scoring_network_trains_for_exactly_the_updates():
    for updates in (1, 5, 6, 7, 12, 17, 24):
        run = bench("el2n", 0.5, progress := Updates(), set={"score_updates": updates, "score_runs": 2})
        run.pruner.prepare(run.context)
        assert progress.count == 2 * updates
        expected = updates // PER_EPOCH * 101 + int(updates % PER_EPOCH / PER_EPOCH * 101 + 0.5)
        assert run.context.visits == 2 * (expected + 101), "and the surveys"
        assert preparation(run.spec).scoring == pytest.approx(2 * (updates / PER_EPOCH + 1))


def test_a_partial_epoch_follows_the_schedule_of_the_whole_run():
    run, rates, shown = bench("el2n", 0.5), [], []

    class Recorder(KeepAll):
        def observe(self, seen):
            shown.append(seen.index_B)

    def fitted(epochs):
        shown.clear()
        pruner = Recorder()
        model = run.context.fit(pruner, epochs, 0)
        rates.append(run.context._fits[f"scoring {len(rates) + 1}"]["training"]["rows"][-1]["learning_rate"])
        return weights_of(model), torch.cat(shown)

    whole_weights, whole_order = fitted(2)
    partial_weights, partial_order = fitted(1 + 3 / PER_EPOCH)
    assert torch.equal(partial_order, whole_order[: 101 + 51]), "the first half of the second epoch"
    assert rates[0] < rates[1] < run.spec.learning_rate
    assert any(not torch.equal(partial_weights[name], value) for name, value in whole_weights.items())
    assert_same_weights(fitted(2.0)[0], whole_weights)


def test_an_untrained_network_is_surveyed_as_it_was_made():
    run = bench("el2n", 0.5, progress := Updates(), set={"untrained": True})
    run.pruner.prepare(run.context)
    survey = run.context.survey(run.context.fresh_model(0))
    assert progress.count == 0 and torch.equal(run.pruner.score_N, error_norm(survey.logits_NC, survey.label_N))
    assert preparation(run.spec).scoring == 1, "a pass over the data"


def test_the_estimate_is_what_is_charged_for_each_method():
    for method in sorted(table("method")):
        for more in ({}, {"score_updates": 8}):
            try:
                run = bench(method, 0.0 if method == "full" else 0.5, set=needed_options(method, 101) | more)
            except BadInput as error:
                assert more and "score_updates" in str(error), (method, error)
                continue
            charged = charges(run.context)
            run.pruner.prepare(run.context)
            assert preparation(run.spec).scoring == pytest.approx(sum(charged)), (method, more)


def charges(context):
    """Returns a list that collects each scoring network's epochs and the passes, in order; no network trains."""
    charged, survey = [], context.survey

    def fit(pruner, epochs, seed):
        pruner.prepare(context)
        charged.append(epochs)
        return context.fresh_model(seed)

    def surveyed(*given):
        charged.append(1)
        return survey(*given)

    context.fit, context.survey = fit, surveyed
    return charged


def test_a_run_stopped_while_it_scores_by_updates_ends_in_the_same_record(tmp_path):
    spec, material = requested("el2n", set={"score_updates": 8})
    record, weights, _ = whole(spec, material)
    for stop in (7, 9):  # in the partial epoch, and after it
        again, trainer = resumed(spec, material, stop, tmp_path / str(stop))
        assert numbers(again) == numbers(record) and again.interruptions == 1
        assert_same_weights(weights_of(trainer.model), weights)


def test_lengths_that_no_network_can_have_are_refused():
    for options, message in {
        (("score_updates", -1),): "score_updates is at least 0, not -1",
        (("score_updates", 3), ("score_epochs", 1)): "give one of score_epochs, score_updates and untrained",
        (("score_updates", 3), ("untrained", True)): "give one of score_epochs, score_updates and untrained",
    }.items():
        with pytest.raises(BadInput, match=message):
            EL2N(0.5, **dict(options))
    with pytest.raises(BadInput, match="at least 1 epochs, not an untrained one"):
        Forgetting(0.5, untrained=True).check(5)
    for method, updates, message in (("el2n", 25, "from 1 to 24"), ("forgetting", 5, "from 6 to 24")):
        with pytest.raises(BadInput, match=f"score_updates is {message} updates in this run, not {updates}"):
            bench(method, 0.5, set={"score_updates": updates})
