"""What can happen, and what may be asked for in return: frozen values, nothing else.

Events are past tense and go into `Scheduler.handle`; effects are imperative and come out of it.
Nothing here knows a process, a socket or a clock. Times are seconds on one monotonic clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from llmd.core.reduction import Extent, Reduction
from llmd.errors import LlmdError


Ticket = int
"""A request's or a command's number, chosen by the caller and never used twice."""

HostId = int
"""A host's number, chosen by the scheduler and never used twice."""

SPARE: Final = "(spare)"
"""The name under which the warm spare is accounted."""


@dataclass(frozen=True, slots=True)
class Residency:
    """What the scheduler must know of a profile, in bytes and seconds."""

    name: str
    port: int
    footprint_bytes: int
    parallel: int = 1
    idle_ttl_s: float = 1800.0
    pinned: bool = False
    preload: bool = False
    default: bool = False
    aliases: tuple[str, ...] = ()
    load_s: float = 10.0
    spare_kind: str | None = None
    """The kind of warm spare this profile can be loaded into; None when there is none."""
    fingerprint: str = ""
    """Changes when, and only when, a resident must be replaced to honour the configuration."""
    fault: LlmdError | None = None
    """Why it cannot be loaded at all, known before anybody is evicted for it: no such weights."""
    extent: Extent | None = None
    """None where llmd does not know what makes it large."""
    smaller: tuple["Residency", ...] = ()
    """The same in smaller sizes, for when it dies of memory."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The daemon-wide numbers of the configuration that decisions depend on."""

    budget_bytes: int
    gateway_port: int | None = None
    eviction: Literal["cost", "lru"] = "cost"
    patience_s: float = 5.0
    min_residency_s: float = 10.0
    queue_limit: int = 64
    queue_limit_from_s: float = 0.0
    """Not enforced before: who waited in the backlog for this daemon to start comes all at once."""
    queue_timeout_s: float = 600.0
    spare_bytes: int = 0
    """What a warm spare is charged; 0 turns it off."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a host is gone, as far as anybody needs to know; `core.death` makes sense of it.

    Attributes:
        message: What was noticed first.
        exit_code: Its exit status, if it had one.
        signal: What ended it, by name, if a signal did.
        log_tail: Its last words.
        oom_kills: How often the kernel killed a process for want of memory while it lived; None
            where the system does not count.
        hangs: It has not ended: it shows no sign of life, and is ended for that.
    """

    message: str
    exit_code: int | None = None
    signal: str | None = None
    log_tail: tuple[str, ...] = ()
    oom_kills: int | None = None
    hangs: bool = False


@dataclass(frozen=True, slots=True)
class Survivor:
    """A host that outlived the daemon that started it, as that daemon last wrote it down.

    Times are seconds on the scheduler's clock, which goes on until the next boot.

    Attributes:
        key: By which the runtime knows it.
        profile: None is the warm spare.
        port: Of its slot.
        kind: Of its host program.
        charged_bytes: Its footprint.
        measured_bytes: What it was last seen to hold.
        started_s: When it was started.
        ready_s: Since when it has served; None while it loads.
        last_used_s: When its last request ended.
        fingerprint: Of the configuration that it honours.
        ttl_s: An administrator's own `idle_ttl` for this residency.
    """

    key: str
    profile: str | None
    port: int
    kind: str
    charged_bytes: int
    measured_bytes: int = 0
    started_s: float = 0.0
    ready_s: float | None = None
    last_used_s: float = 0.0
    fingerprint: str = ""
    ttl_s: float | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """What is remembered of one profile's use; see `History`."""

    load_s: float
    loads: int = 0
    evictions: int = 0
    requests: int = 0
    visits: tuple[float, ...] = ()
    visited_s: float = 0.0
    used_s: float | None = None
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class Stock:
    """What one daemon leaves to the next: its hosts, pins, and what it knew of its profiles."""

    hosts: tuple[Survivor, ...] = ()
    pins: Mapping[str, bool] = field(default_factory=dict)
    pasts: Mapping[str, Past] = field(default_factory=dict)
    reductions: Mapping[str, Reduction] = field(default_factory=dict)


# --- events -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConfigReplaced:
    """The configuration was read, at start or again. *profiles* are in file order.

    *left* is what an earlier daemon left, at the start of one that follows it.
    """

    rules: Rules
    profiles: tuple[Residency, ...]
    left: Stock = Stock()


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
