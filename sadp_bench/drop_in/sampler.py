"""A pruner in a user's training loop: a batch sampler, loss weights, and the observation of batches."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from sadp_bench.capture.signals import Signal
from sadp_bench.core import distributed
from sadp_bench.core.errors import BadInput, Diverged
from sadp_bench.core.losses import mean_loss
from sadp_bench.core.rng import stream
from sadp_bench.drop_in.batch_logits import LossesAlone, in_time, not_finite, wrong_shape
from sadp_bench.drop_in.context import LoopContext, label_N_of, score_N_of
from sadp_bench.drop_in.epoch_batches import EpochBatches
from sadp_bench.drop_in.loop_checks import (
    check_forward,
    check_processes,
    check_share,
    looks_at,
    lost_batch,
    lost_losses,
    no_survey,
    observes,
    settings_of,
    unobserved,
)
from sadp_bench.drop_in.watching import Watching
from sadp_bench.pruners.base import Pruner, plain
from sadp_bench.pruners.batching import batches, in_order
from sadp_bench.pruners.contract import selection_of, signals_of, updates_of
from sadp_bench.pruners.exchange import Observation

# The bound ratio comes in an epoch's first batch only, and features come with a linear readout only.
OPTIONAL = {Signal.BOUND_RATIO, Signal.FEATURES}


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

    An epoch's K examples are divided into ceil(K / batch_size) batches, or as many as the pruner's `num_updates` returns.
    The sizes of batches differ by at most one. So no example is dropped, and no short last batch gives its examples more
    weight. With the same seed, the selections, their order and the weights are those of `sadp-bench run`. Under
    torch.distributed, every process has the same selection and its slice of each batch, with equal numbers of batches. Once
    an epoch, all processes exchange the pruner's values of each example, exact to the bit. A pruner with more signals than
    logits and losses, such as SADP, also needs `watch`, or `observe(..., watched=)`.

    Args:
        pruner: The method.
        num_examples: N, the number of examples. It is not needed with `labels`.
        labels: The training set's labels, [N], for pruners that use them.
        epochs: Number of epochs of training on all data. A pruner may shorten the run, see the property `epochs`.
        batch_size: Number of examples in a batch of all processes together.
        seed: The seed of selections and order.
        device: The network's device, which also holds weights and scores.
        scores: A score for each example, [N], for methods that score before training. They keep the highest scores.
        budget: How the visits are spread over the epochs: "constant", "falling" or "rising", with equal total.

    Raises:
        BadInput: The pruner cannot realise its ratio in these epochs, does not support the budget, or lacks scores.
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
        budget: str = "constant",
    ) -> None:
        epochs, batch_size, seed, num_examples = map(plain, (epochs, batch_size, seed, num_examples))
        for name, value in (("epochs", epochs), ("batch_size", batch_size)):
            if value < 1:
                raise BadInput(f"{name} is at least 1, not {value}")
        label_N = label_N_of(labels, num_examples)
        size = len(labels) if labels is not None else num_examples or 0
        context = LoopContext(label_N, size, epochs, seed=seed, device=device, score_N=score_N_of(scores, size))
        check_forward(pruner)
        pruner.with_budget(budget).check(epochs)
        pruner.prepare(context)
        self.pruner = pruner
        self.num_examples = context.num_examples
        self.batch_size = batch_size
        self.seed = seed
        self.device = context.device
        self.length = pruner.run_epochs(epochs)
        self.epoch = -1
        self.weight_N = torch.full((self.num_examples,), torch.nan, device=self.device)
        self.visited: list[Tensor] = []
        self.watching: Watching | None = None
        self._settings = settings_of(pruner)
        self._observes = observes(pruner)
        self._now = EpochBatches([], [])
        self._weighed = self._warned_of_loss = False
        self._lost_N: Tensor | None = None  # examples whose loss was not finite, checked at the epoch's end

    @property
    def epochs(self) -> int:
        """Number of epochs to train; the last may be partial."""
        return math.ceil(self.length)

    @property
    def batches(self) -> list[Tensor]:
        """The epoch's batches, those of all processes together; after `load_state_dict`, the rest of them."""
        return self._now.batches

    @property
    def next_epoch(self) -> int:
        """The epoch to continue with after `load_state_dict`: the state's epoch, or the next if that was over."""
        return self.epoch if self.epoch >= 0 and not self._now.spent else self.epoch + 1

    @property
    def signals(self) -> frozenset[Signal]:
        """The signals that the pruner still needs in the epoch."""
        signals = signals_of(self.pruner, max(0, self.epoch))
        return signals - {Signal.BOUND_RATIO} if self._now.measured else signals

    def set_epoch(self, epoch: int) -> None:
        """Draws the selection of an epoch. Call it before every epoch, in order. Epochs count from 0.

        Raises:
            BadInput: The epoch does not follow the last, or its batches are too small for the processes.
        """
        if epoch == self.epoch and not self._now.spent:
            return
        if epoch != self.epoch + 1 or epoch >= self.epochs:
            raise BadInput(
                f"set_epoch({epoch}) does not follow epoch {self.epoch}: epochs go from 0 to {self.epochs - 1}, each once; "
                "to resume, use load_state_dict"
            )
        check_processes()
        if self._lost_N is not None and bool(self._lost_N.any()):
            raise Diverged(lost_losses(self._lost_N, self.epoch), self.epoch)
        if (mistake := unobserved(self._now, self.epoch, self.pruner)) is not None:
            warnings.warn(mistake, stacklevel=2)
        self._exchange()
        index_K, weight_K = self._drawn(self.pruner, epoch)
        whole = list(batches(index_K, weight_K, updates_of(self.pruner, epoch, len(index_K), self.batch_size)))
        if len(whole[-1][0]) < distributed.size():
            raise BadInput(
                f"batch_size={self.batch_size}, that of all processes together, gives batches of {len(whole[-1][0])} "
                f"examples to {distributed.size()} processes: raise batch_size"
            )
        self._begin(epoch, EpochBatches([whole_B for whole_B, _ in whole], [weight_B for _, weight_B in whole]))

    def _begin(self, epoch: int, now: EpochBatches) -> None:
        """Starts an epoch, or the rest of one, with these batches."""
        weight_N = torch.full((self.num_examples,), torch.nan)
        for whole_B, weight_B in zip(now.batches, now.weights, strict=True):
            weight_N[whole_B] = weight_B
        self.weight_N = weight_N.to(self.device)
        self.epoch, self._now, self._lost_N, self._warned_of_loss = epoch, now, None, False
        self._weighed = all(bool((weight_B == 1).all()) for weight_B in now.weights)
        if self.watching is not None:
            self.watching.record(self.signals)

    def _drawn(self, pruner: Pruner, epoch: int) -> tuple[Tensor, Tensor]:
        """Returns an epoch's examples in their order of training, and their weights. [K]."""
        order_N = torch.randperm(self.num_examples, generator=stream(self.seed, "order", epoch))
        portion = min(1.0, self.length - epoch)
        pruner.rescore(epoch, no_survey(pruner))
        return in_order(selection_of(pruner, epoch), order_N, portion, at_least=distributed.size())

    def __len__(self) -> int:
        """Returns the epoch's number of batches, which may differ from epoch to epoch.

        Before the first epoch, it is the number of the coming epoch; after `load_state_dict`, that of the rest of the epoch
        or of the coming one. The call changes no state.
        """
        if not self.batches and self.epoch + 1 < self.epochs:
            pruner = copy.deepcopy(self.pruner)
            index_K, _ = self._drawn(pruner, self.epoch + 1)
            return updates_of(pruner, self.epoch + 1, len(index_K), self.batch_size)
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        if self.epoch < 0:
            self.set_epoch(0)
        if self._now.spent:
            raise BadInput(f"epoch {self.epoch} was given out already: call sampler.set_epoch(epoch) before each epoch")
        self._now.num_given = 0  # Only now, because a loader with workers creates two iterators and uses one of them.
        for whole_B in self.batches:
            self._now.num_given += 1
            yield distributed.part(whole_B).tolist()

    def weight(self, index_B: Tensor | Sequence[int]) -> Tensor:
        """Returns the loss weights of a batch's examples, float32, [B], on the sampler's device.

        Multiply each example's loss by its weight and take the plain mean over the batch. Never divide by the weights' sum.

        Raises:
            BadInput: An example was not drawn. A GPU returns NaN for it instead, because a check would wait for the device.
        """
        check_share(self._now, index_B, self.epoch)
        self._now.used = self._weighed = True
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

        A batch whose loss or gradients are not finite is left out. A loss that is not finite causes a warning. On a GPU it
        ends the run at the next `set_epoch` instead, because a check of every batch would wait for the device.

        Args:
            index_B: The examples' indices.
            logits: [B, C], or [T, B, C] of every time step; [B, T, C] where `watch` has time_first=False. Any shape where
                `loss_B` is given and the pruner needs the losses alone.
            label_B: The labels.
            loss_B: Each example's loss before weighting; by default that of `watch`, or the cross-entropy of the logits'
                mean over time.
            watched: The signals that the pruner's `watch` names, see `Observation`; by default those that `watch` recorded.

        Raises:
            BadInput: Shapes do not fit, or signals are missing.
        """
        check_share(self._now, index_B, self.epoch)
        index_B = torch.as_tensor(index_B, device=self.device)
        logits_TBC = (in_time if self.watching is None else self.watching.in_time)(logits, len(index_B))
        if logits_TBC is None and (loss_B is None or signals_of(self.pruner, self.epoch)):
            raise BadInput(wrong_shape(logits, len(index_B)))
        self._now.observe(index_B)
        # A loop may have its whole step within autocast.
        with torch.autocast((logits if loss_B is None else loss_B).device.type, enabled=False):
            if loss_B is None:
                assert logits_TBC is not None
                loss_B = (mean_loss if self.watching is None else self.watching.loss)(logits_TBC, label_B)
            loss_B = loss_B.detach()
            if loss_B.shape != index_B.shape:
                raise BadInput(
                    f"observe takes each example's loss, [{len(index_B)}], not the shape {list(loss_B.shape)}: "
                    'take the loss with reduction="none"'
                )
            if self._observes and self._is_lost(index_B, logits_TBC, loss_B):
                return
            if watched is None and self.watching is not None:
                weight_B = self._weight(index_B)
                watched = {} if logits_TBC is None else self.watching.seen(logits_TBC, label_B, weight_B, index_B)
                if watched is None:
                    return
            self._check(watched or {})
            self._pass_on(index_B, logits if logits_TBC is None else logits_TBC, label_B, loss_B, watched or {})

    def _pass_on(
        self, index_B: Tensor, logits: Any, label_B: Tensor, loss_B: Tensor, watched: Mapping[str, Tensor]
    ) -> None:
        """Passes a batch to the pruner, which cannot read logits of another shape than [T, B, C]."""
        self.visited.append(index_B)
        self._now.measured |= Signal.BOUND_RATIO in watched
        kind = Observation if isinstance(logits, Tensor) and logits.dim() == 3 else LossesAlone
        label_B, logits, loss_B = (x.to(self.device) if isinstance(x, Tensor) else x for x in (label_B, logits, loss_B))
        moved = {name: value.to(self.device) for name, value in watched.items()}
        self.pruner.observe(kind(self.epoch, index_B, label_B, logits, loss_B, moved))

    def _is_lost(self, index_B: Tensor, logits_TBC: Tensor | None, loss_B: Tensor) -> bool:
        """Returns whether a batch is left out because a loss is not finite, on any process."""
        lost_B = not_finite(logits_TBC, loss_B)
        if not looks_at(loss_B, self.watching):
            if self._lost_N is None:
                self._lost_N = torch.zeros(self.num_examples, dtype=torch.bool, device=self.device)
            self._lost_N[index_B] |= lost_B.to(self.device)
            return False
        if not bool(distributed.total(lost_B.any().int())):
            return False
        if self.watching is not None:
            self.watching.forget()
        if bool(lost_B.any()) and not self._warned_of_loss:
            self._warned_of_loss = True
            warnings.warn(lost_batch(int(index_B[lost_B.to(index_B.device)][0]), self.epoch), stacklevel=3)
        return True

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
        """Returns the state from which the rest of the epoch and the later epochs continue.

        Within an epoch they continue after the last observed batch, even if a loader's workers are ahead. Take the state
        between batches, after `observe` and the optimiser's step. All processes must call this method, because it exchanges
        their observations.

        Raises:
            BadInput: A batch was observed in part; or batches were given out, none was observed, and the place is unknown.
        """
        rest = self._now.rest(self._observes)
        self._exchange()
        return {
            **self._identity(),
            "settings": self._settings,
            "epoch": self.epoch,
            "rest": rest,
            "pruner": self.pruner.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where the state was taken: at `next_epoch`, whose loader gives the rest of it.

        Raises:
            BadInput: The state is of other data, or of another seed, method, setting, ratio or number of epochs.
        """
        settings = state.get("settings", {})
        known = {name: value for name, value in self._settings.items() if name in settings}
        for name, value in {**self._identity(), **known}.items():
            found = settings[name] if name in known else state[name]
            if found != value:
                raise BadInput(f"the state is of {name} {found}, not {value}: load it into a sampler that has the same")
        rest = state.get("rest", {"batches": [], "weights": [], "measured": False})
        self.visited = []
        self.pruner.load_state_dict({name: self._placed(name, value) for name, value in state["pruner"].items()})
        whole, weights = ([x.cpu() for x in rest[name]] for name in ("batches", "weights"))
        self._begin(state["epoch"], EpochBatches(whole, weights, rest["measured"]))

    def _identity(self) -> dict[str, Any]:
        """Returns the values that must be equal in a sampler and in a state that it loads."""
        return {
            "num_examples": self.num_examples,
            "length": self.length,
            "seed": self.seed,
            "method": type(self.pruner).__name__,
            "prune_ratio": self.pruner.prune_ratio,
        }

    def _placed(self, name: str, value: Any) -> Any:
        """Returns a tensor on the device of the pruner's tensor of that name, at any map_location.

        Where the pruner's tensor is still empty, the value goes to the sampler's device.
        """
        current = vars(self.pruner).get(name)
        if not (isinstance(value, Tensor) and isinstance(current, Tensor)):
            return value
        return value.to(current.device if len(current) else self.device)
