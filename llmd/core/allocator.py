"""Who gets room, who leaves for it, and when: the part of the scheduler that looks at all slots.

Each run goes through the same steps: expire, shrink, claim, stop what is drained, start what fits,
mind the spare, and say when to look again.

A *claim* is the oldest waiter of a slot that the profile wanted there will not serve. It is
promised room at once when idle residents can make way for it. After `patience_s` busy residents are
drained for it too, and younger claims stand back until it has its promise.
"""

from collections.abc import Callable, Iterator
from math import inf
from typing import Any

from msgspec import Struct

from llmd.core.events import Effect, Note, StartHost, StopHost, TrimCaches, WakeAt
from llmd.core.forecasts import Forecasts
from llmd.core.planner import POLICIES
from llmd.core.residents import Residents
from llmd.core.room import Room
from llmd.core.slot import Resident, Slot, SlotState, Trigger, Waiter
from llmd.core.spare import SpareKeeper
from llmd.errors import LlmdError, QueueTimeoutError


class Claim(Struct, frozen=True):
    """The oldest waiter of *slot* that what the slot wants will not serve."""

    waiter: Waiter
    slot: Slot
    profile: str


class Allocator:
    """Decides over room. Changes slots through the book; asks for effects through *emit*."""

    def __init__(
        self,
        book: Residents,
        forecasts: Forecasts,
        emit: Callable[[Effect], None],
        refuse: Callable[[Slot, Waiter, LlmdError], None],
    ) -> None:
        self._book = book
        self._forecasts = forecasts
        self._emit = emit
        self._refuse = refuse
        self._deadline_s = inf
        self._overrun = False
        self.room = Room(book, forecasts, self._look_again)
        self.spare = SpareKeeper(book, emit, self._look_again)

    def run(self, now: float, *, stopping: bool) -> None:
        """Bring all slots as far as they can come at *now*."""
        self._deadline_s = inf
        self._expire(now)
        self._shrink(now)
        if not stopping:
            self._hear_claims(now)
        self._stop_drained()
        if not stopping:
            self._start_promised(now)
            self.spare.mind(now)
        self._book.note_peak()
        if self._deadline_s < inf:
            self._emit(WakeAt(self._deadline_s))

    # --- leaving --------------------------------------------------------------------------------

    def leave(self, slot: Slot, reason: str) -> None:
        """Take back the promise of *slot*: its host drains or stops, or never starts."""
        slot.wants, slot.abandon_at_s = None, None
        held = slot.holds
        match slot.state:
            case SlotState.WAITING:
                slot.fire(Trigger.WITHDRAW)
            case SlotState.READY if held is not None and held.in_flight:
                slot.fire(Trigger.DRAIN)
                self._note("drain.began", slot, held.profile, reason, in_flight=len(held.in_flight))
            case SlotState.LOADING | SlotState.READY if held is not None:
                self._stop(slot, held, reason)
            case _:
                pass  # it is leaving already

    def _stop(self, slot: Slot, held: Resident, reason: str) -> None:
        slot.fire(Trigger.STOP)
        self._emit(StopHost(held.host, reason))
        self._note("host.stopped", slot, held.profile, reason, freed_bytes=held.charged_bytes)

    def stop_now(self, slot: Slot, reason: str) -> None:
        """Stop the host of *slot* whatever it is doing."""
        self.leave(slot, reason)
        if slot.state is SlotState.DRAINING and slot.holds is not None:
            self._stop(slot, slot.holds, reason)

    def evict(self, slot: Slot, reason: str, now: float, **numbers: Any) -> str:
        """Take the promise of *slot* for somebody else's sake; returns whose it was."""
        profile = slot.wants
        assert profile is not None, "only a promise can be taken"  # noqa: S101
        if slot.state is SlotState.READY and slot.holds is not None:
            self._book.histories[profile].evictions += 1
            self._note(
                "profile.evicted", slot, profile, reason,
                idle_s=round(now - slot.holds.last_used_s, 1), in_flight=len(slot.holds.in_flight),
                freed_bytes=self._book.promised_to(slot),
                **self._forecasts.explain(profile, now), **numbers,
            )  # fmt: skip
        else:
            self._note("load.abandoned", slot, profile, reason)
        self.leave(slot, reason)
        return profile

    def restore(self, profile: str, reason: str) -> None:
        """Give *profile* its full size again, unless it is loaded or about to be."""
        if self._book.restore(profile):
            need_bytes = self._book.profiles[profile].footprint_bytes
            slot = self._book.of(profile)
            self._note("profile.restored", slot, profile, reason, need_bytes=need_bytes)

    def _stop_drained(self) -> None:
        for slot in self._book:
            held = slot.holds
            if slot.state is SlotState.DRAINING and held is not None and not held.in_flight:
                self._stop(slot, held, "drained")

    def _expire(self, now: float) -> None:
        rules = self._book.rules
        for name in [n for n, r in self._book.reductions.items() if r.overdue(now)]:
            self.restore(name, "it has not died of memory for long")
        for slot in self._book:
            while slot.queue and now - slot.queue[0].arrived_s >= rules.queue_timeout_s:
                waiter = slot.queue[0]
                name = waiter.profile or self._book.preferred(slot)
                self._refuse(slot, waiter, QueueTimeoutError(name, waited_s=now - waiter.arrived_s))
            if slot.queue:
                self._look_again(slot.queue[0].arrived_s + rules.queue_timeout_s)
            held = slot.holds
            if slot.idle and held is not None and not self._book.pinned(held.profile):
                due_s = held.last_used_s + held.idle_ttl_s
                if now >= due_s:
                    self.leave(slot, f"idle for {held.idle_ttl_s:.0f} s")
                else:
                    self._look_again(due_s)
            self._expire_unawaited(slot, now)

    def _expire_unawaited(self, slot: Slot, now: float) -> None:
        """Give up a load that nobody waits for, after a pause in which its client may come back."""
        ready = slot.state is SlotState.READY
        if slot.wants is None or ready or slot.awaited(slot.wants):
            slot.abandon_at_s = None
        elif slot.abandon_at_s is None:
            slot.abandon_at_s = now + self._book.rules.patience_s
            self._look_again(slot.abandon_at_s)
        elif now >= slot.abandon_at_s:
            self.evict(slot, "nobody waits for it", now)
        else:
            self._look_again(slot.abandon_at_s)

    # --- too much -------------------------------------------------------------------------------

    def _shrink(self, now: float) -> None:
        """Residents grew, or the budget did the opposite: idle ones go, then caches."""
        over_bytes = self._book.promised_bytes() - self._book.rules.budget_bytes
        if over_bytes <= 0:
            self._overrun = False
            return
        if not self._overrun:
            self._emit(Note("budget.overrun", {"over_bytes": over_bytes}))
        self.release(over_bytes, "the budget is overrun", now, trim=not self._overrun)
        self._overrun = self._book.promised_bytes() > self._book.rules.budget_bytes

    def release(
        self, need_bytes: int, reason: str, now: float, *, trim: bool
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Free *need_bytes*, or what idle residents hold if that is less; then *trim* caches.

        Returns whom it evicted, and whose caches it had trimmed.
        """
        self.spare.stop(reason)
        idle = self.room.idle_candidates(None, now)
        keys = POLICIES[self._book.rules.eviction](need_bytes, idle)
        leaving = keys if keys is not None else [c.key for c in idle]
        evicted = tuple(self.evict(self._book.slots[port], reason, now) for port in leaving)
        trimmed: list[str] = []
        if keys is None and trim:
            for slot in self._book:
                if slot.holds is not None and slot.state in (SlotState.READY, SlotState.DRAINING):
                    self._emit(TrimCaches(slot.holds.host))
                    trimmed.append(slot.holds.profile)
        return evicted, tuple(trimmed)

    # --- claims ---------------------------------------------------------------------------------

    def _claims(self) -> Iterator[Claim]:
        """The claims of all slots, oldest first."""
        found: list[Claim] = []
        for slot in self._book:
            if not slot.queue:
                continue
            preferred = self._book.preferred(slot)
            for waiter in slot.queue:
                target = waiter.profile or preferred
                if target != slot.wants:
                    found.append(Claim(waiter, slot, target))
                    break
        return iter(sorted(found, key=lambda c: (c.waiter.arrived_s, c.waiter.ticket)))

    def _hear_claims(self, now: float) -> None:
        progress = True
        while progress:  # a refusal and a promise uncover the next claim of their slot
            progress = False
            for claim in self._claims():
                error = self.room.never(claim.slot, claim.profile) or self._in_vain(claim, now)
                if error is not None:
                    self._refuse(claim.slot, claim.waiter, error)
                    progress = True
                elif not self._hear(claim, now):
                    break
                elif claim.slot.wants == claim.profile:
                    progress = True

    def _in_vain(self, claim: Claim, now: float) -> LlmdError | None:
        """Why *claim* would fail: who names no profile may get another one than when it came."""
        fault = self._book.profiles[claim.profile].fault
        if fault is not None or claim.waiter.command:
            return fault
        return self._book.histories[claim.profile].refusal(now)

    def _hear(self, claim: Claim, now: float) -> bool:
        """Promise room if it can be had; False when younger claims must stand back."""
        rules = self._book.rules
        impatient_s = claim.waiter.arrived_s + rules.patience_s
        impatient = now >= impatient_s
        if not impatient:
            self._look_again(impatient_s)
        if not self.room.may_take_over(claim.slot, now, impatient=impatient):
            return True
        victims = self.room.room_for(claim.slot, claim.profile, now, impatient=impatient)
        if victims is None:
            return not impatient
        self._promise(claim, victims, now)
        return True

    def _promise(self, claim: Claim, victims: list[Slot], now: float) -> None:
        slot, profile = claim.slot, claim.profile
        waited_s = round(now - claim.waiter.arrived_s, 3)
        need_bytes = self._book.profiles[profile].footprint_bytes
        slot.evicted = [
            self.evict(victim, f"room for {profile}", now, need_bytes=need_bytes)
            for victim in victims
        ]
        if slot.would_resume(profile):
            slot.wants, slot.abandon_at_s = profile, None
            slot.fire(Trigger.RESUME)
            self._note("drain.ended", slot, profile, "it is wanted again, and there is room")
            return
        if slot.wants is not None:
            slot.evicted.append(self.evict(slot, f"{profile} takes port {slot.port}", now))
        slot.wants = profile
        slot.promise_order = self._book.next_promise()
        if slot.state is SlotState.UNLOADED:
            slot.fire(Trigger.PROMISE)
        reason = "asked for by an administrator" if claim.waiter.command else "a request waits"
        self._note(
            "load.promised", slot, profile, reason,
            need_bytes=need_bytes, evicted=tuple(slot.evicted), waited_s=waited_s,
        )  # fmt: skip

    # --- coming ---------------------------------------------------------------------------------

    def _start_promised(self, now: float) -> None:
        book = self._book
        for slot in book.waiting_to_start():
            assert slot.wants is not None, "a waiting slot has a promise"  # noqa: S101
            residency = book.profiles[slot.wants]
            spare = book.spare
            usable = (
                spare
                if spare and spare.state != "stopping" and spare.kind == residency.spare_kind
                else None
            )
            free_bytes = book.rules.budget_bytes - book.held_bytes()
            if usable is not None:
                free_bytes += usable.bytes
            if residency.footprint_bytes > free_bytes:
                if (
                    usable is None
                    and spare
                    and residency.footprint_bytes <= free_bytes + spare.bytes
                ):
                    self.spare.stop(f"room for {residency.name}")
                continue
            if usable is not None:
                book.spare = None
            slot.holds = Resident(
                host=usable.host if usable is not None else book.next_host(),
                profile=residency.name, charged_bytes=residency.footprint_bytes,
                started_s=now, last_used_s=now, fingerprint=residency.fingerprint,
                idle_ttl_s=residency.idle_ttl_s,
            )  # fmt: skip
            slot.fire(Trigger.START)
            into_spare, size = usable is not None, book.size(residency.name)
            self._emit(StartHost(slot.holds.host, residency.name, into_spare=into_spare, size=size))
            self._note(
                "load.started", slot, residency.name, "there is room",
                bytes=residency.footprint_bytes, into_spare=into_spare,
                expected_s=round(book.histories[residency.name].load_s, 2),
            )  # fmt: skip

    def _look_again(self, when_s: float) -> None:
        self._deadline_s = min(self._deadline_s, when_s)

    def _note(self, name: str, slot: Slot, profile: str, reason: str, **numbers: Any) -> None:
        self._emit(Note(name, {"port": slot.port, "profile": profile, "reason": reason, **numbers}))
