"""What decisions are made of: frozen values about profiles, rules, hosts and their ends.

Bytes are bytes; times are seconds on one monotonic clock.
"""

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct, field

from llmd.core.reduction import Extent, Reduction
from llmd.errors import LlmdError


Ticket = int
"""A request's or a command's number, chosen by the caller and never used twice."""

HostId = int
"""A host's number, chosen by the scheduler and never used twice."""

SPARE: Final = "(spare)"
"""The name under which the warm spare is accounted."""


class Residency(Struct, frozen=True):
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


class Rules(Struct, frozen=True):
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


class Failure(Struct, frozen=True):
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


class Survivor(Struct, frozen=True):
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


class Past(Struct, frozen=True):
    """What is remembered of one profile's use; see `History`."""

    load_s: float
    loads: int = 0
    evictions: int = 0
    requests: int = 0
    visits: tuple[float, ...] = ()
    visited_s: float = 0.0
    used_s: float | None = None
    last_error: str | None = None


class Stock(Struct, frozen=True):
    """What one daemon leaves to the next: its hosts, pins, and what it knew of its profiles."""

    hosts: tuple[Survivor, ...] = ()
    pins: Mapping[str, bool] = field(default_factory=dict)
    pasts: Mapping[str, Past] = field(default_factory=dict)
    reductions: Mapping[str, Reduction] = field(default_factory=dict)
