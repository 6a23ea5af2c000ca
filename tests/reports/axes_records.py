"""Records on the three axes whose numbers can be worked out by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

from sadp_bench.records.record import Record
from tests.example_records import make_record, make_spec

T = 4
SLTT, SLTT_2 = {"backprop": "sltt"}, {"backprop": "sltt-k", "k": 2}
IMP = {"sparsity": "imp", "density": 0.25, "sparsity_options": {"rewind": 0}}
EARLY = {
    "sparsity": "imp",
    "density": 0.25,
    "sparsity_options": {"rewind": 0, "early_rule": "second"},
    "early_time": True,
}
EB = {"sparsity": "eb", "density": 0.5}
PQ = {"sparsity": "pq", "density": 0.4, "sparsity_options": {"shrink": True}}
MIB = 2**20


def run(
    method: str = "full",
    ratio: float = 0.0,
    seed: int = 0,
    accuracy: float = 0.7,
    seconds: float = 100.0,
    *,
    search: float | None = None,
    memory: float | None = 100.0,
    record: dict[str, Any] | None = None,
    **changed: Any,
) -> Record:
    """Returns a record. `search`: further seconds, spent on finding connections. `memory`: MiB. `changed`: spec fields."""
    spec = make_spec(method, ratio, seed, **{"loss": "step", "timesteps": T, **changed})
    ticket: dict[str, Any] = {}
    if search is not None:
        steps = 2 if spec.early_time else spec.timesteps
        ticket = {"search_epochs": 20, "search_timesteps": steps, "seconds": search, "visits": 20_000}
        ticket |= {"rounds": 5} if spec.sparsity == "imp" else {"converged": seed == 0}
    result: dict[str, Any] = {
        "train_memory_bytes": None if memory is None else round(memory * MIB),
        "operations": {"accumulates": 2e6 * spec.density, "multiply_accumulates": 1e6, "energy_joules": 6.4e-6},
        "density": spec.density,
        "ticket": ticket,
        "firing_rate": [0.1, 0.3],
    }
    if spec.density < 1:
        result["operations"]["dense_products"] = 8e6
    made = make_record(spec, accuracy, seconds, prepare=search or 0.0, **result | (record or {}))
    live = {} if spec.density == 1 else {"live_products": 8e6 * spec.density}
    return dataclasses.replace(made, epochs=[row | live for row in made.epochs])


def three_axes(seeds: tuple[int, ...] = (0, 1)) -> list[Record]:
    """Returns a plain run, and runs on one, two and all three axes.

    The plain run takes 100 s, and a tenth more with each further seed.
    """
    found = []
    for seed in seeds:
        slow = 1 + seed / 10
        found += [
            run("full", 0.0, seed, 0.70 + seed / 100, 100 * slow),
            run("sadp", 0.5, seed, 0.69 + seed / 100, 50 * slow),
            run("full", 0.0, seed, 0.68, 80 * slow, memory=25.0, **SLTT_2),
            run("full", 0.0, seed, 0.69, 125 * slow, memory=30 + 2 * seed, **SLTT),
            run("full", 0.0, seed, 0.65, 100 * slow, search=100 * slow, **IMP),
            run("full", 0.0, seed, 0.64, 100 * slow, search=60 * slow, **EARLY),
            run("full", 0.0, seed, 0.66, 100 * slow, search=25 * slow, **EB),
            run("full", 0.0, seed, 0.67, 100 * slow, **PQ),
            run("sadp", 0.5, seed, 0.67, 50 * slow, memory=25.0, **SLTT_2),
            run("sadp", 0.5, seed, 0.60, 45 * slow, search=80 * slow, memory=25.0, **SLTT_2, **IMP),
        ]
    return found


def over_time(seeds: tuple[int, ...] = (0, 1)) -> list[Record]:
    """Returns records whose memory grows with T under bptt, and does not under sltt."""
    return [
        run("full", 0.0, seed, memory=memory + seed, timesteps=steps, **axis)
        for seed in seeds
        for steps in (2, 4, 8)
        for memory, axis in ((25.0 * steps, {}), (30.0, SLTT), (28.0, {"backprop": "sltt-k", "k": 1}))
    ]


def everything() -> list[Record]:
    """Returns records of all axes and of several numbers of steps."""
    return three_axes() + [record for record in over_time() if record.spec.timesteps != 4]
