"""How far a mean of seeds may be off another one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import stdtrit


@dataclass(frozen=True, slots=True)
class Spread:
    """A standard deviation or a standard error, and the degrees of freedom that it was estimated with."""

    size: float
    freedom: float

    def of_means(self, n: int, m: int) -> Spread:
        """Of the mean of m new values about that of n, where this is that of single values.

        Source: the prediction interval of a future sample's mean; Hahn & Meeker, Statistical Intervals, 1991.
        """
        return Spread(self.size * math.sqrt(1 / n + 1 / m), self.freedom)

    def reach(self, level: float, sides: int) -> float:
        """What is exceeded, to one side or to either, with a chance of `level`."""
        return float(stdtrit(self.freedom, 1 - level / sides)) * self.size


def pooled(samples: Iterable[Sequence[float]]) -> Spread:
    """Of samples that have their own means and one spread."""
    several = [sample for sample in samples if len(sample) > 1]
    freedom = sum(len(sample) - 1 for sample in several)
    squares = sum((len(sample) - 1) * statistics.variance(sample) for sample in several)
    return Spread(math.sqrt(squares / freedom) if freedom else 0.0, freedom)


def together(*parts: Spread) -> Spread:
    """The error of a sum whose parts have these errors, with about so many degrees of freedom.

    Source: Welch, Biometrika 34, 1947; Satterthwaite, Biometrics Bulletin 2, 1946.
    """
    total = sum(part.size**2 for part in parts)
    freedom = total**2 / sum(part.size**4 / part.freedom for part in parts) if total else 1.0
    return Spread(math.sqrt(total), freedom)


def of_seeds(reference_S: Any, now_S: Any) -> Spread:
    """Of the difference of two means of seeds, by those of both: if nothing changed they spread alike, and one side's few
    hardly tell how far."""
    return pooled([reference_S.tolist(), now_S.tolist()]).of_means(len(reference_S), len(now_S))
