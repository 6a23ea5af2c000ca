"""What a reader must be told of a table: where it was measured, and what is amiss, missing or mixed. A line each."""

from __future__ import annotations

from sadp_bench.records.metrics import BUDGET_TOLERANCE, VOID
from sadp_bench.report.tables import ENVIRONMENT, Row, percent


def notes(rows: list[Row]) -> list[str]:
    """Of one group's rows."""
    equal_updates = rows[0]["protocol"] == "updates"
    done = [row for row in rows if row["n"]]
    return [
        *([measured_on(done)] if done else ["No run of this table has finished."]),
        *(["Equal updates: nothing is saved, so the nominal maximum is 1."] if equal_updates else []),
        *_failed(rows),
        *warnings(done),
        *other_data(done),
        *missing(done),
        *mismatched(done),
        *_off_budget(done),
        *_several_randoms(done),
        *(["One seed: no ± and no interval."] if any(row["n"] == 1 for row in rows) else []),
    ]


def _values(rows: list[Row], name: str) -> list[str]:
    longest = 10 if name == "commit" else None
    return sorted({value[:longest] for row in rows for value in row[f"environment.{name}"]})


def measured_on(rows: list[Row]) -> str:
    def of(name: str) -> str:
        return " or ".join(_values(rows, name))

    return (
        f"Measured on {of('processor')} ({of('device')}), threads {of('threads')}, concurrent jobs {of('jobs')}; "
        f"torch {of('torch')}, spikingjelly {of('spikingjelly')}, sadp-bench {of('sadp_bench')}, commit {of('commit')}."
    )


def warnings(rows: list[Row]) -> list[str]:
    values = {name: _values(rows, name) for name in ENVIRONMENT if name != "dirty"}
    differing = [f"{name} ({', '.join(several)})" for name, several in values.items() if len(several) > 1]
    lines = [f"Warning: these runs differ in {'; '.join(differing)}."] if differing else []
    dirty = [_place(row) for row in rows if "true" in row["environment.dirty"]]
    if dirty:
        lines.append(f"Warning: made from a changed (dirty) working tree: {', '.join(dirty)}.")
    return lines


def _place(row: Row) -> str:
    return str(row["name"]) if "name" in row else f"{row['label']} {percent(row['ratio'])}"


def named(rows: list[Row], field: str) -> dict[str, str]:
    """Each value of a list field, with the cells that hold it."""
    holders: dict[str, list[str]] = {}
    for row in rows:
        for value in row[field]:
            holders.setdefault(value, []).append(_place(row))
    return {value: ", ".join(cells) for value, cells in holders.items()}


def _failed(rows: list[Row]) -> list[str]:
    return [f"Failed, so in no number: {cells}, {failure}" for failure, cells in named(rows, "failures").items()]


def other_data(rows: list[Row]) -> list[str]:
    seen = named(rows, "data_sha256")
    if len(seen) < 2:
        return []
    holders = "; ".join(f"{digest[:10]}: {cells}" for digest, cells in seen.items())
    return [f"Warning: these runs saw different data, so don't compare them (SHA-256 {holders})."]


def missing(rows: list[Row]) -> list[str]:
    return [
        f"No reference for a seed of {cells}, so no speed-up of it; make it: `{line}`"
        for line, cells in named(rows, "missing_references").items()
    ]


def mismatched(rows: list[Row]) -> list[str]:
    return [
        f"No speed-up for a seed of {cells}: {_why(phrase)}." for phrase, cells in named(rows, "mismatches").items()
    ]


def _why(phrase: str) -> str:
    return phrase.rstrip(".") if phrase.startswith(VOID) else f"its reference differs from it ({phrase})"


def _off_budget(rows: list[Row]) -> list[str]:
    off = [
        f"{_place(row)} ({100 * row['realised_ratio_mean']:.1f} %)"
        for row in rows
        if abs(row["realised_ratio_mean"] - row["ratio"]) > BUDGET_TOLERANCE
    ]
    return [f"Warning: these saved another share than asked (in brackets): {', '.join(off)}."] if off else []


def _several_randoms(rows: list[Row]) -> list[str]:
    ratios = sorted({row["ratio"] for row in rows if row["n_random_settings"] > 1})
    at = ", ".join(map(percent, ratios))
    return [f"No difference to random at {at}: it ran with several settings there."] if ratios else []
