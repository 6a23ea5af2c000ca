"""Reads records from Python: frames, reports, and the files that a run kept beside its record."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sadp_bench.core.errors import BadInput

if TYPE_CHECKING:
    import numpy
    import pandas
    from torch import Tensor, nn

    from sadp_bench.records.comparison import Comparison
    from sadp_bench.records.record import Record
    from sadp_bench.runs.run import Outcome

Folder = str | Path


def load(folder: Folder | Iterable[Folder] = "runs", *, epochs: bool = False) -> pandas.DataFrame:
    """Returns a row for each run of the records, or for each epoch of each run.

    Accuracies, ratios, efficiencies and shares lie in [0, 1]; other names end with their unit. A number that the records
    lack is NaN: the seconds of a disturbed run, a speed-up without a reference.

    Args:
        folder: Folder of the records, read with its subfolders; or several folders.
        epochs: Whether to return a row for each epoch.

    Raises:
        BadInput: A folder does not exist.
    """
    from sadp_bench.records.store import read_all

    folders = [folder] if isinstance(folder, str | Path) else folder
    found = read_all([Path(each) for each in folders])
    records = [record for _, record in found.records]
    if epochs:
        import pandas

        return pandas.DataFrame([_named(record) | row for record in records for row in record.epochs])
    from sadp_bench.records.comparison import paired

    return frame(paired(records))


def report(folder: Folder | Iterable[Folder] = "runs", *, format: str = "text") -> str:
    """Returns the report of the records; see `sadp-bench report`.

    Args:
        folder: Folder of the records, or several folders.
        format: text, markdown, latex, csv, json or html.

    Raises:
        BadInput: There is nothing to report.
    """
    from sadp_bench.records.store import read_all, read_notes
    from sadp_bench.records.trials import sorted_out
    from sadp_bench.reports import render

    folders = [Path(folder)] if isinstance(folder, str | Path) else [Path(each) for each in folder]
    found = read_all(folders)
    records, failures, searches = sorted_out(found.records, found.failures, folders)
    remarks = read_notes(folders)
    again = shlex.join(["sadp-bench", "report", *map(str, folders), "--format", "html", "--to", "report.html"])
    return render(records, found.problems, format, failures=failures, remarks=remarks, searches=searches, again=again)


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A trained network, and the constants that make its input.

    Attributes:
        network: The network in evaluation mode, on the CPU. It takes [B, C, H, W], or [T, B, C, H, W] of events. It
            returns the logits of each time step, [T, B, classes].
        class_names: Names of the classes, in the order of the logits.
        scale: The stored value of full intensity.
        mean: Mean of each channel, of values divided by the scale.
        std: Standard deviation of each channel, likewise.
    """

    network: nn.Module
    class_names: Sequence[str]
    scale: float
    mean: Sequence[float]
    std: Sequence[float]

    def input(self, pixels: Tensor) -> Tensor:
        """Returns the network's input for stored values: images [B, C, H, W], or events [B, T, C, H, W]."""
        import torch

        mean, std = (torch.as_tensor(each, dtype=torch.float32)[:, None, None] for each in (self.mean, self.std))
        normalised = (pixels / self.scale - mean) / std
        return normalised.transpose(0, 1) if pixels.dim() == 5 else normalised


def load_model(record: Outcome | Folder, *, data: Folder | None = None) -> TrainedModel:
    """Returns the network that a run trained with `save_model`, and its normalisation.

    Args:
        record: An outcome of `run`, or a record's file. The weights lie beside it.
        data: Folder of the data sets, for the shape of an input and the classes.

    Raises:
        BadInput: There are no weights, or they do not fit the record's network.
    """
    import dataclasses

    from sadp_bench.runs.reopening import network_of, reopened

    path = _file(record)
    # It works on any machine, also without the C core and without a GPU.
    spec = dataclasses.replace(_record(record).spec, device="cpu", kernel="python")
    material = reopened(spec, whole_path(data))
    network = network_of(spec, material, path.with_suffix(".pt"))
    kind = material.dataset
    return TrainedModel(network, kind.class_names, kind.scale, kind.mean, kind.std)


def scores(record: Outcome | Folder) -> numpy.ndarray:
    """Returns the scores that a run kept, float64, [N]: its final scores, or those that it made before training.

    Args:
        record: An outcome of `run`, or a record's file. The scores lie in its folder.

    Raises:
        BadInput: The run was trained without `save_scores`, and its method makes no scores before training.
    """
    from sadp_bench.runs import exporting

    return exporting.scores(_file(record), _record(record))


def visits(record: Record | Outcome | Folder) -> numpy.ndarray:
    """Returns how often training showed each example, int64, [N], in the order of the training set.

    Args:
        record: A record, an outcome of `run`, or a record's file.

    Raises:
        BadInput: The record is from a version that kept no visits.
    """
    from sadp_bench.runs import exporting

    return exporting.visits(_record(record))


def export(
    record: Outcome | Folder,
    *,
    scores: Folder | None = None,
    visits: Folder | None = None,
    masks: Folder | None = None,
    weights: Folder | None = None,
    data: Folder | None = None,
) -> None:
    """Writes parts of a run to new files; see `sadp-bench export`.

    Args:
        record: An outcome of `run`, or a record's file.
        scores: The file of the scores, .npz.
        visits: The file of the visits, .csv.
        masks: The file of the masks, .npz.
        weights: The file of the trained network, .pt.
        data: Folder of the data sets, for the weights.

    Raises:
        BadInput: The run did not keep a part, or a file exists already; then nothing is written.
    """
    from sadp_bench.runs import exporting

    parts = {"scores": scores, "visits": visits, "masks": masks, "weights": weights}
    wanted = {name: Path(to) for name, to in parts.items() if to is not None}
    exporting.export(_file(record), _record(record), wanted, whole_path(data))


def _record(given: Record | Outcome | Folder) -> Record:
    from sadp_bench.records.store import read

    if isinstance(given, str | Path):
        try:
            return read(Path(given))
        except BadInput as error:
            raise BadInput(f"{given}: {error}") from None
    comparison = getattr(given, "comparison", None)
    found: Record = given if comparison is None else comparison.record  # type: ignore[assignment]
    return found


def _file(given: Outcome | Folder) -> Path:
    return Path(given) if isinstance(given, str | Path) else given.path


def _named(record: Record) -> dict[str, Any]:
    """Returns the key and all settings of a run."""
    return {"key": record.spec.key, **record.spec.flat()}


def frame(comparisons: Iterable[Comparison]) -> pandas.DataFrame:
    """Returns a row for each run; see `load`."""
    import pandas

    return pandas.DataFrame([_row(each) for each in comparisons])


def _row(found: Comparison) -> dict[str, Any]:
    from sadp_bench.records.metrics import charged_cpu_seconds, charged_seconds, gradient_mass

    record = found.record
    return {
        **_named(record),
        "test_accuracy": record.test_accuracy,
        "accuracy_difference": found.accuracy_difference,
        "fitted_accuracy": record.fitted_accuracy,
        "fitted_loss": record.fitted_loss,
        "realised_ratio": found.realised_ratio,
        "speedup": found.speedup,
        "cpu_speedup": found.cpu_speedup,
        "nominal_maximum": found.nominal_maximum,
        "ceiling": found.ceiling,
        "efficiency": found.efficiency,
        "charged_seconds": None if record.disturbed else charged_seconds(record),
        "charged_cpu_seconds": charged_cpu_seconds(record),
        **{f"{phase}_seconds": None if record.disturbed else value for phase, value in record.seconds.items()},
        "gradient_mass": gradient_mass(record),
        "num_examples": record.num_examples,
        "examples_seen": record.examples_seen,
        "num_parameters": record.num_parameters,
        "density": record.density,
        "peak_memory_bytes": record.peak_memory_bytes or None,
        "train_memory_bytes": record.train_memory_bytes,
        "energy_joules": record.operations.get("energy_joules"),
        "disturbed": record.disturbed,
        "finished": record.finished,
        **{f"environment.{name}": value for name, value in record.environment.items()},
    }


def whole_path(folder: Folder | None) -> Path | None:
    """Returns the absolute path of a folder; None for None."""
    return None if folder is None else Path(folder).absolute()
