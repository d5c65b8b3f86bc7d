"""What can happen, and what may be asked for in return: frozen values, nothing else.

Events are past tense and go into `Scheduler.handle`; effects are imperative and come out of it.
Nothing here knows a process, a socket or a clock. Times are seconds on one monotonic clock.
"""

from dataclasses import dataclass, field
from typing import Any

from llmd.core.facts import Failure, HostId, Residency, Rules, Stock, Ticket
from llmd.errors import LlmdError


# --- events -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConfigReplaced:
    """The configuration was read, at start or again. *profiles* are in file order.

    *left* is what an earlier daemon left, at the start of one that follows it.
    """

    rules: Rules
    profiles: tuple[Residency, ...]
    left: Stock = field(default_factory=Stock)


@dataclass(frozen=True, slots=True)
class RequestArrived:
    """A client's request is complete enough to be placed. *model* is its `model` field."""

    ticket: Ticket
    port: int
    model: str | None = None


@dataclass(frozen=True, slots=True)
class RequestFinished:
    """The client is served, or gave up, waiting or running. Idempotent."""

    ticket: Ticket
    served: bool = True


@dataclass(frozen=True, slots=True)
class LoadRequested:
    """An administrator wants *profile* resident."""

    ticket: Ticket
    profile: str
    pin: bool = False
    ttl_s: float | None = None


@dataclass(frozen=True, slots=True)
class UnloadRequested:
    """An administrator wants *profile* gone. Requests in flight are finished first."""

    ticket: Ticket
    profile: str


@dataclass(frozen=True, slots=True)
class PinChanged:
    """An administrator pinned or unpinned *profile*. Loads nothing."""

    profile: str
    pinned: bool


@dataclass(frozen=True, slots=True)
class HostReady:
    """The host answered a one-token completion (or, a spare, has imported its engine)."""

    host: HostId


@dataclass(frozen=True, slots=True)
class HostExited:
    """The host's process is reaped and its memory free. Reported once for each StartHost."""

    host: HostId
    failure: Failure | None = None
    """None when the exit was asked for."""


@dataclass(frozen=True, slots=True)
class HostStalled:
    """The host hangs, as *failure* says: nothing of it moved for *silent_s* seconds."""

    host: HostId
    failure: Failure
    silent_s: float


@dataclass(frozen=True, slots=True)
class MemoryMeasured:
    """A host's process tree holds *bytes*."""

    host: HostId
    bytes: int


@dataclass(frozen=True, slots=True)
class PressureRose:
    """The system is short of memory; idle residents go, then caches are trimmed."""

    source: str


@dataclass(frozen=True, slots=True)
class Stopping:
    """The daemon is going down: grant nothing more, and stop every host that is not busy.

    *force* stops the busy ones too.
    """

    force: bool = False


@dataclass(frozen=True, slots=True)
class Ticked:
    """The moment asked for by WakeAt has come, or the machine woke up; harmless at any other time.

    *slept_s* is how long it slept: the clock of the scheduler went on meanwhile.
    """

    slept_s: float = 0.0


Event = (
    ConfigReplaced
    | RequestArrived
    | RequestFinished
    | LoadRequested
    | UnloadRequested
    | PinChanged
    | HostReady
    | HostExited
    | HostStalled
    | MemoryMeasured
    | PressureRose
    | Stopping
    | Ticked
)


# --- effects ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartHost:
    """Start a host for *profile*, or load it into the spare that is already running as *host*.

    *size* is 0 for what the configuration says, else which of the smaller sizes, from 1.
    """

    host: HostId
    profile: str
    into_spare: bool = False
    size: int = 0


@dataclass(frozen=True, slots=True)
class StartSpare:
    """Start a host of *kind* that imports its engine and waits for a profile."""

    host: HostId
    kind: str


@dataclass(frozen=True, slots=True)
class AdoptHost:
    """Take over the survivor *key* as *host*; HostReady follows, or HostExited."""

    host: HostId
    key: str
    profile: str | None


@dataclass(frozen=True, slots=True)
class StopHost:
    """End the host and reap it; HostExited follows."""

    host: HostId
    reason: str
    at_once: bool = False
    """Without a grace: it hangs, and would not hear of it."""


@dataclass(frozen=True, slots=True)
class TrimCaches:
    """Ask the host to let go of its prompt caches."""

    host: HostId


@dataclass(frozen=True, slots=True)
class Grant:
    """The request of *ticket* may go to *host*."""

    ticket: Ticket
    profile: str
    host: HostId


@dataclass(frozen=True, slots=True)
class Refuse:
    """The request or command of *ticket* is settled with an error."""

    ticket: Ticket
    error: LlmdError


@dataclass(frozen=True, slots=True)
class Complete:
    """The command of *ticket* is done."""

    ticket: Ticket
    profile: str
    changed: bool
    evicted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send Ticked at *when_s*, at the latest; replaces an earlier wish only when sooner."""

    when_s: float


@dataclass(frozen=True, slots=True)
class Note:
    """A decision, for the log and `llmd-ctl events`: `noun.past_tense`, and its numbers."""

    name: str
    fields: dict[str, Any] = field(default_factory=dict)


Effect = (
    StartHost
    | StartSpare
    | AdoptHost
    | StopHost
    | TrimCaches
    | Grant
    | Refuse
    | Complete
    | WakeAt
    | Note
)
