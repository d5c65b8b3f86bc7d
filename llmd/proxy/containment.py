"""What a bug may break: the request that met it, and its connection. Nothing else.

An exception that leaves a callback goes to the event loop, which logs it and goes on; the lease of
the request would stay out, and its client wait for ever. One that leaves a callback of the gate
would hit whoever is being served at that moment. So each way in from outside is `contained`.
Decisions are not: one that fails ends the daemon (`llmd.runtime.daemon`).
"""

import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, TypeVar, TypeVarTuple

import structlog


class Breakable(Protocol):
    """Something that serves one client."""

    def fail(self, bug: Exception) -> None:
        """End this client's request because of *bug*, and give everything back."""


B = TypeVar("B", bound=Breakable)
Ts = TypeVarTuple("Ts")

log = structlog.get_logger("llmd.proxy")


def contained(entry: Callable[[B, *Ts], None]) -> Callable[[B, *Ts], None]:
    """Let no exception out of *entry*: it is what its owner `fail`s with."""

    @wraps(entry)
    def enter(owner: B, /, *args: *Ts) -> None:
        try:
            entry(owner, *args)
        except Exception as bug:  # noqa: BLE001 - whatever it is
            owner.fail(bug)

    return enter


def tell(bug: Exception, **what: Any) -> None:
    """Log *bug* by its kind and place; its text might quote what somebody said."""
    frames = traceback.extract_tb(bug.__traceback__)
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
    log.error("request.failed", bug=type(bug).__name__, places=places, **what)
