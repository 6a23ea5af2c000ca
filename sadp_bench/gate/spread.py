"""Standard deviations with their degrees of freedom, and the allowed deviation of a mean over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import stdtrit


@dataclass(frozen=True, slots=True)
class Spread:
    """A standard deviation or a standard error.

    Attributes:
        size: The deviation.
        freedom: The degrees of freedom of its estimate.
    """

    size: float
    freedom: float

    def of_means(self, n: int, m: int) -> Spread:
        """Returns the spread of the mean of m new values about the mean of n values.

        Source: the prediction interval of a future sample's mean; Hahn & Meeker, Statistical Intervals, 1991.
        """
        return Spread(self.size * math.sqrt(1 / n + 1 / m), self.freedom)

    def reach(self, level: float, sides: int) -> float:
        """Returns the deviation that is exceeded with probability `level`, on one side or on both sides together."""
        return float(stdtrit(self.freedom, 1 - level / sides)) * self.size


def pooled(samples: Iterable[Sequence[float]]) -> Spread:
    """Returns the spread of samples that have different means and one standard deviation."""
    several = [sample for sample in samples if len(sample) > 1]
    freedom = sum(len(sample) - 1 for sample in several)
    squares = sum((len(sample) - 1) * statistics.variance(sample) for sample in several)
    return Spread(math.sqrt(squares / freedom) if freedom else 0.0, freedom)


def together(*parts: Spread) -> Spread:
    """Returns the error of a sum of independent parts, with approximate degrees of freedom.

    Source: Welch, Biometrika 34, 1947; Satterthwaite, Biometrics Bulletin 2, 1946.
    """
    total = sum(part.size**2 for part in parts)
    freedom = total**2 / sum(part.size**4 / part.freedom for part in parts) if total else 1.0
    return Spread(math.sqrt(total), freedom)


def of_seeds(reference_S: Any, now_S: Any) -> Spread:
    """Returns the error of the difference of two means over seeds.

    The spread is pooled over both sides, because it is equal without a change, and few seeds estimate it poorly.
    """
    return pooled([reference_S.tolist(), now_S.tolist()]).of_means(len(reference_S), len(now_S))
