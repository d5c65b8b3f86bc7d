"""The ledger: which hosts live, written down so that the next daemon can take them over.

It is written before a host is given a profile, and whenever one comes, gets ready, goes or is
pinned; what changes with each request follows within seconds. An entry is believed when the boot
is the same and its process is the very one: number, start and the instance id on its command line
agree. A process of which that cannot be shown is somebody else's and is left alone.
"""

import contextlib
import hashlib
import os
import signal
from collections.abc import Collection
from pathlib import Path
from typing import Final, Self

import msgspec
import psutil
import structlog
from msgspec import Struct
from msgspec.structs import replace

from llmd.config.replace import replace_file
from llmd.core.facts import Past, Stock, Survivor
from llmd.core.reduction import Reduction
from llmd.platform.identity import arguments, boot_id, started
from llmd.platform.spawn import Child, adopt
from llmd.runtime.host_command import is_host_of, sockets_of
from llmd.runtime.statefile import read_state


HOSTS_MAX: Final = 256
PIDS_MAX: Final = 2**31

log = structlog.get_logger("llmd.ledger")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One host: who it is, and what the scheduler knew of it."""

    pid: int
    started: float
    instance: str
    log: str
    peak_bytes: int = 0
    known: Survivor

    @property
    def proven(self) -> bool:
        """Whether its process lives, and is the one that was meant."""
        return started(self.pid) == self.started and self.instance in arguments(self.pid)


class _Page(msgspec.Struct, frozen=True, kw_only=True):
    """The file."""

    version: int
    boot: str
    hosts: tuple[Record, ...]
    pins: dict[str, bool]
    pasts: dict[str, Past]
    reductions: dict[str, Reduction] = {}


class Found(Struct, frozen=True):
    """What an earlier daemon left.

    Attributes:
        records: Its hosts that live, proven, by instance id.
        stock: The same for the scheduler, whose keys are the instance ids.
    """

    records: dict[str, Record]
    stock: Stock


class Ledger:
    """The file at *path*; kept by one daemon at a time, the one that holds the socket's lock."""

    VERSION: Final = 1

    def __init__(self, path: Path) -> None:
        self.path = path
        self.warning: str | None = None
        """What was wrong with the file, for the log."""
        self._written = b""
        self._unwritten = False
        self._boot = boot_id()

    @classmethod
    def beside(cls, state_dir: Path, socket: Path) -> Self:
        """The ledger of the daemon that listens on *socket*: two daemons may share a directory."""
        name = hashlib.sha256(os.fsencode(socket.absolute())).hexdigest()
        return cls(state_dir / f"ledger-{name[:8]}.json")

    def read(self) -> Found:
        """The hosts that an earlier daemon left and that can be proven, and what else it knew."""
        page, self.warning = read_state(self.path, self._parse)
        if page is None or page.boot != self._boot:
            return Found({}, Stock())
        records: dict[str, Record] = {}
        ports: set[int] = set()
        for record in page.hosts[:HOSTS_MAX]:
            port = record.known.port  # the spare's is 0
            if record.instance in records or not record.proven:
                sweep(record)
                continue
            if port in ports:
                log.warning("ledger.contradicted", port=port, pid=record.pid)
                end(record)
                continue
            ports.add(port)
            records[record.instance] = record
        survivors = tuple(replace(r.known, key=r.instance) for r in records.values())
        return Found(records, Stock(survivors, page.pins, page.pasts, page.reductions))

    def _parse(self, raw: bytes) -> _Page:
        page = msgspec.json.decode(raw, type=_Page)  # its errors are ValueErrors
        if page.version != self.VERSION:
            raise ValueError("a ledger of another version")
        return page

    def write(self, records: tuple[Record, ...], stock: Stock) -> None:
        """Replace what is written, if it differs. A directory that is full only costs a warning.

        It need not outlive a power failure: after the next boot it counts for nothing.
        """
        page = _Page(
            version=self.VERSION,
            boot=self._boot,
            hosts=records,
            pins=dict(stock.pins),
            pasts=dict(stock.pasts),
            reductions=dict(stock.reductions),
        )
        content = msgspec.json.encode(page)
        if content == self._written:
            return
        try:
            replace_file(self.path, content, lasting=False)
        except OSError as error:
            if not self._unwritten:  # say so once
                log.warning("ledger.unwritten", path=str(self.path), reason=str(error))
            self._written, self._unwritten = b"", True
        else:
            self._written, self._unwritten = content, False

    def clear(self) -> None:
        """Everything was stopped in order: nothing is left to take over."""
        self._written = b""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def end(record: Record) -> None:
    """Kill a host that is proven and cannot be used, with its group, which it leads."""
    with contextlib.suppress(OSError):
        os.killpg(record.pid, signal.SIGKILL)


def sweep(record: Record) -> None:
    """Kill what a host that is gone has left behind in its group: engines that do not end with it.

    No other process gets the group's number while somebody is in it.
    """
    if 1 < record.pid < PIDS_MAX and not psutil.pid_exists(record.pid):
        end(record)


def strays(owner: Path, known: Collection[int]) -> list[Child]:
    """Hosts that *owner*, our socket, started, and that no ledger knows: kill them.

    They were started a moment before a daemon was killed, or the ledger is lost; in the latter case
    their memory is neither charged nor served from. Returns what is still to be waited for.
    """
    found = []
    for pid in psutil.pids():
        if pid in known:
            continue
        with contextlib.suppress(OSError):
            words = arguments(pid)
            if is_host_of(words, owner) and os.getpgid(pid) == pid:
                found.append((adopt(pid), words))
    for child, words in found:
        log.warning("host.unknown", pid=child.pid, reason="no ledger knows it; it is ended")
        child.kill(signal.SIGKILL)
        for path in sockets_of(words):
            with contextlib.suppress(OSError):
                path.unlink()
    return [child for child, _ in found]
