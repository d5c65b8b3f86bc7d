"""What one daemon leaves to the next, and how the next takes it over."""

from collections.abc import Callable

from llmd.core.events import AdoptHost, Effect, Note
from llmd.core.facts import Stock, Survivor
from llmd.core.history import History
from llmd.core.residents import Residents, Spare
from llmd.core.slot import Resident, Slot, SlotState, Trigger


def take_stock(book: Residents) -> Stock:
    """What is worth knowing after this daemon's end; each host's key is its number."""
    hosts = [
        Survivor(
            key=str(held.host),
            profile=held.profile,
            port=slot.port,
            kind="",
            charged_bytes=held.charged_bytes,
            measured_bytes=held.measured_bytes,
            started_s=held.started_s,
            ready_s=held.ready_s,
            last_used_s=held.last_used_s,
            fingerprint=held.fingerprint,
            ttl_s=held.ttl_s,
        )
        for slot in book
        if (held := slot.holds) is not None and slot.state is not SlotState.UNLOADING
    ]
    spare = book.spare
    if spare is not None and spare.state != "stopping":
        hosts.append(Survivor(str(spare.host), None, 0, spare.kind, spare.bytes))
    return Stock(
        hosts=tuple(hosts),
        pins=dict(book.pin_overrides),
        pasts={name: past.past() for name, past in book.histories.items() if not past.blank},
        reductions=dict(book.reductions),
    )


class Adoption:
    """Puts what was left into the book, charged from the first moment.

    An adopted slot is loading until its host has said who it is. What does not fit the
    configuration any more is let go by the reload that follows.
    """

    def __init__(self, book: Residents, emit: Callable[[Effect], None]) -> None:
        self._book = book
        self._emit = emit

    def take_over(self, left: Stock) -> None:
        """Take over hosts, pins and pasts; the book has the new profiles already."""
        book = self._book
        book.pin_overrides.update((n, p) for n, p in left.pins.items() if n in book.profiles)
        for name, past in left.pasts.items():
            if name in book.profiles:
                book.histories[name] = History.of(past)
        for survivor in left.hosts:
            if survivor.profile is None:
                self._take_spare(survivor)
            else:
                self._take(survivor, survivor.profile)

    def _take_spare(self, survivor: Survivor) -> None:
        book = self._book
        assert book.spare is None, "there is one spare"  # noqa: S101 - the ledger's reader sees to it
        book.spare = Spare(book.next_host(), survivor.kind, survivor.charged_bytes)
        self._emit(AdoptHost(book.spare.host, survivor.key, None))

    def _take(self, survivor: Survivor, profile: str) -> None:
        book = self._book
        slot = book.slots.setdefault(survivor.port, Slot(survivor.port))
        slot.wants = profile
        slot.holds = Resident(
            host=book.next_host(), profile=profile, charged_bytes=survivor.charged_bytes,
            started_s=survivor.started_s, fingerprint=survivor.fingerprint, idle_ttl_s=0.0,
            ttl_s=survivor.ttl_s, ready_s=survivor.ready_s, last_used_s=survivor.last_used_s,
            measured_bytes=survivor.measured_bytes, served=1 if survivor.ready_s else 0,
        )  # fmt: skip
        slot.fire(Trigger.ADOPT)
        self._emit(AdoptHost(slot.holds.host, survivor.key, profile))
        fields = {
            "port": slot.port, "profile": profile, "bytes": survivor.charged_bytes,
            "reason": "it outlived the daemon before",
        }  # fmt: skip
        self._emit(Note("host.found", fields))
