"""Options that several commands share, and the options of a run's spec."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from typer import BadParameter, Option

from sadp_bench.core.errors import BadInput


def listed(kind: type[int] | type[float]) -> Callable[[str], Any]:
    """Returns a parser of one number, or of several with commas between them, which it returns as a list."""

    def parsed(text: str) -> Any:
        try:
            numbers = [kind(part) for part in text.split(",")]
        except ValueError:
            name = "whole number" if kind is int else "number"
            raise BadParameter(f"no {name}, nor several with commas between them") from None
        return numbers if len(numbers) > 1 else numbers[0]

    return parsed


Data = Annotated[Path | None, Option(help="Folder of the data sets.", show_default="$SADP_BENCH_DATA, or a cache")]
CheckpointSeconds = Annotated[
    float, Option(help="Seconds between checkpoints, which are written at the end of an epoch; 0: after every epoch.")
]
Minutes = Annotated[
    float | None,
    Option(
        help="Stop after about this time, at the end of an epoch, with exit code 75; the same command goes on.",
        show_default="no limit",
    ),
]
AsJson = Annotated[bool, Option("--json", help="Print one JSON object on stdout and nothing else there.")]
AllowImports = Annotated[
    bool, Option("--allow-imports", help="Allow package.module:Class in the file, whose code then runs.")
]
Quiet = Annotated[bool, Option(help="Show no progress.")]
Plots = Annotated[Path | None, Option(help="Draw the plots into this folder.")]
Records = Annotated[Path, Option(help="Folder of the records.")]

# By field of `Spec`. The default of each is None: the value that the help shows is filled in later. "set": the --set table.
SPEC_OPTIONS: dict[str, Any] = {
    "dataset": Annotated[str | None, Option(help="Data set: a name or package.module:Class.", show_default="digits")],
    "backbone": Annotated[
        str | None,
        Option(help="Spiking network: a name or package.module:Class.", show_default="cnn, or mlp for vectors"),
    ],
    "budget": Annotated[
        str | None,
        Option(
            help="Share kept by epoch: constant, falling or rising, of equal total; for dynamic methods.",
            show_default="constant",
        ),
    ],
    "epochs": Annotated[int | None, Option(help="Epochs of full-data training.", show_default="the data set's")],
    "batch_size": Annotated[int | None, Option(help="Examples per batch.", show_default="the data set's")],
    "timesteps": Annotated[int | None, Option(help="Time steps T.", show_default="the data set's")],
    "optimizer": Annotated[str | None, Option(help="sgd or adamw.", show_default="sgd")],
    "learning_rate": Annotated[
        float | None, Option(help="Learning rate at the start of the schedule.", show_default="the data set's")
    ],
    "schedule": Annotated[str | None, Option(help="cosine or constant.", show_default="cosine")],
    "lr_clock": Annotated[
        str | None,
        Option(help="What the cosine follows: epochs, or visits (done, of those planned).", show_default="epochs"),
    ],
    "weight_decay": Annotated[float | None, Option(help="Weight decay of all parameters.", show_default="5e-4")],
    "augment": Annotated[
        str | None,
        Option(
            help="none, or crop-flip,cutout and the like: crop, crop-flip, nda, randaugment, cutout, mixup, cutmix.",
            show_default="the data set's",
        ),
    ],
    "loss": Annotated[
        str | None,
        Option(
            help="mean: loss of the logits' mean over time; step, step-mse (or tet), step-mse-onehot: mean of the steps'.",
            show_default="mean, or step with --backprop sltt",
        ),
    ],
    "mse_weight": Annotated[
        float | None,
        Option(help="Weight of the squared distance in step-mse and step-mse-onehot.", show_default="0.05"),
    ],
    "label_smoothing": Annotated[
        float | None, Option(help="Share of the target that is uniform over the classes.", show_default="0")
    ],
    "warmup_epochs": Annotated[
        float | None, Option(help="Epochs in which the learning rate rises to its full value.", show_default="0")
    ],
    "momentum": Annotated[float | None, Option(help="Momentum of sgd.", show_default="0.9")],
    "nesterov": Annotated[
        bool | None, Option("--nesterov/--no-nesterov", help="Nesterov's momentum of sgd.", show_default="no")
    ],
    "clip_norm": Annotated[
        float | None, Option(help="Greatest norm of an update's gradient; 0: any.", show_default="0")
    ],
    "ema": Annotated[
        float | None,
        Option(help="Decay of the weights' moving average, which is then evaluated; 0: none.", show_default="0"),
    ],
    "precision": Annotated[str | None, Option(help="auto, fp32, bf16 or fp64.", show_default="auto")],
    "kernel": Annotated[
        str | None,
        Option(
            help="Kernels of the layers: auto, native (C; on CUDA Triton) or python.",
            show_default="auto",
        ),
    ],
    "threads": Annotated[int | None, Option(help="CPU threads.", show_default="all cores")],
    "device": Annotated[
        str | None, Option(help="auto, cpu, cuda, cuda:N, or mps (Apple, untested).", show_default="auto")
    ],
    "seed": Annotated[
        Any,
        Option(
            parser=listed(int),
            metavar="<int>",
            help="Seed of weights, order, augmentation and selection.",
            show_default="0",
        ),
    ],
    "train_examples": Annotated[
        int | None, Option(help="Train on a fixed, class-balanced part of the data.", show_default="all")
    ],
    "backprop": Annotated[
        str | None, Option(help="Where gradients flow: bptt, sltt, sltt-k or local.", show_default="bptt")
    ],
    "k": Annotated[int | None, Option(help="Number of time steps of sltt-k.", show_default="none")],
    "sparsity": Annotated[
        str | None,
        Option(help="Connections: dense, imp, eb, pq, random, channels or narrow.", show_default="dense"),
    ],
    "density": Annotated[
        float | None, Option(help="Share of the connections (narrow: of the products) that exist.", show_default="1")
    ],
    "early_time": Annotated[
        bool | None,
        Option("--early-time", help="Search the ticket of imp or eb with fewer time steps.", show_default="no"),
    ],
    "set": Annotated[
        list[str] | None,
        Option(help="KEY=VALUE of the method; backbone.KEY=VALUE, dataset.KEY=VALUE, sparsity.KEY=VALUE; repeatable."),
    ],
}


def with_spec_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the command with the options of a spec in place of its parameter `request`, a dict that receives them."""
    parameters = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        parameters += _spec_parameters() if parameter.name == "request" else [parameter]

    @functools.wraps(command)
    def with_options(**given: Any) -> Any:
        request = {name: given.pop(name) for name in SPEC_OPTIONS}
        return command(request={**request, "set": settings_of(request["set"])}, **given)

    wrapper: Any = with_options
    wrapper.__signature__ = inspect.Signature(parameters)  # Typer reads a command's options from these two.
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def with_whole_paths(command: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the command, given its paths with the home folder in the place of a leading ~.

    A shell leaves that to the program in `--out=~/runs`.
    """

    @functools.wraps(command)
    def with_paths(**given: Any) -> Any:
        return command(**{name: _whole(value) for name, value in given.items()})

    return with_paths


def _whole(value: Any) -> Any:
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if not isinstance(value, Path):
        return value
    if "\0" in str(value):
        raise BadInput(f"'{value}' is no path: it has a null byte")
    try:
        return value.expanduser()
    except RuntimeError:
        raise BadInput(f"'{value}' begins with the home folder of nobody here; write the whole path") from None


def _spec_parameters() -> list[inspect.Parameter]:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return [inspect.Parameter(name, kind, default=None, annotation=option) for name, option in SPEC_OPTIONS.items()]


def settings_of(pairs: list[str] | None) -> dict[str, str]:
    """Returns the `--set` words as a table."""
    table = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise BadInput(f"--set takes KEY=VALUE, not '{pair}'")
        table[key.strip()] = value.strip()
    return table
