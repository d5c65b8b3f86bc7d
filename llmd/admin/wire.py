"""What the admin API says, as frozen structs.

Both ends use them: the daemon builds them, `llmd-ctl` reads them. They import in a few milliseconds
(no pydantic, no aiohttp), because a person waits for that import whenever they type a command. A
reader ignores fields that it does not know, and every field added since the first release has a
default, so that a newer daemon and an older `llmd-ctl` understand each other.

Names carry units: `_bytes`, `_s` (seconds, as a float). Times of day are ISO 8601 in UTC.
"""

from typing import Any, Literal

import msgspec


VERSION_HEADER = "X-LLMD-Version"
REQUEST_ID_HEADER = "X-Request-Id"
JSON = "application/json"
NDJSON = "application/x-ndjson"

State = Literal["unloaded", "waiting", "loading", "ready", "draining", "unloading", "failed"]


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """Frozen, built by keyword, and lenient towards fields it does not know.

    msgspec inherits the two options; type checkers want them on each class.
    """


class Budget(Wire, frozen=True, kw_only=True):
    """The memory budget. Used is the sum of footprints of everything that holds memory."""

    total_bytes: int
    used_bytes: int
    free_bytes: int
    peak_bytes: int
    """The largest `used_bytes` since the daemon started."""


class Port(Wire, frozen=True, kw_only=True):
    """One client-facing port and what is behind it."""

    port: int
    profile: str | None
    """The profile the port wants or holds; None when it is empty, and on the gateway."""
    state: State
    in_flight: int = 0
    queued: int = 0
    listen: tuple[str, ...] = ()
    """The addresses it is bound to; empty when it could not be bound."""
    gateway: bool = False
    """It serves every profile by name."""
    managed: bool = False
    """A service manager holds it, so that a crash refuses nobody."""
    error: str | None = None
    """Why it is not open."""


class Profile(Wire, frozen=True, kw_only=True):
    """One profile: what it is, and what it does now."""

    name: str
    engine: str
    port: int
    state: State
    footprint_bytes: int = 0
    """What it is charged now; 0 when it holds nothing."""
    estimated_bytes: int = 0
    """What a load would be charged."""
    measured_bytes: int = 0
    """What its host was last seen to hold."""
    pinned: bool = False
    in_flight: int = 0
    queued: int = 0
    idle_s: float | None = None
    """Since its last use; None unless it is ready with nothing in flight."""
    host_pid: int | None = None
    loads: int = 0
    evictions: int = 0
    last_error: str | None = None
    aliases: tuple[str, ...] = ()
    context: int | None = None
    """Tokens."""
    sequences: int | None = None
    """Requests it serves at once."""
    idle_ttl_s: float | None = None
    """Unloaded after so long without use; None is never."""
    load_s: float | None = None
    """How long its last load took."""
    progress: float | None = None
    """How far a load is, 0 to 1, when known."""
    tokens_per_s: float | None = None
    """Of the last answers."""
    requests: int = 0
    retry_in_s: float | None = None
    """A failed profile is not tried again before."""
    waiting_for: str = ""
    """What a waiting profile waits for, for a person."""
    reduced: str = ""
    """What is smaller than configured since it died of memory, for a person."""


class Spare(Wire, frozen=True, kw_only=True):
    """The warm spare: a host that has imported its engine and waits for a profile."""

    kind: str
    state: Literal["preparing", "prepared"]
    host_pid: int | None = None
    footprint_bytes: int = 0


class Status(Wire, frozen=True, kw_only=True):
    """`GET /v1/status`."""

    version: str
    pid: int
    uptime_s: float
    budget: Budget
    ports: tuple[Port, ...]
    profiles: tuple[Profile, ...]
    spare: Spare | None = None
    config_path: str = ""
    config_error: str | None = None
    """Why the file on disk is not the configuration in use."""
    socket_path: str = ""
    stopping: bool = False
    restarts: int = 0
    """How often this process has re-executed itself."""
    manager: Literal["launchd", "systemd", "other"] | None = None
    """The service manager that it runs under."""
    tasks: int = 0
    """What the daemon has under way, in tasks of its event loop: requests, hosts, watches."""
    warnings: tuple[str, ...] = ()


class Profiles(Wire, frozen=True, kw_only=True):
    """`GET /v1/profiles`."""

    profiles: tuple[Profile, ...]


class LoadRequest(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/profiles/{p}/load`; it may be absent."""

    pin: bool = False
    ttl_s: float | Literal["never"] | None = None
    """Replaces `idle_ttl` for this residency."""


class NoOptions(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of the other POST requests: none, or an empty object."""


class LoadReport(Wire, frozen=True, kw_only=True):
    """A load, done. *changed* is False when the profile was ready already."""

    profile: str
    changed: bool
    evicted: tuple[str, ...] = ()
    seconds: float = 0.0
    footprint_bytes: int = 0
    port: int | None = None


class UnloadReport(Wire, frozen=True, kw_only=True):
    """An unload, done: the hosts are reaped. *unloaded* is empty when nothing was resident."""

    unloaded: tuple[str, ...] = ()
    freed_bytes: int = 0
    seconds: float = 0.0


class PinReport(Wire, frozen=True, kw_only=True):
    """A pin or unpin, done."""

    profile: str
    pinned: bool


class Victim(Wire, frozen=True, kw_only=True):
    """A resident that a load would evict, and the expected seconds its users would wait for it."""

    profile: str
    bytes: int
    cost_s: float | None = None


class PlanReport(Wire, frozen=True, kw_only=True):
    """What a load would do. Nothing was changed."""

    profile: str
    fits: bool
    evict: tuple[Victim, ...] = ()
    need_bytes: int = 0
    free_bytes: int = 0
    expected_s: float | None = None
    reason: str = ""
    """Why it would not fit, or what it would wait for."""


class ReloadReport(Wire, frozen=True, kw_only=True):
    """The configuration was read again: names of profiles, and of daemon-wide settings."""

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class RestartReport(Wire, frozen=True, kw_only=True):
    """The daemon re-executes itself; it is done when `restarts` in its status is higher."""

    restarts: int


class StopReport(Wire, frozen=True, kw_only=True):
    """The daemon drains and exits; *pid* is the process to wait for."""

    pid: int


class ErrorDetail(Wire, frozen=True, kw_only=True):
    """The inside of an error, in OpenAI's shape plus `remedy`."""

    message: str
    type: str = "server_error"
    code: str | None = None
    param: str | None = None
    remedy: str | None = None


class ErrorBody(Wire, frozen=True, kw_only=True):
    """Any answer with a status of 400 or more."""

    error: ErrorDetail


class LoadEvent(Wire, frozen=True, kw_only=True):
    """One line of a load that is followed: progress lines, then `done` or `error`."""

    event: Literal["progress", "done", "error"]
    stage: str | None = None
    fraction: float | None = None
    report: LoadReport | None = None
    error: ErrorDetail | None = None


Event = dict[str, Any]
"""A decision record: `time` (ISO 8601, UTC), `name` (`host.exited`), and fields."""
