"""Whether a series of readings stays where it is: plain functions."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


SURE = 2.58
"""Standard deviations: one flat series in a hundred looks as if it had a direction."""
WARM_UP = 0.2
"""The share of a run in which caches fill; it is not judged."""
READINGS_MIN = 5


@dataclass(frozen=True)
class Trend:
    """Where a series goes.

    Attributes:
        first: Its level where judging began.
        growth: By how much it rises from there to its end, by Theil and Sen: the median slope of
            all pairs, which no single outlier moves.
        score: How sure a direction is, by Mann and Kendall, in standard deviations.
    """

    first: float
    growth: float
    score: float

    def flat(self, share: float, slack: float) -> bool:
        """Whether it rises by no more than *share* of its level, or *slack*, or by chance."""
        return self.growth <= max(self.first * share, slack) or self.score < SURE


def trend(series: Sequence[float]) -> Trend | None:
    """The trend of readings at equal intervals, after the warm-up; None of too few."""
    judged = series[math.ceil(len(series) * WARM_UP) :]
    count = len(judged)
    if count < READINGS_MIN:
        return None
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    slope = statistics.median((judged[j] - judged[i]) / (j - i) for i, j in pairs)
    level = statistics.median(value - slope * index for index, value in enumerate(judged))
    signs = sum((judged[j] > judged[i]) - (judged[j] < judged[i]) for i, j in pairs)
    ties = sum(n * (n - 1) * (2 * n + 5) for n in map(judged.count, set(judged)))
    variance = (count * (count - 1) * (2 * count + 5) - ties) / 18
    score = (signs - math.copysign(min(1, abs(signs)), signs)) / math.sqrt(variance or 1.0)
    return Trend(level, slope * (count - 1), score)
