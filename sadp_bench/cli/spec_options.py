"""The options of a run's spec, which `run`, `speed` and `study` share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

from typer import BadParameter

from sadp_bench.cli.help import AXES, OPTIMISATION, WHAT, WHERE
from sadp_bench.cli.options import COUNT, NAME, NUMBER, choice, completing, option, settings_of
from sadp_bench.core import registry
from sadp_bench.records.fields import AUGMENTATIONS, CHOICES, LOSS_NAMES

OF_DATA = "the data set's"


def listed(kind: type[int] | type[float]) -> Callable[[str], Any]:
    """Returns a parser for numbers with commas between them. It returns one number, or a list of several."""

    def parsed(text: str) -> Any:
        try:
            numbers = [kind(part) for part in text.split(",")]
        except ValueError:
            name = "whole number" if kind is int else "number"
            raise BadParameter(f"not a {name}, nor several with commas between them") from None
        return numbers if len(numbers) > 1 else numbers[0]

    return parsed


def numbers(kind: type[int] | type[float]) -> Callable[[str], list[Any]]:
    """Returns a parser for numbers with commas between them. It returns a list, even for one number."""
    one_or_several = listed(kind)

    def parsed(text: str) -> list[Any]:
        found = one_or_several(text)
        return found if isinstance(found, list) else [found]

    return parsed


def names(text: str) -> list[str]:
    """Returns names with commas between them as a list."""
    return [part.strip() for part in text.split(",")]


def registered(kind: str) -> Any:
    """Returns a function that completes a name of this kind in a shell."""
    return completing(lambda: registry.table(kind))


# By field of `Spec`; "set" is the table of --set. All defaults are None. The values in the help are filled in later.
SPEC_OPTIONS: dict[str, Any] = {
    "dataset": Annotated[
        str | None,
        option(
            WHAT,
            "Data set: a name (`sadp-bench list datasets`) or package.module:Class.",
            NAME,
            "digits",
            autocompletion=registered("dataset"),
        ),
    ],
    "backbone": Annotated[
        str | None,
        option(
            WHAT,
            "Spiking network: a name (`sadp-bench list backbones`) or package.module:Class.",
            NAME,
            "cnn, or mlp for vectors",
            autocompletion=registered("backbone"),
        ),
    ],
    "set": Annotated[
        list[str] | None,
        option(
            WHAT,
            "A setting of the method, or of the network, data set or sparsity with the prefix backbone., dataset. or "
            "sparsity. May be repeated. `sadp-bench list methods sadp` shows the settings of sadp.",
            "KEY=VALUE",
        ),
    ],
    "seed": Annotated[
        Any,
        option(
            WHAT,
            "Seed of all random numbers: initial weights, order of the examples, augmentation, and the method's draws.",
            COUNT,
            "0",
            parser=listed(int),
        ),
    ],
    "train_examples": Annotated[
        int | None,
        option(WHAT, "Train on this many examples only: a fixed part of the data, of all classes.", COUNT, "all"),
    ],
    "budget": Annotated[
        str | None,
        choice(
            WHAT,
            "How the kept share changes over the epochs, with the same total. For dynamic methods.",
            CHOICES["budget"],
            "constant",
        ),
    ],
    "epochs": Annotated[int | None, option(OPTIMISATION, "Number of epochs of a full-data run.", COUNT, OF_DATA)],
    "batch_size": Annotated[int | None, option(OPTIMISATION, "Examples in a batch.", COUNT, OF_DATA)],
    "optimizer": Annotated[str | None, choice(OPTIMISATION, "Optimizer of the weights.", CHOICES["optimizer"], "sgd")],
    "learning_rate": Annotated[
        float | None, option(OPTIMISATION, "Highest learning rate, where the schedule starts.", NUMBER, OF_DATA)
    ],
    "schedule": Annotated[
        str | None,
        choice(OPTIMISATION, "How the learning rate changes during the run.", CHOICES["schedule"], "cosine"),
    ],
    "lr_clock": Annotated[
        str | None,
        choice(
            OPTIMISATION,
            "What the cosine schedule follows: the finished epochs, or the finished example visits.",
            CHOICES["lr_clock"],
            "epochs",
        ),
    ],
    "warmup_epochs": Annotated[
        float | None,
        option(OPTIMISATION, "Epochs at the start in which the learning rate rises to its highest value.", NUMBER, "0"),
    ],
    "weight_decay": Annotated[float | None, option(OPTIMISATION, "Weight decay of all parameters.", NUMBER, "5e-4")],
    "momentum": Annotated[float | None, option(OPTIMISATION, "Momentum of sgd.", NUMBER, "0.9")],
    "nesterov": Annotated[
        bool | None,
        option(OPTIMISATION, "Use Nesterov's momentum in sgd.", None, "no", "--nesterov/--no-nesterov"),
    ],
    "clip_norm": Annotated[
        float | None,
        option(OPTIMISATION, "Scale the gradient of an update down to this norm; 0: never.", NUMBER, "0"),
    ],
    "ema": Annotated[
        float | None,
        option(
            OPTIMISATION,
            "Evaluate a moving average of the weights with this decay, such as 0.999; 0: no average.",
            NUMBER,
            "0",
        ),
    ],
    "loss": Annotated[
        str | None,
        choice(
            OPTIMISATION,
            "Cross-entropy of the logits' mean over time (mean); or the mean over time steps of their cross-entropy (step), "
            "or of cross-entropy and squared distance (step-mse, also named tet; step-mse-onehot).",
            (*CHOICES["loss"], *LOSS_NAMES),
            "mean; step with --backprop sltt",
        ),
    ],
    "mse_weight": Annotated[
        float | None,
        option(OPTIMISATION, "Share of the squared distance in step-mse and step-mse-onehot.", NUMBER, "0.05"),
    ],
    "label_smoothing": Annotated[
        float | None,
        option(OPTIMISATION, "Share of each target that is spread evenly over the classes.", NUMBER, "0"),
    ],
    "augment": Annotated[
        str | None,
        option(
            OPTIMISATION,
            f"Random changes of the training images: none, or one or more of {', '.join(AUGMENTATIONS)}, with commas "
            "between them.",
            "LIST",
            OF_DATA,
            autocompletion=completing(lambda: ("none", *AUGMENTATIONS)),
        ),
    ],
    "timesteps": Annotated[int | None, option(AXES, "Time steps T of the network.", COUNT, OF_DATA)],
    "backprop": Annotated[
        str | None,
        choice(
            AXES,
            "How gradients flow: through all time steps (bptt), within each (sltt), within k of them (sltt-k), or within "
            "each block (local). `sadp-bench list backprop` explains them.",
            CHOICES["backprop"],
            "bptt",
        ),
    ],
    "k": Annotated[int | None, option(AXES, "Number of time steps with a backward pass in sltt-k.", COUNT)],
    "sparsity": Annotated[
        str | None,
        choice(
            AXES,
            "How connections are removed. `sadp-bench list sparsity` explains the choices.",
            CHOICES["sparsity"],
            "dense",
        ),
    ],
    "density": Annotated[
        float | None,
        option(AXES, "Share of the connections that remain (narrow: of the multiplications).", NUMBER, "1"),
    ],
    "early_time": Annotated[
        bool | None,
        option(AXES, "Search the connections of imp or eb with fewer time steps.", None, True, "--early-time"),
    ],
    "device": Annotated[
        str | None,
        option(
            WHERE,
            "auto, cpu, cuda, cuda:1 and so on, or mps (Apple; untested). auto takes a GPU where there is one.",
            "DEVICE",
            "auto",
            autocompletion=completing(lambda: ("auto", "cpu", "cuda", "mps")),
        ),
    ],
    "threads": Annotated[int | None, option(WHERE, "CPU threads of a run.", COUNT, "all cores")],
    "precision": Annotated[
        str | None,
        choice(
            WHERE,
            "Number format of the layers. auto is bf16 where the device computes in it natively, else fp32.",
            ("auto", *CHOICES["precision"]),
            "auto",
        ),
    ],
    "kernel": Annotated[
        str | None,
        choice(
            WHERE,
            "Implementation of the spiking layers: native (the C core; Triton on a GPU) or python. auto takes native on a "
            "CPU if possible.",
            ("auto", *CHOICES["kernel"]),
            "auto",
        ),
    ],
}


def with_spec_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the command with the options of a spec in place of its parameter `request`, which receives their values."""
    parameters = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        parameters += _spec_parameters() if parameter.name == "request" else [parameter]

    @functools.wraps(command)
    def with_options(**given: Any) -> Any:
        request = {name: given.pop(name) for name in SPEC_OPTIONS}
        return command(request={**request, "set": settings_of(request["set"])}, **given)

    wrapper: Any = with_options
    wrapper.__signature__ = inspect.Signature(parameters)  # Typer reads options from signature and annotations
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def _spec_parameters() -> list[inspect.Parameter]:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return [inspect.Parameter(name, kind, default=None, annotation=option) for name, option in SPEC_OPTIONS.items()]
