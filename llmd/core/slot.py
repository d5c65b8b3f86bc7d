"""A slot: one port, the profile it wants, the one it holds, and who waits.

A slot *wants* the profile promised to it and *holds* the one whose process lives. They differ while
one leaves and another is to come. The state is that of what is held; `TRANSITIONS` lists every
legal move, `Slot.fire` is the only writer, and any other move is a bug that raises.

```
 unloaded ──promise──▶ waiting ──start──▶ loading ──probe──▶ ready ⇄ draining
     ▲ ◀──withdraw────────┘                  │ stop           │ stop    │ stop
     └───────────── exit ──────────────── unloading ◀─────────┴─────────┘
```
A host can also exit unasked from loading, ready and draining. One that an earlier daemon left is
adopted from unloaded to loading, until it has said who it is.
"""

from collections import deque
from collections.abc import Iterator
from enum import StrEnum
from typing import Final

from msgspec import Struct, field

from llmd.core.facts import HostId, Ticket


class SlotState(StrEnum):
    """What is going on behind a port, in the words of `llmd-ctl status`."""

    UNLOADED = "unloaded"
    WAITING = "waiting"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    UNLOADING = "unloading"


class Trigger(StrEnum):
    """What moves a slot from one state to the next."""

    PROMISE = "promise"
    ADOPT = "adopt"
    WITHDRAW = "withdraw"
    START = "start"
    PROBE = "probe"
    DRAIN = "drain"
    RESUME = "resume"
    STOP = "stop"
    EXIT = "exit"


_S, _T = SlotState, Trigger

TRANSITIONS: Final[dict[tuple[SlotState, Trigger], SlotState]] = {
    (_S.UNLOADED, _T.PROMISE): _S.WAITING,
    (_S.UNLOADED, _T.ADOPT): _S.LOADING,
    (_S.WAITING, _T.WITHDRAW): _S.UNLOADED,
    (_S.WAITING, _T.START): _S.LOADING,
    (_S.LOADING, _T.PROBE): _S.READY,
    (_S.LOADING, _T.STOP): _S.UNLOADING,
    (_S.LOADING, _T.EXIT): _S.UNLOADED,
    (_S.READY, _T.DRAIN): _S.DRAINING,
    (_S.READY, _T.STOP): _S.UNLOADING,
    (_S.READY, _T.EXIT): _S.UNLOADED,
    (_S.DRAINING, _T.RESUME): _S.READY,
    (_S.DRAINING, _T.STOP): _S.UNLOADING,
    (_S.DRAINING, _T.EXIT): _S.UNLOADED,
    (_S.UNLOADING, _T.EXIT): _S.UNLOADED,
}


class IllegalTransitionError(Exception):
    """A slot was asked for a move that its table does not have: a bug in the scheduler."""


class Waiter(Struct, eq=False):
    """Somebody who waits at a slot; equal to nobody else, so that long queues find it quickly.

    Attributes:
        profile: What it asked for by name; None takes whatever the port has.
        command: An administrator's load, settled by readiness; otherwise a request, settled by
            a grant.
    """

    ticket: Ticket
    profile: str | None
    arrived_s: float
    command: bool = False
    ttl_s: float | None = None


class Resident(Struct):
    """The profile whose host lives, and what it has done so far."""

    host: HostId
    profile: str
    charged_bytes: int
    started_s: float
    fingerprint: str
    idle_ttl_s: float
    ttl_s: float | None = None
    """An administrator's own `idle_ttl` for this residency."""
    ready_s: float | None = None
    """Since when it has served; None while it loads. One that is adopted has it from before."""
    last_used_s: float = 0.0
    measured_bytes: int = 0
    served: int = 0
    in_flight: set[Ticket] = field(default_factory=set)
    unloads: list[Ticket] = field(default_factory=list)
    """Commands to answer when it is gone."""
    must_stop: bool = False
    """It leaves whatever happens: an administrator or the configuration said so."""


class Slot:
    """One port. Counts and queues are changed by the scheduler alone, `state` by `fire` alone."""

    __slots__ = (
        "_state", "abandon_at_s", "evicted", "holds", "port", "promise_order", "queue", "wants",
    )  # fmt: skip

    def __init__(self, port: int) -> None:
        self.port = port
        self.wants: str | None = None
        self.holds: Resident | None = None
        self.queue: deque[Waiter] = deque()
        self.promise_order = 0
        self.evicted: list[str] = []
        """Who went to make room for what is wanted."""
        self.abandon_at_s: float | None = None
        """When a load that nobody waits for is given up."""
        self._state = SlotState.UNLOADED

    @property
    def state(self) -> SlotState:
        """The state of what is held."""
        return self._state

    def fire(self, trigger: Trigger) -> None:
        """Make one move.

        Raises:
            IllegalTransitionError: The table has no such row; nothing was changed.
        """
        try:
            self._state = TRANSITIONS[self._state, trigger]
        except KeyError:
            message = f"port {self.port}: {trigger} while {self._state}"
            raise IllegalTransitionError(message) from None

    def waiters_for(self, profile: str) -> Iterator[Waiter]:
        """Those whom *profile*, resident here, would serve."""
        return (waiter for waiter in self.queue if waiter.profile in (None, profile))

    def awaited(self, profile: str) -> bool:
        """Does anybody wait for *profile*, or for whatever is here?"""
        return bool(self.queue) and next(self.waiters_for(profile), None) is not None

    def would_resume(self, profile: str) -> bool:
        """Would a promise to *profile* end its drain, instead of loading it?"""
        held = self.holds
        return (
            self._state is SlotState.DRAINING
            and held is not None
            and held.profile == profile
            and not held.must_stop
        )

    @property
    def being_adopted(self) -> bool:
        """Held from before, and not yet heard of by this daemon."""
        held = self.holds
        return self._state is SlotState.LOADING and held is not None and held.ready_s is not None

    @property
    def idle(self) -> bool:
        """Ready, nothing in flight, nobody waiting for it."""
        return (
            self._state is SlotState.READY
            and self.holds is not None
            and not self.holds.in_flight
            and not self.awaited(self.holds.profile)
        )
