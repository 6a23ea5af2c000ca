"""Checks before anything trains, of faults that would otherwise end a run after hours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from sadp_bench.capture.requirements import missing_parts
from sadp_bench.core.errors import BadInput
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.contract import signals_of, update_size
from sadp_bench.pruners.exchange import Survey
from sadp_bench.records.spec import Spec
from sadp_bench.runs.building import make_pruner
from sadp_bench.runs.resources import Resources
from sadp_bench.runs.step_memory import check_step_fits


def check_runs(specs: Sequence[Spec], resources: Resources) -> None:
    """Raises BadInput where a method can't watch the network, fit into memory, read its file or share its batches."""
    for spec in specs:
        pruner = make_pruner(spec)
        _check_network(spec, pruner, resources.untrained)
        _check_updates(spec, pruner, resources)
        if spec.processes == 1 and not spec.method_options.get("file"):
            continue  # `prepare` may be another package's code, and may take long
        try:
            pruner.prepare(DryContext(spec, resources))
        except WouldTrain:  # the method is checked once it has its scores
            continue
        check_shareable(spec, pruner)


def _check_updates(spec: Spec, pruner: Pruner, resources: Resources) -> None:
    """Raises BadInput where a method's larger updates need more memory than there is."""
    size = update_size(pruner, len(resources.train), spec.batch_size)
    if size > spec.batch_size:
        check_step_fits(spec.of_valid(batch_size=size), resources.material, resources.untrained)


def _check_network(spec: Spec, pruner: Pruner, model: nn.Module) -> None:
    missing = missing_parts(model, signals_of(pruner, 0))
    if missing:
        raise BadInput(
            f"{spec.method} watches what backbone '{spec.backbone}' does not have: {', '.join(missing)}; add it, or choose "
            "another method"
        )


class WouldTrain(Exception):
    """A pruner's `prepare` needs more than facts of the run, and would train."""


class DryContext:
    """A scoring context that trains nothing: it has the facts of a run, and its methods raise WouldTrain.

    Args:
        spec: The run.
        resources: The run's data and device.
    """

    def __init__(self, spec: Spec, resources: Resources) -> None:
        self.num_examples, self.num_epochs = len(resources.train), spec.epochs
        self.seed, self.device = spec.seed, resources.device
        self.data_sha256 = resources.material.sha256
        self.updates_per_epoch = spec.updates_per_epoch
        self.num_classes = len(resources.material.dataset.class_names)
        self.label_N = resources.train.label_N.cpu()

    def fresh_model(self, seed: int) -> nn.Module:
        """Raises WouldTrain."""
        raise WouldTrain

    def fit(self, pruner: Pruner, epochs: float, seed: int) -> nn.Module:
        """Raises WouldTrain."""
        raise WouldTrain

    def survey(self, model: nn.Module, watch: frozenset[str] = frozenset()) -> Survey:
        """Raises WouldTrain."""
        raise WouldTrain

    def scores(self, score: Callable[[], Tensor]) -> Tensor:
        """Raises WouldTrain."""
        raise WouldTrain


def check_shareable(spec: Spec, pruner: Pruner) -> None:
    """Raises BadInput where several processes could not share the observations or the choices of a prepared pruner."""
    if spec.processes > 1 and type(pruner).choose_in_batch is not Pruner.choose_in_batch:
        raise BadInput(
            f"{spec.method} chooses among the candidates of a whole batch, which several processes would divide: run it on "
            "one process"
        )
    if spec.processes > 1 and type(pruner).observe is not Pruner.observe and not pruner.per_example():
        raise BadInput(
            f"{spec.method} keeps nothing of each example that several processes could share: let it keep what it "
            "observes in tensors of length N named *_N, or run it on one process"
        )
