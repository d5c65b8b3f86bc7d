"""The decisions of the daemon: events go in, effects come out. One tree, no I/O, no clock.

`Scheduler.handle` is the only writer of slots, queues and counts. It is synchronous, so nothing can
come between reading a state and acting on it. What looks at all slots is in `allocator.py`, what
becomes of hosts in `outcomes.py`, commands in `commands.py`; here is what happens to one request.
"""

from itertools import islice
from math import inf
from typing import Final, assert_never

from llmd.core.adoption import Adoption, take_stock
from llmd.core.allocator import Allocator
from llmd.core.commands import Commands
from llmd.core.events import (
    ConfigReplaced,
    Effect,
    Event,
    Grant,
    HostExited,
    HostReady,
    HostStalled,
    LoadRequested,
    MemoryMeasured,
    Note,
    PinChanged,
    PressureRose,
    Refuse,
    RequestArrived,
    RequestFinished,
    Stopping,
    Ticked,
    UnloadRequested,
    WakeAt,
)
from llmd.core.facts import Stock, Ticket
from llmd.core.forecasts import Forecasts
from llmd.core.machine import Machine
from llmd.core.outcomes import Outcomes
from llmd.core.reload import Reload, left
from llmd.core.residents import Residents
from llmd.core.slot import Resident, Slot, SlotState, Waiter
from llmd.core.snapshot import Snapshot, explain, take_snapshot
from llmd.errors import (
    BudgetExceededError,
    LlmdError,
    ModelNotFoundError,
    PortPinnedError,
    QueueFullError,
    ShuttingDownError,
)


# Bound once: to look a member up in its class costs ten times as much, for each request.
_READY: Final = SlotState.READY


class Scheduler:
    """Who is served, who waits, who is loaded and who goes.

    Every ticket that comes in with a request or a command is settled exactly once: by `Grant`,
    `Complete` or `Refuse`, or by the client's own `RequestFinished` before that.
    """

    def __init__(self) -> None:
        self._book = Residents()
        self._effects: list[Effect] = []
        self._forecasts = Forecasts(self._book, self._emit)
        self._allocator = Allocator(self._book, self._forecasts, self._emit, self._refuse)
        self._machine = Machine(self._book, self._allocator, self._emit)
        self._where: dict[Ticket, Slot] = {}
        """Where each waiting or running request is."""
        self._outcomes = Outcomes(
            self._book,
            self._allocator.spare,
            emit=self._emit,
            refuse=self._refuse,
            forget=self._forget,
        )
        self._commands = Commands(
            self._book,
            self._allocator,
            emit=self._emit,
            refuse=self._refuse,
            enqueue=self._enqueue,
        )
        adoption = Adoption(self._book, self._emit)
        self._reload = Reload(self._book, self._allocator, adoption, self._refuse)
        self._stopping = False
        self._anybody_waits = False
        """In any queue, as of the last time that they could change."""
        self._wake_s = inf
        """The soonest wake-up wished for since the last one because a resident had become idle."""

    def handle(self, event: Event, *, now: float) -> list[Effect]:
        """Take *event* into account; returns what is to be done, in order.

        Args:
            event: What happened.
            now: Seconds on a monotonic clock; never less than at the last call.
        """
        effects = self._effects = []
        match event:
            case RequestArrived():
                if self._arrived(event, now):
                    return effects
            case RequestFinished():
                if self._finished(event, now):
                    return effects
            case Ticked():
                self._wake_s = inf
                self._machine.slept(event.slept_s, now)
            case MemoryMeasured():
                if not self._outcomes.measured(event):
                    return effects
            case HostReady():
                self._outcomes.ready(event, now)
            case HostExited():
                self._outcomes.exited(event, now)
            case HostStalled():
                self._outcomes.stalled(event, now)
            case LoadRequested():
                self._commands.load(event, now, stopping=self._stopping)
            case UnloadRequested():
                self._commands.unload(event, stopping=self._stopping)
            case PinChanged():
                self._book.pin_overrides[event.profile] = event.pinned
            case PressureRose():
                self._machine.pressed(event, now)
            case ConfigReplaced():
                self._reload.replace(event, now)
            case Stopping():
                self._stop(event)
            case _:
                assert_never(event)
        self._advance(now)
        return effects

    # --- requests -------------------------------------------------------------------------------

    def _arrived(self, event: RequestArrived, now: float) -> bool:
        """Grant, refuse or queue a request; True when nothing else can follow from it."""
        placed = self._place(event.port, event.model)
        if isinstance(placed, LlmdError):
            self._emit(Refuse(event.ticket, placed))
            return True
        slot, named = placed
        held = slot.holds
        if (
            slot.state is _READY
            and held is not None
            and named in (None, held.profile)
            and len(held.in_flight) < self._book.profiles[held.profile].parallel
            and not slot.awaited(held.profile)
        ):
            self._grant(slot, held, event.ticket, now)
            return True
        profile = named or self._book.preferred(slot)
        error = self._objection(slot, profile, now)
        if error is not None:
            self._emit(Refuse(event.ticket, error))
            return True
        self._enqueue(slot, Waiter(event.ticket, named, now))
        return False

    def _place(self, port: int, model: str | None) -> tuple[Slot, str | None] | LlmdError:
        """The slot for a request, and the profile that it names; None names none."""
        if self._stopping:
            return ShuttingDownError("llmd is stopping", retry_after_s=5.0)
        book = self._book
        name = book.names.get(model) if model is not None else None
        if port == book.rules.gateway_port:
            if name is None:
                return ModelNotFoundError(
                    f"there is no profile {model!r}" if model else "the request names no model",
                    remedy="`model` may be one of: " + ", ".join(book.profiles),
                    param="model",
                )
            return book.of(name), name
        slot = book.slots.get(port)
        if slot is None or not book.on(port):
            return left(f"port {port}")
        if name is not None and book.profiles[name].port != port:
            name = None
        return slot, name

    def _objection(self, slot: Slot, profile: str, now: float) -> LlmdError | None:
        """Why a request for *profile* need not even wait."""
        residency = self._book.profiles[profile]
        resident = slot.wants == profile
        if not resident:
            if residency.fault is not None:
                return residency.fault
            refusal = self._book.histories[profile].refusal(now)
            if refusal is not None:
                return refusal
            if slot.wants is not None and self._book.pinned(slot.wants):
                return PortPinnedError(profile, resident=slot.wants, port=slot.port)
            if residency.footprint_bytes > self._book.rules.budget_bytes:
                return BudgetExceededError(
                    profile,
                    need_bytes=residency.footprint_bytes,
                    budget_bytes=self._book.rules.budget_bytes,
                )
        limit = self._book.rules.queue_limit
        if now < self._book.rules.queue_limit_from_s:
            return None
        if len(slot.queue) >= limit and sum(1 for _ in slot.waiters_for(profile)) >= limit:
            return QueueFullError(profile, limit=limit)
        return None

    def _grant(self, slot: Slot, held: Resident, ticket: Ticket, now: float) -> None:
        held.in_flight.add(ticket)
        self._where[ticket] = slot
        self._forecasts.used(held.profile, now)
        self._emit(Grant(ticket, held.profile, held.host))

    def _finished(self, event: RequestFinished, now: float) -> bool:
        """Take a request off its slot; True when nothing else can follow from it."""
        slot = self._where.pop(event.ticket, None)
        if slot is None:
            return True
        held = slot.holds
        if held is None or event.ticket not in held.in_flight:
            waiter = next((w for w in slot.queue if w.ticket == event.ticket), None)
            if waiter is None:
                return True
            slot.queue.remove(waiter)
            return False
        held.in_flight.discard(event.ticket)
        held.last_used_s = now
        if event.served:
            held.served += 1
            self._book.histories[held.profile].served()
        if slot.state is not _READY or self._anybody_waits:
            return False
        idle_out_s = now + held.idle_ttl_s
        if idle_out_s < self._wake_s and not held.in_flight and not self._book.pinned(held.profile):
            self._wake_s = idle_out_s
            self._emit(WakeAt(idle_out_s))
        return True

    # --- common ---------------------------------------------------------------------------------

    def _stop(self, event: Stopping) -> None:
        self._stopping = True
        self._allocator.spare.stop("llmd is stopping")
        for slot in self._book:
            for waiter in tuple(slot.queue):
                self._refuse(slot, waiter, ShuttingDownError("llmd is stopping"))
            if slot.holds is not None:
                slot.holds.must_stop = True
            if event.force:
                self._allocator.stop_now(slot, "llmd is stopping")
            else:
                self._allocator.leave(slot, "llmd is stopping")

    def _advance(self, now: float) -> None:
        self._serve(now)
        self._allocator.run(now, stopping=self._stopping)
        self._serve(now)  # a drain that ended may serve again
        for slot in tuple(self._book):
            if not self._book.on(slot.port) and slot.holds is None and not slot.queue:
                del self._book.slots[slot.port]
        self._anybody_waits = any(slot.queue for slot in self._book)

    def _serve(self, now: float) -> None:
        """Grant what ready hosts have sequences for, in the order of arrival."""
        for slot in self._book:
            held = slot.holds
            if not slot.queue or held is None or slot.state is not _READY:
                continue
            free = self._book.profiles[held.profile].parallel - len(held.in_flight)
            for waiter in list(islice(slot.waiters_for(held.profile), max(free, 0))):
                slot.queue.remove(waiter)
                self._grant(slot, held, waiter.ticket, now)

    def _enqueue(self, slot: Slot, waiter: Waiter) -> None:
        slot.queue.append(waiter)
        self._where[waiter.ticket] = slot

    def _forget(self, ticket: Ticket) -> None:
        self._where.pop(ticket, None)

    def _refuse(self, slot: Slot, waiter: Waiter, error: LlmdError) -> None:
        slot.queue.remove(waiter)
        self._forget(waiter.ticket)
        if waiter.ticket > 0:
            self._emit(Refuse(waiter.ticket, error))
        else:
            self._emit(Note("preload.refused", {"profile": waiter.profile, "reason": str(error)}))

    def _emit(self, effect: Effect) -> None:
        self._effects.append(effect)

    # --- asking ---------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a request is in flight or waits, anywhere."""
        return any(
            slot.queue or (slot.holds is not None and slot.holds.in_flight) for slot in self._book
        )

    def snapshot(self, now: float) -> Snapshot:
        """All that may be shown; informs, and decides nothing."""
        return take_snapshot(self._book, now)

    def stock(self) -> Stock:
        """What a daemon that follows this one should know; the key of a host is its number."""
        return take_stock(self._book)

    def explain(self, ticket: Ticket) -> str:
        """What a waiting request waits for, in a few words."""
        slot = self._where.get(ticket)
        return "" if slot is None else explain(self._book, slot, ticket)

    def destination(self, port: int, model: str | None) -> str | None:
        """The profile that a request would go to if it arrived now; None when it has none."""
        placed = self._place(port, model)
        if isinstance(placed, LlmdError):
            return None
        slot, named = placed
        return named or self._book.preferred(slot)

    def objection(self, profile: str, now: float) -> LlmdError | None:
        """What a request for *profile* would be refused with now; None when it would not be."""
        return self._objection(self._book.of(profile), profile, now)

    def preview(self, profile: str, now: float) -> tuple[tuple[str, ...] | None, LlmdError | None]:
        """What loading *profile* would evict, or the error it would end with; changes nothing.

        Names are None while only busy residents could make room.
        """
        victims, error = self._allocator.room.preview(profile, now)
        if victims is None:
            return None, error
        return tuple(slot.wants for slot in victims if slot.wants is not None), None
