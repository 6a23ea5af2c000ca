"""Training loss and accuracy of a method beside random sampling and the ceiling, at one ratio and paired by seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sadp_bench.records.record import Record
from sadp_bench.records.statistics import Estimate, paired_factor, ratio_of_means

RIVALS = ("random", "ceiling")  # methods that every method is compared with
PLAIN = {"fresh": True, "rescale": False}  # options of `random` as a baseline: a new subset in each epoch, weight 1
BySeed = dict[tuple[int, str], float]


def by_seed(runs: Sequence[Record], value: Callable[[Record], float | None] = lambda run: run.test_accuracy) -> BySeed:
    """Returns the values that are not None, by seed and data."""
    found = [(run, value(run)) for run in runs]
    return {(run.spec.seed, run.data_sha256): own for run, own in found if own is not None}


def rival(settings: Sequence[list[Record]]) -> list[Record]:
    """Returns the runs to compare with, given the runs of each setting of a method; [] where several settings qualify."""
    found = plain(settings)
    return found[0] if len(found) == 1 else []


def plain(settings: Sequence[list[Record]]) -> list[list[Record]]:
    """Returns the plain settings of a method (`PLAIN`), or all its settings where none is plain."""
    are = [runs for runs in settings if PLAIN.items() <= ({**PLAIN, **runs[0].spec.method_options}).items()]
    return are or list(settings)


def outcomes(runs: Sequence[Record], rivals: Mapping[str, Sequence[Record]]) -> dict[str, Estimate | None]:
    """Returns the training loss against random sampling and the shares of the possible, by field names of `RatioRow`.

    Args:
        runs: The runs of one method and ratio.
        rivals: The runs of each of `RIVALS` at the same ratio.
    """
    method = runs[0].spec.method if runs else ""
    names = ("loss_factor", "loss_share", "accuracy_share")
    found: dict[str, Estimate | None] = dict.fromkeys(names)
    if method == "full" or list(runs) == list(rivals["random"]):
        return found
    of = (runs, rivals["random"], rivals["ceiling"])
    own, random, ceiling = (by_seed(each, lambda run: run.fitted_loss) for each in of)
    found["loss_factor"] = paired_factor(own, random)
    if method != "ceiling":
        found["loss_share"] = share_of_possible(own, random, ceiling)
        found["accuracy_share"] = share_of_possible(*map(by_seed, of))
    return found


def share_of_possible(own: BySeed, random: BySeed, ceiling: BySeed) -> Estimate | None:
    """Returns (random - own) / (random - ceiling), the quotient of the means over the seeds that all three have.

    The ceiling loses to full data because it has fewer updates. No choice of examples can recover that loss. None where the
    interval of the denominator contains 0.
    """
    keys = [key for key in own if key in random and key in ceiling]
    return ratio_of_means([(random[key] - own[key], random[key] - ceiling[key]) for key in keys])
