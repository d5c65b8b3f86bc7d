"""What was done, what came of it, and what should not have happened."""

import collections
import time
from dataclasses import dataclass, field
from math import inf


CRASH_S = 20.0
"""How long a request that makes its engine crash may have to wait for it."""
MOST = 40
"""Violations kept with their words."""


@dataclass
class Tally:
    """Counts, and the times at which a broken connection has its reasons.

    Attributes:
        done: Faults and commands, by kind.
        outcomes: Requests, by what became of them.
        violations: What should never be, in words.
        cuts: From when to when connections could break: a host was killed, or the daemon gone.
        gone: From when to when the daemon was not there.
        removed: When a profile, and maybe its port, was last in no configuration.
        crashes: By profile, from when to when a client could make its engine crash.
        slowest_s: The longest that a fresh request took after the last fault; `slowest_own_s` the
            same as if nobody else had used the machine.
        used_bytes: The most that the ledger ever showed; `measured_bytes` the most held in truth.
    """

    done: collections.Counter = field(default_factory=collections.Counter)
    outcomes: collections.Counter = field(default_factory=collections.Counter)
    violations: list[str] = field(default_factory=list)
    cuts: list[tuple[float, float]] = field(default_factory=list)
    gone: list[tuple[float, float]] = field(default_factory=list)
    crashes: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    removed: dict[str, float] = field(default_factory=dict)
    slowest_s: float = 0.0
    slowest_own_s: float = 0.0
    used_bytes: int = 0
    measured_bytes: int = 0
    began_s: float = field(default_factory=time.monotonic)

    def violated(self, what: str) -> None:
        self.outcomes["VIOLATION"] += 1
        if len(self.violations) < MOST:
            self.violations.append(f"{time.monotonic() - self.began_s:.1f} s: {what}")

    def cut(self, seconds: float = 1.0) -> None:
        """Connections may break from now on for *seconds*: it takes a moment to be noticed."""
        now = time.monotonic()
        self.cuts.append((now, now + seconds))

    def leave(self) -> None:
        """The daemon is gone from now on."""
        self.gone.append((time.monotonic(), inf))

    def come_back(self) -> None:
        """The daemon is back; what began before may still find that out."""
        self.gone[-1] = (self.gone[-1][0], time.monotonic() + 0.2)

    def crash(self, profile: str, began: float) -> None:
        """A client asks the engine of *profile* to crash, and others may be with it."""
        self.crashes.setdefault(profile, []).append((began, began + CRASH_S))

    def crashed(self, profile: str, began: float) -> bool:
        now = time.monotonic()
        known = self.crashes.get(profile, ())
        return any(start <= now and began <= end for start, end in known)

    def may_be_closed(self, profile: str, began: float) -> bool:
        """Whether the port of *profile* may have been closed since."""
        return began <= self.removed.get(profile, -inf)

    def may_be_cut(self, began: float) -> bool:
        now = time.monotonic()
        return any(start <= now and began <= end for start, end in (*self.cuts, *self.gone))

    def may_be_refused(self, began: float) -> bool:
        now = time.monotonic()
        return any(start <= now and began <= end for start, end in self.gone)

    def report(self) -> str:
        """All of it, for a person."""
        lines = [f"faults and commands: {sum(self.done.values())}"]
        lines += [f"  {count:6} {name}" for name, count in sorted(self.done.items())]
        lines += [f"requests: {sum(self.outcomes.values())}"]
        lines += [f"  {count:6} {name}" for name, count in self.outcomes.most_common()]
        lines += [
            (
                f"slowest fresh request after the last fault: {self.slowest_s:.1f} s, "
                f"{self.slowest_own_s:.1f} s of them without other people's work"
            ),
            (
                f"most used: {self.used_bytes / 2**20:.0f} MiB by the ledger, "
                f"{self.measured_bytes / 2**20:.0f} MiB measured"
            ),
            f"violations: {len(self.violations)}",
            *(f"  {what}" for what in self.violations),
        ]
        return "\n".join(lines)
