"""What room there is and could be: questions about the book, which change nothing.

Asked far more often than acted on, so nothing here may log, emit or move a slot.
"""

from collections.abc import Callable
from typing import Final

from llmd.core.forecasts import Forecasts
from llmd.core.planner import POLICIES, Candidate
from llmd.core.residents import Residents
from llmd.core.slot import Slot, SlotState
from llmd.errors import BudgetExceededError, LlmdError, PortPinnedError


BUSY_PENALTY_S: Final = 1e6
"""Added to the cost of a busy victim: any idle one goes first."""


class Room:
    """Who could make way for whom. *look_again* is told when an answer may be another one."""

    def __init__(
        self, book: Residents, forecasts: Forecasts, look_again: Callable[[float], None]
    ) -> None:
        self._book = book
        self._forecasts = forecasts
        self._look_again = look_again

    def never(self, slot: Slot, profile: str) -> LlmdError | None:
        """Why waiting would be in vain: somebody pinned is in the way."""
        book = self._book
        if slot.wants is not None and slot.wants != profile and book.pinned(slot.wants):
            return PortPinnedError(profile, resident=slot.wants, port=slot.port)
        need_bytes = book.profiles[profile].footprint_bytes
        kept = [
            (other.wants, book.promised_to(other))
            for other in book
            if other is not slot and other.wants is not None and book.pinned(other.wants)
        ]
        if need_bytes + sum(size for _, size in kept) <= book.rules.budget_bytes:
            return None
        return BudgetExceededError(
            profile, need_bytes=need_bytes, budget_bytes=book.rules.budget_bytes,
            kept=() if need_bytes > book.rules.budget_bytes else kept,
        )  # fmt: skip

    def may_take_over(self, slot: Slot, now: float, *, impatient: bool) -> bool:
        """May what *slot* wants now give way to another profile of the same port?"""
        if slot.wants is None or slot.idle:
            return True
        if slot.state is SlotState.READY:
            return impatient and self._resided(slot, now)
        return not slot.awaited(slot.wants)

    def _resided(self, slot: Slot, now: float) -> bool:
        """Has a busy resident had its `min_residency_s`?"""
        if slot.holds is None or slot.holds.ready_s is None:
            return False
        over_s = slot.holds.ready_s + self._book.rules.min_residency_s
        if now < over_s:
            self._look_again(over_s)
        return now >= over_s

    def idle_candidates(self, claimant: Slot | None, now: float) -> list[Candidate]:
        """Promises that nobody needs now: idle residents, and loads that nobody waits for."""
        found: list[Candidate] = []
        for slot in self._book:
            if slot is claimant or slot.wants is None or self._book.pinned(slot.wants):
                continue
            unheard = slot.being_adopted and not slot.awaited(slot.wants)
            if (slot.idle or unheard) and slot.holds is not None:
                cost_s = self._forecasts.cost_s(slot.wants, now)
                used_s = slot.holds.last_used_s
            elif slot.state is not SlotState.READY and not slot.awaited(slot.wants):
                cost_s, used_s = 0.0, 0.0
            else:
                continue
            found.append(Candidate(slot.port, self._book.promised_to(slot), cost_s, used_s))
        return found

    def busy_candidates(self, claimant: Slot, now: float) -> list[Candidate]:
        """Residents that may be drained for somebody who has waited long enough."""
        return [
            Candidate(
                slot.port,
                slot.holds.charged_bytes,
                BUSY_PENALTY_S + self._forecasts.cost_s(slot.holds.profile, now),
                slot.holds.last_used_s,
            )
            for slot in self._book
            if slot is not claimant
            and slot.state is SlotState.READY
            and slot.holds is not None
            and not slot.idle
            and not self._book.pinned(slot.holds.profile)
            and self._resided(slot, now)
        ]

    def room_for(
        self, slot: Slot, profile: str, now: float, *, impatient: bool
    ) -> list[Slot] | None:
        """Whose promises to take so that *profile* fits; None while that cannot be."""
        book = self._book
        free_bytes = book.rules.budget_bytes - book.promised_bytes(without=slot)
        short_bytes = book.profiles[profile].footprint_bytes - free_bytes
        if short_bytes <= 0:
            return []
        choose = POLICIES[book.rules.eviction]
        candidates = self.idle_candidates(slot, now)
        keys = choose(short_bytes, candidates)
        # A drain is not ended by draining another: two that do so in turn leave nobody any room.
        if keys is None and impatient and not slot.would_resume(profile):
            keys = choose(short_bytes, candidates + self.busy_candidates(slot, now))
        return None if keys is None else [book.slots[port] for port in keys]

    def preview(self, profile: str, now: float) -> tuple[list[Slot] | None, LlmdError | None]:
        """What a load would do: the slots whose residents would go, or the error. Changes nothing.

        Victims are None while only busy residents could make room, and no error would be final.
        """
        slot = self._book.of(profile)
        if slot.wants == profile:
            return [], None
        error = self.never(slot, profile)
        if error is not None:
            return None, error
        victims = self.room_for(slot, profile, now, impatient=False)
        if victims is None or not self.may_take_over(slot, now, impatient=False):
            return None, None
        return ([slot] if slot.wants is not None else []) + victims, None
