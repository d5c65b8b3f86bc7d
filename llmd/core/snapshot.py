"""What may be shown of the book: frozen, and never the base of a decision."""

from msgspec import Struct

from llmd.core.facts import HostId, Ticket
from llmd.core.residents import Residents
from llmd.core.slot import Resident, Slot, SlotState


class ProfileView(Struct, frozen=True):
    """One profile as it is now. Bytes are 0 while it holds no memory."""

    name: str
    port: int
    state: str
    host: HostId | None
    charged_bytes: int
    estimated_bytes: int
    measured_bytes: int
    pinned: bool
    in_flight: int
    queued: int
    idle_s: float
    loads: int
    evictions: int
    requests: int
    load_s: float
    retry_in_s: float
    last_error: str | None
    idle_ttl_s: float
    waits_for: str
    size: int
    """0 when it is as configured, else which of its smaller sizes."""
    reduced: str
    """What is smaller, for people."""


class PortView(Struct, frozen=True):
    """One port: the profile that is there or coming, and how many wait."""

    port: int
    profile: str | None
    state: str
    in_flight: int
    queued: int


class Snapshot(Struct, frozen=True):
    """Everything at one moment."""

    budget_bytes: int
    used_bytes: int
    peak_bytes: int
    spare_bytes: int
    spare_state: str | None
    spare_host: HostId | None
    ports: tuple[PortView, ...]
    profiles: tuple[ProfileView, ...]


def take_snapshot(book: Residents, now: float) -> Snapshot:
    """The book at *now*."""
    return Snapshot(
        budget_bytes=book.rules.budget_bytes,
        used_bytes=book.held_bytes(),
        peak_bytes=book.peak_bytes,
        spare_bytes=book.spare.bytes if book.spare else 0,
        spare_state=book.spare.state if book.spare else None,
        spare_host=book.spare.host if book.spare else None,
        ports=tuple(_port(slot) for slot in book),
        profiles=tuple(_profile(book, name, now) for name in book.profiles),
    )


def _port(slot: Slot) -> PortView:
    held = slot.holds
    return PortView(
        port=slot.port,
        profile=slot.wants or (held.profile if held is not None else None),
        state=slot.state.value,
        in_flight=len(held.in_flight) if held is not None else 0,
        queued=len(slot.queue),
    )


def _profile(book: Residents, name: str, now: float) -> ProfileView:
    residency, history, slot = book.profiles[name], book.histories[name], book.of(name)
    held: Resident | None = (
        slot.holds if slot.holds is not None and slot.holds.profile == name else None
    )
    retry_in_s = max(history.retry_at_s - now, 0.0)
    fault = residency.fault.message if residency.fault is not None else None
    queued = sum(1 for waiter in slot.queue if (waiter.profile or book.preferred(slot)) == name)
    if held is not None:
        state = slot.state.value
    elif slot.wants == name or queued:
        state = SlotState.WAITING.value
    elif fault is not None or (history.error is not None and retry_in_s > 0):
        state = "failed"
    else:
        state = SlotState.UNLOADED.value
    idle = held is not None and not held.in_flight
    return ProfileView(
        name=name,
        port=residency.port,
        state=state,
        host=held.host if held is not None else None,
        charged_bytes=held.charged_bytes if held is not None else 0,
        estimated_bytes=residency.footprint_bytes,
        measured_bytes=held.measured_bytes if held is not None else 0,
        pinned=book.pinned(name),
        in_flight=len(held.in_flight) if held is not None else 0,
        queued=queued,
        idle_s=now - held.last_used_s if held is not None and idle else 0.0,
        loads=history.loads,
        evictions=history.evictions,
        requests=history.requests,
        load_s=history.load_s,
        retry_in_s=retry_in_s,
        last_error=history.last_error or fault,
        idle_ttl_s=held.idle_ttl_s if held is not None else residency.idle_ttl_s,
        waits_for=_waits_for(book, slot, name) if state == SlotState.WAITING else "",
        size=book.size(name),
        reduced=book.reduced(name),
    )


def _waits_for(book: Residents, slot: Slot, name: str) -> str:
    """Why *name* is not loading yet."""
    held = slot.holds
    if held is not None and held.profile != name:
        verb = "leave" if slot.wants == name else "become idle"
        return f"{held.profile} to {verb} on port {slot.port}"
    leaving = [
        s.holds.profile
        for s in book
        if s.holds is not None and s.state in (SlotState.DRAINING, SlotState.UNLOADING)
    ]
    if leaving:
        return "room, until " + ", ".join(leaving) + " is gone"
    return "room, until a busy model is done"


def explain(book: Residents, slot: Slot, ticket: Ticket) -> str:
    """What the request of *ticket* waits for at *slot*, for the person who waits."""
    waiter = next((w for w in slot.queue if w.ticket == ticket), None)
    if waiter is None:
        return ""
    name = waiter.profile or book.preferred(slot)
    held = slot.holds
    if held is not None and held.profile == name and slot.state is SlotState.LOADING:
        return f"loading {name}"
    if held is not None and held.profile == name and slot.state is SlotState.READY:
        ahead = sum(1 for w in slot.waiters_for(name) if w.arrived_s < waiter.arrived_s)
        return f"{name} is busy, {ahead} ahead in the queue"
    return f"{name} waits for {_waits_for(book, slot, name)}"
