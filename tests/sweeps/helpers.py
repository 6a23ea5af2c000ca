"""Small sweep files, the plans made of them, and an executor whose runs end as scripted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from sadp_bench.records.store import Store
from sadp_bench.runs.preparation import Preparation
from sadp_bench.sweeps import planning
from sadp_bench.sweeps.executors import Ended, Executor
from sadp_bench.sweeps.planning import Plan
from tests.example_records import make_record, make_spec

GOOD = '[[sweep]]\nmethod = "random"\nratio = 0.5\n'
TINY = """
[common]
epochs = 2
train_examples = 256
threads = 1
set.backbone.width = 4
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "a.toml"
    path.write_text(text)
    return path


def planned(folder: Path, text: str, **how):
    return planning.make_plan(written(folder, text), Store(folder / "runs"), **how)


FULL, RANDOM, SADP = make_spec(), make_spec("random", 0.5), make_spec("sadp", 0.5)


def plan_of(*specs, scoring=(), searching=()):
    before = {spec.key: Preparation(float(spec in scoring), float(spec in searching)) for spec in specs}
    return Plan(list(specs), frozenset(), {}, before, {spec.key: 1.0 for spec in specs})


class Scripted(Executor):
    """Ends runs one tick after their start, each as scripted: "done", an exit code, or "lost".

    A script's last entry holds for all further tries. `events` holds each run started and the runs going on then.
    """

    def __init__(self, store, jobs=1, shares_folder=True, **scripts):
        self.shares_folder = shares_folder
        self.store, self.jobs, self.scripts = store, jobs, scripts
        self.running, self.events, self.stopped = [], [], False
        self.tries = Counter()
        self.when_ended = lambda spec: None

    def capacity(self):
        return self.jobs

    def start(self, spec, earlier):
        assert len(self.running) < self.jobs
        self.events.append((spec, list(self.running)))
        self.running.append(spec)

    def ended(self):
        ends = [self._end(spec) for spec in self.running]
        self.running = []
        return ends

    def _end(self, spec):
        script = self.scripts.get(spec.method, ["done"])
        self.tries[spec.key] += 1
        outcome = script[min(self.tries[spec.key], len(script)) - 1]
        self.when_ended(spec)
        if outcome == "done":
            self.store.write(make_record(spec))
            return Ended(spec, 0, ["fine"])
        if outcome == "lost":
            return Ended(spec, 1, ["its worker was lost"], lost=True)
        return Ended(spec, outcome, ["first", "sadp-bench: last"])

    def latest(self, spec):
        return "going on"

    def stop(self):
        self.stopped = True

    @property
    def started(self):
        return [spec for spec, _ in self.events]
