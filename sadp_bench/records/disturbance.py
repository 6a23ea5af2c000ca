"""The rule by which a run is disturbed: its seconds contain time that other processes took, so they mean nothing.

A training loop computes all the time. One of its threads always has a core, so the CPU seconds of its process are at least
its seconds. In undisturbed runs, CPU seconds / seconds was 0.97 to 0.98 with one thread, and 1.59 with two.

The rule misses a disturbance that leaves each thread its core. Examples are a shared cache, a slower clock of the
processor, and a neighbour on the same physical core. Where only some of several threads are slowed, only the load average
shows it.
"""

from __future__ import annotations

import math

from sadp_bench.core.text import percent

MIN_CPU_SHARE = 0.9  # CPU seconds / seconds; undisturbed runs have more, and half a core gives 0.5
MAX_EXCESS = 0.5  # threads beyond the cores; the daemons of an idle machine have fewer
MIN_LOAD_SECONDS = 30.0  # seconds; the system updates the load average every 5
LOAD_MINUTE = 60.0  # seconds after which 1 / e of an old load is left in the load average
CEILING_SLACK = 0.02  # share by which a speed-up may exceed its ceiling


def disturbance(
    *,
    seconds: float,
    cpu_seconds: float | None,
    ready_threads: float | None,
    cores: float | None,
    efficiency: float | None,
) -> str | None:
    """Returns why a run is disturbed, in a phrase; None where its seconds count.

    An unknown number is None, and its part of the rule finds nothing. On a GPU only the efficiency is known: the process
    waits for the device, so CPU seconds and load mean nothing.

    Args:
        seconds: Charged seconds.
        cpu_seconds: CPU seconds of the run's process in the same phases.
        ready_threads: Mean number of the machine's threads that ran or waited for a core (`ready_threads`).
        cores: Cores of the machine.
        efficiency: Speed-up divided by ceiling.
    """
    if cpu_seconds is not None and cpu_seconds < MIN_CPU_SHARE * seconds:
        return f"its process had a core for less than {percent(MIN_CPU_SHARE)} of the time"
    if ready_threads is not None and cores is not None and ready_threads > cores + MAX_EXCESS:
        return "more threads were ready than the machine has cores"
    if efficiency is not None and efficiency > 1 + CEILING_SLACK:
        return f"its speed-up, or that of its training part, exceeds its ceiling by more than {percent(CEILING_SLACK)}"
    return None


def ready_threads(start: float, end: float, seconds: float) -> float | None:
    """Returns the mean number of threads that ran or waited for a core between two load averages; None: too close.

    The load average is an exponential mean over a minute: end = start * e^(-t/60) + ready * (1 - e^(-t/60)).

    Args:
        start: Load average over the last minute, at the start.
        end: Load average over the last minute, at the end.
        seconds: Seconds between start and end.
    """
    if seconds < MIN_LOAD_SECONDS:
        return None
    left = math.exp(-seconds / LOAD_MINUTE)
    return (end - start * left) / (1 - left)
