"""What the papers behind the three axes claim, beside what was measured in these records."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sadp_bench.records.metrics import PLAIN_AXES, WEIGHT_AXIS, changed_axes, charged_seconds, differing
from sadp_bench.records.record import Record
from sadp_bench.records.spec import Spec
from sadp_bench.records.statistics import estimate
from sadp_bench.report.axes import Point
from sadp_bench.report.search import early_time_ratio
from sadp_bench.report.sheets import Cell, Grid, Sheet
from sadp_bench.report.tables import Row, columns

ByKey = Mapping[str, Record]
Measure = Callable[[Record, ByKey], float | None]
DENSE = {name: PLAIN_AXES[name] for name in WEIGHT_AXIS}
NOT_MEASURED = "not measured"
SPARSE = 0.406  # of the connections: what the claim of pq is about


@dataclass(frozen=True, slots=True)
class Claim:
    """claimed: in words. setting: the paper's, as far as it is known here. dataset, networks, timesteps, epochs: of it, to be
    held against a run's; empty or 0 where not known. unit: of what `measure` gives: "change", a share of what it is held
    against; "points", a difference of accuracies; "accuracy". asked: whether a run is one that the claim is about.
    """

    paper: str
    what: str
    claimed: str
    setting: str
    unit: str
    asked: Callable[[Spec], bool]
    measure: Measure
    dataset: str = ""
    networks: tuple[str, ...] = ()
    timesteps: int = 0
    epochs: int = 0
    nearest_density: float | None = None
    reconstructed: bool = False


def _change(value: Callable[[Record], float | None], against: Callable[[Spec], Spec]) -> Measure:
    """Of what was measured alike, in the same environment."""

    def measure(run: Record, by_key: ByKey) -> float | None:
        other = by_key.get(against(run.spec).key)
        if other is None or differing(run, other):
            return None
        own, before = value(run), value(other)
        return own / before - 1 if own is not None and before else None

    return measure


def _points(against: Callable[[Spec], Spec]) -> Measure:
    """On the same data."""

    def measure(run: Record, by_key: ByKey) -> float | None:
        other = by_key.get(against(run.spec).key)
        same = other is not None and other.data_sha256 == run.data_sha256
        return run.test_accuracy - other.test_accuracy if other is not None and same else None

    return measure


def _early_time(run: Record, by_key: ByKey) -> float | None:
    ratio = early_time_ratio(run, by_key)
    return None if ratio is None else ratio - 1


def _bptt(spec: Spec) -> Spec:
    return dataclasses.replace(spec, backprop="bptt", k=0)


def _dense(spec: Spec) -> Spec:
    return dataclasses.replace(spec, **DENSE)


def _is_sltt(spec: Spec) -> bool:
    return spec.backprop != "bptt"


def _is_ticket(spec: Spec) -> bool:
    return spec.sparsity in ("imp", "eb")


def _is_sadp(spec: Spec) -> bool:
    return spec.method == "sadp"


SLTT = "SLTT (Meng et al., ICCV 2023)"
TICKETS = "Early-Time tickets (Kim et al., ECCV 2022)"
STRUCTURE = "PQ, two-stage dynamic structure learning (Shen et al., ICLR 2025)"
PRUNING = "SADP (Ma et al., arXiv 2510.04098)"
ON_IMAGENET = "ImageNet, against BPTT; its figures are of one step with gradients (K=1)"
DEEP = "VGG16 and ResNet19, T=5, 300 epochs"
DEEP_NETWORKS = ("vgg16", "resnet19")

CLAIMS = (
    Claim(SLTT, "training memory", "over 70 % less", ON_IMAGENET, "change", _is_sltt,
          _change(lambda run: run.train_memory_bytes, _bptt), "imagenet"),
    Claim(SLTT, "training time", "over 50 % less", ON_IMAGENET, "change", _is_sltt,
          _change(charged_seconds, _bptt), "imagenet"),
    Claim(TICKETS, "search time", "up to 38 % less", DEEP, "change", lambda spec: spec.early_time, _early_time,
          "", DEEP_NETWORKS, 5, 300),
    Claim(TICKETS, "accuracy of the sparsest", "97 % sparse, no large loss", DEEP, "points", _is_ticket,
          _points(_dense), "", DEEP_NETWORKS, 5, 300, 0.0),
    Claim(STRUCTURE, "accuracy", "92.48 % at 40.6 % left", "CIFAR-10, ResNet19, T=2", "accuracy",
          lambda spec: spec.sparsity == "pq", lambda run, _: run.test_accuracy, "cifar10", ("resnet19",), 2, 0, SPARSE),
    Claim(PRUNING, "training time", "35 % less", "ImageNet, against full data", "change", _is_sadp,
          _change(charged_seconds, Spec.reference), "imagenet", reconstructed=True),
    Claim(PRUNING, "accuracy", "no loss", "ImageNet, against full data", "points", _is_sadp,
          _points(Spec.reference), "imagenet", reconstructed=True),
)  # fmt: skip
NAMES = {"imagenet": "ImageNet", "cifar10": "CIFAR-10", "vgg16": "VGG16", "resnet19": "ResNet19"}


def claim_rows(own: Iterable[Point]) -> list[Row]:
    """A row for each claim and each point that it was measured on; one that says so where it was measured on none.

    Of each group only the purest count, which change the fewest axes, and of those that the claim puts at a density those
    nearest to it. measured: unrounded, as STATISTICS of `axes`; a share, in what `unit` says. not_comparable: why not.
    """
    own = list(own)
    by_key = {pair.spec.key: pair.record for point in own for pair in point.runs}
    return [row for claim in CLAIMS for row in _of(claim, own, by_key)]


def _of(claim: Claim, own: Sequence[Point], by_key: ByKey) -> list[Row]:
    said = {"paper": claim.paper, "claim": claim.what, "claimed": claim.claimed, "paper_setting": claim.setting}
    said["unit"] = claim.unit
    found = []
    for title in dict.fromkeys(point.row["group"] for point in own):
        rivals = [point for point in own if point.row["group"] == title and claim.asked(point.spec)]
        values = [(point, [claim.measure(pair.record, by_key) for pair in point.runs]) for point in rivals]
        found += _purest(
            claim, [(point, there) for point, seen in values if (there := [v for v in seen if v is not None])]
        )
    if not found:
        return [
            said | {"group": "", "name": "", "density": None, "n": 0, "not_comparable": []} | columns("measured", None)
        ]
    return [
        said
        | {"group": point.row["group"], "name": point.row["name"], "density": point.spec.density, "n": len(values)}
        | {"not_comparable": _differences(claim, point)}
        | columns("measured", estimate(values))
        for point, values in found
    ]


def _purest(claim: Claim, measured: list[tuple[Point, list[float]]]) -> list[tuple[Point, list[float]]]:
    fewest = min((len(changed_axes(point.spec)) for point, _ in measured), default=0)
    kept = [one for one in measured if len(changed_axes(one[0].spec)) == fewest]
    if claim.nearest_density is None:
        return kept
    goal = claim.nearest_density
    least = min((abs(point.spec.density - goal) for point, _ in kept), default=0.0)
    return [one for one in kept if abs(one[0].spec.density - goal) == least]


def _differences(claim: Claim, point: Point) -> list[str]:
    """In what the setting is not the paper's. It is never the same hardware and implementation."""
    spec, run = point.spec, point.runs[0].record
    network = spec.backbone.lower().replace("-", "")
    found: list[str] = []
    if claim.dataset and spec.dataset != claim.dataset:
        found.append(f"data {spec.dataset}, not {NAMES[claim.dataset]}")
    if claim.networks and network not in claim.networks:
        found.append(f"network {spec.backbone}, not {' or '.join(NAMES[name] for name in claim.networks)}")
    elif not claim.networks:
        found.append(f"network {spec.backbone}")
    if claim.timesteps and spec.timesteps != claim.timesteps:
        found.append(f"T={spec.timesteps}, not {claim.timesteps}")
    if claim.epochs and spec.epochs != claim.epochs:
        found.append(f"{spec.epochs} epochs, not {claim.epochs}")
    if claim.unit == "change":
        found.append(
            f"hardware {run.environment.get('processor', 'unknown')} ({run.environment.get('device', 'unknown')})"
        )
    found.append(
        "a reconstruction, as its code is not public" if claim.reconstructed else "an implementation of our own"
    )
    return found


def measured_text(row: Row) -> str:
    """'-63.2 % ±1.2', '+0.10 points', '91.20 % at 40.6 %'."""
    mean, low, high = row["measured_mean"], row["measured_low"], row["measured_high"]
    if mean is None:
        return NOT_MEASURED
    digits = 1 if row["unit"] == "change" else 2
    half = "" if low is None else f" ±{100 * (high - low) / 2:.{digits}f}"
    value = round(100 * mean, digits) + 0.0
    unit = " points" if row["unit"] == "points" else " %"
    number = f"{value:.2f}" if row["unit"] == "accuracy" else f"{value:+.{digits}f}"
    return f"{number}{half}{unit}"


def claim_sheets(table: Sequence[Row]) -> list[Sheet]:
    """One a paper."""
    papers = [list(rows) for _, rows in itertools.groupby(table, key=lambda row: row["paper"])]
    return [_sheet(rows) for rows in papers]


def _sheet(rows: Sequence[Row]) -> Sheet:
    lines = [
        (
            "\n".join(filter(None, [row["claim"], place(row, rows)])),
            [Cell(row["claimed"]), Cell(measured_text(row), below=f"n = {row['n']}" if row["n"] else "")],
        )
        for row in rows
    ]
    grid = Grid(["claim", "claimed", "measured"], lines)
    told = [f"Claimed on: {rows[0]['paper_setting']}.", *where(rows), *_not_comparable(rows), *_spread(rows)]
    return Sheet(f"Claims of {rows[0]['paper']}", [("", grid)], told)


def where(table: Sequence[Row]) -> list[str]:
    """What all of it was measured on; nothing where nothing was."""
    here = " · ".join(_shared(table))
    return [f"Measured on: {here}; by the runs that change no other axis, where there are such."] if here else []


def _spread(rows: Sequence[Row]) -> list[str]:
    if not any(row["n"] for row in rows):
        return []
    return [
        "Changes and differences are paired by seed: mean ± half-width of the 95 % t-interval, which one seed has not."
    ]


def _not_comparable(rows: Sequence[Row]) -> list[str]:
    reasons = dict.fromkeys(reason for row in rows for reason in row["not_comparable"])
    return [f"Not comparable: {'; '.join(reasons)}."] if reasons else []


def place(row: Row, table: Sequence[Row]) -> str:
    """Where it was measured, without what all rows share: 'T=2 · full · sltt · dense'."""
    shared = _shared(table)
    own = [part for part in row["group"].split(" · ") if part not in shared]
    return " · ".join([*own, row["name"]]) if row["n"] else ""


def _shared(table: Sequence[Row]) -> list[str]:
    titles = [row["group"].split(" · ") for row in table if row["n"]]
    return [part for part in titles[0] if all(part in title for title in titles)] if titles else []
