"""What administrators ask for: one profile loaded, or unloaded."""

from collections.abc import Callable

from llmd.core.allocator import Allocator
from llmd.core.events import Complete, Effect, LoadRequested, Refuse, UnloadRequested
from llmd.core.residents import Residents
from llmd.core.slot import Slot, SlotState, Waiter
from llmd.errors import LlmdError, ModelNotFoundError, ShuttingDownError, UnloadedError


class Commands:
    """Answers commands at once, or leaves them where their answer will come of.

    Args:
        book: Slots and profiles.
        allocator: Empties slots.
        emit: Takes effects.
        refuse: Ends a waiter with an error.
        enqueue: Takes who has to wait.
    """

    def __init__(
        self,
        book: Residents,
        allocator: Allocator,
        *,
        emit: Callable[[Effect], None],
        refuse: Callable[[Slot, Waiter, LlmdError], None],
        enqueue: Callable[[Slot, Waiter], None],
    ) -> None:
        self._book = book
        self._allocator = allocator
        self._emit = emit
        self._refuse = refuse
        self._enqueue = enqueue

    def load(self, event: LoadRequested, now: float, *, stopping: bool) -> None:
        """Queue the command for its profile, unless that is ready or cannot be loaded."""
        residency = self._book.profiles.get(event.profile)
        if stopping or residency is None:
            self._emit(Refuse(event.ticket, self._unknown(event.profile, stopping=stopping)))
            return
        slot = self._book.of(event.profile)
        if event.pin:
            self._book.pin_overrides[event.profile] = True
        held = slot.holds
        if slot.state is SlotState.READY and held is not None and held.profile == event.profile:
            if event.ttl_s is not None:
                held.idle_ttl_s = held.ttl_s = event.ttl_s
            held.last_used_s = now
            self._emit(Complete(event.ticket, event.profile, changed=False))
            return
        if residency.fault is not None:
            self._emit(Refuse(event.ticket, residency.fault))
            return
        history = self._book.histories[event.profile]
        history.retry_at_s = now  # whoever asks by hand may have mended it
        self._allocator.restore(event.profile, "asked for by an administrator")
        waiter = Waiter(event.ticket, event.profile, now, command=True, ttl_s=event.ttl_s)
        self._enqueue(slot, waiter)

    def unload(self, event: UnloadRequested, *, stopping: bool) -> None:
        """Refuse who waits for the profile, and empty its slot once it is not busy."""
        if event.profile not in self._book.profiles:
            self._emit(Refuse(event.ticket, self._unknown(event.profile, stopping=stopping)))
            return
        slot, reason = self._book.of(event.profile), "asked for by an administrator"
        for waiter in [w for w in slot.queue if _is_for(slot, w, event.profile)]:
            message = f"{event.profile} was unloaded by an administrator while this request waited"
            self._refuse(slot, waiter, UnloadedError(message, retry_after_s=1.0))
        held = slot.holds
        if held is not None and held.profile == event.profile:
            held.unloads.append(event.ticket)
            held.must_stop = True
            if slot.wants == event.profile:
                self._allocator.leave(slot, reason)
            return
        waiting = slot.wants == event.profile
        if waiting:
            self._allocator.leave(slot, reason)
        self._emit(Complete(event.ticket, event.profile, changed=waiting))

    def _unknown(self, profile: str, *, stopping: bool) -> LlmdError:
        if stopping:
            return ShuttingDownError("llmd is stopping")
        names = ", ".join(self._book.profiles)
        return ModelNotFoundError(f"there is no profile {profile!r}", remedy=f"one of: {names}")


def _is_for(slot: Slot, waiter: Waiter, profile: str) -> bool:
    return waiter.profile == profile or (waiter.profile is None and slot.wants == profile)
