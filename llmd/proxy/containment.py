"""What a bug may break: the request that met it, and its connection. Nothing else.

An exception that leaves a callback goes to the event loop, which logs it and goes on; the lease of
the request would stay out, and its client wait for ever. One that leaves a callback of the gate
would hit whoever is being served at that moment. So each way in from outside is `contained`.
Decisions are not: one that fails ends the daemon (`llmd.runtime.daemon`).
"""

import traceback
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, Protocol, TypeVar, TypeVarTuple, cast

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
    # One for each number of arguments, since passing on any number takes three times as long.
    call: Callable[..., None] = entry

    def enter(owner: B, /) -> None:
        try:
            call(owner)
        except Exception as bug:  # noqa: BLE001 - whatever it is
            owner.fail(bug)

    def enter_1(owner: B, first: object, /) -> None:
        try:
            call(owner, first)
        except Exception as bug:  # noqa: BLE001
            owner.fail(bug)

    def enter_2(owner: B, first: object, second: object, /) -> None:
        try:
            call(owner, first, second)
        except Exception as bug:  # noqa: BLE001
            owner.fail(bug)

    enters: tuple[Callable[..., None], ...] = (enter, enter_1, enter_2)
    chosen = update_wrapper(enters[entry.__code__.co_argcount - 1], entry)
    return cast("Callable[[B, *Ts], None]", chosen)


def tell(bug: Exception, **what: Any) -> None:
    """Log *bug* by its kind and place; its text might quote what somebody said."""
    frames = traceback.extract_tb(bug.__traceback__)
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
    log.error("request.failed", bug=type(bug).__name__, places=places, **what)
