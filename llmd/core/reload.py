"""A new configuration: what changed is replaced, what did not is not touched."""

from collections.abc import Callable

from llmd.core.adoption import Adoption
from llmd.core.allocator import Allocator
from llmd.core.events import ConfigReplaced
from llmd.core.facts import Residency
from llmd.core.history import History
from llmd.core.residents import Residents
from llmd.core.slot import Slot, Waiter
from llmd.errors import LlmdError, UnloadedError


class Reload:
    """Fits the book to a configuration, the first one included."""

    def __init__(
        self,
        book: Residents,
        allocator: Allocator,
        adoption: Adoption,
        refuse: Callable[[Slot, Waiter, LlmdError], None],
    ) -> None:
        self._book = book
        self._allocator = allocator
        self._adoption = adoption
        self._refuse = refuse
        self._preloads = 0
        """Preloads wait under tickets of their own, below zero: nobody is told."""

    def replace(self, event: ConfigReplaced, now: float) -> None:
        """Put the rules and profiles of *event* in place of those before."""
        book = self._book
        old = book.profiles
        book.reductions.update(event.left.reductions)
        book.configure(event.profiles)
        book.rules = event.rules
        book.names = {alias: r.name for r in event.profiles for alias in r.aliases}
        book.names.update((r.name, r.name) for r in event.profiles)
        for residency in event.profiles:
            book.histories.setdefault(residency.name, History(load_s=residency.load_s))
            book.slots.setdefault(residency.port, Slot(residency.port))
        self._adoption.take_over(event.left)
        for slot in list(book):
            self._reconcile(slot)
        for residency in event.profiles:
            if residency.preload and residency.name not in old and residency.fault is None:
                self._preloads += 1
                waiter = Waiter(-self._preloads, residency.name, now, command=True)
                book.of(residency.name).queue.append(waiter)

    def _reconcile(self, slot: Slot) -> None:
        """Fit *slot* to the new profiles; what did not change is not touched."""

        def here(profile: str) -> Residency | None:
            residency = self._book.profiles.get(profile)
            return residency if residency is not None and residency.port == slot.port else None

        held = slot.holds
        if held is not None:
            residency = here(held.profile)
            if residency is None or residency.fingerprint != held.fingerprint:
                held.must_stop = True
                if slot.wants == held.profile:
                    self._allocator.leave(slot, "its configuration changed")
            else:
                held.charged_bytes = max(residency.footprint_bytes, held.measured_bytes)
                held.idle_ttl_s = residency.idle_ttl_s if held.ttl_s is None else held.ttl_s
        if slot.wants is not None and here(slot.wants) is None:
            self._allocator.leave(slot, "it left the configuration")
        served = bool(self._book.on(slot.port))
        for waiter in tuple(slot.queue):
            if (waiter.profile is None and not served) or (
                waiter.profile is not None and here(waiter.profile) is None
            ):
                name = waiter.profile or f"port {slot.port}"
                self._refuse(slot, waiter, left(name))


def left(name: str) -> UnloadedError:
    """The refusal of a request for *name*, a profile or a port that is no more."""
    return UnloadedError(
        f"{name} is no longer in the configuration", remedy="`llmd-ctl status` lists what is"
    )
