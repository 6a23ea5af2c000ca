"""The options of a run's spec: once, for all commands that train."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

from typer import Option

from sadp_bench.core.errors import BadInput

# By the name of the spec's field; None: the default that the help tells. "set" is the --set table.
OPTIONS: dict[str, Any] = {
    "dataset": Annotated[str | None, Option(help="Data set: a name or package.module:Class.", show_default="digits")],
    "backbone": Annotated[
        str | None, Option(help="Spiking network: a name or package.module:Class.", show_default="cnn")
    ],
    "epochs": Annotated[int | None, Option(help="Epochs of full-data training.", show_default="the data set's")],
    "batch_size": Annotated[int | None, Option(help="Examples a batch.", show_default="the data set's")],
    "timesteps": Annotated[int | None, Option(help="Time steps T.", show_default="the data set's")],
    "optimizer": Annotated[str | None, Option(help="sgd or adamw.", show_default="sgd")],
    "learning_rate": Annotated[
        float | None, Option(help="At the start of the schedule.", show_default="the data set's")
    ],
    "schedule": Annotated[str | None, Option(help="cosine or constant.", show_default="cosine")],
    "weight_decay": Annotated[float | None, Option(help="Of all parameters.", show_default="5e-4")],
    "augment": Annotated[str | None, Option(help="none, crop or crop-flip.", show_default="the data set's")],
    "loss": Annotated[
        str | None,
        Option(
            help="Of the logits' mean over time, or of each step: mean, step or step-mse.", show_default="mean, or step"
        ),
    ],
    "precision": Annotated[str | None, Option(help="auto, fp32, bf16 or fp64.", show_default="auto")],
    "threads": Annotated[int | None, Option(help="CPU threads.", show_default="all cores")],
    "device": Annotated[str | None, Option(help="auto, cpu, cuda or cuda:N.", show_default="auto")],
    "seed": Annotated[int | None, Option(help="Of weights, order, augmentation and draws.", show_default="0")],
    "train_examples": Annotated[int | None, Option(help="Train on a fixed, class-balanced part.", show_default="all")],
    "backprop": Annotated[
        str | None, Option(help="Time steps that give gradients: bptt, sltt or sltt-k.", show_default="bptt")
    ],
    "k": Annotated[int | None, Option(help="Of sltt-k: how many steps.", show_default="none")],
    "sparsity": Annotated[str | None, Option(help="Connections: dense, imp, eb or pq.", show_default="dense")],
    "density": Annotated[float | None, Option(help="Share of the connections that exist.", show_default="1")],
    "early_time": Annotated[
        bool | None, Option("--early-time", help="Search the ticket of imp or eb with fewer steps.", show_default="no")
    ],
    "set": Annotated[
        list[str] | None,
        Option(help="KEY=VALUE of the method, backbone.KEY=VALUE or sparsity.KEY=VALUE; repeatable."),
    ],
}


def trains(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with these options in place of its parameter `asked`, in which it gets them."""
    parameters = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        parameters += _parameters() if parameter.name == "asked" else [parameter]

    @functools.wraps(command)
    def with_options(**given: Any) -> Any:
        asked = {name: given.pop(name) for name in OPTIONS}
        return command(asked={**asked, "set": _table(asked["set"])}, **given)

    made: Any = with_options  # where Typer looks for a command's options
    made.__signature__ = inspect.Signature(parameters)
    made.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def _parameters() -> list[inspect.Parameter]:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return [inspect.Parameter(name, kind, default=None, annotation=option) for name, option in OPTIONS.items()]


def _table(pairs: list[str] | None) -> dict[str, str]:
    table = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise BadInput(f"--set takes KEY=VALUE, not '{pair}'")
        table[key.strip()] = value.strip()
    return table
