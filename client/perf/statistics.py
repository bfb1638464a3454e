"""Repeats and what may be concluded from them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

NO_CLEAR_DIFFERENCE = "no clear difference"
_OUTLIER_DEVIATIONS = 5.0
_MAD_TO_DEVIATION = 1.4826  # of a normal distribution
_SMALL_SAMPLE = 5  # with fewer values, "far from the others" means little


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of the values do not exceed, interpolated between neighbours."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def outliers(values: Sequence[float]) -> list[float]:
    """The values that lie more than five robust deviations (of the median) from the median.

    They are told, not removed: a slow moment belongs to what users see.
    """
    if len(values) < _SMALL_SAMPLE:
        return []
    center = statistics.median(values)
    deviation = _MAD_TO_DEVIATION * statistics.median(abs(value - center) for value in values)
    return [v for v in values if deviation and abs(v - center) > _OUTLIER_DEVIATIONS * deviation]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One figure measured several times."""

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of one value a repeat.

        Raises:
            ValueError: There are none.
        """
        if not values:
            raise ValueError("a spread needs at least one value")
        return cls(
            median=statistics.median(values), low=min(values), high=max(values), repeats=len(values)
        )

    @property
    def relative(self) -> float:
        """From lowest to highest, as a share of the median."""
        return (self.high - self.low) / abs(self.median) if self.median else 0.0


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times one figure is another, with the bounds that the repeats leave open."""

    median: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether every pairing of repeats agrees which of the two is larger."""
        return self.low > 1 or self.high < 1

    def __str__(self) -> str:
        if not self.is_clear:
            return NO_CLEAR_DIFFERENCE
        return f"{self.median:.2f}x ({self.low:.2f}-{self.high:.2f})"


def ratio(candidate: Spread, baseline: Spread) -> Ratio | None:
    """`candidate` over `baseline`; None where it says nothing.

    One repeat has no spread to judge by, and zero nothing to divide by.
    """
    if min(candidate.repeats, baseline.repeats) < 2 or min(candidate.low, baseline.low) <= 0:
        return None
    return Ratio(
        median=candidate.median / baseline.median,
        low=candidate.low / baseline.high,
        high=candidate.high / baseline.low,
    )


def speed_up(candidate: Spread, baseline: Spread) -> str:
    """The ratio of two rates as it may be printed."""
    found = ratio(candidate, baseline)
    return NO_CLEAR_DIFFERENCE if found is None else str(found)
