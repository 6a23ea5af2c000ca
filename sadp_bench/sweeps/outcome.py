"""The two stages of a sweep: trials of a search and then the other runs, or runs that make scores and then their users."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from sadp_bench.records.record import Failure
from sadp_bench.records.store import Store
from sadp_bench.runs import exporting
from sadp_bench.sweeps.planning import Plan
from sadp_bench.sweeps.scheduler import Standing


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a sweep.

    Attributes:
        plan: The plan at the end, with the chosen settings.
        trials: The state of the search's trials; None without a search.
        runs: The state of the runs; None where the time was over before them.
    """

    plan: Plan
    trials: Standing | None
    runs: Standing | None

    @property
    def failed(self) -> dict[str, Failure]:
        """Trials and runs that failed and are not tried again, by key. Diverged trials are not among them."""
        trials = {} if self.trials is None else self.trials.failed
        runs = {} if self.runs is None else self.runs.failed
        return {key: failure for key, failure in trials.items() if failure.epoch is None} | runs

    @property
    def without_settings(self) -> list[str]:
        """Keys of the runs that were not trained, because their settings or scores are missing."""
        return [] if self.runs is None else list(self.plan.skipped)

    @property
    def left(self) -> int:
        """Number of trials and runs that are left because the time was over."""
        trials = 0 if self.trials is None else len(self.trials.left)
        return trials + (len(self.plan.runs) if self.runs is None else len(self.runs.left))


def carry_out(
    plan: Plan, store: Store, make: Callable[[], Plan], schedule: Callable[[Plan, Store], Standing]
) -> Outcome:
    """Trains the trials of a plan, if it has a search, and then its runs.

    Args:
        plan: The plan.
        store: The records of its runs.
        make: Returns the plan anew, after the trials.
        schedule: Trains the runs of a plan and returns their state.
    """
    if plan.search is None:
        runs = schedule(plan.trainable, store)
        if plan.skipped and not runs.left:
            plan, runs = _on_scores(plan, runs, store, make, schedule)
        return Outcome(plan, None, runs)
    trials = Standing(plan.search.plan.trainable, set(plan.search.plan.done))
    if plan.search.plan.to_do:
        trials = schedule(plan.search.plan.trainable, plan.search.store)
        plan = make()
    return Outcome(plan, trials, None if trials.left else schedule(plan.trainable, store))


def _on_scores(
    plan: Plan, runs: Standing, store: Store, make: Callable[[], Plan], schedule: Callable[[Plan, Store], Standing]
) -> tuple[Plan, Standing]:
    """Trains the runs that waited for the scores of others. Returns the plan with them, and the state of all runs."""
    for spec in plan.runs:
        if spec.key in plan.sources & runs.done:
            exporting.keep_shared(spec, store)
    whole = make()
    left = [spec for spec in whole.trainable.runs if spec.key not in runs.failed]
    seconds = {spec.key: whole.seconds[spec.key] for spec in left if spec.key in whole.seconds}
    later = schedule(dataclasses.replace(whole, runs=left, seconds=seconds, skipped={}), store)
    later.failed |= runs.failed
    return whole, later
