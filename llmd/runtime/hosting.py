"""Carries out what the scheduler asks of hosts, and reports what became of it.

Each host has one task, from its start or adoption to its reaping, and that task alone reports its
readiness and its exit. A remote profile has no process: it is ready at once and gone at once.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final

import structlog
from msgspec import Struct, field

from llmd.core.events import (
    AdoptHost,
    Event,
    HostExited,
    HostReady,
    MemoryMeasured,
    StartHost,
    StartSpare,
    StopHost,
)
from llmd.core.facts import SPARE, Failure, HostId
from llmd.errors import HostStuckError, LlmdError
from llmd.proxy.gate import Upstream
from llmd.runtime.catalogue import Entry
from llmd.runtime.host_process import HostFailedError, HostProcess
from llmd.runtime.ledger import Record
from llmd.runtime.memory import tree_bytes_and_peak
from llmd.runtime.saving import Saving


GRACE_S: Final = 5.0
"""Between SIGTERM and SIGKILL: an engine has nothing left to save."""

ATTACH_S: Final = 5.0
"""For a host that an earlier daemon left to answer; it is idle, or stopped in its tracks."""

log = structlog.get_logger("llmd.hosting")


class Host(Struct, eq=False):
    """One host's story.

    Attributes:
        name: The profile's, or that of the spare.
        entry: The profile that it runs, or will; None for a spare without one.
        found: What the ledger says of it, when an earlier daemon started it.
        stopping: Why it was told to end; then its exit is no failure.
        grace_s: Between SIGTERM and SIGKILL.
        assigned: Settled when a spare gets its profile.
        told: Set when it was told to end.
        gone: Set when it is reaped.
        progress: How far the load is, 0 to 1; None while unknown.
        peak_bytes: The most that was measured.
        settled: Set when it is ready, or gone.
    """

    number: HostId
    kind: str
    name: str
    assigned: asyncio.Future[Entry]
    entry: Entry | None = None
    found: Record | None = None
    process: HostProcess | None = None
    upstream: Upstream | None = None
    stopping: str | None = None
    grace_s: float = GRACE_S
    progress: float | None = None
    peak_bytes: int = 0
    told: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Hosting:
    """All hosts that live, by number."""

    def __init__(
        self,
        *,
        spawn_task: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        post: Callable[[Event], None],
        forget: Callable[[Upstream], None],
        learn: Callable[[Entry, int], None],
        record: Callable[[], None],
        owner: Path,
        log_dir: Path,
        orphan_grace_s: float,
        saving: Saving,
    ) -> None:
        """Prepare; starts nothing.

        Args:
            spawn_task: Runs a host's task until it ends by itself.
            post: Takes the events that come of it.
            forget: Told of each upstream that is gone.
            learn: Told how many bytes a profile held at most, when its host ends.
            record: Writes the ledger; called before a host is used.
            owner: The daemon's own socket; the hosts' are beside it: private, on a short path.
            log_dir: One log per profile.
            orphan_grace_s: How long a host outlives the daemon.
            saving: Has hosts leave their prompts to the ones that follow.
        """
        self._spawn_task = spawn_task
        self._post = post
        self._forget = forget
        self._learn = learn
        self._record = record
        self._owner = owner
        self._log_dir = log_dir
        self.orphan_grace_s = orphan_grace_s
        self._saving = saving
        self._hosts: dict[HostId, Host] = {}

    def get(self, number: HostId) -> Host | None:
        """The host, if it still lives."""
        return self._hosts.get(number)

    def __iter__(self) -> Iterator[Host]:
        """The hosts that live."""
        return iter(tuple(self._hosts.values()))

    def start(self, effect: StartHost, entry: Entry) -> None:
        """Begin to load *entry*, in a host of its own or in the spare."""
        if effect.into_spare:
            host = self._hosts[effect.host]
            host.entry, host.name = entry, effect.profile
            host.assigned.set_result(entry)
            return
        kind = entry.launch.kind if entry.launch else "remote"
        self._begin(effect.host, kind, effect.profile, entry)

    def start_spare(self, effect: StartSpare) -> None:
        """Begin to start a host that waits for a profile."""
        self._begin(effect.host, effect.kind, SPARE, None)

    def adopt(self, effect: AdoptHost, record: Record, entry: Entry | None) -> None:
        """Begin to take over a host; *entry* is None for a spare, and for what will be stopped."""
        name = effect.profile or SPARE
        self._begin(effect.host, record.known.kind, name, entry, record)

    def _begin(
        self,
        number: HostId,
        kind: str,
        name: str,
        entry: Entry | None,
        found: Record | None = None,
    ) -> None:
        future: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        host = self._hosts[number] = Host(number, kind, name, future, entry, found)
        if entry is not None:
            future.set_result(entry)
        host.task = self._spawn_task(self._live(host))

    def stop(self, effect: StopHost) -> None:
        """Begin to end a host; its task reports when it is reaped."""
        host = self._hosts.get(effect.host)
        if host is None or host.stopping is not None:
            return
        host.stopping = effect.reason
        if effect.at_once:
            host.grace_s = 0.0
        host.told.set()
        if not host.assigned.done():
            host.assigned.cancel()
        if host.process is not None:
            self._spawn_task(self._end(host))

    def leave(self) -> None:
        """Let go of all hosts: they live on for their grace, or end if they were told to."""
        for host in self:
            if host.task is not None:
                host.stopping = None
                host.task.cancel()

    # --- one host's life ------------------------------------------------------------------------

    async def _live(self, host: Host) -> None:
        """From start to reaping. Never raises for what can be expected to fail.

        Cancelled, it lets go of the host: the daemon ends, and the next one takes it over.
        """
        failure: Failure | None = None
        try:
            await (self._be_remote(host) if host.kind == "remote" else self._be_process(host))
        except HostFailedError as error:
            failure = error.failure
        except LlmdError as error:
            failure = Failure(error.message)
        except OSError as error:  # no descriptor, process or disk to be had
            failure = Failure(f"the system refuses what a host needs: {error}")
        except asyncio.CancelledError:
            if host.stopping is None:
                if host.process is not None:
                    host.process.detach()
                raise
        await self._end(host)
        if host.stopping is None and failure is None and host.process is not None:
            failure = host.process.failure()
        if host.upstream is not None:
            self._forget(host.upstream)
        if host.entry is not None and host.peak_bytes:
            self._learn(host.entry, host.peak_bytes)
        del self._hosts[host.number]
        log.info("host.exited", host=host.number, profile=host.name, reason=host.stopping)
        self._post(HostExited(host.number, None if host.stopping else failure))
        host.gone.set()
        host.settled.set()
        self._record()

    async def _be_remote(self, host: Host) -> None:
        assert host.entry is not None, "a remote host has its profile from the start"  # noqa: S101
        host.upstream = host.entry.remote
        self._ready(host)
        await host.told.wait()

    async def _be_process(self, host: Host) -> None:
        process = await (self._find(host) if host.found is not None else self._start(host))
        if host.stopping is not None:
            return
        if not host.assigned.done():
            await process.prepare()
            if not host.assigned.done() and host.stopping is None:
                self._ready(host)
            await self._assignment(host, process)
        if process.state != "ready":
            await self._load(host, process, host.assigned.result())
        host.upstream = process.upstream
        self.measure(host)
        if host.stopping is None:
            self._ready(host)
        await process.exited

    async def _start(self, host: Host) -> HostProcess:
        path = self._log_dir / f"{'spare' if host.entry is None else host.name}.log"
        process = host.process = await HostProcess.start(
            host.kind,
            directory=self._owner.parent,
            log_path=path,
            orphan_grace_s=self.orphan_grace_s,
            owner=self._owner,
            env=os.environ,
        )
        log.info("host.started", host=host.number, profile=host.name, pid=process.pid)
        self._record()
        return process

    async def _find(self, host: Host) -> HostProcess:
        """Take over what the ledger says, and insist that it is what it should be.

        Raises:
            HostFailedError: It is not; it has to be ended.
        """
        record = host.found
        assert record is not None, "only what was found is looked for"  # noqa: S101
        host.peak_bytes = record.peak_bytes
        process = host.process = HostProcess.found(
            pid=record.pid, kind=host.kind, instance=record.instance,
            directory=self._owner.parent, log_path=Path(record.log),
        )  # fmt: skip
        if host.stopping is not None:
            return process
        # One that loads may answer nothing until it is done.
        ready = record.known.ready_s is not None or host.entry is None
        launch = host.entry.launch if host.entry is not None else None
        await process.attach(ATTACH_S if ready or launch is None else launch.load_timeout_s)
        await process.settled()
        known = record.known
        if (process.state, process.fingerprint or "") != (
            "ready" if known.profile is not None else "prepared",
            known.fingerprint,
        ):
            raise HostFailedError(process.failure(f"the host that was left is {process.state}"))
        return process

    async def _assignment(self, host: Host, process: HostProcess) -> None:
        """Wait for the spare's profile; its own end comes as a failure."""
        await asyncio.wait((host.assigned, process.exited), return_when=asyncio.FIRST_COMPLETED)
        if process.exited.done():
            raise HostFailedError(process.failure())
        process.log.rename(self._log_dir / f"{host.name}.log")
        self._record()

    async def _load(self, host: Host, process: HostProcess, entry: Entry) -> None:
        assert entry.launch is not None, "only remote profiles have none"  # noqa: S101

        def on_progress(fraction: float) -> None:
            host.progress = fraction

        await process.load(entry.launch, _mark(entry), on_progress)
        host.progress = None

    def _ready(self, host: Host) -> None:
        self._post(HostReady(host.number))
        host.settled.set()
        self._record()

    async def _end(self, host: Host) -> None:
        """Stop and reap; waits as long as it takes, since its memory is charged so long."""
        if host.process is None:
            return
        self.measure(host)  # what its last request took may have been the most
        saved = await self._save(host, host.process)
        try:
            await host.process.stop(grace_s=host.grace_s)
        except HostStuckError as error:
            log.error("host.stuck", host=host.number, profile=host.name, reason=error.message)
            await host.process.exited
        if saved:
            self._spawn_task(self._saving.tidy())  # now that nobody waits for it

    async def _save(self, host: Host, process: HostProcess) -> bool:
        """Have it leave its prompts to the next one, if it goes in good order; whether it did."""
        if host.stopping is None or not host.grace_s:
            return False
        if host.entry is None or not host.entry.saves_prompts:
            return False
        try:
            return await self._saving.of(host.name, process)
        except TimeoutError:
            host.grace_s = 0.0  # it would not hear of its end, either
            return False

    # --- looking --------------------------------------------------------------------------------

    def measure(self, host: Host) -> None:
        """Report what the host's processes hold."""
        if host.process is None or host.process.exited.done():
            return
        mapped = host.entry.mapped_files if host.entry is not None else ()
        measured_bytes, peak_bytes = tree_bytes_and_peak(host.process.pid, mapped)
        if measured_bytes:
            host.peak_bytes = max(host.peak_bytes, measured_bytes, peak_bytes)
            self._post(MemoryMeasured(host.number, measured_bytes))

    async def trim(self, number: HostId) -> None:
        """Ask a host to let go of its prompt caches."""
        host = self._hosts.get(number)
        if host is None or host.process is None:
            return
        try:
            freed_bytes = await host.process.trim()
        except HostFailedError as error:
            log.warning("caches.kept", profile=host.name, reason=str(error))
        else:
            log.info("caches.trimmed", profile=host.name, freed_bytes=freed_bytes)

    def kill_all(self) -> None:
        """The last resort of a daemon that must end now."""
        for host in self:
            if host.process is not None:
                host.process.kill()


def _mark(entry: Entry) -> str:
    """What a host of *entry* is told that it honours."""
    return entry.residency.fingerprint
