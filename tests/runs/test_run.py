"""A run and its reference share what they can, and what would end a run late is refused before anything trains."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from sadp_bench.capture.requirements import missing_parts
from sadp_bench.core.errors import BadInput
from sadp_bench.pruners.base import KeepAll, Pruner
from sadp_bench.pruners.exchange import Observation, ScoringContext, Selection, unweighted
from sadp_bench.records.store import Store
from sadp_bench.runs import building, environment, preflight, resolve
from sadp_bench.runs.resources import Resources
from sadp_bench.runs.run import checkpoint_bytes, run
from sadp_bench.training.data import Loader
from sadp_bench.training.evaluation import predictions
from tests.runs.networks import WithoutNeurons
from tests.small_runs import make_trainer, resolved, small_bench
from tests.stopping import StopsAt

BACKBONE = "tests.runs.networks"


def requested(network: str, **more: Any) -> tuple[Any, Any]:
    """Returns the spec and material of a run on a network of `networks`, which has no width."""
    settings = {"method": "random", "ratio": 0.4, "train_examples": 130, "batch_size": 50, "epochs": 2, "timesteps": 2}
    settings |= {"precision": "fp32", "device": "cpu", "threads": 1, "backbone": f"{BACKBONE}:{network}"}
    return resolve.resolve(settings | more)


def test_a_run_and_its_reference_share_one_network_one_copy_of_the_data_and_one_look_at_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, material = requested("WithoutNeurons")
    loaders, calls = [], []
    make, git = Loader.__init__, environment._git
    monkeypatch.setattr(Loader, "__init__", lambda self, *given: loaders.append(1) or make(self, *given))
    monkeypatch.setattr(environment, "_git", lambda *given: calls.append(given) or git(*given))
    environment._commit.cache_clear()
    WithoutNeurons.built = 0
    outcome = run(spec, material, Store(tmp_path), StopsAt(), checkpoint_seconds=0.0)
    assert outcome is not None and outcome.reference_path is not None
    assert WithoutNeurons.built == 1 and len(loaders) == 2, "training set and test set"
    assert [given[1] for given in calls] == ["rev-parse", "status"]


def test_the_shared_network_is_never_trained() -> None:
    spec, material = resolved(epochs=1)
    resources = Resources(spec, material)
    first, second = resources.model(), resources.model()
    with torch.no_grad():
        next(first.parameters()).zero_()
    built = building.make_model(spec, material, spec.seed)
    for other in (second, resources.model(spec.seed, spec.timesteps)):
        assert all(torch.equal(a, b) for a, b in zip(other.parameters(), built.parameters(), strict=True))
        assert all(a.stride() == b.stride() for a, b in zip(other.parameters(), built.parameters(), strict=True))


@pytest.mark.parametrize(
    ("network", "rates"), [("WithoutNeurons", []), ("NoNeuronCalled", [0.0]), ("NeuronNotCalled", [None, 0.0])]
)
def test_what_does_not_spike_has_no_rate_or_the_rate_0(network: str, rates: list[float | None]) -> None:
    record = make_trainer(*requested(network)).run()
    assert len(record.firing_rate) == len(rates)
    for found, expected in zip(record.firing_rate, rates, strict=True):
        assert 0 < found < 1 if expected is None else found == expected


def test_what_a_method_watches_and_the_network_lacks_is_refused_before_anything_trains(tmp_path: Path) -> None:
    spec, material = requested("WithoutNeurons", method="sadp")
    with pytest.raises(
        BadInput, match="sadp watches what backbone .* does not have: a last layer named `readout`; add"
    ):
        run(spec, material, Store(tmp_path), progress := StopsAt())
    assert progress.count == 0, "the reference trains before the run"
    network = Resources(spec, material).untrained
    assert missing_parts(network, {"spike_counts", "bound_ratio"}) == ["a spiking layer of SpikingJelly or snnTorch"]
    assert missing_parts(torch.nn.Conv2d(1, 1, 1), {"bound_ratio"}) == []
    assert missing_parts(torch.nn.ReLU(), {"bound_ratio"}) == ["a convolution or linear layer before its readout"]


class Forgets(Pruner):
    """Observes, and keeps nothing of each example."""

    def select(self, epoch: int) -> Selection:
        return unweighted(torch.arange(self.num_kept(epoch)))

    def observe(self, seen: Observation) -> None:
        self.newest = float(seen.loss_B.mean())


class Remembers(Forgets):
    """Keeps a loss of each example."""

    def prepare(self, context: ScoringContext) -> None:
        super().prepare(context)
        self.loss_N = torch.zeros(context.num_examples)


class ForgetsAfterScoring(Forgets):
    """Trains a network first, so that only a prepared pruner can be checked."""

    def prepare(self, context: ScoringContext) -> None:
        super().prepare(context)
        context.fit(KeepAll(), 1, 0)


def of_two_processes(method: str, **more: Any) -> tuple[Any, Any]:
    spec, material = resolved(method=f"{__name__}:{method}", ratio=0.4, **more)
    return dataclasses.replace(spec, processes=2), material


def test_what_processes_cannot_share_is_refused_before_anything_trains(tmp_path: Path) -> None:
    spec, material = of_two_processes("Forgets", sparsity="eb", density=0.5)
    with pytest.raises(BadInput, match="keeps nothing of each example that several processes could share"):
        run(spec, material, Store(tmp_path), progress := StopsAt())
    assert progress.count == 0, "neither the reference nor the search"
    preflight.check_runs([of_two_processes("Remembers")[0]], Resources(spec, material))


def test_what_processes_cannot_share_is_refused_between_scoring_and_search() -> None:
    spec, material = of_two_processes("ForgetsAfterScoring", sparsity="eb", density=0.5)
    preflight.check_runs([spec], Resources(spec, material))
    trainer = make_trainer(spec, material, progress := StopsAt())
    with pytest.raises(BadInput, match="keeps nothing of each example"):
        trainer.prepare()
    assert progress.count == 3, "the batches of one scoring epoch"


def test_the_disk_check_covers_the_checkpoints_of_a_search_in_many_rounds(tmp_path: Path) -> None:
    """A checkpoint holds the network and optimizer of the newest of 9 rounds, the rewound weights and masks."""
    spec, material = resolved(sparsity="imp", density=0.1, epochs=3, set={"backbone.width": 32})
    sizes = []

    class Sizes(StopsAt):
        def advance(self, visits: int) -> None:
            sizes.extend(path.stat().st_size for path in tmp_path.glob("*.ckpt*"))

    resources = Resources(spec, material)
    expected = checkpoint_bytes(spec, building.weight_bytes(resources.untrained))
    run(spec, material, Store(tmp_path), Sizes(), reference=False, checkpoint_seconds=0.0)
    assert 0.3 * expected < 3 * max(sizes) < 1.1 * expected


def test_predictions_leave_the_callers_gradients_and_the_networks_mode_alone() -> None:
    trainer = small_bench()
    trainer.model.train()
    next(trainer.model.children()).eval()
    modes = [module.training for module in trainer.model.modules()]
    for _, logits_TBC, _ in predictions(trainer.model, trainer.held, "fp32"):
        assert torch.is_grad_enabled() and not logits_TBC.requires_grad
        assert [module.training for module in trainer.model.modules()] == modes
    trainer.context.logits(trainer.model, 10)
    trainer.context.survey(trainer.model, frozenset({"gradient_norms"}))
    assert [module.training for module in trainer.model.modules()] == modes
