"""What becomes of hosts: ready, gone, grown; and what follows for the profiles that they carry."""

from collections.abc import Callable
from typing import Any

from llmd.core.death import Cause, judge
from llmd.core.events import (
    Complete,
    Effect,
    HostExited,
    HostReady,
    HostStalled,
    MemoryMeasured,
    Note,
    StopHost,
)
from llmd.core.facts import Failure, Ticket
from llmd.core.history import describe
from llmd.core.residents import Residents
from llmd.core.slot import Resident, Slot, SlotState, Trigger, Waiter
from llmd.core.spare import PAUSE_S, RETRY_S, SpareKeeper
from llmd.errors import LlmdError


class Outcomes:
    """Takes the news of hosts to the book.

    Args:
        book: Slots, profiles and sums.
        spare: Told when another spare may be started.
        emit: Takes effects.
        refuse: Ends a waiter with an error.
        forget: Told of each ticket that no longer waits.
    """

    def __init__(
        self,
        book: Residents,
        spare: SpareKeeper,
        *,
        emit: Callable[[Effect], None],
        refuse: Callable[[Slot, Waiter, LlmdError], None],
        forget: Callable[[Ticket], None],
    ) -> None:
        self._book = book
        self._spare = spare
        self._emit = emit
        self._refuse = refuse
        self._forget = forget

    def ready(self, event: HostReady, now: float) -> None:
        """A host can serve: its slot is ready, and those who commanded the load are told."""
        spare = self._book.spare
        if spare is not None and spare.host == event.host:
            if spare.state == "starting":
                spare.state = "prepared"
            return
        found = self._book.by_host(event.host)
        if found is None or found[0].state is not SlotState.LOADING:
            return  # it was told to stop meanwhile
        slot, held = found
        adopted = slot.being_adopted
        slot.fire(Trigger.PROBE)
        fields: dict[str, Any] = {"port": slot.port, "profile": held.profile}
        if adopted:
            fields |= {"bytes": held.charged_bytes, "idle_s": round(now - held.last_used_s, 1)}
            self._emit(Note("host.adopted", fields))
        else:
            held.ready_s = held.last_used_s = now
            self._book.histories[held.profile].loaded(now - held.started_s)
            self._spare.not_before_s = now + PAUSE_S
            fields |= {"seconds": round(now - held.started_s, 3), "evicted": tuple(slot.evicted)}
            self._emit(Note("load.finished", fields))
        for waiter in [w for w in slot.queue if w.command and w.profile == held.profile]:
            if waiter.ttl_s is not None:
                held.idle_ttl_s = held.ttl_s = waiter.ttl_s
            slot.queue.remove(waiter)
            self._forget(waiter.ticket)
            if waiter.ticket > 0:
                evicted = tuple(slot.evicted)
                self._emit(Complete(waiter.ticket, held.profile, changed=True, evicted=evicted))

    def exited(self, event: HostExited, now: float) -> None:
        """A host is reaped: its bytes are free, and its slot goes on to what it wants now."""
        spare = self._book.spare
        if spare is not None and spare.host == event.host:
            self._book.spare = None
            if spare.state != "stopping":
                self._spare.not_before_s = now + RETRY_S
                failure = describe(event.failure) if event.failure else "it ended by itself"
                self._emit(Note("spare.failed", {"reason": failure}))
            return
        found = self._book.by_host(event.host)
        if found is None:
            return
        slot, held = found
        loading = slot.state is SlotState.LOADING and not slot.being_adopted
        before, slot.holds = slot.state, None
        slot.fire(Trigger.EXIT)
        for ticket in held.unloads:
            self._emit(Complete(ticket, held.profile, changed=True))
        if before is not SlotState.UNLOADING:
            what = "load.failed" if loading else "host.died"
            cause = judge(event.failure).cause if event.failure is not None else Cause.EXIT
            more = {"cause": cause, "freed_bytes": held.charged_bytes}
            self._failed(what, slot, held, event.failure, now, more)
        if slot.wants is not None:
            slot.fire(Trigger.PROMISE)

    def stalled(self, event: HostStalled, now: float) -> None:
        """A host hangs: it is ended, and whoever waits gets a fresh one, as after a death."""
        spare = self._book.spare
        if spare is not None and spare.host == event.host and spare.state != "stopping":
            spare.state = "stopping"
            self._spare.not_before_s = now + RETRY_S
            self._emit(StopHost(event.host, event.failure.message, at_once=True))
            self._emit(Note("spare.failed", {"reason": describe(event.failure)}))
            return
        found = self._book.by_host(event.host)
        if found is None or found[0].state not in (SlotState.READY, SlotState.DRAINING):
            return  # it is ended already
        slot, held = found
        slot.fire(Trigger.STOP)
        self._emit(StopHost(event.host, event.failure.message, at_once=True))
        more = {"silent_s": round(event.silent_s, 1), "bytes": held.charged_bytes}
        self._failed("host.stalled", slot, held, event.failure, now, more)

    def _failed(
        self,
        what: str,
        slot: Slot,
        held: Resident,
        failure: Failure | None,
        now: float,
        more: dict[str, Any],
    ) -> None:
        """A host failed that nobody had told to end: back off, unless it is the first time in use.

        *what* is the name of the event that tells of it, and *more* what it says besides.
        """
        if slot.wants == held.profile:
            slot.wants = None
        history = self._book.histories[held.profile]
        words = describe(failure) if failure is not None else "it ended by itself"
        smaller = ""
        if failure is not None and judge(failure).of_memory:
            smaller = self._reduce(slot, held, now)
        fields: dict[str, Any] = {"port": slot.port, "profile": held.profile, "reason": words}
        self._emit(Note(what, fields | {"in_flight": len(held.in_flight)} | more))
        history.last_error = words + smaller
        if smaller:
            return  # those who wait get a smaller one at once; there are few sizes
        if what != "load.failed" and not history.failures:
            history.failures = 0 if held.served else 1
            return  # those who wait get a fresh host at once; a second time they do not
        if failure is None or held.profile not in self._book.profiles:
            return
        error = history.failed(now, held.profile, failure)
        for waiter in [w for w in slot.queue if (w.profile or held.profile) == held.profile]:
            self._refuse(slot, waiter, error)

    def _reduce(self, slot: Slot, held: Resident, now: float) -> str:
        """It died of memory: the next one is smaller. Returns what to say of that."""
        book, profile = self._book, held.profile
        residency = book.profiles.get(profile)
        if residency is None or residency.fingerprint != held.fingerprint:
            return ""  # its configuration has changed since
        change = book.reduce(profile, now)
        if not change:
            return ""
        fields = {
            "port": slot.port, "profile": profile, "reason": "it died of memory",
            "change": change, "was_bytes": residency.footprint_bytes,
            "need_bytes": book.profiles[profile].footprint_bytes,
        }  # fmt: skip
        self._emit(Note("profile.reduced", fields))
        return f"; it is started smaller from now on: {change}"

    def measured(self, event: MemoryMeasured) -> bool:
        """Charge what is measured when it is more; True when that changes anything."""
        spare = self._book.spare
        if spare is not None and spare.host == event.host:
            grown = event.bytes > spare.bytes
            spare.bytes = max(spare.bytes, event.bytes)
            return grown
        found = self._book.by_host(event.host)
        if found is None:
            return False
        slot, held = found
        held.measured_bytes = event.bytes
        if event.bytes <= held.charged_bytes:
            return False
        fields = {"was_bytes": held.charged_bytes, "bytes": event.bytes}
        held.charged_bytes = event.bytes
        self._emit(Note("footprint.raised", {"port": slot.port, "profile": held.profile, **fields}))
        return True
