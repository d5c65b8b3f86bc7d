"""The book: rules, profiles, slots, the warm spare, and the sums that the budget bounds."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from msgspec import Struct

from llmd.core.facts import HostId, Residency, Rules
from llmd.core.history import History
from llmd.core.reduction import Reduction, describe_reduction
from llmd.core.slot import Resident, Slot, SlotState


class Spare(Struct):
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
        """As they would be started now: smaller than configured after a death of memory."""
        self.reductions: dict[str, Reduction] = {}
        self.names: dict[str, str] = {}
        """Profile by name and alias."""
        self.slots: dict[int, Slot] = {}
        self.spare: Spare | None = None
        self.pin_overrides: dict[str, bool] = {}
        """What administrators said since the start; it outranks the configuration."""
        self.histories: dict[str, History] = {}
        self.peak_bytes = 0
        self._configured: dict[str, Residency] = {}
        self._on_port: dict[int, list[str]] = {}
        self._last_host: HostId = 0
        self._last_promise = 0

    def __iter__(self) -> Iterator[Slot]:
        return iter(self.slots.values())

    def configure(self, profiles: Iterable[Residency]) -> None:
        """Put *profiles* in place of those before; one that changed gets its full size."""
        self._configured = {residency.name: residency for residency in profiles}
        self.reductions = {
            name: reduction
            for name, reduction in self.reductions.items()
            if (full := self._configured.get(name)) is not None
            and full.fingerprint == reduction.fingerprint
            and 0 < reduction.size <= len(full.smaller)
        }
        self.profiles = {name: self._sized(name) for name in self._configured}
        self._on_port = {}
        for residency in self._configured.values():
            self._on_port.setdefault(residency.port, []).append(residency.name)

    def on(self, port: int) -> Sequence[str]:
        """The profiles of *port*, in the order of the configuration."""
        return self._on_port.get(port, ())

    def of(self, profile: str) -> Slot:
        """The slot of *profile*."""
        return self.slots[self.profiles[profile].port]

    def by_host(self, host: HostId) -> tuple[Slot, Resident] | None:
        """The slot that *host* serves; None for the spare and for hosts that are gone."""
        for slot in self:
            if slot.holds is not None and slot.holds.host == host:
                return slot, slot.holds
        return None

    # --- sizes ----------------------------------------------------------------------------------

    def size(self, profile: str) -> int:
        """Which of its sizes *profile* would be started in: 0 is the full one."""
        reduction = self.reductions.get(profile)
        return 0 if reduction is None else reduction.size

    def reduce(self, profile: str, now: float) -> str:
        """Give *profile* its next smaller size; what that is, or nothing when it has none.

        Only of one at rest: what is promised or charged must not change behind its back.
        """
        full, before = self._configured[profile], self.size(profile)
        if not full.smaller:
            return ""
        size = min(before + 1, len(full.smaller))
        self.reductions[profile] = Reduction(size, now, full.fingerprint)
        self.profiles[profile] = self._sized(profile)
        return self.reduced(profile) if size > before else ""

    def restore(self, profile: str) -> bool:
        """Give *profile* its full size again if it is at rest; whether that changed anything."""
        slot = self.of(profile)
        held = slot.holds is not None and slot.holds.profile == profile
        if slot.wants == profile or held or self.reductions.pop(profile, None) is None:
            return False
        self.profiles[profile] = self._configured[profile]
        return True

    def reduced(self, profile: str) -> str:
        """What is smaller of *profile* than configured, for people; empty when nothing is."""
        full, now = self._configured[profile].extent, self.profiles[profile].extent
        return describe_reduction(full, now) if full is not None and now is not None else ""

    def _sized(self, profile: str) -> Residency:
        full, size = self._configured[profile], self.size(profile)
        return full.smaller[size - 1] if size else full

    # --- choices --------------------------------------------------------------------------------

    def pinned(self, profile: str) -> bool:
        """Is *profile* never to be evicted or replaced?"""
        override = self.pin_overrides.get(profile)
        residency = self.profiles.get(profile)
        return override if override is not None else residency is not None and residency.pinned

    def preferred(self, slot: Slot) -> str:
        """The profile for a request that names none: what is here or coming, else the default."""
        if slot.wants is not None:
            return slot.wants
        here = self.on(slot.port)
        held = slot.holds
        if held is not None and not held.must_stop and held.profile in here:
            return held.profile
        return next((name for name in here if self.profiles[name].default), here[0])

    # --- sums -----------------------------------------------------------------------------------

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
