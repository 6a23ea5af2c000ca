"""A pruner in anyone's training loop: a batch sampler, loss weights, and what the pruner must see."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler

from sadp_bench import ranks
from sadp_bench.errors import BadInput
from sadp_bench.examples import batches, in_order
from sadp_bench.losses import mean_loss
from sadp_bench.pruner import Observation, Pruner, Survey
from sadp_bench.streams import stream

NOT_ALWAYS = {"tightness"}  # shown in an epoch's first batch only


class PrunedSampler(Sampler[list[int]]):
    """A batch sampler for `torch.utils.data.DataLoader` whose epochs are what a pruner selects.

        sampler = PrunedSampler(pruner, labels=train_set.targets, epochs=100, batch_size=128)
        loader = DataLoader(with_index(train_set), batch_sampler=sampler, num_workers=4)
        for epoch in range(sampler.epochs):
            sampler.set_epoch(epoch)
            for image, label, index in loader:
                logits = model(image)
                loss_B = cross_entropy(logits, label, reduction="none")
                (sampler.weight(index) * loss_B).mean().backward()
                sampler.observe(index, logits, label, loss_B)

    An epoch's K examples come in ceil(K / batch_size) batches whose sizes differ by one at most, so nothing is dropped and
    no short last batch weighs its examples more. With the same seed the selections, their order and weights are those
    of `sadp-bench run`. Under torch.distributed every process has the same selection and its own slice of each batch, with
    equal numbers of batches; batch_size is that of all together, and what the pruner keeps of each example comes to all
    once an epoch, exact to the bit.

    num_examples or labels: N, or the training set's labels [N], for pruners that ask for them. epochs: of training on all
    data; a pruner may shorten the run, see `epochs`. A pruner that watches more than logits and losses, such as SADP, also
    needs `observe(..., watched=...)`. device: where the pruner keeps its scores; that of the logits is best.
    scores: [N], for methods that score before they train; the higher, the more worth keeping.
    Raises BadInput where the pruner can't realise its ratio in so many epochs, or needs scores and has none.
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
        lab = OwnLab(_label_N(labels, num_examples), len(labels) if labels is not None else num_examples or 0, epochs)
        lab.seed, lab.device, lab.given = seed, torch.device(device), _score_N(scores, lab.num_examples)
        pruner.check(epochs)
        pruner.prepare(lab)
        self.pruner = pruner
        self.num_examples = lab.num_examples
        self.batch_size = batch_size
        self.seed = seed
        self.device = lab.device
        self.length = pruner.run_epochs(epochs)
        self.epoch = -1
        self.weight_N = torch.empty(0)
        self.batches: list[Tensor] = []
        self.visited: list[Tensor] = []
        self._begun = self._weighed = False

    @property
    def epochs(self) -> int:
        """How many epochs to train; the last may be partial."""
        return math.ceil(self.length)

    def set_epoch(self, epoch: int) -> None:
        """Draws the selection of an epoch, from 0; call it before every epoch, in turn."""
        if epoch == self.epoch and not self._begun:
            return
        if epoch != self.epoch + 1 or epoch >= self.epochs:
            raise BadInput(
                f"set_epoch({epoch}) does not follow epoch {self.epoch}: epochs go from 0 to {self.epochs - 1}, each once; "
                "to resume use load_state_dict"
            )
        self._share()
        if self.pruner.to_survey(epoch) is not None:
            raise BadInput("in a loop of one's own nothing can be surveyed between epochs: leave refresh at 0")
        selection = self.pruner.select(epoch)
        order_N = torch.randperm(self.num_examples, generator=stream(self.seed, "order", epoch))
        index_K, weight_K = in_order(selection, order_N, min(1.0, self.length - epoch), at_least=ranks.size())
        weight_N = torch.full((self.num_examples,), torch.nan)
        weight_N[index_K] = weight_K
        self.weight_N = weight_N.to(self.device)
        self.batches = [whole_B for whole_B, _ in batches(index_K, weight_K, self.batch_size)]
        self.epoch, self._begun, self._weighed = epoch, False, bool((weight_K == 1).all())

    def __len__(self) -> int:
        """The coming epoch's number of batches, which may differ from epoch to epoch."""
        if self.epoch < 0:
            self.set_epoch(0)
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        if self.epoch < 0:
            self.set_epoch(0)
        if self._begun:
            raise BadInput(f"epoch {self.epoch} was given out already: call sampler.set_epoch(epoch) before each epoch")
        self._begun = True  # only now: a loader with workers asks for two iterators, and uses one
        for whole_B in self.batches:
            yield ranks.part(whole_B).tolist()

    def weight(self, index_B: Tensor) -> Tensor:
        """The loss weights of a batch's examples, float32, [B], on the sampler's device.

        Multiply each example's loss with its weight and take the plain mean over the batch; never divide by the weights' sum.
        """
        self._weighed = True
        weight_B = self.weight_N[index_B.to(self.device)]
        if self.device.type == "cpu" and bool(weight_B.isnan().any()):
            wrong = int(index_B[weight_B.isnan()][0])
            raise BadInput(f"example {wrong} is not among those of epoch {self.epoch}: are the indices with_index's?")
        return weight_B

    def observe(
        self,
        index_B: Tensor,
        logits: Tensor,
        label_B: Tensor,
        loss_B: Tensor | None = None,
        watched: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Shows the pruner one batch, once, after its backward pass.

        logits: [B, C], or [T, B, C] of every time step. loss_B: each example's own loss, before weighting; by default the
        cross-entropy of the logits' mean over time. watched: what the pruner's `watch` names, see `Observation`.
        """
        watched = watched or {}
        if missing := sorted(self.pruner.watch - NOT_ALWAYS - set(watched)):
            raise BadInput(f"{type(self.pruner).__name__} needs to see {', '.join(missing)}: pass watched=")
        logits_TBC = logits.detach() if logits.dim() == 3 else logits.detach().unsqueeze(0)
        logits_TBC = logits_TBC.to(torch.promote_types(logits_TBC.dtype, torch.float32))
        loss_B = mean_loss(logits_TBC, label_B) if loss_B is None else loss_B.detach()
        if loss_B.shape != label_B.shape:
            raise BadInput(
                f"observe takes each example's loss, [{len(label_B)}], not one of shape {list(loss_B.shape)}: "
                'reduction="none", then the mean'
            )
        if not self._weighed:
            self._weighed = True
            warnings.warn(
                "sampler.weight(index) was not asked for, although this epoch's weights are not all 1: without them the "
                "gradient is biased towards the examples that are drawn most",
                stacklevel=2,
            )
        index_B = index_B.to(self.device)
        self.visited.append(index_B)
        self.pruner.observe(Observation(self.epoch, index_B, label_B, logits_TBC, loss_B, watched))

    def _share(self) -> None:
        """What each process saw comes to all."""
        if self.visited:
            ranks.gather(self.pruner.per_example().values(), self.visited)
        self.visited = []

    def state_dict(self) -> dict[str, Any]:
        """At the end of an epoch: all that the coming ones depend on. Of several processes all must call it."""
        self._share()
        return {
            "epoch": self.epoch,
            "num_examples": self.num_examples,
            "length": self.length,
            "seed": self.seed,
            "pruner": self.pruner.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next epoch is the one after that at whose end the state was taken."""
        for name in ("num_examples", "length", "seed"):
            if state[name] != getattr(self, name):
                raise BadInput(f"the state is of {name} {state[name]}, not {getattr(self, name)}")
        self.epoch, self._begun, self.visited = state["epoch"], True, []
        self.pruner.load_state_dict(state["pruner"])


class OwnLab:
    """What a pruner may use to prepare in a loop of someone's own: the data's size and labels, and scores that were given.

    See `pruner.Lab`; here nothing trains.
    """

    def __init__(self, label_N: Tensor | None, num_examples: int, num_epochs: int) -> None:
        self.num_examples = num_examples
        self.num_epochs = num_epochs
        self.seed = 0
        self.device = torch.device("cpu")
        self.given: Tensor | None = None
        self._label_N = label_N

    @property
    def label_N(self) -> Tensor:
        if self._label_N is None:
            raise BadInput("this pruner asks for the labels: give labels= in place of num_examples=")
        return self._label_N

    @property
    def num_classes(self) -> int:
        return int(self.label_N.max()) + 1

    def scores(self, score: Callable[[], Tensor]) -> Tensor:
        return score() if self.given is None else self.given

    def fresh_model(self, seed: int) -> nn.Module:
        raise BadInput(NEEDS_SCORES)

    def fit(self, pruner: Pruner, epochs: int, seed: int) -> nn.Module:
        raise BadInput(NEEDS_SCORES)

    def survey(self, model: nn.Module, watch: frozenset[str] = frozenset()) -> Survey:
        raise BadInput(NEEDS_SCORES)


NEEDS_SCORES = "this method scores the examples before it trains: give scores=, one number an example"


class WithIndex(Dataset[Any]):
    """See `with_index`."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        item = self.dataset[index]
        return (*item, index) if isinstance(item, tuple | list) else (item, index)

    def __len__(self) -> int:
        return len(self.dataset)


def with_index(dataset: Any) -> WithIndex:
    """The same examples, (image, label, index) each; nothing is copied. dataset: with a length, by index."""
    return WithIndex(dataset)


def _label_N(labels: Sequence[int] | Tensor | None, num_examples: int | None) -> Tensor | None:
    if labels is None:
        if num_examples is None or num_examples < 1:
            raise BadInput(f"give labels= or num_examples= (at least 1), not {num_examples}")
        return None
    if num_examples not in (None, len(labels)):
        raise BadInput(f"num_examples={num_examples} does not fit the {len(labels)} labels")
    return torch.as_tensor(labels, dtype=torch.int64).cpu()


def _score_N(scores: Sequence[float] | Tensor | None, num_examples: int) -> Tensor | None:
    if scores is None:
        return None
    score_N = torch.as_tensor(scores).detach().cpu()
    if score_N.shape != (num_examples,) or bool(score_N.isnan().any()):
        raise BadInput(f"scores are one number for each of the {num_examples} examples, not {list(score_N.shape)}")
    return score_N
