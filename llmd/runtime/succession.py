"""One daemon follows another: what is taken over at the start, and written down for the next."""

import asyncio
from pathlib import Path
from typing import Final

import structlog
from msgspec.structs import replace

from llmd.core.events import AdoptHost
from llmd.core.facts import Stock
from llmd.core.scheduler import Scheduler
from llmd.runtime.catalogue import Catalogue
from llmd.runtime.hosting import Hosting
from llmd.runtime.ledger import Ledger, Record, strays


ANSWER_S: Final = 2.0
"""For hosts that were left to answer, before the ports are opened without waiting for the rest."""

LOST_S: Final = 5.0
"""For hosts that no ledger knows to be gone."""

log = structlog.get_logger("llmd")


class Succession:
    """Between the ledger, the hosts that live, and what the scheduler knows of them.

    Args:
        ledger: What an earlier daemon left, and what this one will leave.
        owner: The daemon's own socket, by which its hosts are known.
        hosting: The hosts that live.
        scheduler: What is known of them.
    """

    def __init__(
        self, ledger: Ledger, *, owner: Path, hosting: Hosting, scheduler: Scheduler
    ) -> None:
        self._ledger = ledger
        self._owner = owner
        self._hosting = hosting
        self._scheduler = scheduler
        self._found: dict[str, Record] = {}

    async def inherit(self) -> Stock:
        """What an earlier daemon left; hosts of ours that it does not account for are ended."""
        found = self._ledger.read()
        if self._ledger.warning is not None:
            log.warning("ledger.unreadable", reason=self._ledger.warning)
        lost = strays(self._owner, {record.pid for record in found.records.values()})
        await asyncio.gather(*(asyncio.to_thread(child.wait, LOST_S) for child in lost))
        self._found = found.records
        return found.stock

    def adopt(self, effect: AdoptHost, catalogue: Catalogue) -> None:
        """Begin to take over one host of those that were left."""
        record = self._found.pop(effect.key)
        entry = catalogue.entries.get(effect.profile or "")
        if entry is not None:
            # What it holds may say nothing about the profile as it is now.
            entry = entry.like(record.known.fingerprint)
        self._hosting.adopt(effect, record, entry)

    async def heard(self) -> None:
        """Wait until the hosts that were left have answered, for `ANSWER_S` at most."""
        waits = [host.settled.wait() for host in self._hosting if host.found is not None]
        try:
            async with asyncio.timeout(ANSWER_S):
                await asyncio.gather(*waits)
        except TimeoutError:
            log.warning("hosts.unheard", reason=f"no answer within {ANSWER_S:g} s")

    def record(self) -> None:
        """Write down what a daemon that follows this one should find, if it changed."""
        stock = self._scheduler.stock()
        records = []
        for known in stock.hosts:
            host = self._hosting.get(int(known.key))
            if host is not None and host.process is not None:
                process = host.process
                records.append(
                    Record(
                        pid=process.pid, started=process.started, instance=process.instance,
                        log=str(process.log.path), peak_bytes=host.peak_bytes,
                        known=replace(known, key=process.instance, kind=host.kind),
                    )
                )  # fmt: skip
        self._ledger.write(tuple(records), stock)
