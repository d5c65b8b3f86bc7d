"""What is remembered of a profile after its host is gone: use, load time, failures."""

from dataclasses import dataclass
from typing import Final

from llmd.core.death import judge
from llmd.core.events import Failure, Past
from llmd.errors import LoadFailedError


HALF_LIFE_S: Final = 600.0
"""How fast use is forgotten. Ten minutes: two hours did worse than LRU on session-like traces."""
BACKOFF_FIRST_S: Final = 1.0
BACKOFF_MAX_S: Final = 300.0


@dataclass(slots=True)
class History:
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
    _weight: float = 0.0
    _weighed_s: float = 0.0

    @classmethod
    def of(cls, past: Past) -> "History":
        """What an earlier daemon remembered, but for back-off: a restart may have mended it."""
        return cls(
            past.load_s, past.loads, past.evictions, past.requests, last_error=past.last_error,
            _weight=past.weight, _weighed_s=past.weighed_s,
        )  # fmt: skip

    def past(self) -> Past:
        """What a later daemon should remember."""
        return Past(
            self.load_s, self.loads, self.evictions, self.requests, self._weight, self._weighed_s,
            self.last_error,
        )  # fmt: skip

    @property
    def blank(self) -> bool:
        """Whether nothing has happened yet."""
        return not (self.loads or self.requests or self.last_error)

    def used(self, now: float) -> None:
        """A request was granted."""
        self.requests += 1
        self._weight = self.rate(now) + 1.0
        self._weighed_s = now

    def rate(self, now: float) -> float:
        """Recent requests, each halved every `HALF_LIFE_S`."""
        if not self._weight:
            return 0.0
        # Not before it: a ledger is read from a file, and may say anything.
        age_s = max(now - self._weighed_s, 0.0)
        return float(self._weight * 0.5 ** (age_s / HALF_LIFE_S))

    def cost_s(self, now: float) -> float:
        """Seconds of waiting that losing it now is expected to cause, up to a common factor."""
        return self.load_s * self.rate(now)

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
