"""Turns a request into the spec of a run, with every default filled in and checked."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sadp_bench.backbones.spiking import Backbone, NeuronSettings
from sadp_bench.backbones.step_by_step import StepByStep
from sadp_bench.core import distributed, registry
from sadp_bench.core.cores import available_threads
from sadp_bench.core.errors import BadInput
from sadp_bench.core.files import read_bytes
from sadp_bench.datasets import expanded
from sadp_bench.datasets.base import Dataset
from sadp_bench.gpu import MOST_STEPS, compiles
from sadp_bench.native import library
from sadp_bench.pruners.base import Pruner
from sadp_bench.records.fields import LOSS_NAMES, OF_EACH_STEP, STEP_BY_STEP
from sadp_bench.records.former import budget_option
from sadp_bench.records.spec import Spec, check_fields
from sadp_bench.runs import environment
from sadp_bench.runs.building import build_pruner, build_sparsity, make_pruner, sparsity_class
from sadp_bench.runs.material import Material, opened_material
from sadp_bench.training.optimizer import planned_visits

KINDS: dict[str, type] = {"method": Pruner, "backbone": nn.Module, "dataset": Dataset}


@dataclass(frozen=True)
class RunRequest:
    """A request for a run, with every default filled in and checked, before its data are read.

    Only the data decide how many examples there are to train on, so a request is no `Spec` yet.

    Args:
        fields: All fields of `Spec` but `train_examples`.
        train_examples: The requested number; None means all.
    """

    fields: Mapping[str, Any]
    train_examples: int | None

    @classmethod
    def of(cls, requested: Mapping[str, Any]) -> RunRequest:
        """Returns the request; fields that are absent or None take their defaults.

        Args:
            requested: Fields of `Spec`, and "set": the `--set` table, text or values. Defaults of epochs, batch size, time
                steps, learning rate and augmentation are the data set's.

        Raises:
            BadInput: A value is not allowed, or the method or the connections refuse their settings.
        """
        given = {name: value for name, value in requested.items() if value is not None and name != "set"}
        given |= {"loss": LOSS_NAMES.get(given["loss"], given["loss"])} if "loss" in given else {}
        given["dataset"], of_name = expanded(given.get("dataset", "digits"))
        settings = {f"dataset.{name}": value for name, value in of_name.items()} | (requested.get("set") or {})
        dataset: type[Dataset] = _class("dataset", given["dataset"])
        method: type[Pruner] = _class("method", given["method"])
        backbone = _class("backbone", given.setdefault("backbone", dataset.backbone))
        sparsity = sparsity_class(given.setdefault("sparsity", "dense"))
        if given.setdefault("backprop", "bptt") != "bptt":
            parts, kind = ("steps", StepByStep) if given["backprop"] in STEP_BY_STEP else ("blocks", Backbone)
            if parts == "steps":
                given.setdefault("loss", OF_EACH_STEP[0])
            if not issubclass(backbone, kind):
                raise BadInput(
                    f"--backprop {given['backprop']} needs a backbone whose {parts} can be taken one by one: "
                    f"'{given['backbone']}' is no subclass of {kind.__module__}.{kind.__qualname__}"
                )
        owners = {"": ("method", given["method"], registry.options(method))}
        owners["backbone."] = ("backbone", given["backbone"], registry.options(backbone) | _neuron_options())
        owners["sparsity."] = ("sparsity", given["sparsity"], registry.options(sparsity))
        owners["dataset."] = ("dataset", given["dataset"], registry.options(dataset))
        _refuse_budget_option(given["method"], settings)
        given |= _tables(owners, settings)
        given |= {table: _with_hash(given[table]) for table in ("method_options", "sparsity_options")}
        device = environment.choose_device(given.get("device", "auto"))
        given["device"] = str(device)
        if given.get("precision", "auto") == "auto":
            given["precision"] = "bf16" if environment.bf16_is_fast(device) else "fp32"
        if given["precision"] == "fp64" and device.type == "mps":
            raise BadInput("--precision fp64: Apple's GPUs have no float64; take fp32, or --device cpu")
        given["kernel"] = _kernel(given, backbone, device)
        given["processes"] = distributed.size()
        given = _defaults(dataset) | given
        _check_vectors(dataset, backbone, given)
        _check_logits(backbone, given)
        given.setdefault("evaluate_every", 1)  # off the clock, and a curve needs points
        check_fields(given)
        request = cls(given, given.pop("train_examples", None))
        pruner = build_pruner(given["method"], given["ratio"], given["method_options"], given.get("budget", "constant"))
        pruner.check(given["epochs"])
        connections = build_sparsity(
            given["sparsity"], given.get("density", 1.0), given.get("early_time", False), given["sparsity_options"]
        )
        connections.check(given["epochs"], given["timesteps"])
        connections.check_network(backbone, given["backbone_options"], given["processes"])
        return request

    def spec(self, train_examples: int, found: Mapping[str, Any] | None = None) -> Spec:
        """Returns the run.

        Args:
            train_examples: The examples to train on.
            found: The settings of the data set that its files decided; see `Dataset.found`.
        """
        options = {**self.fields["dataset_options"], **(found or {})}
        return Spec(**{**self.fields, "dataset_options": options}, train_examples=train_examples)


def resolve(
    requested: Mapping[str, Any], data: Path | None = None, opened: dict[Any, Any] | None = None
) -> tuple[Spec, Material]:
    """Returns the spec of a request, and its data.

    Args:
        requested: See `RunRequest.of`.
        data: The folder of the data sets.
        opened: Keeps the data for further calls.

    Raises:
        BadInput: The run can't be made; before anything is trained.
    """
    request = RunRequest.of(requested)
    kind, already = _class("dataset", request.fields["dataset"]), {} if opened is None else opened
    material = opened_material(kind, request.fields, request.train_examples, data, already)
    spec = request.spec(len(material.train), material.dataset.found)
    _check_fits(spec, make_pruner(spec))
    _check_augment(spec, material)
    return spec, material


def _class(kind: str, name: str) -> Any:
    """Returns the class of that name, which is of its kind and can be built."""
    found, wanted = registry.resolve(kind, name), KINDS[kind]
    if not issubclass(found, wanted):
        raise BadInput(f"{kind} '{name}' is no subclass of {wanted.__module__}.{wanted.__qualname__}")
    if inspect.isabstract(found):
        raise BadInput(f"{kind} '{name}' is abstract: it lacks {', '.join(sorted(found.__abstractmethods__))}")
    return found


def _defaults(dataset: type[Dataset]) -> dict[str, Any]:
    of_dataset = ("epochs", "batch_size", "timesteps", "learning_rate", "augment")
    return {name: getattr(dataset, name) for name in of_dataset} | {
        "optimizer": "sgd",
        "schedule": "cosine",
        "weight_decay": 5e-4,
        "loss": "mean",
        "threads": max(1, available_threads() // distributed.on_this_machine()),
        "seed": 0,
        "protocol": "epochs",
        "evaluate_on": "test",
    }


def _check_vectors(dataset: type[Dataset], backbone: type[nn.Module], given: Mapping[str, Any]) -> None:
    """Raises BadInput where inputs are vectors, and the network or the augmentation needs images."""
    if not dataset.vectors:
        return
    if getattr(backbone, "needs_images", False):
        raise BadInput(
            f"--backbone {given['backbone']} needs images, and the inputs of {given['dataset']} are vectors at each time "
            "step; take --backbone mlp or recurrent"
        )
    if given["augment"] not in ("none", "mixup"):
        raise BadInput(
            f"--augment {given['augment']} changes images, and the inputs of {given['dataset']} are vectors; take none or "
            "mixup"
        )


def _check_augment(spec: Spec, material: Material) -> None:
    """Raises BadInput where a part of the augmentation means nothing for the data."""
    parts, events = spec.augment.split(","), material.dataset.events
    if "nda" in parts and not events:
        raise BadInput(f"--augment nda moves recordings of events, and {spec.dataset} has images; take randaugment")
    if "randaugment" in parts and events:
        raise BadInput(
            f"--augment randaugment changes the colours of images, and the frames of {spec.dataset} count events; take nda"
        )
    channels = material.train.input_shape[0]
    if "randaugment" in parts and channels not in (1, 3):
        raise BadInput(
            f"--augment randaugment takes images of 1 or 3 channels, and those of {spec.dataset} have {channels}"
        )


def _check_logits(backbone: type[nn.Module], given: Mapping[str, Any]) -> None:
    """Raises BadInput where a loss of each step meets a network that returns the mean of all steps' logits."""
    at_once = given["backprop"] not in STEP_BY_STEP
    if at_once and given["loss"] in OF_EACH_STEP and getattr(backbone, "mean_over_time", False):
        raise BadInput(
            f"--loss {given['loss']} needs logits of each step, and --backbone {given['backbone']} returns their mean; take "
            "--loss mean, or --backprop sltt"
        )


def _kernel(given: Mapping[str, Any], backbone: type[nn.Module], device: torch.device) -> str:
    """Returns the kernel of a run: the C core where it can compute the run, unless another is requested.

    On CUDA the native kernels run on request alone, until they were measured on a GPU.
    """
    requested = given.get("kernel", "auto")
    if requested == "auto" and device.type != "cpu":
        return "python"
    if requested not in ("auto", "native"):
        return requested  # is checked with the other fields
    obstacle = _native_obstacle(given, backbone, device)
    if requested == "native" and obstacle:
        raise BadInput(f"--kernel native: {obstacle}; take --kernel python")
    return "python" if obstacle else "native"


def _native_obstacle(given: Mapping[str, Any], backbone: type[nn.Module], device: torch.device) -> str | None:
    """Returns why the native kernel of a device can't compute a run; None where it can."""
    options, steps = given["backbone_options"], given.get("timesteps")
    if not issubclass(backbone, Backbone):
        return f"backbone '{given['backbone']}' is no subclass of sadp_bench.backbones.spiking.Backbone"
    if not backbone.has_native:
        return f"it has no neurons of backbone '{given['backbone']}'"
    if not options.get("detach_reset", True):
        return "in it no gradient flows through the reset, and backbone.detach_reset is false"
    if device.type == "cuda":
        fits = compiles(steps if isinstance(steps, int) else 1)
        return None if fits else f"its Triton kernels need Triton 3.3 and at most {MOST_STEPS} time steps"
    if device.type != "cpu":
        return f"it runs on a CPU and on CUDA, not on {device.type}"
    if given["precision"] == "fp64":
        return "the C core computes fp32 and bf16, not fp64"
    return library.absence()


def _neuron_options() -> dict[str, tuple[type, Any]]:
    return {f.name: (type(f.default), f.default) for f in dataclasses.fields(NeuronSettings) if f.name != "kernel"}


def _tables(
    owners: Mapping[str, tuple[str, str, dict[str, tuple[type, Any]]]], settings: Mapping[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """Returns the `--set` tables, "method_options" and so on, checked and with their defaults filled in.

    Args:
        owners: Kind, name and options of each owner, by the prefix of its keys.
        settings: What `--set` was given.
    """
    given: dict[str, dict[str, Any]] = {prefix: {} for prefix in owners}
    for key, value in (settings or {}).items():
        prefix = next((p for p in owners if p and key.startswith(p)), "")
        given[prefix][key.removeprefix(prefix)] = value
    return {
        f"{kind}_options": registry.settle(f"{kind} {name}", allowed, given[prefix])
        for prefix, (kind, name, allowed) in owners.items()
    }


def _refuse_budget_option(method: str, settings: Mapping[str, Any] | None) -> None:
    """Raises BadInput for the option that became the field `budget`."""
    former, settings = budget_option(method), settings or {}
    if former is not None and former in settings:
        raise BadInput(
            f"{method} has no setting '{former}' any more: it is a budget, which every dynamic method can have; write "
            f"--budget {settings[former]}"
        )


def _with_hash(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options of a method or a sparsity, of which an empty `sha256` becomes the hash of the `file` beside it.

    So a run is known by the file's content. The owner compares a given hash with the content.
    """
    if not options.get("file") or options.get("sha256") != "":
        return options
    return options | {"sha256": hashlib.sha256(read_bytes(Path(options["file"]))).hexdigest()}


def _check_fits(spec: Spec, pruner: Pruner) -> None:
    kept = (1 - spec.ratio) * spec.train_examples
    if kept < spec.batch_size:
        raise BadInput(
            f"ratio {spec.ratio:g} of {spec.train_examples} examples keeps {kept:.0f}, less than one batch of "
            f"{spec.batch_size}; lower --ratio or --batch-size"
        )
    if spec.batch_size < 2 * spec.processes:
        raise BadInput(
            f"--batch-size {spec.batch_size} is less than two examples for each of {spec.processes} processes; raise it, or "
            "take fewer processes"
        )
    pruner.check_updates(spec.epochs, spec.updates_per_epoch)
    planned_visits(pruner, spec, spec.train_examples, spec.epochs)  # is refused here where there are none
    if spec.processes > 1 and spec.device not in ("cpu", "cuda"):
        raise BadInput(f"--device {spec.device} with {spec.processes} processes: take cuda, each has a GPU of its own")
    if spec.backbone_options.get("norm") == "sync" and not spec.device.startswith("cuda"):
        raise BadInput("backbone.norm=sync needs GPUs; take another of backbone.norm")
    if spec.protocol == "updates" and not pruner.fixed_size:
        raise BadInput(
            f"--protocol updates needs a method that keeps as many examples in every epoch, and {spec.method} with these "
            "settings does not; use --protocol epochs"
        )
