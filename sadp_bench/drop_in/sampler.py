"""A pruner in a user's training loop: a batch sampler, loss weights, and the observation of batches."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.distributed
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from sadp_bench.capture.signals import Signal
from sadp_bench.core import distributed
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import Loss, mean_loss
from sadp_bench.core.precision import widened
from sadp_bench.core.rng import stream
from sadp_bench.drop_in.context import LoopContext, label_N_of, score_N_of
from sadp_bench.pruners.base import Observation, Pruner, signals_of
from sadp_bench.pruners.batching import batches, in_order

# The bound ratio comes in an epoch's first batch only, and features come with a linear readout only.
OPTIONAL = {Signal.BOUND_RATIO, Signal.FEATURES}


class Watching(Protocol):
    """The part of a `Watch` that the sampler uses."""

    loss: Loss

    def record(self, signals: frozenset[Signal]) -> None:
        """Replaces the hooks by those of these signals."""

    def expect(self, batch: int) -> None:
        """Receives the size of the batch whose backward pass is next."""

    def seen(self, logits_TBC: Tensor, label_B: Tensor, weight_B: Tensor) -> dict[str, Tensor] | None:
        """Returns the signals of the last batch, or None where its gradients are not finite."""


class PrunedSampler(Sampler[list[int]]):
    """A batch sampler for `torch.utils.data.DataLoader` that gives the examples that a pruner selects.

    Example::

        sampler = PrunedSampler(pruner, labels=train_set.targets, epochs=100, batch_size=128)
        loader = DataLoader(with_index(train_set), batch_sampler=sampler, num_workers=4)
        for epoch in range(sampler.epochs):
            sampler.set_epoch(epoch)
            for image, label, index in loader:
                logits = model(image)
                loss_B = cross_entropy(logits, label, reduction="none")
                (sampler.weight(index) * loss_B).mean().backward()
                sampler.observe(index, logits, label, loss_B)

    An epoch's K examples come in ceil(K / batch_size) batches whose sizes differ by at most one. So nothing is dropped, and
    no short last batch gives its examples more weight. With the same seed, the selections, their order and the weights are
    those of `sadp-bench run`. Under torch.distributed, every process has the same selection and its slice of each batch,
    with equal numbers of batches. Once an epoch, all processes exchange the pruner's values of each example, exact to the
    bit. A pruner with more signals than logits and losses, such as SADP, also needs `watch`, or `observe(..., watched=)`.

    Args:
        pruner: The method.
        num_examples: N; or pass `labels`.
        labels: The training set's labels, [N], for pruners that use them.
        epochs: Number of epochs of training on all data. A pruner may shorten the run, see the property `epochs`.
        batch_size: Number of examples in a batch of all processes together.
        seed: The seed of selections and order.
        device: The network's device, which also holds weights and scores.
        scores: [N], for methods that score before they train; they keep the highest.

    Raises:
        BadInput: The pruner can't realise its ratio in these epochs, or it needs scores and has none.
    """

    def __init__(
        self,
        pruner: Pruner,
        *,
        num_examples: int | None = None,
        labels: Sequence[int] | Tensor | None = None,
        epochs: int,
        batch_size: int,
        seed: int = 0,
        device: str | torch.device = "cpu",
        scores: Sequence[float] | Tensor | None = None,
    ) -> None:
        for name, value in (("epochs", epochs), ("batch_size", batch_size)):
            if value < 1:
                raise BadInput(f"{name} is at least 1, not {value}")
        label_N = label_N_of(labels, num_examples)
        size = len(labels) if labels is not None else num_examples or 0
        context = LoopContext(label_N, size, epochs, seed=seed, device=device, score_N=score_N_of(scores, size))
        pruner.check(epochs)
        pruner.prepare(context)
        self.pruner = pruner
        self.num_examples = context.num_examples
        self.batch_size = batch_size
        self.seed = seed
        self.device = context.device
        self.length = pruner.run_epochs(epochs)
        self.epoch = -1
        self.weight_N = torch.full((self.num_examples,), torch.nan, device=self.device)
        self.batches: list[Tensor] = []
        self.visited: list[Tensor] = []
        self.watching: Watching | None = None
        self._used = self._weighed = False
        # This process's numbers of batches given out, and of examples observed, in the epoch.
        self._num_given = self._num_observed = 0

    @property
    def epochs(self) -> int:
        """Number of epochs to train; the last may be partial."""
        return math.ceil(self.length)

    def set_epoch(self, epoch: int) -> None:
        """Draws the selection of an epoch, from 0. Call it before every epoch, in order.

        Raises:
            BadInput: The epoch does not follow the last, or its batches are too small for the processes.
        """
        if epoch == self.epoch and not self._spent:
            return
        if epoch != self.epoch + 1 or epoch >= self.epochs:
            raise BadInput(
                f"set_epoch({epoch}) does not follow epoch {self.epoch}: epochs go from 0 to {self.epochs - 1}, each once; "
                "to resume, use load_state_dict"
            )
        _check_processes()
        if self._num_given and not self._num_observed and type(self.pruner).observe is not Pruner.observe:
            warnings.warn(
                f"no batch of epoch {self.epoch} was observed, so {type(self.pruner).__name__} selects without it: call "
                "sampler.observe(index, logits, label) after each backward pass",
                stacklevel=2,
            )
        self._exchange()
        index_K, weight_K = self._drawn(self.pruner, epoch)
        weight_N = torch.full((self.num_examples,), torch.nan)
        weight_N[index_K] = weight_K
        self.weight_N = weight_N.to(self.device)
        self.batches = [whole_B for whole_B, _ in batches(index_K, weight_K, self.batch_size)]
        if len(self.batches[-1]) < distributed.size():
            raise BadInput(
                f"batch_size={self.batch_size}, that of all processes together, gives batches of {len(self.batches[-1])} "
                f"examples to {distributed.size()} processes: raise batch_size"
            )
        self.epoch, self._used, self._weighed = epoch, False, bool((weight_K == 1).all())
        self._num_given = self._num_observed = 0
        if self.watching is not None:
            self.watching.record(signals_of(self.pruner, epoch))

    def _drawn(self, pruner: Pruner, epoch: int) -> tuple[Tensor, Tensor]:
        """Returns an epoch's examples in their order of training, and their weights. [K]."""
        order_N = torch.randperm(self.num_examples, generator=stream(self.seed, "order", epoch))
        portion = min(1.0, self.length - epoch)
        return in_order(pruner.select(epoch), order_N, portion, at_least=distributed.size())

    def __len__(self) -> int:
        """Returns the epoch's number of batches, which may differ from epoch to epoch.

        Before the first epoch, and after `load_state_dict`, it is that of the coming epoch. The call changes no state.
        """
        if not self.batches and self.epoch + 1 < self.epochs:
            index_K, _ = self._drawn(copy.deepcopy(self.pruner), self.epoch + 1)
            return math.ceil(len(index_K) / self.batch_size)
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        if self.epoch < 0:
            self.set_epoch(0)
        if self._spent:
            raise BadInput(f"epoch {self.epoch} was given out already: call sampler.set_epoch(epoch) before each epoch")
        self._num_given = 0  # Only now, because a loader with workers creates two iterators and uses one of them.
        for whole_B in self.batches:
            self._num_given += 1
            yield distributed.part(whole_B).tolist()

    @property
    def _spent(self) -> bool:
        """Whether the epoch was trained on, or all its batches were given out. Reading a first batch alone spends nothing."""
        return self._used or self._num_given == len(self.batches)

    def weight(self, index_B: Tensor | Sequence[int]) -> Tensor:
        """Returns the loss weights of a batch's examples, float32, [B], on the sampler's device.

        Multiply each example's loss by its weight and take the plain mean over the batch. Never divide by the weights' sum.

        Raises:
            BadInput: An example was not drawn. A GPU returns NaN for it instead, because a check would wait for the device.
        """
        self._used = self._weighed = True
        if self.watching is not None:
            self.watching.expect(len(index_B))
        return self._weight(torch.as_tensor(index_B, device=self.device))

    def _weight(self, index_B: Tensor) -> Tensor:
        weight_B = self.weight_N[index_B]
        if self.device.type == "cpu" and bool(weight_B.isnan().any()):
            wrong = int(index_B[weight_B.isnan()][0])
            raise BadInput(f"example {wrong} is not among those of epoch {self.epoch}: pass the indices of with_index")
        return weight_B

    def observe(
        self,
        index_B: Tensor | Sequence[int],
        logits: Tensor,
        label_B: Tensor,
        loss_B: Tensor | None = None,
        watched: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Passes a batch to the pruner, once, after its backward pass.

        A batch with gradients that are not finite is left out.

        Args:
            index_B: The examples' indices.
            logits: [B, C], or [T, B, C] of every time step.
            label_B: The labels.
            loss_B: Each example's loss before weighting; by default that of `watch`, or the cross-entropy of the logits'
                mean over time.
            watched: The signals that the pruner's `watch` names, see `Observation`; by default those that `watch` recorded.

        Raises:
            BadInput: Shapes do not fit, or signals are missing.
        """
        index_B = torch.as_tensor(index_B, device=self.device)
        logits_TBC = widened(logits.detach() if logits.dim() == 3 else logits.detach().unsqueeze(0))
        if logits_TBC.shape[1:-1] != index_B.shape:
            raise BadInput(f"logits are [B, C] or [T, B, C] of the {len(index_B)} examples, not {list(logits.shape)}")
        self._used = True
        self._num_observed += len(index_B)
        # A loop may have its whole step within autocast.
        with torch.autocast(logits.device.type, enabled=False):
            loss = mean_loss if self.watching is None else self.watching.loss
            loss_B = loss(logits_TBC, label_B) if loss_B is None else loss_B.detach()
            if loss_B.shape != index_B.shape:
                raise BadInput(
                    f"observe takes each example's loss, [{len(index_B)}], not the shape {list(loss_B.shape)}: "
                    'take the loss with reduction="none"'
                )
            if watched is None and self.watching is not None:
                watched = self.watching.seen(logits_TBC, label_B, self._weight(index_B))
                if watched is None:
                    return
            self._check(watched or {})
            self.visited.append(index_B)
            label_B, logits_TBC, loss_B = (x.to(self.device) for x in (label_B, logits_TBC, loss_B))
            moved = {name: value.to(self.device) for name, value in (watched or {}).items()}
            self.pruner.observe(Observation(self.epoch, index_B, label_B, logits_TBC, loss_B, moved))

    def _check(self, watched: Mapping[str, Tensor]) -> None:
        if missing := sorted(signals_of(self.pruner, self.epoch) - OPTIONAL - set(watched)):
            raise BadInput(
                f"{type(self.pruner).__name__} needs {', '.join(missing)}: call watch(model, sampler) before "
                "training, or pass watched="
            )
        if not self._weighed:
            self._weighed = True
            warnings.warn(
                "sampler.weight(index) was not called, although this epoch's weights are not all 1: multiply each example's "
                "loss by its weight; without weights the gradient is biased",
                stacklevel=3,
            )

    def _exchange(self) -> None:
        """Exchanges between processes the pruner's values of the observed examples."""
        if self.visited:
            distributed.gather(self.pruner.per_example().values(), self.visited)
        self.visited = []

    def state_dict(self) -> dict[str, Any]:
        """Returns the state at the end of an epoch, on which the coming epochs depend.

        All processes must call it, because it exchanges their observations.

        Raises:
            BadInput: The epoch is not over.
        """
        num_examples = sum(len(distributed.part(whole_B)) for whole_B in self.batches)
        if self.epoch >= 0 and (self._num_given < len(self.batches) or 0 < self._num_observed < num_examples):
            raise BadInput(
                f"epoch {self.epoch} is not over ({self._num_given} of {len(self.batches)} batches given out, "
                f"{self._num_observed} of {num_examples} examples observed): take the state "
                "after an epoch's last batch, before the next set_epoch"
            )
        self._exchange()
        return {**self._identity(), "epoch": self.epoch, "pruner": self.pruner.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues after the epoch at whose end the state was taken.

        Raises:
            BadInput: The state is of other data, or of another seed, method, ratio or number of epochs.
        """
        for name, value in self._identity().items():
            if state[name] != value:
                raise BadInput(
                    f"the state is of {name} {state[name]}, not {value}: load it into a sampler that has the same"
                )
        self.epoch, self.visited, self.batches = state["epoch"], [], []
        self._num_given = self._num_observed = 0
        self.pruner.load_state_dict({name: self._placed(name, value) for name, value in state["pruner"].items()})

    def _identity(self) -> dict[str, Any]:
        """Returns the facts in which a sampler must agree with a state that it loads."""
        return {
            "num_examples": self.num_examples,
            "length": self.length,
            "seed": self.seed,
            "method": type(self.pruner).__name__,
            "prune_ratio": self.pruner.prune_ratio,
        }

    def _placed(self, name: str, value: Any) -> Any:
        """Returns a tensor on the device of the pruner's tensor of that name, whatever map_location it was loaded with.

        A tensor that the pruner has yet to fill from batches goes to the sampler's device.
        """
        current = vars(self.pruner).get(name)
        if not (isinstance(value, Tensor) and isinstance(current, Tensor)):
            return value
        return value.to(current.device if len(current) else self.device)


def _check_processes() -> None:
    """Raises BadInput where several processes can't exchange tensors on the CPU."""
    if distributed.size() > 1 and "cpu" not in torch.distributed.get_backend_config():
        raise BadInput(
            f"{torch.distributed.get_backend_config()} can't exchange pruners' tensors on the CPU: "
            'call init_process_group("cpu:gloo,cuda:nccl")'
        )


class WithIndex(Dataset[Any]):
    """A dataset whose items also contain their index; see `with_index`."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        item = self.dataset[index]
        return (*item, index) if isinstance(item, tuple | list) else (item, index)

    def __len__(self) -> int:
        return len(self.dataset)


def with_index(dataset: Any) -> WithIndex:
    """Returns the dataset's examples as (image, label, index), without a copy.

    Args:
        dataset: A dataset with a length and integer indices.
    """
    return WithIndex(dataset)
