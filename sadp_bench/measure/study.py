"""A study of scores: compares each score with the exact gradient norm while a network trains, and measures its cost."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench import __version__
from sadp_bench.capture.layers import batch_norms, weight_layers
from sadp_bench.capture.signals import Signal
from sadp_bench.core.errors import BadInput
from sadp_bench.core.progress import Progress
from sadp_bench.core.rng import stream
from sadp_bench.core.text import printable
from sadp_bench.measure import gradient_bias, score_cost
from sadp_bench.measure.draws import studied_draws
from sadp_bench.measure.score_collectors import Collector, exact_norms, observations, recalibrated
from sadp_bench.measure.study_file import AGES, STUDY_SCHEMA, study_key
from sadp_bench.measure.study_numbers import OPTIMUM_SMOOTHING, SMOOTHING, by_name, compared, finite, variation
from sadp_bench.pruners.base import Pruner
from sadp_bench.records.fields import STEP_BY_STEP
from sadp_bench.runs.building import enough_memory
from sadp_bench.runs.expected_cost import training_visits
from sadp_bench.runs.resolve import resolve
from sadp_bench.runs.resources import Resources
from sadp_bench.runs.trainer import RunTrainer, now, threads
from sadp_bench.training import loop
from sadp_bench.training.augmentation import Augmentation, draw_augmentation
from sadp_bench.training.gradient_cosine import gradient_cosines
from sadp_bench.training.survey import Surveys

MIN_EXAMPLES = 10  # smallest number of studied examples
CALIBRATION_BATCHES = 20  # batches whose statistics recalibrate the normalisation
COSINE_BATCHES = 4  # batches over which the cosines of gradients are averaged
BIAS_KEEP = 0.5  # share of the examples that draws keep in a study on full data, to measure their bias
VIEWS = 4  # augmented views; the root mean square of their norms estimates the norm in the next epoch


def stops(at: str | None, epochs: int) -> list[int]:
    """Returns the epochs of a text such as '1, 5,10'; for None the first epoch, a quarter, half and the end of the run."""
    if at is None:
        return sorted({1, math.ceil(epochs / 4), math.ceil(epochs / 2), epochs})
    try:
        found = [int(part) for part in at.split(",")]
    except ValueError:
        raise BadInput(f"--at takes epochs separated by commas, such as 1,5,10, not '{at}'") from None
    if found != sorted(set(found)) or not 1 <= found[0] <= found[-1] <= epochs:
        raise BadInput(f"--at takes rising epochs, each from 1 to the run's {epochs} and once, not '{at}'")
    return found


def _method(request: Mapping[str, Any]) -> dict[str, Any]:
    """Returns method and ratio of a request: full data where it has neither."""
    method, ratio = request.get("method"), request.get("ratio")
    if method is None and ratio is not None:
        raise BadInput(f"--ratio {ratio:g} is the ratio of --method: name a method too")
    if method not in (None, "full") and ratio is None:
        raise BadInput(f"--method {method} needs --ratio, the share of the visits that it saves")
    return {"method": method or "full", "ratio": ratio or 0.0}


class Study:
    """One study. Its request is checked before training.

    The truth is the exact norm of each example's loss gradient over all parameters (see `per_example_norms`) with
    recalibrated normalisation statistics (see `score_collectors.recalibrated`). With SLTT it is still the gradient through
    all time steps. Each stop then also has the cosine of SLTT's gradient with BPTT's (see `training.gradient_cosine`), the
    mean over some full batches.

    A score has several sources:

      frozen    The score in evaluation mode, with weights, statistics and inputs of the truth, without augmentation.
      training  The same score in training mode, so with the batch's statistics, without an update.
      age a     The score that the training steps had collected by the end of the last epoch (age 0) or a epochs earlier.
                It includes augmentation and changing weights. With pruning an example's score comes from its last visit.
                Its truth is what a selection for the next epoch needs: the root mean square of the exact norms over
                several augmented views. The exact norm of age a is that of a epochs earlier.

    Args:
        request: The settings, as `resolve.resolve` takes them. The network trains with the method's pruning, or on full
            data without a method.
        at: The epochs to stop after, as `stops` reads them.
        examples: The number of training examples to study.
        data: The folder of the data sets.
        progress: Receives the progress.
        bias: Whether each stop measures the bias of draws (see `gradient_bias`). These are uniform sampling, the method,
            and SADP's draw by the exact norm. On full data SADP with half the examples kept stands for the method.

    Raises:
        BadInput: The request cannot be studied.
    """

    def __init__(
        self,
        request: Mapping[str, Any],
        at: str | None,
        examples: int,
        data: Path | None,
        progress: Progress,
        bias: bool = False,
    ) -> None:
        self.spec, material = resolve({**request, **_method(request)}, data)
        if self.spec.backprop == "local" or self.spec.sparsity != "dense":
            raise BadInput(
                "a study compares scores with gradients through all blocks and connections: leave --backprop local and "
                "--sparsity out"
            )
        if not MIN_EXAMPLES <= examples <= len(material.train):
            raise BadInput(
                f"--examples is from {MIN_EXAMPLES} to the training set's {len(material.train)}, not {examples}"
            )
        self.progress, self._asked, self.bias = progress, at, bias
        self.at, self.length = stops(at, self.spec.epochs), self.spec.epochs
        with threads(self.spec.threads), enough_memory(self.spec):
            self.trainer = RunTrainer(self.spec, Resources(self.spec, material), progress)
            # This refuses a network without a rule for exact norms before training.
            exact_norms(self.model, self.trainer.data, self.spec, torch.arange(1), Progress())
        draw = stream(self.spec.seed, "study")
        shuffled_N = torch.randperm(len(material.train), generator=draw)
        self.index_n, self.rest = shuffled_N[:examples], shuffled_N[examples:]
        self.views = 0 if self.spec.augment == "none" else VIEWS
        self.truth: dict[int, Tensor] = {}
        if bias:  # this refuses a batch norm that cannot be weighted before training
            self._passes()

    @property
    def model(self) -> nn.Module:
        """The network that trains."""
        return self.trainer.model

    def measure(self) -> dict[str, Any]:
        """Trains the network and measures. Returns the table that `study_file` writes."""
        trainer, spec, progress = self.trainer, self.spec, self.progress
        collector = self._collector(trainer.pruner)
        found = []
        with threads(spec.threads), enough_memory(spec):
            with trainer.clock("prepare"):
                collector.prepare(trainer.context)
            # The run's length may depend on `prepare`.
            self.length = math.ceil(loop.run_length(trainer.pruner, spec, len(trainer.data)))
            self.at = stops(self._asked, self.length)
            trainer.state.pruner = collector
            planned = self.at[-1] / spec.epochs * training_visits(spec)
            visits = round(planned) + (4 + self.views) * len(self.at) * len(self.index_n)
            if self.bias:
                normed = bool(batch_norms(self.model))
                visits += len(self.at) * gradient_bias.visits(len(self.index_n), self.keep, 3, normed)
            progress.start("study", visits, self.at[-1])
            try:
                rows = loop.train(trainer.state, trainer.data, spec, trainer.clock, progress, spec.seed, self.at[-1])
                for row in rows:
                    collector.keep(row["epoch"])
                    progress.epoch(row, len(trainer.data))
                    if row["epoch"] + 1 in self.at:
                        found.append(self._stop(row, collector))
                progress.message(f"study: timing the cost of the scores, {1 + score_cost.ROUNDS} rounds")
                cost = score_cost.measure_cost(trainer, progress)
            finally:
                progress.stop()
        return finite(self._head() | {"stops": found, "cost": cost})

    def _head(self) -> dict[str, Any]:
        names = {module: name for name, module in self.model.named_modules()}
        return {
            "schema": STUDY_SCHEMA,
            "kind": "study",
            "sadp_bench": __version__,
            "key": study_key(self.spec, self.at, len(self.index_n), self.bias),
            "run": self.spec.key,
            "spec": self.spec.to_json(),
            "environment": self.trainer.environment,
            "data_sha256": self.trainer.material.sha256,
            "finished": now(),
            "num_examples": len(self.trainer.data),
            "at": self.at,
            "examples": len(self.index_n),
            "index": self.index_n.tolist(),
            "smoothing": SMOOTHING,
            "sadp_smoothing": self._collector().sadp.smoothing,
            "optimum_smoothing": OPTIMUM_SMOOTHING,
            "views": self.views,
            "layers": [printable(names[layer]) for layer in weight_layers(self.model)],
            "rows": self.trainer.state.rows,
        }

    def _stop(self, row: loop.EpochRow, collector: Collector) -> dict[str, Any]:
        epoch, n = row["epoch"], len(self.index_n)
        recalibrates = bool(batch_norms(self.model))
        self.progress.message(f"study: exact gradient norms of {n} examples after epoch {epoch + 1}")
        lagging_n = self._exact() if recalibrates else None
        with recalibrated(self.model, self.trainer.data, self._statistics_batches(epoch)):
            norm_n = self._exact()
            coming_n = self.truth[epoch] = self._coming(epoch, norm_n)
            frozen, square_Ln, spikes_n = self._observed(self.index_n.split(self.spec.batch_size), training=False)
        trained, *_ = self._observed(self._filled_batches(epoch), training=True)
        values = {"frozen": frozen.values() | {"exact": norm_n}, "training": trained.values()}
        values |= self._aged(epoch, collector)
        uniform = {"uniform": torch.ones_like(norm_n)}
        optimum = {"now": compared(norm_n, norm_n, OPTIMUM_SMOOTHING)}
        optimum["coming"] = compared(coming_n, coming_n, OPTIMUM_SMOOTHING)
        compared_by = {source: uniform | scores for source, scores in values.items()}
        return {
            "epoch": epoch + 1,
            "train_loss": row["train_loss"],
            "norm_mean": float(norm_n.mean()),
            "norm_cv": variation(norm_n),
            "unseen": collector.unseen(),
            "optimum_over_uniform": {truth: cell["over_uniform"] for truth, cell in optimum.items()},
            "optimum_tau": {truth: cell["tau"] for truth, cell in optimum.items()},
            "scores": by_name(norm_n, coming_n, compared_by, collector.sadp.smoothing),
            "lag": None if lagging_n is None else compared(norm_n, lagging_n),
            "input_squares_cv": [variation(square_n) for square_n in square_Ln],
            "spikes_cv": variation(spikes_n),
            "bound_ratio": {
                "frozen": frozen.bound_ratio(),
                "training": trained.bound_ratio(),
                "collected": collector.bound_ratio(),
            },
            **self._cosine(epoch),
            **self._bias(epoch, collector, norm_n),
            "examples": {"exact": {"frozen": norm_n.tolist(), "coming": coming_n.tolist()}}
            | {name: {at: values[at][name].tolist() for at in ("frozen", "age 0")} for name in collector.scores},
        }

    def _collector(self, method: Pruner | None = None) -> Collector:
        """Returns a collector. Its score "sadp" has the run's settings where SADP prunes the run."""
        return Collector(self.index_n, method, self.spec.method_options if self.spec.method == "sadp" else None)

    @property
    def keep(self) -> float:
        """The share of the examples that the measured draws keep."""
        return 1 - self.spec.ratio if self.spec.ratio else BIAS_KEEP

    def _passes(self) -> gradient_bias.Passes:
        return gradient_bias.Passes(self.model, self.trainer.data, self.spec, self.index_n, self.progress)

    def _bias(self, epoch: int, collector: Collector, norm_n: Tensor) -> dict[str, Any]:
        """Returns the bias of draws for the next epoch (after the last epoch: for it again); {} where it is not requested."""
        if not self.bias:
            return {}
        self.progress.message(f"study: bias of gradients after epoch {epoch + 1}, {gradient_bias.ROUNDS} rounds")
        coming, name, method = min(epoch + 1, self.length - 1), self.spec.method, copy.deepcopy(collector.method)
        if name == "full":
            name, method = "sadp", copy.deepcopy(collector.sadp)
            method.prune_ratio = 1 - self.keep
        method.rescore(coming, Surveys(self.model, self.trainer.data, self.spec))
        smoothing = collector.sadp.smoothing
        draws = studied_draws(name, method, coming, norm_n, self.index_n, self.keep, smoothing)
        found = gradient_bias.gradient_bias(self._passes(), draws, gradient_bias.ROUNDS)
        return {"bias": {"keep": self.keep, **found}}

    def _cosine(self, epoch: int) -> dict[str, Any]:
        """Returns the cosine of SLTT's gradient with BPTT's where SLTT trains; else {}."""
        if self.spec.backprop not in STEP_BY_STEP:
            return {}
        data, masks = self.trainer.data, self.trainer.state.sparsity.masks
        batches = self._statistics_batches(epoch)[:COSINE_BATCHES]
        found, other = (
            gradient_cosines(self.model, data, self.spec, batches, masks, norms) for norms in ("step", "all")
        )
        layer, least = found.least() or (None, None)
        return {
            "gradient_cosine": {
                "whole": found.whole,
                "least": least,
                "least_layer": layer,
                "layers": found.layers,
                "norms_of_all_steps": other.whole,
                "batches": len(batches),
            }
        }

    def _exact(self, augmentation: Augmentation | None = None) -> Tensor:
        return exact_norms(self.model, self.trainer.data, self.spec, self.index_n, self.progress, augmentation)

    def _coming(self, epoch: int, norm_n: Tensor) -> Tensor:
        """Returns the root mean square of the exact norms over augmented views; without augmentation the norm itself."""
        data, square_n = self.trainer.data, torch.zeros_like(norm_n)
        for view in range(self.views):
            draw = stream(self.spec.seed, f"study view {view}", epoch)
            augmentation = draw_augmentation(self.spec.augment, len(data), data.padding, data.sides, draw, data.device)
            square_n += self._exact(augmentation).square() / self.views
        return square_n.sqrt() if self.views else norm_n

    def _observed(self, batches: tuple[Tensor, ...], training: bool) -> tuple[Collector, Tensor, Tensor]:
        """Passes over the studied examples once.

        Returns:
            The scores, each layer's input squares [L, n], and each example's number of spikes [n].
        """
        collector = self._collector()
        collector.prepare(self.trainer.context)
        watch, squares, spikes = collector.watch(0) | {Signal.SPIKE_COUNTS}, [], []
        for seen in observations(self.model, self.trainer.data, self.spec, batches, watch, training, self.progress):
            collector.observe(seen)
            squares.append(seen.watched["input_squares"].cpu())
            spikes.append(seen.watched["spike_counts"].double().sum((0, 1)).cpu())
        return collector, torch.cat(squares, 1), torch.cat(spikes)

    def _aged(self, epoch: int, collector: Collector) -> dict[str, dict[str, Tensor]]:
        """Returns the collected scores of each age, by source. Ages before the run's first epoch are left out."""
        aged = {age: dict(collector.by_epoch[epoch - age]) for age in AGES if epoch - age in collector.by_epoch}
        for age, scores in aged.items():
            if age > 0 and epoch - age in self.truth:
                scores["exact"] = self.truth[epoch - age]
        return {f"age {age}": scores for age, scores in aged.items()}

    def _filled_batches(self, epoch: int) -> tuple[Tensor, ...]:
        """Returns the studied examples in batches of the run's size. Other examples fill the last batch."""
        size = self.spec.batch_size
        missing = -len(self.index_n) % size
        others = torch.randperm(len(self.rest), generator=stream(self.spec.seed, "study filling", epoch))[:missing]
        return torch.cat([self.index_n, self.rest[others]]).split(size)

    def _statistics_batches(self, epoch: int) -> tuple[Tensor, ...]:
        """Returns uniformly drawn batches of about the run's size."""
        size = self.spec.batch_size
        drawn = torch.randperm(len(self.trainer.data), generator=stream(self.spec.seed, "study statistics", epoch))
        drawn = drawn[: CALIBRATION_BATCHES * size]
        return drawn.tensor_split(-(-len(drawn) // size))
