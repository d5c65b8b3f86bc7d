"""The book: rules, profiles, slots, the warm spare, and the sums that the budget bounds."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from llmd.core.events import HostId, Residency, Rules
from llmd.core.history import History
from llmd.core.slot import Resident, Slot, SlotState


@dataclass(slots=True)
class Spare:
    """The host that has imported its engine and waits for a profile."""

    host: HostId
    kind: str
    bytes: int
    state: Literal["starting", "prepared", "stopping"] = "starting"


class Residents:
    """The slots, and what they hold and are promised.

    *Promised* is the sum of what slots want: the planner keeps it inside the budget. *Held* is the
    sum of what lives, leaving residents and the spare included: a host starts only when it fits
    beside that.
    """

    def __init__(self) -> None:
        self.rules = Rules(budget_bytes=0)
        self.profiles: dict[str, Residency] = {}
        self.names: dict[str, str] = {}
        """Profile by name and alias."""
        self.slots: dict[int, Slot] = {}
        self.spare: Spare | None = None
        self.pin_overrides: dict[str, bool] = {}
        """What administrators said since the start; it outranks the configuration."""
        self.histories: dict[str, History] = {}
        self.peak_bytes = 0
        self._last_host: HostId = 0
        self._last_promise = 0

    def __iter__(self) -> Iterator[Slot]:
        return iter(self.slots.values())

    def of(self, profile: str) -> Slot:
        """The slot of *profile*."""
        return self.slots[self.profiles[profile].port]

    def by_host(self, host: HostId) -> tuple[Slot, Resident] | None:
        """The slot that *host* serves; None for the spare and for hosts that are gone."""
        for slot in self:
            if slot.holds is not None and slot.holds.host == host:
                return slot, slot.holds
        return None

    def pinned(self, profile: str) -> bool:
        """Is *profile* never to be evicted or replaced?"""
        override = self.pin_overrides.get(profile)
        residency = self.profiles.get(profile)
        return override if override is not None else residency is not None and residency.pinned

    def preferred(self, slot: Slot) -> str:
        """The profile for a request that names none: what is here or coming, else the default."""
        if slot.wants is not None:
            return slot.wants
        here = [r for r in self.profiles.values() if r.port == slot.port]
        held = slot.holds
        if held is not None and not held.must_stop and any(r.name == held.profile for r in here):
            return held.profile
        return next((r.name for r in here if r.default), here[0].name)

    def held_bytes(self) -> int:
        """What everything that lives is charged."""
        held = sum(slot.holds.charged_bytes for slot in self if slot.holds is not None)
        return held + (self.spare.bytes if self.spare is not None else 0)

    def promised_to(self, slot: Slot) -> int:
        """What *slot* has been promised."""
        if slot.wants is None:
            return 0
        if slot.holds is not None and slot.holds.profile == slot.wants:
            return slot.holds.charged_bytes
        return self.profiles[slot.wants].footprint_bytes

    def promised_bytes(self, *, without: Slot | None = None) -> int:
        """What all slots, or all but one, have been promised."""
        return sum(self.promised_to(slot) for slot in self if slot is not without)

    def waiting_to_start(self) -> list[Slot]:
        """Slots with a promise and no host yet, oldest promise first."""
        waiting = [slot for slot in self if slot.state is SlotState.WAITING]
        return sorted(waiting, key=lambda slot: slot.promise_order)

    def note_peak(self) -> None:
        """Remember the highest sum of what is held."""
        self.peak_bytes = max(self.peak_bytes, self.held_bytes())

    def next_host(self) -> HostId:
        """A host number that was never used."""
        self._last_host += 1
        return self._last_host

    def next_promise(self) -> int:
        """A rising number: promises are kept in this order."""
        self._last_promise += 1
        return self._last_promise
