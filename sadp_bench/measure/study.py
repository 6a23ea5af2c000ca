"""A study of scores: compares each score with the exact gradient norm while full data trains, and measures its cost."""

from __future__ import annotations

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
from sadp_bench.measure import score_cost
from sadp_bench.measure.score_collectors import Collector, exact_norms, observations, recalibrated
from sadp_bench.measure.study_file import AGES, KEEPS, STUDY_SCHEMA, study_key
from sadp_bench.pruners.sampling import inclusion_probability, smooth
from sadp_bench.records.fields import STEP_BY_STEP
from sadp_bench.runs.resolve import enough_memory, resolve
from sadp_bench.runs.resources import Resources
from sadp_bench.runs.trainer import RunTrainer, now, threads
from sadp_bench.training import loop
from sadp_bench.training.data import Augmentation, draw_augmentation
from sadp_bench.training.gradient_cosine import gradient_cosines

SMOOTHING = 0.02  # share of uniform sampling mixed into a score, so that single zeros do not decide the comparison
OPTIMUM_SMOOTHING = 1e-6  # share mixed into the exact norm as the optimum, for finite numbers only
MIN_VARIANCE = 1e-6  # share of uniform sampling's variance; a ratio to a smaller optimum means nothing
MIN_EXAMPLES = 10  # examples
CALIBRATION_BATCHES = 20  # batches whose statistics recalibrate the normalisation
COSINE_BATCHES = 4  # batches over which the cosines of gradients are averaged
VIEWS = 4  # augmented views, whose root mean square norm stands for the next epoch's


def draw_variance(norm_n: Tensor, score_n: Tensor, keep: float, smoothing: float) -> float:
    """Returns V = sum_i g_i^2 (1 / pi_i - 1), where pi keeps the share `keep` in proportion to the smoothed score.

    V is the trace of the covariance of sum_i S_i g_i / pi_i, the unbiased estimate of the examples' summed gradient, under
    Poisson sampling: each example is drawn independently with probability pi_i (Saerndal, Swensson & Wretman 1992, section
    3.5).

    Args:
        norm_n: Exact gradient norms g.
        score_n: Scores; where one is negative or not finite, V is not a number.
        keep: Share of the examples that are kept.
        smoothing: Share of uniform sampling that is mixed in.
    """
    if not bool(torch.isfinite(score_n).all()) or bool((score_n < 0).any()):
        return math.nan
    p_n = inclusion_probability(smooth(score_n, smoothing), max(1, round(keep * len(norm_n))))
    return float((norm_n.square() * (1 / p_n - 1)).sum())


def compared(norm_n: Tensor, score_n: Tensor, smoothing: float = SMOOTHING) -> dict[str, Any]:
    """Compares a score with the exact norm; None stands for undefined numbers.

    Returns:
        "spearman", "pearson": correlations. "over_uniform", "over_optimum": V over uniform sampling's and over the
        optimum's, by the share kept.
    """
    cell: dict[str, Any] = {**correlations(norm_n, score_n), "over_uniform": {}, "over_optimum": {}}
    for keep in KEEPS:
        variance = draw_variance(norm_n, score_n, keep, smoothing)
        uniform = draw_variance(norm_n, torch.ones_like(norm_n), keep, smoothing)
        optimum = draw_variance(norm_n, norm_n, keep, OPTIMUM_SMOOTHING)
        cell["over_uniform"][f"{keep:g}"] = ratio(variance, uniform)
        cell["over_optimum"][f"{keep:g}"] = ratio(variance, optimum) if optimum > MIN_VARIANCE * uniform else None
    return cell


def correlations(norm_n: Tensor, score_n: Tensor) -> dict[str, float | None]:
    """Returns Spearman's and Pearson's correlation; None where a side is constant or not finite."""
    from scipy import stats

    finite = bool(torch.isfinite(norm_n).all() and torch.isfinite(score_n).all())
    if not finite or norm_n.unique().numel() < 2 or score_n.unique().numel() < 2:
        return {"spearman": None, "pearson": None}
    pair = norm_n.numpy(), score_n.numpy()
    found = {"spearman": stats.spearmanr(*pair).statistic, "pearson": stats.pearsonr(*pair).statistic}
    return {name: float(value) if math.isfinite(value) else None for name, value in found.items()}


def ratio(value: float, base: float) -> float | None:
    """Returns value / base; None where it is not finite or the base is not positive."""
    return value / base if base > 0 and math.isfinite(value) and math.isfinite(base) else None


def variation(value_n: Tensor) -> float | None:
    """Returns the standard deviation over the mean."""
    return ratio(float(value_n.double().std(correction=0)), float(value_n.double().mean()))


def stops(at: str | None, epochs: int) -> list[int]:
    """Returns the epochs of '1, 5,10'; for None the first epoch, a quarter, the half and the end of the run."""
    if at is None:
        return sorted({1, math.ceil(epochs / 4), math.ceil(epochs / 2), epochs})
    try:
        found = [int(part) for part in at.split(",")]
    except ValueError:
        raise BadInput(f"--at takes epochs separated by commas, such as 1,5,10, not '{at}'") from None
    if found != sorted(set(found)) or not 1 <= found[0] <= found[-1] <= epochs:
        raise BadInput(f"--at takes rising epochs, each from 1 to the run's {epochs} and once, not '{at}'")
    return found


class Study:
    """One study; its request is checked before anything trains.

    Where SLTT trains, the truth stays the gradient through all time steps, and each stop has the cosine of SLTT's
    gradient with BPTT's (see `training.gradient_cosine`), the mean over some full batches.

    The truth is the exact norm of each example's loss gradient over all parameters (see `per_example_norms`) with
    recalibrated normalisation statistics (see `score_collectors.recalibrated`). Sources of a score:

      frozen    Evaluation mode, with the weights, statistics and inputs of the truth, which is not augmented.
      training  Training mode, so with the batch's statistics; otherwise the same, without an update.
      age a     As the training steps collected it, augmented and while weights move, in the last epoch (age 0) or a epochs
                earlier. Its truth is the quantity that a selection for the next epoch needs: the root mean square of the
                exact norms over several augmented views. The exact norm of age a is that of a epochs earlier.

    Args:
        request: The settings, as `resolve.resolve` takes them; the method is full data.
        at: Epochs to stop after, as `stops` reads them.
        examples: Number of training examples to study.
        data: Folder of the data sets.
        progress: Receives the progress.

    Raises:
        BadInput: The request can't be studied.
    """

    def __init__(
        self, request: Mapping[str, Any], at: str | None, examples: int, data: Path | None, progress: Progress
    ) -> None:
        self.spec, material = resolve({**request, "method": "full", "ratio": 0.0}, data)
        if self.spec.backprop == "local" or self.spec.sparsity != "dense":
            raise BadInput(
                "a study compares scores with gradients through all blocks and connections: leave --backprop local and "
                "--sparsity out"
            )
        self.at = stops(at, self.spec.epochs)
        if not MIN_EXAMPLES <= examples <= len(material.train):
            raise BadInput(
                f"--examples is from {MIN_EXAMPLES} to the training set's {len(material.train)}, not {examples}"
            )
        self.progress = progress
        with threads(self.spec.threads), enough_memory(self.spec):
            self.trainer = RunTrainer(self.spec, Resources(self.spec, material), progress)
            # A network without a rule for exact norms is refused before it trains.
            exact_norms(self.model, self.trainer.data, self.spec, torch.arange(1), Progress())
        draw = stream(self.spec.seed, "study")
        shuffled_N = torch.randperm(len(material.train), generator=draw)
        self.index_n, self.rest = shuffled_N[:examples], shuffled_N[examples:]
        self.views = 0 if self.spec.augment == "none" else VIEWS
        self.truth: dict[int, Tensor] = {}

    @property
    def model(self) -> nn.Module:
        """The network that trains."""
        return self.trainer.model

    def measure(self) -> dict[str, Any]:
        """Trains and measures. Returns the table that `study_file` writes."""
        trainer, spec, progress = self.trainer, self.spec, self.progress
        collector = Collector(self.index_n)
        found = []
        with threads(spec.threads), enough_memory(spec):
            collector.prepare(trainer.context)
            trainer.state.pruner = collector
            visits = self.at[-1] * len(trainer.data) + (4 + self.views) * len(self.at) * len(self.index_n)
            progress.start("study", visits, spec.epochs)
            try:
                rows = loop.train(trainer.state, trainer.data, spec, trainer.clock, progress, spec.seed, self.at[-1])
                for row in rows:
                    collector.keep(row["epoch"])
                    progress.epoch(row, len(trainer.data))
                    if row["epoch"] + 1 in self.at:
                        found.append(self._stop(row, collector))
                progress.message(f"study: timing what the scores cost, {1 + score_cost.ROUNDS} rounds")
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
            "key": study_key(self.spec, self.at, len(self.index_n)),
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
        return {
            "epoch": epoch + 1,
            "train_loss": row["train_loss"],
            "norm_mean": float(norm_n.mean()),
            "norm_cv": variation(norm_n),
            "optimum_over_uniform": {
                "now": compared(norm_n, norm_n, OPTIMUM_SMOOTHING)["over_uniform"],
                "coming": compared(coming_n, coming_n, OPTIMUM_SMOOTHING)["over_uniform"],
            },
            "scores": by_name(norm_n, coming_n, {source: uniform | scores for source, scores in values.items()}),
            "lag": None if lagging_n is None else compared(norm_n, lagging_n),
            "input_squares_cv": [variation(square_n) for square_n in square_Ln],
            "spikes_cv": variation(spikes_n),
            "bound_ratio": {
                "frozen": frozen.bound_ratio(),
                "training": trained.bound_ratio(),
                "collected": collector.bound_ratio(),
            },
            **self._cosine(epoch),
            "examples": {"exact": {"frozen": norm_n.tolist(), "coming": coming_n.tolist()}}
            | {name: {at: values[at][name].tolist() for at in ("frozen", "age 0")} for name in collector.scores},
        }

    def _cosine(self, epoch: int) -> dict[str, Any]:
        """Returns the cosine of SLTT's gradient with BPTT's where SLTT trains."""
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
        collector = Collector(self.index_n)
        collector.prepare(self.trainer.context)
        watch, squares, spikes = collector.watch(0) | {Signal.SPIKE_COUNTS}, [], []
        for seen in observations(self.model, self.trainer.data, self.spec, batches, watch, training, self.progress):
            collector.observe(seen)
            squares.append(seen.watched["input_squares"].cpu())
            spikes.append(seen.watched["spike_counts"].double().sum((0, 1)).cpu())
        return collector, torch.cat(squares, 1), torch.cat(spikes)

    def _aged(self, epoch: int, collector: Collector) -> dict[str, dict[str, Tensor]]:
        """Returns by source the scores of earlier epochs, as far as the run has come."""
        aged = {age: dict(collector.by_epoch[epoch - age]) for age in AGES if epoch - age in collector.by_epoch}
        for age, scores in aged.items():
            if age > 0 and epoch - age in self.truth:
                scores["exact"] = self.truth[epoch - age]
        return {f"age {age}": scores for age, scores in aged.items()}

    def _filled_batches(self, epoch: int) -> tuple[Tensor, ...]:
        """Returns the studied examples in batches of the run's size; other examples fill up the last batch."""
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


def by_name(norm_n: Tensor, coming_n: Tensor, values: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    """Compares every score of every source with its truth.

    Args:
        norm_n: The exact norms now, the truth of frozen and training; as a score they are the optimum.
        coming_n: The norms of the next epoch, the truth of collected scores.
        values: Scores by source and name.

    Returns:
        Comparisons by name and source.
    """
    found: dict[str, Any] = {}
    for source, scores in values.items():
        for name, score_n in scores.items():
            smoothing = OPTIMUM_SMOOTHING if (name, source) == ("exact", "frozen") else SMOOTHING
            truth_n = coming_n if source.startswith("age") else norm_n
            found.setdefault(name, {})[source] = compared(truth_n, score_n, smoothing)
    return found


def finite(value: Any) -> Any:
    """Returns the value with None in place of numbers that are not finite, which JSON lacks."""
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
