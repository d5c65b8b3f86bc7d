"""What can happen, and what may be asked for in return: frozen values, nothing else.

Events are past tense and go into `Scheduler.handle`; effects are imperative and come out of it.
Nothing here knows a process, a socket or a clock. Times are seconds on one monotonic clock.
"""

from typing import Any

from msgspec import Struct, field

from llmd.core.facts import Failure, HostId, Residency, Rules, Stock, Ticket
from llmd.errors import LlmdError


# --- events -------------------------------------------------------------------------------------


class ConfigReplaced(Struct, frozen=True):
    """The configuration was read, at start or again. *profiles* are in file order.

    *left* is what an earlier daemon left, at the start of one that follows it.
    """

    rules: Rules
    profiles: tuple[Residency, ...]
    left: Stock = field(default_factory=Stock)


class RequestArrived(Struct, frozen=True):
    """A client's request is complete enough to be placed. *model* is its `model` field."""

    ticket: Ticket
    port: int
    model: str | None = None


class RequestFinished(Struct, frozen=True):
    """The client is served, or gave up, waiting or running. Idempotent."""

    ticket: Ticket
    served: bool = True


class LoadRequested(Struct, frozen=True):
    """An administrator wants *profile* resident."""

    ticket: Ticket
    profile: str
    pin: bool = False
    ttl_s: float | None = None


class UnloadRequested(Struct, frozen=True):
    """An administrator wants *profile* gone. Requests in flight are finished first."""

    ticket: Ticket
    profile: str


class PinChanged(Struct, frozen=True):
    """An administrator pinned or unpinned *profile*. Loads nothing."""

    profile: str
    pinned: bool


class HostReady(Struct, frozen=True):
    """The host answered a one-token completion (or, a spare, has imported its engine)."""

    host: HostId


class HostExited(Struct, frozen=True):
    """The host's process is reaped and its memory free. Reported once for each StartHost."""

    host: HostId
    failure: Failure | None = None
    """None when the exit was asked for."""


class HostStalled(Struct, frozen=True):
    """The host hangs, as *failure* says: nothing of it moved for *silent_s* seconds."""

    host: HostId
    failure: Failure
    silent_s: float


class MemoryMeasured(Struct, frozen=True):
    """A host's process tree holds *bytes*."""

    host: HostId
    bytes: int


class PressureRose(Struct, frozen=True):
    """The system is short of memory; idle residents go, then caches are trimmed."""

    source: str


class Stopping(Struct, frozen=True):
    """The daemon is going down: grant nothing more, and stop every host that is not busy.

    *force* stops the busy ones too.
    """

    force: bool = False


class Ticked(Struct, frozen=True):
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


class StartHost(Struct, frozen=True):
    """Start a host for *profile*, or load it into the spare that is already running as *host*.

    *size* is 0 for what the configuration says, else which of the smaller sizes, from 1.
    """

    host: HostId
    profile: str
    into_spare: bool = False
    size: int = 0


class StartSpare(Struct, frozen=True):
    """Start a host of *kind* that imports its engine and waits for a profile."""

    host: HostId
    kind: str


class AdoptHost(Struct, frozen=True):
    """Take over the survivor *key* as *host*; HostReady follows, or HostExited."""

    host: HostId
    key: str
    profile: str | None


class StopHost(Struct, frozen=True):
    """End the host and reap it; HostExited follows."""

    host: HostId
    reason: str
    at_once: bool = False
    """Without a grace: it hangs, and would not hear of it."""


class TrimCaches(Struct, frozen=True):
    """Ask the host to let go of its prompt caches."""

    host: HostId


class Grant(Struct, frozen=True):
    """The request of *ticket* may go to *host*."""

    ticket: Ticket
    profile: str
    host: HostId


class Refuse(Struct, frozen=True):
    """The request or command of *ticket* is settled with an error."""

    ticket: Ticket
    error: LlmdError


class Complete(Struct, frozen=True):
    """The command of *ticket* is done."""

    ticket: Ticket
    profile: str
    changed: bool
    evicted: tuple[str, ...] = ()


class WakeAt(Struct, frozen=True):
    """Send Ticked at *when_s*, at the latest; replaces an earlier wish only when sooner."""

    when_s: float


class Note(Struct, frozen=True):
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
