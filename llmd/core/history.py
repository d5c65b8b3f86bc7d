"""What is remembered of a profile after its host is gone: use, load time, failures."""

from collections.abc import Sequence
from math import exp, inf
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from llmd.core.death import judge
from llmd.core.facts import Failure, Past
from llmd.errors import LoadFailedError


VISIT_S: Final = 60.0
"""Requests that follow each other sooner are one visit: a busy minute is no habit."""
TIME_CONSTANTS_S: Final = (60.0, 300.0, 1800.0, 36_000.0)
"""How fast visits are forgotten: each of these counts them on its own."""
_VISITS_MAX: Final = 1e6
BACKOFF_FIRST_S: Final = 1.0
BACKOFF_MAX_S: Final = 300.0


class History(Struct):
    """One profile's past. Times are seconds on the scheduler's clock."""

    load_s: float
    """Expected seconds of a load; replaced by what was measured."""
    loads: int = 0
    evictions: int = 0
    requests: int = 0
    failures: int = 0
    """In a row, since something was served."""
    retry_at_s: float = 0.0
    last_error: str | None = None
    error: LoadFailedError | None = None
    used_s: float = -inf
    """The last use."""
    _visited_s: float = -inf
    """When the last visit began."""
    _earlier: list[float] = field(default_factory=lambda: [0.0] * len(TIME_CONSTANTS_S))
    """Visits before that one, as much as each time constant had left of them when it began."""

    @classmethod
    def of(cls, past: Past) -> "History":
        """What an earlier daemon remembered, but for back-off: a restart may have mended it."""
        history = cls(
            past.load_s, past.loads, past.evictions, past.requests, last_error=past.last_error
        )
        if past.used_s is not None and len(past.visits) == len(TIME_CONSTANTS_S):
            # Within bounds: a ledger is read from a file, and may say anything.
            history._earlier = [min(max(each, 0.0), _VISITS_MAX) for each in past.visits]
            history._visited_s, history.used_s = past.visited_s, past.used_s
        return history

    def past(self) -> Past:
        """What a later daemon should remember."""
        past = Past(
            self.load_s, self.loads, self.evictions, self.requests, last_error=self.last_error
        )
        if self.used_s == -inf:
            return past
        return replace(
            past, visits=tuple(self._earlier), visited_s=self._visited_s, used_s=self.used_s
        )

    @property
    def blank(self) -> bool:
        """Whether nothing has happened yet."""
        return not (self.loads or self.requests or self.last_error)

    def used(self, now: float) -> None:
        """A request was granted."""
        self.requests += 1
        if now - self.used_s > VISIT_S:
            self._earlier = self._left(now)
            self._visited_s = now
        self.used_s = now

    def _left(self, now: float) -> list[float]:
        """What each time constant has left of all visits, the last of which counts from its end."""
        began_s, age_s = max(now - self._visited_s, 0.0), self.idle_s(now)
        return [
            (earlier * exp(-began_s / constant_s) if earlier else 0.0) + exp(-age_s / constant_s)
            for earlier, constant_s in zip(self._earlier, TIME_CONSTANTS_S, strict=True)
        ]

    def idle_s(self, now: float) -> float:
        """Seconds since its last use; infinite when it was never used."""
        return max(now - self.used_s, 0.0)

    def rate(self, constants: Sequence[int], now: float) -> float:
        """Visits per second, the mean of what some of `TIME_CONSTANTS_S`, by index, make of them.

        With none of them it is 0: then who was used longest ago is the next to go.
        """
        left = self._left(now)
        return sum(left[each] / TIME_CONSTANTS_S[each] for each in constants) / max(
            len(constants), 1
        )

    def loaded(self, seconds: float) -> None:
        """A load took *seconds*."""
        self.load_s = seconds if self.loads == 0 else 0.5 * (self.load_s + seconds)
        self.loads += 1

    def served(self) -> None:
        """It answered a request: whatever failed before is over."""
        self.failures, self.retry_at_s, self.error = 0, 0.0, None

    def failed(self, now: float, profile: str, failure: Failure) -> LoadFailedError:
        """Back off: 1 s, doubling to 5 min. Returns what to tell those who asked."""
        self.failures += 1
        delay_s = min(BACKOFF_FIRST_S * 2.0 ** (self.failures - 1), BACKOFF_MAX_S)
        self.retry_at_s = now + delay_s
        self.last_error = describe(failure)
        first = judge(failure).remedy or f"see `llmd-ctl logs {profile}`"
        self.error = LoadFailedError(
            f"{profile} did not load: {self.last_error}",
            remedy=f"{first}; `llmd-ctl load {profile}` tries again at once",
            retry_after_s=delay_s,
        )
        return self.error

    def refusal(self, now: float) -> LoadFailedError | None:
        """The error to answer while backing off; None when a load may be tried."""
        if self.error is None or now >= self.retry_at_s:
            return None
        self.error.retry_after_s = self.retry_at_s - now
        return self.error


def describe(failure: Failure) -> str:
    """One line: what happened, how it ended, and the last words of its log."""
    parts = [failure.message]
    if words := judge(failure).words:
        parts.append(words)
    if failure.log_tail:
        parts.append("last log lines: " + " | ".join(failure.log_tail))
    return "; ".join(parts)
