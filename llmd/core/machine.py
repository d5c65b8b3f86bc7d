"""What the machine does to everybody at once: it runs short of memory, and it sleeps."""

from collections.abc import Callable
from typing import Final

from llmd.core.allocator import Allocator
from llmd.core.events import Effect, Note, PressureRose
from llmd.core.residents import Residents
from llmd.core.slot import SlotState
from llmd.core.spare import RETRY_S


TRIM_AGAIN_S: Final = 60.0
"""Between trims, and records of them, while pressure lasts and nobody is idle."""


class Machine:
    """Answers pressure and sleep. Changes slots through *book* and *allocator*."""

    def __init__(
        self, book: Residents, allocator: Allocator, emit: Callable[[Effect], None]
    ) -> None:
        self._book = book
        self._allocator = allocator
        self._emit = emit
        self._trim_again_s = 0.0

    def pressed(self, event: PressureRose, now: float) -> None:
        """Let the spare and the cheapest idle resident go; when nobody is idle, trim caches.

        One record says all of it. What a trim frees is known only when the host has answered.
        """
        before_bytes, spare = self._staying_bytes(), self._spare_stays()
        may_trim = now >= self._trim_again_s
        evicted, trimmed = self._allocator.release(
            1, f"memory pressure: {event.source}", now, trim=may_trim
        )
        # Not at once again: importing an engine is what the system can least bear now.
        self._allocator.spare.not_before_s = max(self._allocator.spare.not_before_s, now + RETRY_S)
        done = [f"evicted {name}" for name in evicted]
        if spare:
            done.append("stopped the spare")
        if trimmed:
            done.append("trimmed the prompt caches of " + ", ".join(trimmed))
        if not evicted:
            if not (done or may_trim):
                return
            self._trim_again_s = now + TRIM_AGAIN_S
        used_bytes = self._staying_bytes()
        fields = {
            "source": event.source,
            "done": "; ".join(done) or "nothing: no resident is left that could go",
            "evicted": evicted,
            "trimmed": trimmed,
            "freed_bytes": before_bytes - used_bytes,
            "used_bytes": used_bytes,
        }
        self._emit(Note("pressure.rose", fields))

    def slept(self, slept_s: float, now: float) -> None:
        """Take *slept_s* seconds off what is counted against those who could do nothing meanwhile.

        Whoever waits for an answer slept as well (a client on this machine), or holds its
        connection open as before: a time-out and patience are about time in which it could have
        been served. The same goes for a load, whose seconds tell what the next one will take.
        Everything else goes on: a resident was idle all night, a back-off is over, and use fades.
        """
        if not slept_s:
            return
        self._emit(Note("system.woke", {"slept_s": round(slept_s, 1)}))
        for slot in self._book:
            for waiter in slot.queue:
                waiter.arrived_s = min(waiter.arrived_s + slept_s, now)
            held = slot.holds
            if slot.state is SlotState.LOADING and held is not None and held.ready_s is None:
                held.started_s = min(held.started_s + slept_s, now)

    def _spare_stays(self) -> bool:
        return self._book.spare is not None and self._book.spare.state != "stopping"

    def _staying_bytes(self) -> int:
        """What all that is not leaving is charged."""
        held = [slot.holds for slot in self._book if slot.state is not SlotState.UNLOADING]
        spare_bytes = self._book.spare.bytes if self._book.spare and self._spare_stays() else 0
        return spare_bytes + sum(each.charged_bytes for each in held if each is not None)
