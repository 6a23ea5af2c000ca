"""Notes below a table, a line each: where its runs were measured, and which are missing, failed or not comparable."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from sadp_bench.core.text import count, listed, percent
from sadp_bench.records.comparison import is_void
from sadp_bench.records.fields import PREFIXES
from sadp_bench.records.metrics import BUDGET_TOLERANCE, charged_seconds, data_share, forward_share, score_seconds
from sadp_bench.records.naming import Settings
from sadp_bench.records.statistics import Estimate
from sadp_bench.reports.rows import ENVIRONMENT, MARK, RatioRow, Row

DATASET = PREFIXES["dataset_options"]
LEAST_WAIT = 0.01  # share of the training seconds below which no line is shown


def ratio_notes(rows: Sequence[RatioRow]) -> list[str]:
    """Returns the notes of a group's table by ratio."""
    done = [row for row in rows if row.n]
    failed = named(rows, "failures").items()
    return [
        *([measured_on(done)] if done else ["No run of this table has finished."]),
        *(
            ["Equal updates: nothing is saved, so the nominal maximum is 1."]
            if rows[0].settings["protocol"] == "updates"
            else []
        ),
        *(f"Failed, and not counted in any mean: {names}, {failure}" for failure, names in failed),
        *warnings(done),
        *other_data(done),
        *split_of(rows[0].settings),
        *missing(done),
        *mismatched(done),
        *disturbed(done),
        *by_cpu(row.cpu_speedup for row in done),
        *_off_budget(done),
        *_unpruned(done),
        *_budgets(done),
        *_biased_draws(done),
        *_scoring(done),
        *searched(done),
        *_waits(done),
        *_forward(done),
        *_between(done),
        *_several_randoms(done),
        *(["One seed: no ± and no interval."] if any(row.n == 1 for row in rows) else []),
    ]


def measured_on(rows: Sequence[Row]) -> str:
    """Returns the line about processor, threads, jobs and versions of the runs."""
    of = {name: " or ".join(_values(rows, name)) for name in ENVIRONMENT}
    return (
        f"Measured on {of['processor']} ({of['device']}), threads {of['threads']}, concurrent jobs {of['jobs']}; "
        f"torch {of['torch']}, spikingjelly {of['spikingjelly']}, sadp-bench {of['sadp_bench']}, commit {of['commit']}."
    )


def warnings(rows: Sequence[Row]) -> list[str]:
    """Returns warnings about runs from several environments or a changed working tree."""
    values = {name: _values(rows, name) for name in ENVIRONMENT if name != "dirty"}
    differing = [f"{name} ({', '.join(several)})" for name, several in values.items() if len(several) > 1]
    dirty = [row.name for row in rows if "true" in row.environment("dirty")]
    return [
        *([f"Warning: these runs differ in {'; '.join(differing)}."] if differing else []),
        *([f"Warning: made from a changed (dirty) working tree: {', '.join(dirty)}."] if dirty else []),
    ]


def named(rows: Sequence[Row], field: str) -> dict[str, str]:
    """Returns each value of a list field with the names of the rows that contain it."""
    holders: dict[str, list[str]] = {}
    for row in rows:
        for value in getattr(row, field):
            holders.setdefault(value, []).append(row.name)
    return {value: ", ".join(names) for value, names in holders.items()}


def other_data(rows: Sequence[Row]) -> list[str]:
    """Returns a warning about runs that saw different data."""
    seen = named(rows, "data_sha256")
    if len(seen) < 2:
        return []
    holders = "; ".join(f"{digest[:10]}: {names}" for digest, names in seen.items())
    return [f"Warning: these runs saw different data; do not compare them (SHA-256 {holders})."]


def split_of(settings: Settings) -> list[str]:
    """Returns the name of the split of a data set that has several, and the hash of its test list."""
    split, test_list = (settings.get(f"{DATASET}{name}") for name in ("split", "test_list"))
    return [f"Split of {settings['dataset']}: {split}; test list {test_list}."] if split and test_list else []


def missing(rows: Sequence[Row]) -> list[str]:
    """Returns the commands that make missing references."""
    return [
        f"No speed-up for a seed of {names}, because its reference is missing; make it: `{command}`"
        for command, names in named(rows, "missing_references").items()
    ]


def mismatched(rows: Sequence[Row]) -> list[str]:
    """Returns why runs have no speed-up."""
    return [
        f"No speed-up for a seed of {names}: {_reason(phrase)}." for phrase, names in named(rows, "mismatches").items()
    ]


def disturbed(rows: Sequence[Row]) -> list[str]:
    """Returns the explanation of the mark of disturbed runs, where a row has it."""
    explained = (
        f"{MARK}: without disturbed runs and without speed-ups over disturbed references. sadp-bench speed can measure "
        "speed-ups beside other processes."
    )
    return [explained] if any(row.mark for row in rows) else []


def by_cpu(speedups: Iterable[Estimate]) -> list[str]:
    """Returns the definition of the speed-up by CPU, where there is one."""
    explained = "Speed-up by CPU: CPU seconds of full over those of the run. Other processes hardly change CPU seconds."
    return [explained] if any(speedup.n for speedup in speedups) else []


def _values(rows: Sequence[Row], name: str) -> list[str]:
    longest = 10 if name == "commit" else None
    return sorted({value[:longest] for row in rows for value in row.environment(name)})


def _reason(phrase: str) -> str:
    return phrase.rstrip(".") if is_void(phrase) else f"its reference differs ({phrase})"


def _off_budget(rows: Sequence[RatioRow]) -> list[str]:
    off = [
        f"{row.name} ({percent(row.realised_ratio.mean, 1)})"
        for row in rows
        if row.prunes and abs(row.realised_ratio.mean - row.ratio) > BUDGET_TOLERANCE
    ]
    return [f"Warning: these saved another share than requested (in brackets): {', '.join(off)}."] if off else []


def _unpruned(rows: Sequence[RatioRow]) -> list[str]:
    """Returns an explanation of each method that prunes nothing."""
    controls = sorted({row.label for row in rows if not row.prunes and not row.is_full})
    return [
        f"{label}: a control that trains on all data in every epoch, in the number of updates that the ratio leaves. It "
        "saves nothing, so it has no verdict and no rank."
        for label in controls
    ]


def _budgets(rows: Sequence[RatioRow]) -> list[str]:
    """Returns which methods kept more examples in some epochs than in others by `--budget`."""
    return [
        f"Budget {budget} (more visits at the {where}): {', '.join(labels)}."
        for budget, where in (("falling", "start"), ("rising", "end"))
        if (labels := dict.fromkeys(row.label for row in rows if row.settings.get("budget") == budget))
    ]


def _biased_draws(rows: Sequence[RatioRow]) -> list[str]:
    """Returns which methods used a draw whose weights are biased."""
    labels = dict.fromkeys(row.label for row in rows if row.settings.get("method.draw") == "balanced")
    return [f"draw=balanced (its weights are biased by some percent): {', '.join(labels)}."] if labels else []


def _scoring(rows: Sequence[RatioRow]) -> list[str]:
    """Returns the visits spent on scores before training, by method."""
    shares: dict[str, float] = {}
    for row in rows:
        visits = [run.prepare_examples - run.ticket.get("visits", 0) for run in row.runs]
        full = [run.num_examples * run.spec.epochs for run in row.runs]
        shares[row.label] = max(shares.get(row.label, 0.0), sum(visits) / sum(full))
    scored = [f"{label} {percent(share, 1)}" for label, share in shares.items() if share > 0]
    return [f"Visits for scores before training, as a share of full data's: {', '.join(scored)}."] if scored else []


def searched(rows: Sequence[RatioRow]) -> list[str]:
    """Returns how settings were searched, what was chosen, and which choices lie on the edge of the search."""
    found = [(row, row.choice) for row in rows if row.choice is not None]
    if not found:
        return []
    names = dict.fromkeys(name for _, choice in found for name in choice.names)
    kinds = {
        (choice.names, choice.seeds, choice.spec.epochs, tuple(point.values for point in choice.points))
        for _, choice in found
    }
    _, first = found[0]
    ranges = listed([f"{_named(name)} from {low:g} to {high:g}" for name, (low, high) in first.ranges.items()])
    diverged = sum(len(point.diverged) for _, choice in found for point in choice.points)
    lost = f", {count(diverged, 'trial')} diverged" if diverged else ""
    visits, run = sum(choice.visits for _, choice in found), rows[0].runs[0]
    full_runs = visits / (run.num_examples * run.spec.epochs)
    spent = f"{visits:,} visits in all, as many as {full_runs:.1f} full-data runs{lost}"
    warning = "Warning: these methods and ratios had different searches; the next line is about the first."
    edges = [
        f"{row.name} ({_named(name)} {choice.chosen[name]:g}, the {end})"
        for row, choice in found
        for name, end in choice.edges.items()
    ]
    chosen = "; ".join(f"{row.name} {', '.join(f'{v:g}' for v in choice.chosen.values())}" for row, choice in found)
    return [
        *([warning] if len(kinds) > 1 else []),
        f"Searched for each method and ratio, on validation images: {ranges}, {count(len(first.points), 'trial')}, "
        f"{_seeds(first.seeds)}, {count(first.spec.epochs, 'epoch')}; {spent}.",
        f"Chosen {listed([_named(name) for name in names])}: {chosen}.",
        *(
            [f"Best at the edge of the search, where a better value may lie beyond: {', '.join(edges)}."]
            if edges
            else []
        ),
    ]


def _named(field: str) -> str:
    return field.replace("_", " ")


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {listed([str(seed) for seed in seeds])}"


def _waits(rows: Sequence[RatioRow]) -> list[str]:
    """Returns the share of the training seconds in which steps wait for data, and where this is the limit."""
    shares: dict[str, list[float]] = {}
    for row in rows:
        shares.setdefault(row.name, []).extend(share for run in row.runs if (share := data_share(run)) is not None)
    waits = {name: statistics.fmean(found) for name, found in shares.items() if found}
    if max(waits.values(), default=0.0) < LEAST_WAIT:
        return []
    shown = ", ".join(f"{name} {percent(wait, 1)}" for name, wait in waits.items())
    limit = [name for name, wait in waits.items() if wait > 0.5]
    return [
        f"Share of the training seconds in which a step waits for data: {shown}.",
        *(
            [
                f"Reading and decoding limit the speed of {', '.join(limit)}. Dropped examples are not read. Pruning saves "
                "this time too, and the ceiling counts it."
            ]
            if limit
            else []
        ),
    ]


def _forward(rows: Sequence[RatioRow]) -> list[str]:
    """Returns the cost of a forward pass alone as a share of a visit. It lowers the ceiling below 1 / (1 - ratio)."""
    shares: dict[str, list[float]] = {}
    for row in rows:
        found = [forward_share(run.epochs, run.seconds["train"]) for run in row.runs]
        shares.setdefault(row.label, []).extend(share for share in found if share is not None)
    passed = [f"{label} {percent(statistics.fmean(found), 1)}" for label, found in shares.items() if found]
    return [f"Cost of a forward pass as a share of a visit, in the ceiling: {', '.join(passed)}."] if passed else []


def _between(rows: Sequence[RatioRow]) -> list[str]:
    """Returns the cost of scores that are computed between the epochs."""
    shares: dict[str, list[float]] = {}
    for row in rows:
        found = [score_seconds(run) / charged_seconds(run) for run in row.timed if score_seconds(run)]
        shares.setdefault(row.label, []).extend(found)
    scored = [f"{label} {percent(statistics.fmean(found), 1)}" for label, found in shares.items() if found]
    return (
        [f"Cost of scores between the epochs, as a share of the charged seconds: {', '.join(scored)}."]
        if scored
        else []
    )


def _several_randoms(rows: Sequence[RatioRow]) -> list[str]:
    ratios = sorted({row.ratio for row in rows if row.n_random_settings > 1})
    at = ", ".join(map(percent, ratios))
    return [f"No difference to random at {at}: random ran with several settings there."] if ratios else []
